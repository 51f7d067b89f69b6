"""The window: example by example, then against a model of outbox, broker and receiver under every order of events."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.uplink.window import RESEND_S, RUN_MAX, Run, Window


def publish(window: Window, run: Run | None, *, size: int = 10, now_s: float = 0.0) -> list[int]:
    """Publish the whole run; its numbers."""
    if run is None:
        return []
    numbers = list(range(run.first, run.first + run.count))
    for seq in numbers:
        window.published(run.machine, seq, size, now_s)
    return numbers


def window_with(last: int, *, published: int = 0, count_max: int = 500, bytes_max: int = 1 << 20) -> Window:
    """Machine m holds 1 to `last`, of which 1 to `published` were accepted by the broker at second 0."""
    window = Window(count_max, bytes_max)
    window.connected(session_present=True)
    window.appended("m", 1, last)
    while window.sent_seq("m") < published:
        for seq in publish(window, window.take(published - window.sent_seq("m"))):
            window.accepted("m", seq)
    return window


def test_what_was_appended_is_offered_in_order_and_once() -> None:
    window = window_with(20)
    assert window.take(5) == Run("m", 1, 5)
    publish(window, Run("m", 1, 5))
    assert window.take(99) == Run("m", 6, 15)
    publish(window, Run("m", 6, 15))
    assert window.take(99) is None
    window.appended("m", 1, 21)
    assert window.take(99) == Run("m", 21, 1)


def test_no_room_no_run_and_never_more_than_a_run_at_a_time() -> None:
    window = window_with(100)
    assert window.take(0) is None
    assert window.take(-1) is None
    assert window.take(1000) == Run("m", 1, RUN_MAX)


def test_machines_take_turns() -> None:
    window = Window()
    for name in "abc":
        window.appended(name, 1, 100)
    first = []
    for _ in range(6):
        run = window.take(2)
        assert run is not None
        publish(window, run)
        first.append((run.machine, run.first))
    assert sorted(first) == [("a", 1), ("a", 3), ("b", 1), ("b", 3), ("c", 1), ("c", 3)]


def test_the_window_is_bounded_in_count_over_all_machines() -> None:
    window = Window(count_max=10)
    for name in "ab":
        window.appended(name, 1, 100)
    published = []
    while (run := window.take(4)) is not None:
        published += publish(window, run)
        for seq in range(run.first, run.first + run.count):
            window.accepted(run.machine, seq)
    assert len(published) == 10
    window.confirmed("a", 2, [], 0.0)
    assert sum(len(publish(window, window.take(99))) for _ in range(3)) == 2


def test_a_machine_that_is_stuck_leaves_the_others_their_share() -> None:
    window = Window(count_max=100)
    for name in "ab":
        window.appended(name, 1, 1000)
    published = {"a": 0, "b": 0}
    for _ in range(20):
        while (run := window.take(10)) is not None:
            numbers = publish(window, run)
            published[run.machine] += len(numbers)
        window.confirmed("b", published["b"], [], 0.0)  # of a, nothing ever arrives
    assert published == {"a": 50, "b": 1000}


def test_the_window_is_bounded_in_bytes_but_for_one_run() -> None:
    window = window_with(100, bytes_max=50)
    assert len(publish(window, window.take(99), size=49)) == RUN_MAX
    assert window.take(99) is None
    window.confirmed("m", RUN_MAX - 1, [], 0.0)
    assert window.take(1) == Run("m", RUN_MAX + 1, 1)


def test_a_confirm_lets_go_of_what_it_covers_and_of_nothing_else() -> None:
    window = window_with(10, published=10)
    assert window.confirmed("m", 4, [], 0.0) == 4
    assert not window.idle()
    assert window.confirmed("m", 3, [], 0.0) == 3  # an older one: nothing new
    assert window.confirmed("m", 99, [], 0.0) == 10  # more than there is
    assert window.idle()
    assert window.take(99) is None
    assert window.confirmed("stranger", 5, [], 0.0) == 0


def test_what_was_dropped_is_not_taken_as_confirmed() -> None:
    """Its range must be declared until the receiver says that it knows."""
    window = window_with(10, published=3)
    window.appended("m", 8, 10)  # the outbox let go of 1 to 7
    assert window.confirmed("m", 0, [(1, 7)], 99.0) == 0
    assert window.confirmed("m", 2, [], 99.0) == 2
    assert window.take(99) == Run("m", 8, 3)
    assert window.confirmed("m", 7, [], 99.0) == 7


def test_time_alone_resends_nothing() -> None:
    window = window_with(5, published=5)
    window.confirmed("m", 0, [], 1e9)
    assert window.take(99) is None


def test_what_is_missing_goes_again_first_but_not_before_its_time() -> None:
    window = window_with(9, published=6)
    window.confirmed("m", 1, [(3, 4), (6, 6)], RESEND_S - 0.001)
    assert publish(window, window.take(1), now_s=RESEND_S) == [7]
    window.confirmed("m", 1, [(3, 4), (6, 6)], RESEND_S)
    assert publish(window, window.take(99), now_s=RESEND_S) == [3, 4]
    assert publish(window, window.take(99), now_s=RESEND_S) == [6]
    assert publish(window, window.take(99), now_s=RESEND_S) == [8, 9]
    for seq in (3, 4, 6):
        window.accepted("m", seq)
    window.confirmed("m", 1, [(3, 4), (6, 6)], 2 * RESEND_S - 0.001)
    assert window.take(99) is None


def test_what_is_in_flight_or_not_yet_sent_is_not_resent_however_missing() -> None:
    window = window_with(9)
    publish(window, window.take(3))
    window.confirmed("m", 0, [(1, 9)], 1e6)
    assert window.take(99) == Run("m", 4, 6)


def test_a_lost_connection_puts_back_what_was_in_flight() -> None:
    window = window_with(9, published=2)
    publish(window, window.take(4))  # 3 to 6
    window.accepted("m", 5)
    window.connected(session_present=True)
    assert publish(window, window.take(99)) == [3, 4]
    assert publish(window, window.take(99)) == [6]
    assert publish(window, window.take(99)) == [7, 8, 9]


def test_a_lost_session_puts_back_all_that_is_unconfirmed() -> None:
    window = window_with(9, published=6)
    window.confirmed("m", 2, [], 0.0)
    window.connected(session_present=False)
    assert publish(window, window.take(99)) == [3, 4, 5, 6, 7, 8, 9]


def test_a_refused_number_goes_again_unless_it_is_confirmed_by_now() -> None:
    window = window_with(3)
    publish(window, window.take(99))
    window.accepted("m", 1)
    window.refused("m", 2)
    window.confirmed("m", 3, [], 0.0)
    window.refused("m", 3)
    assert window.take(99) is None
    assert window.idle()


def test_what_goes_again_keeps_to_the_room_too() -> None:
    window = window_with(5)
    publish(window, window.take(5))
    window.connected(session_present=True)
    assert window.take(2) == Run("m", 1, 2)


def test_what_was_put_back_is_forgotten_with_the_session() -> None:
    window = window_with(4)
    publish(window, window.take(3))
    window.connected(session_present=True)
    window.connected(session_present=False)
    assert publish(window, window.take(99)) == [1, 2, 3, 4]
    assert window.take(99) is None


@pytest.mark.parametrize("session_present", [True, False])
def test_endless_trouble_uses_no_window_up(session_present: bool) -> None:
    window = window_with(9, count_max=4, bytes_max=100)
    for _ in range(50):
        assert publish(window, window.take(2), size=30) == [1, 2]
        window.refused("m", 1)
        window.connected(session_present)
    assert publish(window, window.take(2), size=30) == [1, 2]
    assert publish(window, window.take(2), size=30) == [3, 4]
    assert window.take(99) is None


def test_a_receiver_that_confirms_more_than_there_is_hides_nothing_that_comes_later() -> None:
    window = window_with(3, published=3)
    assert window.confirmed("m", 99, [], 0.0) == 3
    window.appended("m", 4, 5)
    assert window.take(99) == Run("m", 4, 2)


def test_what_was_confirmed_while_it_was_read_from_disk_takes_no_place() -> None:
    window = window_with(4, count_max=4)
    run = window.take(4)
    window.confirmed("m", 4, [], 0.0)
    publish(window, run)
    window.appended("m", 5, 8)
    assert window.take(99) == Run("m", 5, 4)


def test_sent_seq_is_what_the_broker_took_without_a_gap() -> None:
    window = window_with(9)
    assert window.sent_seq("m") == 0
    publish(window, window.take(4))
    window.accepted("m", 2)
    assert window.sent_seq("m") == 0
    window.accepted("m", 1)
    assert window.sent_seq("m") == 2
    window.refused("m", 3)
    window.accepted("m", 4)
    assert window.sent_seq("m") == 2
    window.confirmed("m", 3, [], 0.0)  # an earlier copy has arrived
    assert window.sent_seq("m") == 4
    publish(window, window.take(2))
    window.confirmed("m", 5, [], 0.0)  # before the broker's acknowledgement
    assert window.sent_seq("m") == 5
    assert window.sent_seq("stranger") == 0


def test_an_outbox_that_was_there_before_begins_where_it_holds() -> None:
    window = Window()
    window.appended("m", 41, 43)
    window.appended("empty", 6, 5)
    assert window.sent_seq("m") == 40
    assert window.take(99) == Run("m", 41, 3)
    publish(window, Run("m", 41, 3))
    assert window.take(99) is None
    assert window.confirmed("empty", 5, [], 0.0) == 5


# --- against a model -------------------------------------------------------------------------------------------------

MACHINES = ("a", "b")
COUNT_MAX = 12
BYTES_MAX = 200
SIZE_MAX = 40
IN_FLIGHT_MAX = 6
Key = tuple[str, int]


def size_of(seq: int) -> int:
    return 1 + seq * 7 % SIZE_MAX


@dataclass
class Machine:
    """What outbox and receiver have of one machine."""

    first: int = 1  # held: first to last
    last: int = 0
    dropped: set[int] = field(default_factory=set)
    stored: set[int] = field(default_factory=set)  # by the receiver
    told: int = 0  # known to the receiver to exist
    told_dropped: set[int] = field(default_factory=set)

    def through(self) -> int:
        through = 0
        while through + 1 in self.stored | self.told_dropped:
            through += 1
        return through

    def missing(self) -> list[tuple[int, int]]:
        known = max([self.told, *self.stored, *self.told_dropped])
        gaps = sorted(set(range(1, known + 1)) - self.stored - self.told_dropped)
        return [(seq, seq) for seq in gaps if seq > self.through()]


class World(RuleBasedStateMachine):
    """Whatever happens in whatever order: what is held is offered until it is confirmed, and nothing else goes."""

    @initialize()
    def begin(self) -> None:
        self.window = Window(COUNT_MAX, BYTES_MAX)
        self.window.connected(session_present=False)
        self.machines = {name: Machine() for name in MACHINES}
        self.now_s = 1000.0
        self.in_flight: list[Key] = []
        self.broker: list[Key] = []  # what the broker has and the receiver has not
        self.taken: set[Key] = set()  # ever, by the broker
        self.sent_s: dict[Key, float] = {}  # of what the session's broker was given and may still have
        self.named: set[Key] = set()  # named as missing since it was last published
        self.words: list[tuple[str, int, list[tuple[int, int]]]] = []
        for name in MACHINES:
            self.window.appended(name, 1, 0)

    # --- the outbox ---

    @rule(name=st.sampled_from(MACHINES), count=st.integers(1, 8))
    def append(self, name: str, count: int) -> None:
        machine = self.machines[name]
        machine.last += count
        self.window.appended(name, machine.first, machine.last)

    @rule(name=st.sampled_from(MACHINES), count=st.integers(1, 3))
    def make_room(self, name: str, count: int) -> None:
        machine = self.machines[name]
        for _ in range(min(count, machine.last - machine.first + 1)):
            machine.dropped.add(machine.first)
            machine.first += 1

    # --- the forwarder ---

    @rule(
        runs=st.integers(1, 4),
        confirm_between=st.booleans(),
        drop_between=st.integers(0, 2),
    )
    def feed(self, runs: int, confirm_between: bool, drop_between: int) -> None:
        for name, machine in self.machines.items():
            self.window.appended(name, machine.first, machine.last)
        for _ in range(runs):
            room = IN_FLIGHT_MAX - len(self.in_flight)
            run = self.window.take(room)
            if run is None:
                return
            assert 1 <= run.count <= min(room, RUN_MAX)
            wanted = range(run.first, run.first + run.count)
            machine = self.machines[run.machine]
            pending = [seq for seq in wanted if machine.first <= seq <= machine.last]
            if confirm_between:  # the outbox was asked before the confirm came
                self.confirm(run.machine)
            if drop_between:
                self.make_room(run.machine, drop_between)
            for seq in pending:
                self._publish(run.machine, seq)
            if len(pending) < run.count:
                return

    def _publish(self, name: str, seq: int) -> None:
        key = (name, seq)
        assert key not in self.in_flight, f"{key} is offered while in flight"
        if key in self.sent_s:  # the broker has it, for all that we know
            assert key in self.named, f"{key} is offered again and nobody misses it"
            assert self.now_s - self.sent_s[key] >= RESEND_S, f"{key} is offered again too soon"
        self.named.discard(key)
        self.sent_s[key] = self.now_s
        self.in_flight.append(key)
        self.window.published(name, seq, size_of(seq), self.now_s)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def accepted(self, data: st.DataObject) -> None:
        key = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.broker.append(key)
        self.taken.add(key)
        self.window.accepted(*key)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        key = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.sent_s.pop(key, None)
        self.window.refused(*key)

    @rule(session_present=st.booleans(), arrived=st.booleans())
    def reconnect(self, session_present: bool, arrived: bool) -> None:
        if arrived:  # the acknowledgements were lost, not the messages
            self.broker += self.in_flight
            self.taken.update(self.in_flight)
        for key in self.in_flight:
            self.sent_s.pop(key, None)
        self.in_flight.clear()
        if not session_present:
            self.sent_s.clear()
            self.broker.clear()
        self.window.connected(session_present)

    # --- the broker and the receiver ---

    @precondition(lambda self: self.broker)
    @rule(data=st.data())
    def delivered(self, data: st.DataObject) -> None:
        name, seq = self.broker.pop(data.draw(st.integers(0, len(self.broker) - 1)))
        self.machines[name].stored.add(seq)

    @precondition(lambda self: self.broker)
    @rule()
    def broker_drops_the_newest(self) -> None:
        self.broker.pop()

    @rule(name=st.sampled_from(MACHINES))
    def confirm(self, name: str) -> None:
        machine = self.machines[name]
        word = (name, machine.through(), machine.missing())
        self.words.append(word)
        self._take_word(*word)

    @precondition(lambda self: self.words)
    @rule(data=st.data())
    def an_old_confirm_comes_again(self, data: st.DataObject) -> None:
        self._take_word(*data.draw(st.sampled_from(self.words)))

    def _take_word(self, name: str, through: int, missing: list[tuple[int, int]]) -> None:
        machine = self.machines[name]
        let_go = self.window.confirmed(name, through, missing, self.now_s)
        assert let_go <= through, "more is let go of than the receiver confirmed"
        for seq in range(machine.first, let_go + 1):
            assert seq in machine.stored, f"{(name, seq)} is let go of, and nobody has it"
        machine.first = max(machine.first, let_go + 1)
        machine.dropped = {seq for seq in machine.dropped if seq > let_go}
        for first, last in missing:
            keys = {(name, seq) for seq in range(first, last + 1)}
            self.named |= {key for key in keys if self.now_s - self.sent_s.get(key, -1e9) >= RESEND_S}

    @rule(name=st.sampled_from(MACHINES))
    def heartbeat(self, name: str) -> None:
        machine, sent = self.machines[name], self.window.sent_seq(name)
        for seq in range(machine.first, sent + 1):
            assert (name, seq) in self.taken, f"{(name, seq)} is said to be sent, and the broker never had it"
        machine.told = max(machine.told, sent)
        machine.told_dropped |= machine.dropped

    @rule(seconds=st.sampled_from([0.5, 4.0, RESEND_S, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    # --- what always holds ---

    @invariant()
    def bounds_hold(self) -> None:
        if not hasattr(self, "machines"):
            return
        outstanding = [
            (name, seq)
            for name, seq in self.sent_s
            if seq >= self.machines[name].first and (name, seq) not in self.named
        ]
        assert len(outstanding) <= COUNT_MAX
        assert sum(size_of(seq) for _, seq in outstanding) < BYTES_MAX + RUN_MAX * SIZE_MAX
        assert len(self.in_flight) <= IN_FLIGHT_MAX

    @rule()
    def idle_means_that_nothing_is_held(self) -> None:
        for name, machine in self.machines.items():
            self.window.appended(name, machine.first, machine.last)
        held = sum(machine.last - machine.first + 1 for machine in self.machines.values())
        assert self.window.idle() == (held == 0)

    def teardown(self) -> None:
        """From wherever we are: once faults end, everything held is confirmed in the end."""
        if not hasattr(self, "machines"):
            return
        self.reconnect(session_present=True, arrived=False)
        held = sum(machine.last - machine.first + 1 for machine in self.machines.values())
        for _ in range(2 * held + 4):
            self.feed(runs=9, confirm_between=False, drop_between=0)
            for key in self.in_flight:
                self.taken.add(key)
                self.machines[key[0]].stored.add(key[1])
                self.window.accepted(*key)
            self.in_flight.clear()
            for name, seq in self.broker:
                self.machines[name].stored.add(seq)
            self.broker.clear()
            self.time_passes(RESEND_S)
            for name in MACHINES:
                self.heartbeat(name)
                self.confirm(name)
        assert self.window.idle(), "something held is never confirmed"


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("session_present", [True, False])
def test_a_new_window_has_nothing_to_do(session_present: bool) -> None:
    window = Window()
    window.connected(session_present)
    assert window.take(99) is None
    assert window.idle()

"""What the receiver's confirms change: in the window, in the outbox, in what may be sent.

The outbox is told of a lane's confirms at most every WRITE_S, because each confirm says all that the ones before it
said. Numbers that the receiver misses and that are confirmed here are asked back from the outbox (`wanted`); what is
no longer there is declared dropped. Numbers that the receiver knows, and that were never given here or never sent, mean
that this outbox is a copy or was set back: everything that nobody was offered goes to a new epoch (`fork`). What the
receiver misses of earlier lives of this outbox, and nobody has any more, is declared, too (agent/uplink/former.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.outbox.contract import Dropped, Held, Lane, Outbox, OutboxError
from agent.outbox.worker import OutboxWorker
from agent.uplink.former import GONE, lost
from agent.uplink.orphans import UNDEFINED, orphans
from agent.uplink.pace import Pace
from agent.uplink.sender import Sender
from agent.uplink.trouble import Kind, Troubles
from agent.uplink.window import Window
from protocols.program.logs import get_logger
from protocols.uplink.confirm import Confirm, ConfirmError, MachineConfirm, decode
from protocols.uplink.ranges import Ranges, common, count, minus

WRITE_S = 2.0
WRITE_BYTES = 1 << 20
LANES_ALL, BYTES_ALL = 100, 80_000
"""A confirm of fewer lanes, and shorter, names all that the receiver knows of; otherwise others may follow."""

STRANGERS_MAX = 1000
TOO_LARGE = "larger than the broker takes"

_log = get_logger(part="uplink")


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the outbox is to be told: all up to `through` is stored, and `above`."""

    through: int
    above: Ranges


class Confirms:
    """`epoch()`, `instance()`: the outbox's present ones. `on_news`: the next heartbeat should not wait."""

    def __init__(
        self,
        outbox: OutboxWorker,
        window: Window,
        pace: Pace,
        sender: Sender,
        troubles: Troubles,
        epoch: Callable[[], str],
        instance: Callable[[], str],
        on_news: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._window = window
        self._pace = pace
        self._sender = sender
        self._troubles = troubles
        self._epoch = epoch
        self._instance = instance
        self._on_news = on_news
        self.heard_s = 0.0
        """When the last confirm came."""
        self._unwritten: dict[Lane, _Stored] = {}
        self._written: dict[Lane, _Stored] = {}
        self._unwritten_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._aside: set[Lane] = set()
        self._due = asyncio.Event()
        self._looking = asyncio.Lock()
        self._strangers: set[Lane] = set()  # that the log was told of
        self._receiver = ""
        self._answered: set[Lane] = set()  # former lanes of which this run of the receiver lacks nothing
        self._retired: set[str] = set()  # epochs left behind by a fork in this run
        self._settled: set[Lane] = set()  # with the broker's word, to be written
        self._suspects: dict[Lane, tuple[int, Ranges]] = {}  # the receiver knows numbers up to here, and these

    # --- the receiver's word ---

    async def take(self, payload: bytes) -> None:
        """One message on the confirm topic."""
        try:
            confirm = decode(payload)
        except ConfirmError as error:
            _log.warning("a confirm could not be read and is ignored", reason=str(error))
            return
        self._take_fence(confirm.fenced, not confirm.fenced_instance or confirm.fenced_instance == self._instance())
        if confirm.receiver != self._receiver:  # its database may be another one, or a backup
            self._receiver = confirm.receiver
            self._answered.clear()
            self._window.try_anew()
        self.heard_s = now_s = time.monotonic()
        freed, missed = 0, dict[Lane, Ranges]()
        lanes = list(_lanes(confirm))
        for lane, word in lanes:
            if lane not in self._window:
                self._suspect_stranger(lane, word)
                continue
            found = self._window.confirmed(lane, word.through, word.highest, word.missing, now_s)
            freed += found.freed
            if (found.strange or found.is_beyond) and self._is_present(lane):
                self._suspect(lane, _highest(word), found.strange)
            else:
                self._note(lane, word)
            if found.unknown:
                missed[lane] = found.unknown
            for ref in word.definitions:
                self._sender.ask(lane, bytes.fromhex(ref))
        self._pace.confirmed(freed, self._window.backlog_bytes, now_s)
        self._unwritten_bytes += freed
        await self.settle_suspects()
        is_whole = len(lanes) < LANES_ALL and len(payload) < BYTES_ALL
        self._let_go([lane for lane, _ in lanes], is_whole)
        for lane, numbers in missed.items():
            await self._ask_back(lane, numbers)
        await self._answer_for({lane: word for lane, word in lanes if lane.epoch != self._epoch()})
        await self._give_up_orphans(lanes)
        if self._unwritten_bytes >= WRITE_BYTES:
            await self.write()
        self._sender.wake()

    def _take_fence(self, sentence: str, is_us: bool) -> None:
        """Both of two installations under one name are told; one of them is to send no more telemetry."""
        was_fenced = self._troubles.has(Kind.FENCED)
        self._troubles.over(*([] if sentence and is_us else [Kind.FENCED]), *([] if sentence else [Kind.TWINNED]))
        if sentence and is_us:
            self._troubles.say(Kind.FENCED, f"this gateway sends no telemetry, by the receiver's word: {sentence}")
            self._sender.is_stopped = True
        elif sentence:
            self._troubles.say(Kind.TWINNED, sentence)
        if was_fenced and not self._troubles.has(Kind.FENCED):
            self._sender.is_stopped = bool(self._suspects)
            _log.info("the receiver takes telemetry from here again")

    def _note(self, lane: Lane, word: MachineConfirm) -> None:
        there = ((word.through + 1, word.highest),) if word.highest > word.through else ()
        stored = _Stored(word.through, minus(there, sorted(word.missing)))
        if self._written.get(lane) == stored:
            self._unwritten.pop(lane, None)
        else:
            self._unwritten[lane] = stored
            self._write_later()

    def _let_go(self, named: list[Lane], is_whole: bool) -> None:
        """New numbers may go where the receiver has spoken, or has nothing to say."""
        for lane in named:
            if lane in self._window:
                self._window.let_go(lane)
        if is_whole:
            self._window.let_go()

    async def _ask_back(self, lane: Lane, missing: Ranges) -> None:
        """The receiver has lost what it had: its database is new, or restored."""
        await self.write()
        gone = await self._outbox.call(Outbox.wanted, lane, missing)
        await self._declare(lane, [Dropped(*one, GONE) for one in gone])

    def unanswered(self, formers: Mapping[Lane, int]) -> dict[Lane, int]:
        """Former lanes that the heartbeat is to name, so that the receiver asks for what it lacks of them."""
        return {lane: last for lane, last in formers.items() if lane not in self._answered}

    async def _answer_for(self, words: Mapping[Lane, MachineConfirm]) -> None:
        """What the receiver lacks of earlier lives of this outbox, and will never be sent."""
        if not words:
            return
        held, formers = await self._outbox.run(lambda outbox: (outbox.held(), [outbox.former(lane) for lane in words]))
        for (lane, word), former in zip(words.items(), formers, strict=True):
            if former is None:
                self._tell_stranger(lane, word)
                continue
            gone = [
                Dropped(first, last, one.reason)
                for one in lost(word, former, is_held=lane in held)
                for first, last in await self._outbox.call(Outbox.wanted, lane, ((one.first, one.last),))
            ]
            if gone:
                await self._declare(lane, gone)
            elif lane not in held:
                self._answered.add(lane)

    async def _declare(self, lane: Lane, gone: Sequence[Dropped]) -> None:
        """While another installation speaks under this name it might have them, and nothing is declared."""
        if gone and not (self._troubles.has(Kind.FENCED) or self._troubles.has(Kind.TWINNED)):
            for first, last, reason in ((one.first, one.last, one.reason) for one in gone):
                _log.warning(
                    "the receiver misses batches that are no longer here", machine=lane.machine, first=first, last=last
                )
                await self._outbox.call(Outbox.declare_dropped, lane, first, last, reason)
            self._on_news()
        self._window.hold(await self._outbox.call(Outbox.held))

    def _tell_stranger(self, lane: Lane, word: MachineConfirm) -> None:
        """Once for each lane, and again where there are many."""
        if not word.missing or lane in self._window or lane in self._strangers:
            return
        if len(self._strangers) >= STRANGERS_MAX:
            self._strangers.clear()
        self._strangers.add(lane)
        _log.warning(
            "the receiver misses batches of an epoch that is unknown here: another gateway gave them, or an outbox "
            "that was deleted; they stay missing in its ledger",
            machine=lane.machine,
            epoch=lane.epoch,
            batches=count(word.missing),
        )

    # --- what the outbox is told ---

    async def run(self) -> None:
        """Until cancelled: what has become due."""
        while True:  # first of all what an earlier connection has left undone
            self._due.clear()
            await self.settle_suspects()
            while self._aside:
                await self._give_up(self._aside.pop())
            if self._timer is None:
                await self.write()
            await self._due.wait()

    def settled(self, lane: Lane) -> None:
        """Without a receiver that confirms: the broker has taken something of this lane."""
        self._settled.add(lane)
        self._write_later()

    def aside(self, lane: Lane) -> None:
        """The broker takes messages of this lane, and not those that the window has set aside."""
        self._aside.add(lane)
        self._due.set()

    def _write_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_S, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        self._due.set()

    async def write(self) -> None:
        """Tell the outbox what is stored, as far as it does not know."""
        self._unwritten_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for lane in self._settled:
            self._unwritten[lane] = _Stored(*self._window.stored(lane))
        self._settled.clear()
        while self._unwritten:
            lane, stored = next(iter(self._unwritten.items()))
            await self._outbox.call(Outbox.confirmed, lane, stored.through, stored.above, time.time_ns() // 1000)
            self._written[lane] = stored
            if self._unwritten.get(lane) is stored:  # no newer word came meanwhile; a disk that fails forgets none
                del self._unwritten[lane]

    async def _give_up(self, lane: Lane) -> None:
        for seq in self._window.aside(lane):
            _log.error(
                "a batch is larger than the broker takes, and is given up; raise the broker's message size limit",
                machine=lane.machine,
                number=seq,
            )
            await self._outbox.call(Outbox.give_up, lane, seq, TOO_LARGE)
            self._window.gone(lane, ((seq, seq),))
        self._on_news()

    async def _give_up_orphans(self, lanes: Sequence[tuple[Lane, MachineConfirm]]) -> None:
        """While another installation speaks under this name it might have their definition, and they wait."""
        if self._troubles.has(Kind.FENCED) or self._troubles.has(Kind.TWINNED):
            return
        for lane, numbers in await orphans(self._outbox, lanes):
            for first, last in numbers:
                _log.error("batches are given up: " + UNDEFINED, machine=lane.machine, first=first, last=last)
                for seq in range(first, last + 1):
                    await self._outbox.call(Outbox.give_up, lane, seq, UNDEFINED)
            if lane in self._window:
                self._window.gone(lane, numbers)
            self._on_news()

    # --- numbers that somebody else has given ---

    def _is_present(self, lane: Lane) -> bool:
        return lane.epoch not in self._retired and (lane.epoch == self._epoch() or self._window.is_growing(lane))

    def _suspect_stranger(self, lane: Lane, word: MachineConfirm) -> None:
        if lane.epoch == self._epoch() and _highest(word):
            self._suspect(lane, _highest(word))

    def _suspect(self, lane: Lane, known: int, strange: Ranges = ()) -> None:
        self._suspects[lane] = known, strange
        self._sender.is_stopped = True
        self._due.set()

    def is_retired(self, lane: Lane) -> bool:
        """A fork has ended its epoch: what was appended there has another number by now, or is known."""
        return lane.epoch in self._retired

    def appended(self, lane: Lane, seq: int) -> None:
        """This number was just given here, and the receiver mentioned it before."""
        self._suspect(lane, seq, ((seq, seq),))

    async def settle_suspects(self) -> None:
        """Look, and begin new epochs where it is so. Nothing is sent meanwhile.

        Raises OutboxError where the disk fails; then it is looked at again on the next connection.
        """
        async with self._looking:
            while self._suspects:
                lane, suspicion = next(iter(self._suspects.items()))
                await self._look_into(lane, *suspicion)
                if self._suspects.get(lane) is suspicion:  # only now: a disk that fails, or a cut, must not end it
                    del self._suspects[lane]
            was_stopped, self._sender.is_stopped = self._sender.is_stopped, self._troubles.has(Kind.FENCED)
            if was_stopped and not self._sender.is_stopped:
                self._sender.wake()

    async def _look_into(self, lane: Lane, known: int, strange: Ranges) -> None:
        held = await self._outbox.call(Outbox.held)
        if not self.is_retired(lane) and _is_strange(known, strange, held.get(lane)):
            await self._fork(lane, known)
        else:
            self._window.hold(held)

    async def _fork(self, lane: Lane, known: int) -> None:
        reason = (
            f"the receiver knows number {known} of machine {lane.machine}, which this gateway has never sent: it was "
            "set back to an earlier state, or is a copy"
        )
        await self.write()
        present = self._epoch()
        retired = {lane.epoch, present, *self._window.growing()} - self._retired
        self._retired |= retired  # at once: what is appended meanwhile is moved, or known when the outbox is asked
        try:
            await self._outbox.call(Outbox.fork, reason, self._window.unsent())
        except OutboxError:
            if self._epoch() == present:  # the disk has refused: these epochs go on, and so must their numbers
                self._retired -= retired
            raise
        self._sender.forget_fresh()
        self._window.reset()
        self._window.hold(await self._outbox.call(Outbox.held))
        self._on_news()


def _is_strange(known: int, strange: Ranges, held: Held | None) -> bool:
    """The receiver knows numbers that were never given, or that wait here and nobody has ever been sent.

    What the outbox dropped before it was published is no such thing: the heartbeat has told of it.
    """
    if held is None or held.last < known:
        return True
    return bool(common(strange, held.waiting))


def _lanes(confirm: Confirm) -> Iterator[tuple[Lane, MachineConfirm]]:
    for machine, word in confirm.machines.items():
        yield Lane(machine, word.epoch), word
    for machine, words in confirm.others.items():
        for word in words:
            yield Lane(machine, word.epoch), word


def _highest(word: MachineConfirm) -> int:
    return max(word.through, word.highest, *(last for _, last in word.missing))

"""The store contract, rule 9: times by clocks that nobody vouched for, over every implementation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.store.contract import Beat, Committed, Item, LatestValue, Store, Telemetry
from protocols.uplink.mark import ClockMark
from protocols.uplink.status import Clock
from protocols.uplink.topics import GatewayTopic, MachineTopic
from protocols.values import Quality, ValueType
from tests.contract.store_cases import (
    GATEWAY,
    NOW,
    OVEN,
    PLANT,
    PRESS,
    SECOND,
    StoreCase,
    beat,
    cases,
    one_column,
    telemetry,
    with_plant,
)

NEW, DUPLICATE = Committed.NEW, Committed.DUPLICATE
SPAN, LATER_SPAN = bytes(range(16)), bytes(16)
ZERO = 946_684_800 * SECOND
"""What an empty battery says of the boot's start: the year 2000."""
BOOTED = NOW - 3600 * SECOND


@pytest.fixture(params=list(cases()))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreCase]:
    with cases()[request.param](tmp_path) as opened:
        with_plant(opened.store)
        yield opened


@pytest.fixture
def store(case: StoreCase) -> Store:
    return case.store


def stamped(
    seq: int,
    since_s: int,
    *,
    span: bytes = SPAN,
    zero_us: int = ZERO,
    machine: MachineTopic = PRESS,
    historical: bool = False,
) -> Telemetry:
    """A message whose one reading was stamped so many seconds after the boot, and received at once."""
    since_us = since_s * SECOND
    message = telemetry(seq, machine=machine, times_us=[zero_us + since_us], received_us=BOOTED + since_us)
    return replace(message, clock=ClockMark(span, zero_us), historical=historical)


def told(zeros: Mapping[bytes, int], gateway: GatewayTopic = GATEWAY, received_us: int = NOW) -> Beat:
    clock = Clock(synchronised=True, zeros={span.hex(): zero_us for span, zero_us in zeros.items()})
    return beat(gateway=gateway, clock=clock, received_us=received_us)


def corrected(store: Store) -> None:
    while store.tend(NOW):
        pass


def times(case: StoreCase) -> list[int]:
    return sorted(at for (_, _, _, at, _, _), count in case.readings().items() for _ in range(count))


def latest(store: Store, tag: str = "speed") -> LatestValue:
    (found,) = (value for value in store.latest(PRESS) if value.tag == tag)
    return found


def test_what_was_stored_before_the_synchronisation_is_corrected_by_it(case: StoreCase) -> None:
    store = case.store
    assert list(store.commit([stamped(1, 10), stamped(2, 11)])) == [NEW, NEW]
    assert times(case) == [ZERO + 10 * SECOND, ZERO + 11 * SECOND]
    store.commit([beat()])
    (gateway,) = store.gateways()
    assert (gateway.uncertain, gateway.corrected) == (2, 0)
    store.commit([told({SPAN: BOOTED})])
    corrected(store)
    assert times(case) == [BOOTED + 10 * SECOND, BOOTED + 11 * SECOND]
    (gateway,) = store.gateways()
    assert (gateway.uncertain, gateway.corrected) == (0, 2)
    (span,) = store.spans(GATEWAY)
    assert (span.span, span.zero_us, span.told_us, span.batches, span.corrected) == (SPAN.hex(), BOOTED, NOW, 2, 2)
    assert (span.first_us, span.last_us) == (BOOTED + 10 * SECOND, BOOTED + 11 * SECOND)


def test_what_arrives_after_it_is_corrected_as_it_is_stored(case: StoreCase) -> None:
    case.store.commit([told({SPAN: BOOTED}), stamped(1, 10, historical=True)])
    assert times(case) == [BOOTED + 10 * SECOND]
    assert latest(case.store).time_us == BOOTED + 10 * SECOND
    assert [(one.batches, one.corrected) for one in case.store.spans(GATEWAY)] == [(1, 1)]


def test_a_repetition_neither_undoes_nor_repeats_a_correction(case: StoreCase) -> None:
    store, message = case.store, stamped(1, 10)
    store.commit([message])
    for item in (told({SPAN: BOOTED}), message, told({SPAN: BOOTED}), told({SPAN: BOOTED + 5 * SECOND}), message):
        assert store.commit([item])[0] in (Committed.BEAT, DUPLICATE)
        corrected(store)
    assert times(case) == [BOOTED + 10 * SECOND]
    assert list(store.commit([replace(message, clock=None)])) == [DUPLICATE]
    assert [(one.batches, one.corrected) for one in store.spans(GATEWAY)] == [(1, 1)]


def test_much_is_corrected_in_steps_and_each_batch_once(case: StoreCase) -> None:
    rows = 2000
    for seq in range(1, 7):
        begin_us = ZERO + seq * rows
        column = one_column(ValueType.INT, *range(rows))
        message = telemetry(seq, column, times_us=range(begin_us, begin_us + rows))
        case.store.commit([replace(message, clock=ClockMark(SPAN, ZERO))])
    case.store.commit([told({SPAN: BOOTED})])
    steps = 1
    while case.store.tend(NOW):
        steps += 1
    assert times(case) == list(range(BOOTED + rows, BOOTED + 7 * rows))
    assert [(one.batches, one.corrected) for one in case.store.spans(GATEWAY)] == [(6, 6)]
    assert steps < 6


def test_what_was_told_of_a_span_first_stays(case: StoreCase) -> None:
    case.store.commit([told({SPAN: BOOTED}), told({SPAN: BOOTED + 5 * SECOND}), stamped(1, 10)])
    assert times(case) == [BOOTED + 10 * SECOND]


def test_the_readings_of_other_messages_in_the_group_stay_as_they_are(case: StoreCase) -> None:
    def right(seq: int) -> Telemetry:
        return telemetry(seq, one_column(ValueType.INT, 1, 2, 3), times_us=[NOW, NOW + 1, NOW + 2])

    case.store.commit([right(1), stamped(2, 10), right(3), stamped(4, 11), right(5)])
    case.store.commit([told({SPAN: BOOTED})])
    corrected(case.store)
    assert times(case) == sorted([NOW, NOW + 1, NOW + 2] * 3 + [BOOTED + 10 * SECOND, BOOTED + 11 * SECOND])


def test_only_the_own_gateway_corrects(case: StoreCase) -> None:
    store = case.store
    store.commit([stamped(1, 10), told({SPAN: BOOTED}, GatewayTopic(PLANT, "gw-2")), told({LATER_SPAN: BOOTED})])
    corrected(store)
    assert times(case) == [ZERO + 10 * SECOND]
    assert not latest(store).time_certain


def test_two_boots_that_begin_at_the_same_wrong_time_are_told_apart(case: StoreCase) -> None:
    store = case.store
    store.commit([stamped(1, 10), stamped(2, 10, span=LATER_SPAN), stamped(3, 11, span=LATER_SPAN, machine=OVEN)])
    store.commit([told({LATER_SPAN: BOOTED + 60 * SECOND})])
    corrected(store)
    assert times(case) == [ZERO + 10 * SECOND, BOOTED + 70 * SECOND, BOOTED + 71 * SECOND]


def test_a_clock_that_stepped_within_the_span(case: StoreCase) -> None:
    store = case.store
    ahead = BOOTED + 10**9 * SECOND
    store.commit([stamped(1, 10), stamped(2, 11, zero_us=ahead), stamped(3, 12)])
    assert latest(store).value == 3.0, "in the order of the boot's own time"
    store.commit([told({SPAN: BOOTED})])
    corrected(store)
    assert times(case) == [BOOTED + since_s * SECOND for since_s in (10, 11, 12)]
    assert (latest(store).value, latest(store).time_us) == (3.0, BOOTED + 12 * SECOND)


def test_a_correction_that_no_time_could_bear_is_not_made(case: StoreCase) -> None:
    early = telemetry(1, one_column(ValueType.INT, 1, 2), times_us=[0, 5])
    case.store.commit([replace(early, clock=ClockMark(SPAN, ZERO)), told({SPAN: ZERO - 1})])
    corrected(case.store)
    assert times(case) == [0, 5]
    assert [(one.batches, one.corrected) for one in case.store.spans(GATEWAY)] == [(1, 0)]


def test_what_comes_live_by_an_uncertain_clock_is_shown_as_that(store: Store) -> None:
    store.commit([telemetry(1, times_us=[BOOTED - SECOND], received_us=BOOTED), stamped(2, 10)])
    found = latest(store)
    assert (found.value, found.time_us, found.time_certain) == (2.0, ZERO + 10 * SECOND, False)
    store.commit([telemetry(3, times_us=[BOOTED + 5 * SECOND], received_us=BOOTED + 11 * SECOND)])
    assert latest(store).value == 2.0, "an older reading, of a backlog"
    store.commit([telemetry(4, times_us=[BOOTED + 20 * SECOND], received_us=BOOTED + 21 * SECOND)])
    assert (latest(store).value, latest(store).time_certain) == (4.0, True)


def test_what_comes_late_by_an_uncertain_clock_pushes_nothing_aside(store: Store) -> None:
    store.commit([telemetry(1, times_us=[BOOTED]), stamped(2, 10**9, historical=True)])
    assert latest(store).value == 1.0
    store.commit([stamped(3, 5, machine=OVEN, historical=True)])
    assert [value.value for value in store.latest(OVEN)] == [3.0], "there is nothing else"


@pytest.mark.parametrize("zero_us", [0, ZERO, BOOTED + 10**9 * SECOND], ids=["1970", "2000", "ahead"])
def test_the_state_neither_freezes_nor_goes_back(store: Store, zero_us: int) -> None:
    store.commit([telemetry(1, times_us=[BOOTED - SECOND], received_us=BOOTED)])
    store.commit([stamped(seq, seq, zero_us=zero_us) for seq in (2, 3)])
    assert latest(store).value == 3.0
    store.commit([telemetry(5, times_us=[BOOTED + 5 * SECOND], received_us=BOOTED + 5 * SECOND)])
    assert latest(store).value == 5.0
    store.commit([stamped(4, 4, zero_us=zero_us, historical=True), told({SPAN: BOOTED})])
    corrected(store)
    assert (latest(store).value, latest(store).time_us) == (5.0, BOOTED + 5 * SECOND)


def test_the_newest_of_a_span_wins_once_its_times_are_known(store: Store) -> None:
    bad = one_column(ValueType.FLOAT64, None, quality=[Quality.BAD], reasons={0: "no answer"})
    store.commit([telemetry(1, times_us=[BOOTED], received_us=BOOTED)])
    message = telemetry(2, bad, times_us=[ZERO + 10 * SECOND], received_us=NOW)
    store.commit([replace(message, clock=ClockMark(SPAN, ZERO), historical=True)])
    assert latest(store).value == 1.0
    store.commit([told({SPAN: BOOTED})])
    found = latest(store)
    assert (found.quality, found.reason, found.time_us) == (Quality.BAD, "no answer", BOOTED + 10 * SECOND)
    assert found.time_certain


def test_a_correction_into_the_future_is_not_the_latest_value(store: Store) -> None:
    store.commit([telemetry(1, times_us=[BOOTED], received_us=BOOTED), stamped(2, 10, historical=True)])
    store.commit([told({SPAN: NOW + 3600 * SECOND})])
    assert latest(store).value == 1.0


# --- in any order ---


@dataclass(frozen=True)
class Message:
    """Sent in one of three boots, whose clock may have been set by hand; the third is never synchronised."""

    boot: int
    since_s: int
    step: int
    historical: bool
    machine: bool


ZEROS = (BOOTED - 9000 * SECOND, BOOTED, BOOTED + 2000 * SECOND)
STEPS = (ZERO, BOOTED + 10**9 * SECOND)
SPANS = tuple(bytes([at]) * 16 for at in range(3))
MESSAGES = st.lists(
    st.builds(Message, st.integers(0, 2), st.integers(0, 1500), st.integers(0, 1), st.booleans(), st.booleans()),
    min_size=1, max_size=12,
)  # fmt: skip


def of(message: Message, seq: int) -> tuple[Telemetry, Telemetry]:
    """(as it is sent, as it is when the clock was right)."""
    true_us = ZEROS[message.boot] + message.since_s * SECOND
    machine, zero_us = OVEN if message.machine else PRESS, STEPS[message.step]
    wrong = telemetry(seq, machine=machine, times_us=[zero_us + message.since_s * SECOND])
    mark = ClockMark(SPANS[message.boot], zero_us)
    right = telemetry(seq, machine=machine, times_us=[true_us])
    return replace(wrong, clock=mark, historical=message.historical), replace(right, historical=message.historical)


@settings(max_examples=25)
@given(messages=MESSAGES, data=st.data())
def test_in_the_end_it_is_as_if_the_clock_had_been_right(messages: Sequence[Message], data: st.DataObject) -> None:
    pairs = [of(message, seq) for seq, message in enumerate(messages, 1)]
    items: list[Item] = [sent for sent, _ in pairs]
    zeros: list[Item] = [told({SPANS[at]: ZEROS[at]}) for at in range(3)]
    order = data.draw(st.permutations([*items, *items, *zeros]))
    cuts = data.draw(st.sets(st.integers(1, len(order)), max_size=4))
    for case_of in cases().values():
        with (
            TemporaryDirectory() as one,
            TemporaryDirectory() as two,
            case_of(Path(one)) as found,
            case_of(Path(two)) as wanted,
        ):
            with_plant(found.store)
            with_plant(wanted.store)
            wanted.store.commit([right for _, right in pairs])
            begin = 0
            for end in [*sorted(cuts), len(order)]:
                found.store.commit(order[begin:end])
                begin = end
                if data.draw(st.booleans()):
                    found.store.tend(NOW)
            corrected(found.store)
            assert found.readings() == wanted.readings()
            for machine in (PRESS, OVEN):
                assert _plain(found.store.latest(machine)) == _plain(wanted.store.latest(machine))


def _plain(values: Sequence[LatestValue]) -> list[tuple[str, int, bool, object]]:
    """Of several at the same moment in different batches the higher number wins, so the value is compared, too."""
    return [(value.tag, value.time_us, value.time_certain, value.value) for value in values]

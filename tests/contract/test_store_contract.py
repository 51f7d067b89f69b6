"""The store contract, over every implementation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cloud.completeness import statement
from cloud.store.contract import (
    GATEWAY_EVENTS_MAX,
    Beat,
    Committed,
    Defined,
    Item,
    LatestValue,
    Ledger,
    Loss,
    Number,
    Retention,
    Store,
    StoreError,
    Telemetry,
    Told,
    Totals,
    Undecodable,
    Undefined,
)
from protocols.uplink.batch import SEQ_MAX, Batch, Block
from protocols.uplink.confirm import MISSING_RANGES_MAX, MachineConfirm
from protocols.uplink.definition import Definition
from protocols.uplink.presence import Heard, hear
from protocols.uplink.status import REASON_SHUTDOWN, Buffer, Health, MachineNumbers, will
from protocols.uplink.topics import DefinitionTopic, GatewayTopic, MachineTopic, Plant
from protocols.values import Quality, ValueType
from tests.contract.store_cases import (
    ELSEWHERE,
    GATEWAY,
    NOW,
    OVEN,
    PLANT,
    PRESS,
    SECOND,
    Reading,
    StoreCase,
    beat,
    cases,
    one_column,
    telemetry,
    with_plant,
)

NEW, DUPLICATE, CONFLICT = Committed.NEW, Committed.DUPLICATE, Committed.CONFLICT
UNKNOWN, DEAD, BEAT = Committed.UNKNOWN, Committed.DEAD, Committed.BEAT
FLOAT, INT, TEXT = ValueType.FLOAT64, ValueType.INT, ValueType.STRING


@pytest.fixture(params=list(cases()))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreCase]:
    with cases()[request.param](tmp_path, retention=Retention(letters_max=5)) as opened:
        with_plant(opened.store)
        yield opened


@pytest.fixture
def store(case: StoreCase) -> Store:
    return case.store


def ledger(store: Store, machine: MachineTopic = PRESS) -> Ledger:
    """The sets of numbers alone."""
    (found,) = store.ledgers(machine)
    return Ledger(found.epoch, found.stored, found.dropped, found.known)


def latest(store: Store, tag: str = "speed") -> LatestValue:
    (found,) = (value for value in store.latest(PRESS) if value.tag == tag)
    return found


def defined(ref: bytes = b"ref-01", machine: MachineTopic = PRESS, message: bytes = b"message") -> Defined:
    said = Definition("gw-1", "e1", "plc-1", "main", NOW, (), ())
    return Defined(DefinitionTopic(machine, "plc-1", "main"), ref, said, message, NOW)


# --- storing once ---


def test_the_same_message_again_is_a_duplicate_and_changes_nothing(case: StoreCase) -> None:
    store, message = case.store, telemetry(1)
    assert list(store.commit([message])) == [NEW]
    before = (store.machines(), store.latest(), store.ledgers(PRESS), store.totals(), case.readings())
    assert list(store.commit([message])) == [DUPLICATE]
    assert list(store.commit([replace(message, received_us=NOW + SECOND)])) == [DUPLICATE]
    assert (store.machines(), store.latest(), store.ledgers(PRESS), store.totals(), case.readings()) == before
    assert store.totals() == Totals(events=1, readings=1, repeated=0, dead_letters=0)


def test_the_same_key_with_other_content_is_a_dead_letter_and_disturbs_nothing(case: StoreCase) -> None:
    store = case.store
    store.commit([telemetry(1), telemetry(3)])
    before = (store.latest(), store.ledgers(PRESS), store.machines(), case.readings())
    other = telemetry(1, one_column(FLOAT, 99.0), content="other", times_us=[NOW + SECOND])
    assert list(store.commit([other])) == [CONFLICT]
    assert (store.latest(), store.ledgers(PRESS), store.machines(), case.readings()) == before
    (letter,) = store.dead_letters()
    assert (letter.topic, letter.size) == (PRESS.telemetry, len(other.payload))
    assert store.dead_letter(letter.id) == (letter, other.payload)
    assert "number 1" in letter.reason and "other content" in letter.reason


def test_repeats_within_one_group(store: Store) -> None:
    group = [telemetry(1), telemetry(2), telemetry(1), telemetry(2, content="other"), telemetry(1, epoch="e2")]
    assert list(store.commit(group)) == [NEW, NEW, DUPLICATE, CONFLICT, NEW]
    assert store.totals() == Totals(events=3, readings=3, repeated=2, dead_letters=1)


def test_a_number_is_only_meaningful_within_machine_and_epoch(store: Store) -> None:
    group = [telemetry(1), telemetry(1, epoch="e2"), telemetry(1, machine=OVEN), telemetry(1, epoch="", gateway="")]
    assert list(store.commit(group)) == [NEW] * 4
    assert [found.epoch for found in store.ledgers(PRESS)] == ["e1", "e2", ""]


def test_a_sender_without_epoch_is_recognised_all_the_same(store: Store) -> None:
    assert list(store.commit([telemetry(1, epoch="", gateway="")])) == [NEW]
    assert list(store.commit([telemetry(1, epoch="", gateway="")])) == [DUPLICATE]
    assert list(store.commit([telemetry(1, epoch="", gateway="", content="other")])) == [CONFLICT]


def test_nothing_to_commit(store: Store) -> None:
    assert list(store.commit([])) == []


def test_a_batch_without_readings_has_a_number_all_the_same(store: Store) -> None:
    empty = replace(telemetry(1), batch=Batch("gw-1", "e1", 1, []))
    hollow = replace(telemetry(2), batch=Batch("gw-1", "e1", 2, [Block("plc-1", [], [one_column(FLOAT)])]))
    assert list(store.commit([empty, hollow])) == [NEW, NEW]
    assert ledger(store).stored == ((1, 2),)
    assert store.totals().readings == 0


def test_readings_with_the_same_series_and_time_are_kept_and_counted(store: Store) -> None:
    store.commit([telemetry(1, one_column(FLOAT, 1.0, 2.0, 3.0), times_us=[NOW, NOW, NOW + 1]), telemetry(2)])
    assert store.totals() == Totals(events=2, readings=4, repeated=2, dead_letters=0)


# --- whose it is ---


def test_a_message_of_an_unknown_plant_is_kept_whole_and_is_new_once_the_plant_is_there(store: Store) -> None:
    message = telemetry(1, machine=MachineTopic(ELSEWHERE, "m"))
    assert list(store.commit([message, message])) == [UNKNOWN, UNKNOWN]
    (letter,) = store.dead_letters()
    assert (store.dead_letter(letter.id)[1], letter.count) == (message.payload, 2)
    assert str(ELSEWHERE) in letter.reason
    assert (store.machines(), store.ledgers(message.topic), store.totals().events) == ([], [], 0)
    store.add_tenant(ELSEWHERE.tenant)
    assert list(store.commit([message])) == [UNKNOWN]
    store.add_plant(ELSEWHERE)
    assert list(store.commit([message])) == [NEW]


def test_tenants_and_plants_are_made_once_by_an_operator(store: Store) -> None:
    with pytest.raises(StoreError, match="acme exists"):
        store.add_tenant("acme")
    with pytest.raises(StoreError, match="kassel exists"):
        store.add_plant(PLANT)
    with pytest.raises(StoreError, match="no tenant nobody"):
        store.add_plant(ELSEWHERE)
    store.add_tenant("aaa")
    store.add_plant(Plant("aaa", "x", "y"))
    assert list(store.tenants()) == ["aaa", "acme"]
    assert list(store.plants()) == [Plant("aaa", "x", "y"), PLANT]


def test_a_machine_is_pending_until_an_operator_approves_it(store: Store) -> None:
    with pytest.raises(StoreError, match="no machine press-1"):
        store.approve_machine(PRESS)
    with pytest.raises(StoreError, match="no machine"):
        store.approve_machine(MachineTopic(ELSEWHERE, "press-1"))
    store.commit([telemetry(1), telemetry(1, machine=OVEN)])
    assert [(row.machine, row.state) for row in store.machines()] == [("oven-1", "pending"), ("press-1", "pending")]
    store.approve_machine(PRESS)
    store.commit([telemetry(2)])
    assert [(row.machine, row.state) for row in store.machines()] == [("oven-1", "pending"), ("press-1", "approved")]


def test_a_machine_as_listed(store: Store) -> None:
    store.commit([telemetry(1, received_us=NOW), telemetry(2, gateway="gw-2", received_us=NOW + 9)])
    store.commit([telemetry(1), telemetry(3, one_column(FLOAT, 1.0, tag="b"), gateway="", received_us=NOW + 5)])
    (row,) = store.machines()
    assert (row.plant, row.machine, row.gateway) == (PLANT, "press-1", "gw-2")
    assert (row.last_event_us, row.batches, row.tags) == (NOW + 9, 3, 2)


# --- the latest value ---


def stamped(seq: int, time_us: int, epoch: str = "e1") -> Telemetry:
    return telemetry(seq, times_us=[time_us], epoch=epoch)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("messages", "winner"),
    [
        ([stamped(1, NOW), stamped(2, NOW - 1)], 1.0),  # older
        ([stamped(2, NOW), stamped(1, NOW)], 2.0),  # of the same time the higher number, whichever came first
        ([stamped(8, NOW), stamped(1, NOW, "e2")], 1.0),  # a newer epoch before a higher number
        ([stamped(1, NOW, "e2"), stamped(2, NOW + 1), stamped(9, NOW, "e2")], 2.0),  # time before all
        ([stamped(1, NOW), stamped(2, NOW + 301 * SECOND)], 1.0),  # from the future beyond tolerance
        ([stamped(1, NOW), stamped(2, NOW + 300 * SECOND)], 2.0),  # within
    ],
)
def test_the_last_write_wins(store: Store, messages: Sequence[Telemetry], winner: float, together: bool) -> None:
    for group in [messages] if together else [[message] for message in messages]:
        store.commit(group)
    assert latest(store).value == winner


def test_one_reading_from_the_future_does_not_freeze_a_machine(case: StoreCase) -> None:
    column = one_column(FLOAT, 1.0, 2.0, 3.0)
    case.store.commit([telemetry(1, column, times_us=[NOW, NOW + 3600 * SECOND, NOW - SECOND])])
    assert (latest(case.store).value, latest(case.store).time_us) == (1.0, NOW)
    assert case.readings()["press-1", "speed", "float64", NOW + 3600 * SECOND, 2.0, 0] == 1  # kept all the same
    case.store.commit([stamped(2, NOW + SECOND)])
    assert latest(case.store).time_us == NOW + SECOND


def test_a_tag_with_readings_from_the_future_only_has_no_latest_value(store: Store) -> None:
    store.commit([stamped(1, NOW + 3600 * SECOND)])
    assert store.latest() == []
    assert store.machines()[0].tags == 1


def test_of_equal_times_in_one_batch_the_last_counts(store: Store) -> None:
    store.commit([telemetry(1, one_column(FLOAT, 1.0, 2.0, 3.0), times_us=[NOW, NOW, NOW - 1])])
    assert latest(store).value == 2.0
    twice = [Block("plc-1", [NOW + 1], [one_column(FLOAT, value)]) for value in (4.0, 5.0)]
    store.commit([replace(telemetry(2), batch=Batch("gw-1", "e1", 2, twice))])
    assert latest(store).value == 5.0


INFINITY = math.inf
EXACTLY: dict[ValueType, list[Any]] = {
    ValueType.BOOL: [True, False],
    ValueType.INT: [0, -(2**63), 2**63 - 1],
    ValueType.UINT: [0, 2**63 - 1, 2**63, 2**64 - 1],
    ValueType.FLOAT64: [0.1, -0.0, 5e-324, 1.7976931348623157e308, 3.0, 2.0**63, math.nan, INFINITY, -INFINITY],
    ValueType.FLOAT32: [0.10000000149011612, math.nan, -INFINITY, 4.0],
    ValueType.STRING: ["", "NaN", "12", "1e5", "Grüße, 東京 🏭", "a\x00b", "x" * 4096, "' OR 1=1 --"],
}


@pytest.mark.parametrize("value_type", list(ValueType))
@pytest.mark.parametrize("beside", [[], [None]])
def test_values_come_back_exactly(store: Store, value_type: ValueType, beside: list[None]) -> None:
    values = [None, *EXACTLY[value_type]]
    columns = [one_column(value_type, *beside, value, tag=f"tag-{at:02}") for at, value in enumerate(values)]
    store.commit([telemetry(1, *columns, times_us=[NOW - 1, NOW][-1 - len(beside) :])])
    found = [one.value for one in store.latest(PRESS)]
    assert [type(value) for value in found] == [type(value) for value in values]
    assert [repr(value) for value in found] == [repr(value) for value in values]  # tells -0.0 from 0.0; NaN is NaN


def test_columns_with_holes_keep_each_value_at_its_moment(case: StoreCase) -> None:
    times = [NOW + at for at in range(4)]
    full = one_column(FLOAT, 0.0, 1.0, 2.0, 3.0, tag="full")
    sparse = one_column(INT, 10, 30, tag="sparse", rows=[0, 2])
    never = one_column(TEXT, tag="never", rows=[])
    case.store.commit([telemetry(1, full, sparse, never, times_us=times)])
    assert case.readings() == Counter(
        [
            *(("press-1", "full", "float64", NOW + at, float(at), 0) for at in range(4)),
            ("press-1", "sparse", "int", NOW, 10, 0),
            ("press-1", "sparse", "int", NOW + 2, 30, 0),
        ]
    )
    assert [(value.tag, value.value, value.time_us) for value in case.store.latest()] == [
        ("full", 3.0, NOW + 3),
        ("sparse", 30, NOW + 2),
    ]


def test_a_bad_reading_is_stored_with_its_quality_and_reason(case: StoreCase) -> None:
    quality = [Quality.GOOD, Quality.BAD_TIMEOUT]
    column = one_column(FLOAT, 1.0, None, quality=quality, reasons={1: "no answer within 1 s"}, unit="°C")
    case.store.commit([telemetry(1, column, times_us=[NOW, NOW + 1])])
    assert latest(case.store) == LatestValue(
        PLANT, "press-1", "speed", "°C", None, Quality.BAD_TIMEOUT, "no answer within 1 s", NOW + 1
    )
    assert case.readings()["press-1", "speed", "float64", NOW + 1, None, Quality.BAD_TIMEOUT] == 1
    case.store.commit([stamped(2, NOW + 2)])
    assert (latest(case.store).quality, latest(case.store).reason) == (Quality.GOOD, "")


def test_a_tag_whose_type_changes_keeps_the_old_readings_and_has_one_latest_value(case: StoreCase) -> None:
    store = case.store
    store.commit([telemetry(1, one_column(INT, 7))])
    store.commit([telemetry(2, one_column(TEXT, "7"), times_us=[NOW + 1])])
    assert latest(store).value == "7"
    store.commit([telemetry(3, one_column(INT, 8), times_us=[NOW - 1])])  # a backlog from before the change
    assert latest(store).value == "7"
    assert {(kind, value) for _, _, kind, _, value, _ in case.readings()} == {("int", 7), ("string", "7"), ("int", 8)}
    assert store.machines()[0].tags == 1


def test_the_unit_is_that_of_the_newest_reading(store: Store) -> None:
    store.commit([telemetry(1, one_column(FLOAT, 1.0))])
    store.commit([telemetry(3, one_column(FLOAT, 3.0, unit="bar"), times_us=[NOW + 3])])
    assert latest(store).unit == "bar"
    store.commit([telemetry(2, one_column(FLOAT, 2.0, unit="psi"), times_us=[NOW + 2])])
    assert latest(store).unit == "bar"
    store.commit([telemetry(4, one_column(FLOAT, 4.0, unit="psi"), times_us=[NOW + 4])])
    assert latest(store).unit == "psi"


def test_latest_values_of_one_machine_or_of_all(store: Store) -> None:
    store.commit([telemetry(1), telemetry(1, machine=OVEN)])
    assert [value.machine for value in store.latest()] == ["oven-1", "press-1"]
    assert [value.machine for value in store.latest(OVEN)] == ["oven-1"]
    assert store.latest(MachineTopic(PLANT, "none")) == []


# --- ledger and confirm ---


def test_the_ledger_and_the_confirm_name_the_gaps(store: Store) -> None:
    store.commit([telemetry(seq) for seq in (9, 2, 1, 6, 5)])
    assert ledger(store) == Ledger("e1", ((1, 2), (5, 6), (9, 9)), (), 9)
    told = store.confirm(GATEWAY).machines["press-1"]
    assert (told.epoch, told.through, told.highest, told.missing) == ("e1", 2, 9, [(3, 4), (7, 8)])
    store.commit([telemetry(seq) for seq in (8, 3, 7, 4)])
    told = store.confirm(GATEWAY).machines["press-1"]
    assert (told.through, told.missing) == (9, [])
    assert ledger(store).stored == ((1, 9),)


def test_what_a_gateway_says_it_has_sent_is_known_and_missing(store: Store) -> None:
    store.commit([telemetry(1), beat({"press-1": MachineNumbers(last_seq=20, sent_seq=5)})])
    assert ledger(store).known == 5
    assert store.confirm(GATEWAY).machines["press-1"].missing == [(2, 5)]
    store.commit([beat({"press-1": MachineNumbers(last_seq=20, sent_seq=3)})])
    assert ledger(store).known == 5  # numbers only grow


def test_a_status_may_come_before_the_first_message(store: Store) -> None:
    store.commit([beat({"press-1": MachineNumbers(last_seq=3, sent_seq=2)})])
    assert [(row.machine, row.state, row.batches) for row in store.machines()] == [("press-1", "pending", 0)]
    told = store.confirm(GATEWAY).machines["press-1"]
    assert (told.epoch, told.through, told.highest, told.missing) == ("e1", 0, 0, [(1, 2)])


def test_nobody_waits_for_what_was_declared_dropped(store: Store) -> None:
    dropped = [(2, 4, "disk full"), (3, 6, "too old"), (0, 0, "nothing"), (9, 8, "nothing")]
    store.commit([telemetry(1), telemetry(8), beat({"press-1": MachineNumbers(last_seq=9, dropped=dropped)})])
    assert ledger(store) == Ledger("e1", ((1, 1), (8, 8)), ((2, 6),), 8)
    told = store.confirm(GATEWAY).machines["press-1"]
    assert (told.through, told.missing) == (6, [(7, 7)])


@pytest.mark.parametrize("stored_first", [True, False])
def test_a_number_both_dropped_and_stored_is_stored(store: Store, stored_first: bool) -> None:
    items: list[Item] = [telemetry(3), beat({"press-1": MachineNumbers(last_seq=5, dropped=[(1, 5, "disk full")])})]
    outcomes = [store.commit([item])[0] for item in (items if stored_first else reversed(items))]
    assert set(outcomes) == {NEW, BEAT}
    assert ledger(store) == Ledger("e1", ((3, 3),), ((1, 2), (4, 5)), 5)


def test_the_highest_number_there_can_be(store: Store) -> None:
    store.commit([telemetry(SEQ_MAX), beat({"oven-1": MachineNumbers(last_seq=9, dropped=[(1, SEQ_MAX, "all")])})])
    assert ledger(store) == Ledger("e1", ((SEQ_MAX, SEQ_MAX),), (), SEQ_MAX)
    assert ledger(store, OVEN) == Ledger("e1", (), ((1, SEQ_MAX),), SEQ_MAX)
    assert store.confirm(GATEWAY).machines["press-1"].missing == [(1, SEQ_MAX - 1)]


def test_many_gaps_are_named_a_hundred_at_a_time(store: Store) -> None:
    store.commit([telemetry(seq) for seq in range(1, 300, 2)])
    told = store.confirm(GATEWAY).machines["press-1"]
    assert told.missing == [(seq, seq) for seq in range(2, 202, 2)][:MISSING_RANGES_MAX]
    assert told.highest == 201  # what lies beyond might be taken for stored


def test_the_confirm_is_of_the_newest_epoch_unless_the_gateway_says_another(store: Store) -> None:
    store.commit([telemetry(1), telemetry(2), telemetry(1, machine=OVEN), telemetry(5, epoch="e2")])
    assert store.confirm(GATEWAY).machines["press-1"].epoch == "e2"
    store.commit([beat(epoch="e1")])
    told = store.confirm(GATEWAY)
    assert [(name, found.epoch, found.through) for name, found in told.machines.items()] == [
        ("oven-1", "e1", 1),
        ("press-1", "e1", 2),
    ]
    store.commit([beat(epoch="e2")])
    assert [found.epoch for found in store.confirm(GATEWAY).machines.values()] == ["e1", "e2"]


def test_a_gateway_that_said_nothing_yet_is_told_of_its_newest_epoch(store: Store) -> None:
    store.commit([telemetry(1, epoch=""), telemetry(1)])
    assert store.confirm(GATEWAY).machines["press-1"].epoch == "e1"


def test_a_gateway_is_told_of_what_it_sent_and_of_nothing_else(store: Store) -> None:
    other = GatewayTopic(PLANT, "gw-2")
    store.commit([telemetry(1), telemetry(1, machine=OVEN, gateway="gw-2"), telemetry(1, epoch="", gateway="")])
    assert list(store.confirm(GATEWAY).machines) == ["press-1"]
    assert list(store.confirm(other).machines) == ["oven-1"]
    assert store.confirm(GatewayTopic(PLANT, "gw-3")) == store.confirm(GatewayTopic(ELSEWHERE, "gw-1")) == Told({})
    store.commit([telemetry(2, gateway="gw-2")])  # the outbox has moved to another certificate
    assert (list(store.confirm(GATEWAY).machines), list(store.confirm(other).machines)) == ([], ["oven-1", "press-1"])


def lanes(store: Store, gateway: GatewayTopic = GATEWAY) -> dict[str, list[tuple[str, int, list[tuple[int, int]]]]]:
    """Machine → (epoch, through, missing) of each of its lanes that the gateway is told of, the present one first."""
    told = store.confirm(gateway)
    return {
        name: [(lane.epoch, lane.through, lane.missing) for lane in (first, *told.others.get(name, []))]
        for name, first in told.machines.items()
    }


def test_every_lane_that_the_status_names_is_confirmed(store: Store) -> None:
    store.commit([telemetry(1, epoch="old"), telemetry(1, epoch="e1"), telemetry(1, epoch="e1-low")])
    store.commit([telemetry(1, epoch="e1", machine=OVEN, received_us=NOW + 3600 * SECOND)])
    named = {
        "press-1": {"old": MachineNumbers(last_seq=3, sent_seq=2), "e1-low": MachineNumbers(last_seq=1, sent_seq=1)}
    }
    store.commit([beat({"press-1": MachineNumbers(last_seq=1, sent_seq=1)}, others=named)])
    assert lanes(store) == {
        "oven-1": [("e1", 1, [])],
        "press-1": [("e1", 1, []), ("e1-low", 1, []), ("old", 1, [(2, 2)])],
    }
    found = {one.epoch: (one.given, one.sent, one.named) for one in store.ledgers(PRESS)}
    assert found == {"old": (3, 2, True), "e1": (1, 1, True), "e1-low": (1, 1, True)}
    store.commit([beat({"press-1": MachineNumbers(last_seq=1, sent_seq=1)}, received_us=NOW + SECOND)])
    assert [(one.epoch, one.named) for one in store.ledgers(PRESS)] == [("old", False), ("e1", True), ("e1-low", False)]
    assert lanes(store)["press-1"] == [("e1", 1, [])], "named no more, and nothing was stored in it lately"
    store.commit([telemetry(2, epoch="old", received_us=NOW + 3600 * SECOND)])
    assert lanes(store)["press-1"] == [("e1", 1, []), ("old", 2, [])]


def test_a_gateway_that_got_another_name_is_told_of_what_it_took_along(store: Store) -> None:
    """Its outbox holds batches that name it as it was called before, and they come after new ones."""
    renamed = GatewayTopic(PLANT, "gw-2")
    store.commit([beat({"press-1": MachineNumbers(last_seq=9, sent_seq=1)}), telemetry(1)])
    said = {"press-1": MachineNumbers(last_seq=9, sent_seq=4)}
    store.commit([beat(said, gateway=renamed, received_us=NOW + SECOND)])
    store.commit([telemetry(9, gateway="gw-2"), telemetry(2), telemetry(3)])
    assert lanes(store, renamed) == {"press-1": [("e1", 3, [(4, 8)])]}
    (found,) = store.ledgers(PRESS)
    assert (found.sent, found.named) == (4, True)


def test_two_gateways_that_hold_one_epoch_are_both_told(store: Store) -> None:
    """A copied disk under a name of its own still has what was kept in the copy."""
    first, second = {"press-1": MachineNumbers(last_seq=9, sent_seq=3)}, {"press-1": MachineNumbers(last_seq=5)}
    copied = GatewayTopic(PLANT, "gw-2")
    store.commit([beat(first), telemetry(1), telemetry(3)])
    store.commit([beat(gateway=copied, epoch="e2", others={"press-1": {"e1": second["press-1"]}})])
    expected = {"press-1": [("e1", 1, [(2, 2)])]}
    assert (lanes(store), lanes(store, copied)) == (expected, expected)
    store.commit([beat(first, received_us=NOW + SECOND)])
    assert (lanes(store), lanes(store, copied)) == (expected, expected)


def test_a_gateway_without_anything_gets_an_empty_account(store: Store) -> None:
    store.commit([beat()])
    assert store.confirm(GATEWAY) == Told({})
    store.commit([beat({"press-1": MachineNumbers(last_seq=7)}, received_us=NOW + 1)])
    assert lanes(store) == {"press-1": [("e1", 0, [])]}


def test_a_gap_or_an_old_buffer_makes_confirms_pressing(store: Store) -> None:
    store.commit([telemetry(1), beat()])
    assert not store.confirm(GATEWAY).pending
    store.commit([telemetry(3)])
    assert store.confirm(GATEWAY).pending
    store.commit([telemetry(2)])
    assert not store.confirm(GATEWAY).pending
    for oldest_s, pending in ((12, False), (300, True), (None, False)):
        store.commit([beat(health=Health(buffer=Buffer(oldest_sec=oldest_s)))])
        assert store.confirm(GATEWAY).pending is pending


def test_what_a_gateway_says_of_its_numbers_only_grows(store: Store) -> None:
    store.commit([beat({"press-1": MachineNumbers(last_seq=9, sent_seq=5)}, session=2)])
    store.commit([beat({"press-1": MachineNumbers(last_seq=4, sent_seq=2)}, session=2, received_us=NOW + 1)])
    store.commit([beat({"press-1": MachineNumbers(last_seq=12, sent_seq=6)}, session=1, received_us=NOW + 2)])
    (found,) = store.ledgers(PRESS)
    assert (found.given, found.sent, found.named) == (12, 6, True), "an old session's word counts, but names nothing"


def says(last: int, session: int, at_s: int, instance: str = "a", **more: Any) -> Beat:
    numbers = MachineNumbers(last_seq=last, sent_seq=min(last, 5))
    return beat({"press-1": numbers}, session=session, instance=instance, received_us=NOW + at_s * SECOND, **more)


def account(store: Store) -> tuple[int, int, int, list[tuple[int, int]]]:
    """(known, in flight, missing, what the confirm names as missing)."""
    (found,) = store.ledgers(PRESS)
    stated = statement(found)
    return found.known, stated.in_flight, stated.missing, store.confirm(GATEWAY).machines["press-1"].missing


def test_an_outbox_that_has_lost_its_end_is_asked_for_it(store: Store) -> None:
    store.commit([says(20, 1, 0), *(telemetry(seq) for seq in range(1, 6))])
    assert account(store) == (5, 15, 0, [])
    store.commit([says(12, 2, 10)])
    assert account(store) == (20, 7, 8, [(6, 20)]), "up to 12 it has them still, and sends them"
    store.commit([says(12, 2, 20), *(telemetry(seq) for seq in range(6, 13))])
    assert account(store) == (20, 0, 8, [(13, 20)])
    declared = MachineNumbers(last_seq=20, sent_seq=12, dropped=[(13, 20, "destroyed")])
    store.commit([beat({"press-1": declared}, session=2, instance="a", received_us=NOW + 30 * SECOND)])
    assert account(store) == (20, 0, 0, [])


def test_a_lower_number_within_a_session_is_a_status_that_came_late(store: Store) -> None:
    store.commit([says(12, 1, 0), says(20, 1, 10), says(12, 1, 20), *(telemetry(seq) for seq in range(1, 6))])
    assert account(store) == (5, 15, 0, [])
    store.commit([says(18, 2, 30)])
    assert account(store) == (5, 15, 0, []), "held against the status before, which was the late one"
    store.commit([says(12, 1, 40), says(19, 1, 50, retained=True)])
    assert account(store) == (5, 15, 0, []), "history says nothing of the end"
    store.commit([says(17, 3, 60, retained=True)])
    assert account(store) == (20, 12, 3, [(6, 20)]), "a retained status is the last word of its session"


def test_what_an_older_session_said_it_gave_is_missing_whenever_that_is_heard(store: Store) -> None:
    store.commit([says(10, 2, 0), *(telemetry(seq) for seq in range(1, 6))])
    store.commit([says(14, 1, 10)])
    assert account(store)[1:3] == (5, 4)


def test_what_another_installation_does_not_have_is_missing_and_not_asked_for(store: Store) -> None:
    """A copy, perhaps: what it was copied from may still be alive, and would let go of what it hears to be dropped."""
    store.commit([says(20, 1, 0), *(telemetry(seq) for seq in range(1, 6))])
    store.commit([says(12, 2, 10, "b")])
    assert account(store) == (5, 7, 8, [])
    store.commit([says(21, 3, 20, "a")])
    assert store.gateways()[0].speakers.fenced == "b"
    assert account(store) == (5, 16, 0, [])
    store.commit([says(12, 4, 30, "b"), says(12, 5, 40, "b")])
    assert account(store) == (5, 16, 0, []), "nothing follows from the word of one of two"


def test_a_copy_under_a_name_of_its_own_says_nothing_of_the_original(store: Store) -> None:
    copied = GatewayTopic(PLANT, "gw-2")
    store.commit([says(20, 1, 0), *(telemetry(seq) for seq in range(1, 6))])
    store.commit([says(12, 1, 10, "b", gateway=copied), says(12, 2, 20, "b", gateway=copied)])
    assert account(store) == (5, 15, 0, [])


def test_a_will_leaves_the_lanes_named(store: Store) -> None:
    store.commit([beat({"press-1": MachineNumbers(last_seq=9, sent_seq=5)}, session=2)])
    gone = will(2, NOW // 1000)
    store.commit([Beat(GATEWAY, gone, gone.encode(), False, NOW + SECOND)])
    assert store.ledgers(PRESS)[0].named


def test_the_readings_that_were_stored_are_counted_per_epoch(store: Store) -> None:
    store.commit([telemetry(1), telemetry(2, one_column(FLOAT, 1.0, 2.0), times_us=[NOW, NOW + 1]), telemetry(1)])
    store.commit([telemetry(1, epoch="e2"), telemetry(1, content="other")])
    assert [(one.epoch, one.readings) for one in store.ledgers(PRESS)] == [("e1", 3), ("e2", 1)]


def test_losses_come_with_their_reasons(store: Store) -> None:
    numbers = MachineNumbers(last_seq=9, dropped=[(2, 4, "disk full"), (6, 7, "too old")])
    store.commit([beat({"press-1": numbers}), telemetry(3)])
    assert list(store.losses(PRESS, "e1")) == [
        Loss(2, 2, "disk full"),
        Loss(4, 4, "disk full"),
        Loss(6, 7, "too old"),
    ]
    assert list(store.losses(PRESS, "e2")) == list(store.losses(OVEN, "e1")) == []


def lose_the_outbox(store: Store) -> None:
    """Of e1 numbers 1, 2 and 5 of 7 that were given are stored; then its gateway begins anew with an empty disk."""
    store.commit([says(7, 1, 0), *(telemetry(seq) for seq in (1, 2, 5))])
    store.commit([beat(epoch="e2", session=2, instance="b", received_us=NOW + 10 * SECOND)])


def test_what_no_gateway_answers_for_is_written_off_by_an_operator(store: Store) -> None:
    lose_the_outbox(store)
    store.commit([telemetry(1, machine=OVEN), telemetry(3, machine=OVEN)])
    assert store.write_off(PRESS, "e1", [(3, 4), (6, 6)], "written off") == 3
    assert list(store.losses(PRESS, "e1")) == [Loss(3, 4, "written off"), Loss(6, 6, "written off")]
    assert account(store)[1:3] == (0, 1), "only what was named: number 7 is missing still"
    assert store.write_off(PRESS, "e1", [(1, 100)], "written off too") == 1, "and of that, what is missing"
    assert store.losses(PRESS, "e1")[-1] == Loss(7, 7, "written off too")
    assert store.write_off(PRESS, "e1", [(1, 100)], "again") == 0
    assert store.losses(OVEN, "e1") == []
    assert store.confirm(GATEWAY).machines["press-1"] == MachineConfirm(epoch="e1", through=7, highest=5)


def test_what_arrives_after_it_was_written_off_is_stored(store: Store) -> None:
    lose_the_outbox(store)
    store.write_off(PRESS, "e1", [(1, 7)], "written off")
    assert list(store.commit([telemetry(4), telemetry(4)])) == [NEW, DUPLICATE]
    assert list(store.losses(PRESS, "e1")) == [Loss(3, 3, "written off"), Loss(6, 7, "written off")]
    assert (ledger(store).stored, store.totals().readings) == (((1, 2), (4, 5)), 4)
    assert store.write_off(PRESS, "e1", [(1, 7)], "again") == 0


def test_what_a_gateway_answers_for_itself_is_not_written_off(store: Store) -> None:
    store.commit([says(7, 1, 0), *(telemetry(seq) for seq in (1, 2, 4))])
    with pytest.raises(StoreError, match="e1 of machine press-1 is named by its gateway's last status"):
        store.write_off(PRESS, "e1", [(3, 3)], "written off")
    store.commit([telemetry(1, epoch="e2", received_us=NOW + 5 * SECOND)])
    store.commit([telemetry(3, epoch="e2", received_us=NOW + 5 * SECOND)])
    with pytest.raises(StoreError, match="e2 of machine press-1 was sent in since its gateway's last status"):
        store.write_off(PRESS, "e2", [(2, 2)], "written off")  # begun within the last ten seconds, perhaps
    assert list(store.losses(PRESS, "e1")) == list(store.losses(PRESS, "e2")) == []
    assert store.write_off(PRESS, "e9", [(1, 5)], "written off") == 0
    assert store.write_off(MachineTopic(ELSEWHERE, "press-1"), "e1", [(1, 5)], "written off") == 0


def test_a_sender_without_a_status_has_nobody_who_answers(store: Store) -> None:
    store.commit([telemetry(seq, epoch="", gateway="") for seq in (1, 3)])
    assert store.write_off(PRESS, "", [(2, 2)], "written off") == 1
    assert ledger(store) == Ledger("", ((1, 1), (3, 3)), ((2, 2),), 3)


def test_the_first_live_batch_since_a_time(store: Store) -> None:
    store.commit([telemetry(seq, received_us=NOW + seq * SECOND) for seq in (1, 2, 5)])
    store.commit([replace(telemetry(3, received_us=NOW + 4 * SECOND), historical=True)])
    assert store.first_since(PRESS, "e1", NOW) == 1
    assert store.first_since(PRESS, "e1", NOW + 3 * SECOND) == 5
    assert store.first_since(PRESS, "e1", NOW + 9 * SECOND) is None
    assert store.first_since(PRESS, "e2", NOW) is None


def test_a_backlog_never_takes_the_latest_value_back(store: Store) -> None:
    store.commit([stamped(5, NOW + 10)])
    old = [replace(stamped(seq, NOW + seq), historical=True) for seq in (1, 2, 3, 4)]
    assert list(store.commit(old)) == [NEW] * 4
    assert (latest(store).value, latest(store).time_us) == (5.0, NOW + 10)
    assert ledger(store).stored == ((1, 5),)


# --- what can never be stored ---


def hopeless(seq: int, epoch: str = "e1", machine: MachineTopic = PRESS) -> Undecodable:
    """Refused, though its number is recognised."""
    number = Number(machine, "gw-1", epoch, seq)
    return Undecodable(machine.telemetry, f"junk {seq}".encode(), "a column's mode is unknown", NOW, number)


def test_a_refused_batch_whose_number_is_known_to_exist_counts_as_dropped(store: Store) -> None:
    """Otherwise its gateway would send it again for ever, and nothing behind it could be let go."""
    store.commit([telemetry(1), beat({"press-1": MachineNumbers(last_seq=3, sent_seq=3)}), telemetry(3)])
    assert list(store.commit([hopeless(2)])) == [DEAD]
    (letter,) = store.dead_letters()
    assert list(store.losses(PRESS, "e1")) == [Loss(2, 2, f"dead letter {letter.id}: a column's mode is unknown")]
    assert store.confirm(GATEWAY).machines["press-1"].through == 3
    assert list(store.commit([telemetry(2)])) == [NEW]  # a replay that succeeds
    assert (ledger(store).stored, ledger(store).dropped) == (((1, 3),), ())


@pytest.mark.parametrize(
    "stranger", [hopeless(4), hopeless(2, epoch="e9"), hopeless(2, machine=OVEN), hopeless(10**15)]
)
def test_a_number_that_its_gateway_has_not_spoken_of_is_not_accounted(store: Store, stranger: Undecodable) -> None:
    """A gateway lets go of what it hears is dropped: nobody may say that beforehand."""
    store.commit([telemetry(1), beat({"press-1": MachineNumbers(last_seq=3, sent_seq=3)})])
    before = (store.ledgers(PRESS), store.confirm(GATEWAY))
    assert list(store.commit([stranger])) == [DEAD]
    assert (store.ledgers(PRESS), store.confirm(GATEWAY)) == before
    assert store.ledgers(OVEN) == []
    assert store.totals().dead_letters == 1


def test_a_number_that_is_stored_stays_stored_whatever_comes_under_it(store: Store) -> None:
    store.commit([telemetry(1), telemetry(2), hopeless(2)])
    assert (ledger(store).stored, ledger(store).dropped) == (((1, 2),), ())
    store.commit([hopeless(1)])
    assert (ledger(store).stored, ledger(store).dropped) == (((1, 2),), ())


def test_what_refers_to_an_unknown_definition_is_kept_only_where_its_plant_is_unknown(store: Store) -> None:
    known = Undefined(PRESS, (b"ref-01",), b"payload", NOW)
    stranger = Undefined(MachineTopic(ELSEWHERE, "press-1"), (b"ref-01",), b"payload", NOW)
    assert list(store.commit([known, stranger])) == [Committed.ASKED, UNKNOWN]
    (letter,) = store.dead_letters()
    assert (letter.topic, store.dead_letter(letter.id)[1]) == (stranger.topic.telemetry, b"payload")
    assert (store.machines(), store.totals().events) == ([], 0)


# --- gateways ---


def events(store: Store) -> list[tuple[int, str]]:
    """What was noted, the oldest first: (seconds since NOW, event)."""
    return [((one.at_us - NOW) // SECOND, one.event) for one in reversed(store.history(GATEWAY))]


def test_presence_is_noted_when_it_changes(store: Store) -> None:
    store.commit([beat(session=1, retained=True)])
    assert events(store) == []
    for at_s in (10, 20, 30):
        store.commit([beat(session=1, received_us=NOW + at_s * SECOND)])
    store.commit([beat(session=1, state="offline", reason=REASON_SHUTDOWN, received_us=NOW + 35 * SECOND)])
    store.commit([beat(session=2, received_us=NOW + 40 * SECOND)])
    lost = will(2, NOW // 1000)
    store.commit([Beat(GATEWAY, lost, lost.encode(), False, NOW + 50 * SECOND)])
    store.commit([Beat(GATEWAY, lost, lost.encode(), True, NOW + 55 * SECOND)])
    store.commit([beat(session=3, received_us=NOW + 60 * SECOND)])
    assert events(store) == [(10, "online"), (35, "stopped"), (40, "online"), (50, "lost"), (60, "online")]
    details = [one.detail for one in store.history(GATEWAY)]
    assert details == [
        "after it was lost: the program was started anew",
        "unexpected_disconnect",
        "after it was stopped",
        "shutdown",
        "heard for the first time",
    ]
    assert [one.event for one in store.history(GATEWAY, 1)] == ["online"]
    assert store.gateways()[0].since_us == NOW + 60 * SECOND
    assert list(store.history(GatewayTopic(PLANT, "gw-9"))) == []


def test_silence_is_noted_by_a_receiver_that_has_listened_long_enough(store: Store) -> None:
    store.commit([beat(received_us=NOW)])
    store.receiver_beat(NOW, NOW + 30 * SECOND)
    restarted_us = NOW + 3600 * SECOND
    store.receiver_beat(restarted_us, restarted_us + 30 * SECOND)  # started anew: it does not know yet
    assert events(store) == [(0, "online")]
    store.receiver_beat(restarted_us, restarted_us + 36 * SECOND)
    store.receiver_beat(restarted_us, restarted_us + 41 * SECOND)
    assert events(store) == [(0, "online"), (3635, "silent")]
    store.commit([beat(received_us=restarted_us + 60 * SECOND)])
    assert events(store)[-1] == (3660, "online")


def test_the_history_is_bounded(store: Store) -> None:
    for session in range(GATEWAY_EVENTS_MAX):
        at_us = NOW + session * SECOND
        gone = will(session + 1, NOW // 1000)
        store.commit([beat(session=session + 1, received_us=at_us), Beat(GATEWAY, gone, gone.encode(), False, at_us)])
    assert len(store.history(GATEWAY, 10_000)) == GATEWAY_EVENTS_MAX


def test_a_clone_is_fenced_until_only_one_speaks_or_an_operator_decides(store: Store) -> None:
    """Each has a session count of its own: the lower one is heard of all the same."""
    with pytest.raises(StoreError, match="none of its installations is fenced"):
        store.accept_gateway(GATEWAY)
    store.commit([beat(session=50, instance="aaaa", host="line-7"), telemetry(1)])
    store.commit([beat(session=3, instance="bbbb", host="spare", received_us=NOW + 5 * SECOND)])
    assert store.confirm(GATEWAY).fenced == ""
    store.commit([beat(session=51, instance="aaaa", host="line-7", received_us=NOW + 10 * SECOND)])
    told = store.confirm(GATEWAY)
    assert told.fenced_instance == "bbbb"
    assert "aaaa on host line-7, which was there first" in told.fenced
    assert "bbbb on host spare, which sends nothing" in told.fenced
    assert store.gateways()[0].speakers.fenced == "bbbb"
    assert [one.event for one in store.history(GATEWAY)][:2] == ["cloned", "replaced"]
    assert store.accept_gateway(GATEWAY) == "spare"
    assert store.confirm(GATEWAY).fenced == ""
    for at_s, session, instance in ((15, 4, "bbbb"), (20, 52, "aaaa"), (25, 5, "bbbb")):
        store.commit([beat(session=session, instance=instance, received_us=NOW + at_s * SECOND)])
    assert store.confirm(GATEWAY).fenced_instance == "aaaa"
    store.commit([beat(session=6, instance="bbbb", received_us=NOW + 90 * SECOND)])
    assert store.confirm(GATEWAY).fenced == store.confirm(GATEWAY).fenced_instance == ""
    assert store.history(GATEWAY)[0].event == "clone ended"


def test_a_retained_or_replayed_status_is_no_word_of_an_installation(store: Store) -> None:
    store.commit([beat(instance="aaaa"), beat(instance="bbbb", retained=True), beat(instance="aaaa")])
    assert store.gateways()[0].speakers.fenced == ""


def test_a_gateways_presence_follows_the_rules(store: Store) -> None:
    beats = [
        beat(session=2, retained=True),
        beat(session=2, received_us=NOW + SECOND),
        beat(session=1, received_us=NOW + 2 * SECOND),
        beat(session=2, state="offline", reason=REASON_SHUTDOWN, received_us=NOW + 3 * SECOND),
    ]
    heard = Heard()
    for one in beats:
        assert list(store.commit([one])) == [BEAT]
        heard = hear(heard, one.status, retained=one.retained, received_us=one.received_us)
        (row,) = store.gateways()
        assert (row.plant, row.thing, row.registered, row.heard) == (PLANT, "gw-1", False, heard)
    assert heard.ended == REASON_SHUTDOWN


def test_a_gateway_is_registered_by_an_operator_before_or_after_its_first_word(store: Store) -> None:
    store.commit([beat()])
    late = GatewayTopic(PLANT, "gw-2")
    store.register_gateway(GATEWAY)
    store.register_gateway(late)
    store.commit([beat(), beat(gateway=late)])
    assert [(row.thing, row.registered, row.heard.session) for row in store.gateways()] == [
        ("gw-1", True, 1),
        ("gw-2", True, 1),
    ]
    with pytest.raises(StoreError, match="registered already"):
        store.register_gateway(GATEWAY)
    with pytest.raises(StoreError, match="no plant"):
        store.register_gateway(GatewayTopic(ELSEWHERE, "gw-1"))


def test_an_old_sessions_message_lets_numbers_grow_and_makes_nothing_new(store: Store) -> None:
    store.commit([telemetry(1), beat(session=5)])
    old = {"press-1": MachineNumbers(last_seq=4, sent_seq=4), "oven-1": MachineNumbers(last_seq=4, sent_seq=4)}
    late = [beat(old, session=4), beat(old, session=4, epoch="e0", retained=True)]
    assert list(store.commit(late)) == [BEAT, BEAT]
    assert ledger(store) == Ledger("e1", ((1, 1),), (), 4)
    assert [row.machine for row in store.machines()] == ["press-1"]


def test_a_live_status_of_another_epoch_is_no_old_sessions_message(store: Store) -> None:
    """A disk that was set back, under a clock that was set back: its sessions count from below."""
    store.commit([telemetry(1), beat(session=5)])
    store.commit([beat({"press-1": MachineNumbers(last_seq=3, sent_seq=2)}, session=4, epoch="e2")])
    assert {one.epoch: one.named for one in store.ledgers(PRESS)} == {"e1": False, "e2": True}


def test_the_status_of_an_unknown_plants_gateway_is_kept_once(store: Store) -> None:
    stranger = GatewayTopic(ELSEWHERE, "gw-1")
    first, second = beat(gateway=stranger), beat(gateway=stranger, session=2, received_us=NOW + SECOND)
    assert list(store.commit([first, second])) == [UNKNOWN, UNKNOWN]
    assert store.gateways() == []
    (letter,) = store.dead_letters()  # a heartbeat every 10 s must not push telemetry out of the dead letters
    assert (letter.topic, letter.count) == (stranger.status, 2)
    assert store.dead_letter(letter.id) == (letter, second.payload)
    assert (letter.first_us, letter.last_us) == (NOW, NOW + SECOND)


def test_a_status_from_no_time_at_all_is_a_dead_letter(store: Store) -> None:
    one = beat()
    absurd = replace(one, status=one.status.model_copy(update={"timestamp": 10**30}))
    assert list(store.commit([absurd, beat()])) == [DEAD, BEAT]
    assert "timestamp" in store.dead_letters()[0].reason


# --- dead letters ---


def undecodable(number: int, *, received_us: int = NOW, payload: bytes = b"\xff\x00") -> Undecodable:
    return Undecodable(f"factory/topic-{number}", payload, f"reason {number}", received_us)


def test_a_dead_letter_is_kept_once_with_its_count(store: Store) -> None:
    first, again = undecodable(1), undecodable(1, received_us=NOW + 5)
    assert list(store.commit([first, again, undecodable(2), undecodable(1, payload=b"other")])) == [DEAD] * 4
    assert list(store.commit([undecodable(1, received_us=NOW - 5)])) == [DEAD]
    letter = next(one for one in store.dead_letters() if one.count == 3)
    assert (letter.topic, letter.reason, letter.size) == ("factory/topic-1", "reason 1", 2)
    assert (letter.first_us, letter.last_us, letter.state) == (NOW, NOW + 5, "waiting")
    assert store.dead_letter(letter.id) == (letter, b"\xff\x00")
    assert store.totals().dead_letters == 3


def test_dead_letters_newest_first(store: Store) -> None:
    store.commit([undecodable(1, received_us=NOW + 1), undecodable(2, received_us=NOW + 2), undecodable(3)])
    assert [letter.reason for letter in store.dead_letters()] == ["reason 2", "reason 1", "reason 3"]
    assert [letter.reason for letter in store.dead_letters(limit=1)] == ["reason 2"]


def test_a_replayed_letter_waits_again_if_it_comes_back(store: Store) -> None:
    store.commit([undecodable(1)])
    (letter,) = store.dead_letters()
    store.mark_replayed(letter.id)
    assert store.dead_letter(letter.id)[0].state == "replayed"
    store.commit([undecodable(1)])
    assert store.dead_letter(letter.id)[0] == replace(letter, count=2)
    for call in (store.dead_letter, store.mark_replayed, store.drop_letter):
        with pytest.raises(StoreError, match="no dead letter 999"):
            call(999)


def test_the_letters_that_wait_the_oldest_first(store: Store) -> None:
    store.commit([undecodable(1, received_us=NOW + 2), undecodable(2, received_us=NOW), undecodable(3)])
    by_reason = {letter.reason: letter.id for letter in store.dead_letters()}
    store.mark_replayed(by_reason["reason 3"])
    assert list(store.waiting()) == [by_reason["reason 2"], by_reason["reason 1"]]


def test_dead_letters_are_bounded_and_the_replayed_go_first(store: Store) -> None:
    store.commit([undecodable(number, received_us=NOW + number) for number in range(5)])
    replayed = next(letter for letter in store.dead_letters() if letter.reason == "reason 3")
    store.mark_replayed(replayed.id)
    with capture_logs() as logs:
        store.commit([undecodable(5, received_us=NOW + 5), undecodable(6, received_us=NOW + 6)])
    assert [letter.reason for letter in store.dead_letters()] == [f"reason {n}" for n in (6, 5, 4, 2, 1)]
    assert [(entry["log_level"], entry["discarded"]) for entry in logs] == [("warning", 2)]


def test_dead_letters_are_bounded_in_bytes(store: Store) -> None:
    store.retain(Retention(letters_max=100, letters_bytes_max=1000))
    store.commit([undecodable(number, received_us=NOW + number, payload=b"x" * 300) for number in range(5)])
    assert [letter.reason for letter in store.dead_letters()] == ["reason 4", "reason 3", "reason 2"]
    store.commit([undecodable(9, received_us=NOW + 9, payload=b"x" * 1500)])
    assert store.dead_letters() == []  # one that is over the bound by itself


def test_dead_letters_are_bounded_in_age(store: Store) -> None:
    day_us = 86_400 * SECOND
    store.commit([undecodable(number, received_us=NOW + number * day_us) for number in range(4)])
    store.tend(NOW + 4 * day_us)
    assert store.totals().dead_letters == 4  # for ever is the default
    store.retain(Retention(letters_days=2.5))
    while store.tend(NOW + 4 * day_us):
        pass
    assert [letter.reason for letter in store.dead_letters()] == ["reason 3", "reason 2"]


def test_a_dead_letter_can_be_thrown_away(store: Store) -> None:
    store.commit([undecodable(1), undecodable(2)])
    first = next(letter.id for letter in store.dead_letters() if letter.reason == "reason 1")
    store.drop_letter(first)
    assert [letter.reason for letter in store.dead_letters()] == ["reason 2"]


def test_text_that_is_no_unicode_is_kept_readable_and_stops_nothing(case: StoreCase) -> None:
    group: list[Item] = [
        Undecodable("factory/\ud800", b"x", "not \ud800 text", NOW),
        telemetry(1, one_column(TEXT, "half a \ud800 pair")),
        telemetry(2, one_column(FLOAT, 1.0, tag="\udfff")),
        telemetry(3),
    ]
    assert list(case.store.commit(group)) == [DEAD, DEAD, DEAD, NEW]
    letters = {letter.topic: letter.reason for letter in case.store.dead_letters()}
    assert letters["factory/\\ud800"] == "not \\ud800 text"
    assert "surrogate" in letters[PRESS.telemetry]
    assert ledger(case.store).stored == ((3, 3),)


def test_a_receiver_at_work_is_noted(store: Store) -> None:
    assert store.receiver() is None
    store.receiver_beat(NOW, NOW + 1)
    store.receiver_beat(NOW, NOW + 2)
    assert store.receiver() == (NOW, NOW + 2)


# --- against a model ---


@dataclass
class Model:
    """What must be stored, in the plainest words."""

    digests: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    readings: Counter[Reading] = field(default_factory=Counter)
    dropped: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    known: dict[tuple[str, str], int] = field(default_factory=dict)  # in the order of first appearance
    latest: dict[tuple[str, str], tuple[tuple[int, int, int], float]] = field(default_factory=dict)

    def take(self, item: Telemetry | Beat) -> Committed:
        return self.telemetry(item) if isinstance(item, Telemetry) else self.beat(item)

    def telemetry(self, item: Telemetry) -> Committed:
        machine, batch = item.topic.machine, item.batch
        key = (machine, batch.epoch, batch.seq)
        if key in self.digests:
            return DUPLICATE if self.digests[key] == item.digest else CONFLICT
        self.digests[key] = item.digest
        epoch = key[:2]
        self.known[epoch] = max(self.known.get(epoch, 0), batch.seq)
        for block in batch.blocks:
            for column in block.columns:
                for time_us, value in zip(block.times_us, column.values, strict=True):
                    self.readings[machine, column.name, "float64", time_us, value, 0] += 1
                    order = (time_us, list(self.known).index(epoch), batch.seq)
                    assert isinstance(value, float)
                    tag = (machine, column.name)
                    self.latest[tag] = max(self.latest.get(tag, (order, value)), (order, value))
        return NEW

    def beat(self, item: Beat) -> Committed:
        for machine, numbers in item.status.machines.items():
            epoch = (machine, item.status.epoch)
            gone = {n for first, last, _ in numbers.dropped for n in range(first, last + 1)}
            self.dropped.setdefault(epoch, set()).update(gone)
            self.known[epoch] = max(self.known.get(epoch, 0), numbers.sent_seq, *gone, 0)
        return BEAT

    def account(self, machine: str) -> list[tuple[str, set[int], set[int], int]]:
        accounts = []
        for (name, epoch), known in self.known.items():
            if name == machine:
                stored = {seq for owner, of, seq in self.digests if (owner, of) == (machine, epoch)}
                accounts.append((epoch, stored, self.dropped.get((name, epoch), set()) - stored, known))
        return accounts


seqs = st.integers(1, 9)
machines = st.sampled_from([PRESS, OVEN])
epochs = st.sampled_from(["", "e1", "e2"])


@st.composite
def messages(draw: st.DrawFn) -> Telemetry | Beat:
    machine, epoch, seq = draw(machines), draw(epochs), draw(seqs)
    if draw(st.integers(0, 3)):
        content = draw(st.sampled_from(["", "", "other"]))
        times = [NOW + seq * 7 % 5, NOW + seq * 7 % 3]
        column = one_column(FLOAT, seq + len(content) / 10, seq + len(content) / 10 + 0.5, tag=f"t{seq % 2}")
        return telemetry(seq, column, machine=machine, epoch=epoch, times_us=times, content=content)
    dropped = [
        (first, first + draw(st.integers(0, 4)), draw(st.sampled_from(["a", "b"])))
        for first in draw(st.lists(seqs, max_size=3))
    ]
    return beat({machine.machine: MachineNumbers(last_seq=0, sent_seq=seq, dropped=dropped)}, epoch=epoch)


@settings(max_examples=40)
@given(st.lists(st.lists(messages(), max_size=8), max_size=6))
def test_whatever_arrives_in_whatever_groups_the_stores_hold_what_the_model_holds(
    groups: list[list[Telemetry | Beat]],
) -> None:
    model = Model()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        opened = [stack.enter_context(case(directory)) for case in cases().values()]
        for one in opened:
            with_plant(one.store)
        for group in groups:
            expected = [model.take(item) for item in group]
            assert [list(one.store.commit(group)) for one in opened] == [expected] * len(opened)
        for one in opened:
            assert_holds(one, model)
        assert len({repr(one.store.confirm(GATEWAY)) for one in opened}) == 1
        assert len({repr((one.store.machines(), one.store.gateways(), one.store.latest())) for one in opened}) == 1


def assert_holds(case: StoreCase, model: Model) -> None:
    assert case.readings() == model.readings
    totals = case.store.totals()
    assert (totals.events, totals.readings) == (len(model.digests), model.readings.total())
    assert totals.repeated == totals.readings - len({reading[:4] for reading in model.readings})
    for machine in (PRESS, OVEN):
        ledgers = case.store.ledgers(machine)
        assert [
            (one.epoch, _numbers(one.stored), _numbers(one.dropped), one.known) for one in ledgers
        ] == model.account(machine.machine)
    found = {(value.machine, value.tag): value.value for value in case.store.latest()}
    assert found == {tag: value for tag, (_, value) in model.latest.items()}


def _numbers(ranges: Sequence[tuple[int, int]]) -> set[int]:
    assert all(left[1] + 1 < right[0] for left, right in pairwise(ranges))
    return {n for first, last in ranges for n in range(first, last + 1)}


# --- definitions ---


def test_a_definition_is_kept_for_its_machine(store: Store) -> None:
    assert (
        list(store.commit([defined(), defined(b"ref-02", message=b"other"), defined(b"ref-03", OVEN)]))
        == [Committed.DEFINED] * 3
    )
    assert store.definition(PRESS, b"ref-01") == b"message"
    assert store.definition(PRESS, b"ref-02") == b"other"
    assert store.definition(OVEN, b"ref-03") == b"message"


def test_a_definition_of_another_machine_is_not_found(store: Store) -> None:
    elsewhere = Plant(PLANT.tenant, PLANT.province, "fulda")
    store.add_plant(elsewhere)
    store.commit([defined(), defined(b"ref-03", OVEN)])
    assert store.definition(OVEN, b"ref-01") is None
    assert store.definition(PRESS, b"ref-03") is None
    assert store.definition(MachineTopic(elsewhere, PRESS.machine), b"ref-01") is None
    assert store.definition(PRESS, b"") is None


def test_a_definition_again_changes_nothing(store: Store) -> None:
    store.commit([defined()])
    before = (store.machines(), store.totals())
    assert list(store.commit([defined(), defined(message=b"a forged one")])) == [Committed.DEFINED] * 2
    assert store.definition(PRESS, b"ref-01") == b"message"
    assert (store.machines(), store.totals()) == before


def test_a_definition_makes_its_machine_and_no_number(store: Store) -> None:
    store.commit([defined()])
    (row,) = store.machines()
    assert (row.machine, row.state, row.batches, row.tags) == (PRESS.machine, "pending", 0, 0)
    assert list(store.ledgers(PRESS)) == []
    assert store.totals() == Totals(events=0, readings=0, repeated=0, dead_letters=0)


def test_a_definition_from_an_unknown_plant_is_a_dead_letter(store: Store) -> None:
    stranger = MachineTopic(ELSEWHERE, "press-1")
    item = defined(machine=stranger)
    assert list(store.commit([item, defined()])) == [UNKNOWN, Committed.DEFINED]
    assert store.definition(stranger, b"ref-01") is None
    (letter,) = store.dead_letters()
    assert (letter.topic, store.dead_letter(letter.id)[1]) == (item.topic.definition, b"message")
    assert "nobody/hessen/kassel" in letter.reason
    store.add_tenant(ELSEWHERE.tenant)
    store.add_plant(ELSEWHERE)
    assert list(store.commit([item])) == [Committed.DEFINED]
    assert store.definition(stranger, b"ref-01") == b"message"

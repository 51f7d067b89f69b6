"""Messages as items: whatever is sent becomes one, and never an error."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from cloud import decode
from cloud.commands.payload import explained, hex_head
from cloud.decode import Undefined
from cloud.store.contract import Beat, Defined, Number, Telemetry, Undecodable
from protocols.uplink import definition, envelope, frames, status
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.definition import Definition
from protocols.uplink.link import Delivery
from protocols.uplink.mark import mark
from protocols.uplink.status import GatewayInfo, Status
from protocols.uplink.topics import DefinitionTopic, GatewayTopic, MachineTopic, Plant
from protocols.values import ValueType

PLANT = Plant("acme", "north", "p1")
PRESS = MachineTopic(PLANT, "press")
GATEWAY = GatewayTopic(PLANT, "gw-1")
BATCH = Batch("gw-1", "a1b2", 7, [Block("plc-1", [1_000_000], [Column("speed", ValueType.FLOAT64, [1.5], "rpm")])])
STATUS = Status(
    timestamp=1, state="online", session=3, gateway=GatewayInfo(thing_name="gw-1", version="1", uptime_sec=1)
)
SAID = definition.define("gw-1", "a1b2", "main", [("speed", ValueType.FLOAT64, "rpm")], BATCH.blocks[0])
DEFINITION = definition.encode(SAID)
REF = definition.ref(DEFINITION)
GROUP = DefinitionTopic(PRESS, "plc-1", "main")
REFERRING = envelope.encode_referring(7, [definition.pack_referring(BATCH.blocks[0], REF, SAID)])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
payloads = st.one_of(
    st.binary(max_size=300),
    json_values.map(lambda value: json.dumps(value).encode()),
    json_values.map(lambda value: zstandard.compress(json.dumps(value).encode())),
    st.binary(max_size=30).map(lambda junk: envelope.encode(BATCH) + junk),
    st.integers(0, 60).map(lambda end: envelope.encode(BATCH)[:end]),
    st.integers(0, 200).map(lambda end: STATUS.encode()[:end]),
    st.integers(0, len(DEFINITION)).map(lambda end: DEFINITION[:end]),
    st.integers(0, len(REFERRING)).map(lambda end: REFERRING[:end]),
)
topics = st.one_of(
    st.sampled_from(
        [PRESS.telemetry, PRESS.definition("a", "b"), GROUP.definition, GATEWAY.status, GATEWAY.confirm, ""]
    ),
    st.text(),
)


@given(topics, payloads, st.booleans())
@example(PRESS.telemetry, b'{"a":' * 100_000, False)
@example(PRESS.telemetry, b"\x91" * 100_000, False)
@example(GATEWAY.status, b"[" * 100_000, True)
@example(GATEWAY.status, b'{"timestamp": 1, "state": "online", "epoch": "\\ud800"}', False)
@example("factory/\ud800/b/c/d/telemetry", b"{}", False)
def test_anything_becomes_an_item(topic: str, payload: bytes, retained: bool) -> None:
    item = decode.item(topic, payload, retained, received_us=5)
    if isinstance(item, Undefined):
        assert (item.topic, item.refs) == (PRESS, (REF,))
        return
    assert item.received_us == 5
    assert item.payload == payload
    if isinstance(item, Undecodable):
        assert item.topic == topic
        assert item.reason and "\n" not in item.reason


@given(topics, payloads)
@example(PRESS.telemetry, b"[" * 100_000)
def test_anything_can_be_explained_to_a_person(topic: str, payload: bytes) -> None:
    lines = explained(topic, payload)
    assert lines[0][0] == "form"
    assert len(lines) > 1
    assert all(len(text) < 10_000 for _, text in lines)
    assert len(list(hex_head(payload))) <= 9


def test_telemetry() -> None:
    payload = envelope.encode(BATCH)
    item = decode.item(PRESS.telemetry, payload, False, 9)
    assert isinstance(item, Telemetry)
    assert plain(item.batch) == BATCH
    assert replace(item, batch=BATCH) == Telemetry(PRESS, BATCH, payload, envelope.digest(payload), 9)


def plain(batch: Batch) -> Batch:
    """With columns in plain lists, whichever way it was read."""
    blocks = [
        Block(block.device, list(block.times_us), [replace(one, values=list(one.values)) for one in block.columns])
        for block in batch.blocks
    ]
    return replace(batch, blocks=blocks)


def test_a_mark_is_no_part_of_the_message_and_stays_with_what_is_kept() -> None:
    payload = envelope.encode(BATCH)
    item = decode.item(PRESS.telemetry, mark(payload), False, 9)
    assert isinstance(item, Telemetry)
    assert (item.historical, item.payload, item.digest) == (True, mark(payload), envelope.digest(payload))
    junk = decode.item(PRESS.telemetry, mark(b"?"), False, 9)
    assert isinstance(junk, Undecodable)
    assert junk.payload == mark(b"?")
    twice = decode.item(PRESS.telemetry, mark(mark(payload)), False, 9)
    assert isinstance(twice, Undecodable | Telemetry)


def number(payload: bytes) -> Number | None:
    item = decode.item(PRESS.telemetry, payload, False, 9, lambda _, ref: SAID if ref == REF else None)
    assert isinstance(item, Undecodable)
    return item.number


def test_the_number_of_what_is_refused_is_recognised_where_it_can_be() -> None:
    seven = Number(PRESS, "gw-1", "a1b2", 7)
    assert number(frames.pack([1, "gw-1", b"\xa1\xb2", 7, "no blocks"])) == seven
    assert number(frames.pack([2, 7, [[REF, [b"\x01\x02\x03"]]]])) == seven
    said = {"schemaVersion": 9, "seq": 7, "gateway": "gw-1", "epoch": "a1b2"}
    assert number(json.dumps(said).encode()) == seven
    assert number(b'{"seq": 7}') == Number(PRESS, "", "", 7)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"junk",
        frames.pack([1, "gw-1", b"\xa1\xb2", 0, []])[:-1],
        frames.pack([1, "gw-1", b"\xa1\xb2", 0, []]),
        frames.pack([1, "gw-1", b"\xa1\xb2", True, 5]),
        frames.pack([1, 5, b"\xa1\xb2", 7, 5]),
        frames.pack([3, "gw-1", b"\xa1\xb2", 7, []]),
        frames.pack([2, 7, []]),
        b'{"seq": 1.5}',
        b'{"seq": 9223372036854775808}',
        b'{"seq": 7, "epoch": 5}',
        b'{"seq": 7, "gateway": null}',
    ],
)
def test_a_number_that_cannot_be_told_is_none(payload: bytes) -> None:
    assert number(payload) is None


@pytest.mark.parametrize("retained", [True, False])
def test_a_status(retained: bool) -> None:
    payload = STATUS.encode()
    assert decode.item(GATEWAY.status, payload, retained, 9) == Beat(GATEWAY, STATUS, payload, retained, 9)


def test_a_will_names_no_sender() -> None:
    payload = status.will(4, 1).encode()
    item = decode.item(GATEWAY.status, payload, False, 9)
    assert isinstance(item, Beat) and item.status.session == 4


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("ops/acme/north/p1/gateway/gw-2/status", STATUS.encode(), "names gw-1 as its sender"),
        (GATEWAY.confirm, b"{}", "neither a machine's"),
        ("factory/acme/north/P1/press/telemetry", envelope.encode(BATCH), "'P1' is not a name"),
        (PRESS.telemetry, b"", "empty"),
        (PRESS.telemetry, b"hello", "first bytes are 68 65 6c 6c"),
        (PRESS.telemetry, STATUS.encode(), "values"),
        (PRESS.telemetry, msgpack.packb([9]), "schemaVersion 9"),
        (PRESS.telemetry, msgpack.packb([2, 1, [[b"abcde"]]]), "reference of 6 bytes"),
        (PRESS.telemetry, DEFINITION, "5 parts"),
        (GROUP.definition, b"{}", "array of 11 parts"),
        (GROUP.definition, REFERRING, "array of 11 parts"),
        (PRESS.definition("plc-1", "other"), DEFINITION, "the definition of plc-1/other names plc-1/main"),
        (PRESS.definition("plc-2", "main"), DEFINITION, "the definition of plc-2/main names plc-1/main"),
        (PRESS.definition("plc-1", "Main"), DEFINITION, "'Main' is not a name"),
        (GATEWAY.status, b"{}", "not a status message"),
        (GATEWAY.status, envelope.encode(BATCH), "not a status message"),
    ],
)
def test_what_is_no_message_keeps_its_reason(topic: str, payload: bytes, reason: str) -> None:
    item = decode.item(topic, payload, False, 9)
    assert isinstance(item, Undecodable)
    assert reason in item.reason


def test_items_stand_in_the_order_of_receipt() -> None:
    def delivery(payload: bytes, topic: str = PRESS.telemetry, retained: bool = False) -> Delivery:
        return Delivery(topic, payload, retained, lambda: None)

    deliveries = [delivery(envelope.encode(BATCH)), delivery(b"?"), delivery(STATUS.encode(), GATEWAY.status, True)]
    kinds: list[Any] = [type(item) for item in decode.items(deliveries, 9)]
    assert kinds == [Telemetry, Undecodable, Beat]


# --- definitions ---


def test_a_definition() -> None:
    assert decode.item(GROUP.definition, DEFINITION, True, 9) == Defined(GROUP, REF, SAID, DEFINITION, 9)


def test_telemetry_that_refers_to_what_is_known() -> None:
    asked: list[tuple[MachineTopic, bytes]] = []

    def find(machine: MachineTopic, ref: bytes) -> Definition | None:
        asked.append((machine, ref))
        return SAID

    item = decode.item(PRESS.telemetry, REFERRING, False, 9, find)
    assert isinstance(item, Telemetry)
    assert plain(item.batch) == BATCH
    assert item.payload == REFERRING
    assert asked == [(PRESS, REF)]


def test_telemetry_that_refers_to_what_is_not_known_is_no_item_for_the_store() -> None:
    twice = envelope.encode_referring(
        7, [definition.pack_referring(BATCH.blocks[0], ref, SAID) for ref in (REF, b"other-", REF, b"known-")]
    )
    found = decode.item(PRESS.telemetry, twice, False, 9, lambda _, ref: SAID if ref == b"known-" else None)
    assert found == Undefined(PRESS, (REF, b"other-"), twice, 9)


def test_a_definition_counts_for_what_stands_behind_it() -> None:
    known: dict[tuple[MachineTopic, bytes], Definition] = {}

    def learn(one: Defined) -> None:
        known[one.topic.machine, one.ref] = one.definition

    sent = [(PRESS.telemetry, REFERRING), (GROUP.definition, DEFINITION), (PRESS.telemetry, REFERRING)]
    deliveries = [Delivery(topic, payload, False, lambda: None) for topic, payload in sent]
    kinds: list[Any] = [
        type(item) for item in decode.items(deliveries, 9, lambda machine, ref: known.get((machine, ref)), learn)
    ]
    assert kinds == [Undefined, Defined, Telemetry]

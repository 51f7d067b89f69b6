"""The status message and the will: what is written, what is read, and what is refused in one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.uplink import status
from protocols.uplink.batch import SEQ_MAX
from protocols.uplink.status import (
    REASON_UNEXPECTED,
    STATUS_BYTES_MAX,
    Buffer,
    DeviceLink,
    GatewayInfo,
    Health,
    MachineNumbers,
    Status,
    StatusError,
    decode,
    will,
)

LEAST = {"schemaVersion": 1, "timestamp": 5, "state": "online"}


def message(**keys: Any) -> bytes:
    return json.dumps(LEAST | keys).encode()


def test_the_keys_on_the_wire_are_those_that_the_issue_names() -> None:
    said = Status(
        timestamp=5,
        state="online",
        gateway=GatewayInfo(thing_name="gw-1", version="1.0", uptime_sec=3),
        health=Health(internet="ok", buffer=Buffer(queued_messages=2)),
    )
    wire = json.loads(said.encode())
    assert wire["schemaVersion"] == 1
    assert wire["gateway"] == {"thingName": "gw-1", "version": "1.0", "uptimeSec": 3}
    assert wire["health"]["plcLink"] == "ok"
    assert wire["health"]["mqtt"] == "ok"
    assert wire["health"]["internet"] == "ok"
    assert {"mode": "disk", "queuedMessages": 2}.items() <= wire["health"]["buffer"].items()
    assert "reason" not in wire  # nothing is sent as null


def test_what_is_written_is_read_back() -> None:
    said = Status(
        timestamp=1_700_000_000_000,
        state="offline",
        reason="shutdown",
        session=SEQ_MAX,
        epoch="00ff",
        machines={"m": MachineNumbers(last_seq=SEQ_MAX, sent_seq=3, dropped=[(1, 2, "outbox full")])},
        devices={"plc-1": DeviceLink(machine="m", state="away", since=4, reason="no answer", readings=7)},
        certificate_days_left=-3,
    )
    assert decode(said.encode()) == said


def test_the_will_says_which_connection_it_belongs_to() -> None:
    last = decode(will(12, 99, "00ff").encode())
    assert (last.state, last.reason, last.session, last.timestamp, last.epoch) == (
        "offline",
        REASON_UNEXPECTED,
        12,
        99,
        "00ff",
    )
    assert last.gateway is None
    assert last.health is None
    assert len(will(SEQ_MAX, 99, "f" * 16).encode()) < 300  # brokers limit wills


def test_a_newer_gateway_may_say_more() -> None:
    newer = message(
        fromTheFuture={"a": [1]}, gateway={"thingName": "g", "version": "9", "uptimeSec": 1, "colour": "red"}
    )
    said = decode(newer)
    assert said.gateway == GatewayInfo(thing_name="g", version="9", uptime_sec=1)
    assert b"fromTheFuture" not in said.encode()


def machines(**keys: Any) -> bytes:
    return message(machines={"m": {"lastSeq": 1} | keys})


def devices(**keys: Any) -> bytes:
    return message(devices={"d": {"machine": "m", "state": "ok", "since": 1} | keys})


STRANGE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "message: Invalid JSON"),
    "cut short": (b'{"schemaVersion":1', "message: Invalid JSON"),
    "not UTF-8": (b'{"epoch":"\xff"}', "message: Invalid JSON"),
    "half a character": (message().replace(b'"online"', b'"online","reason":"\\ud800"'), "message: Invalid JSON"),
    "a list": (b"[]", "message: Input should be an object"),
    "binary": (b"\x28\xb5\x2f\xfd\x00", "message: Invalid JSON"),
    "too long": (b" " * (STATUS_BYTES_MAX + 1), "over the limit"),
    "version": (message(schemaVersion=2), "schemaVersion: Input should be 1"),
    "no timestamp": (b'{"state":"online"}', "timestamp: Field required"),
    "timestamp as text": (message(timestamp="now"), "timestamp: Input should be a valid integer"),
    "timestamp beyond": (message(timestamp=10**18), "timestamp: Input should be less than"),
    "timestamp before": (message(timestamp=-1), "timestamp: Input should be greater than"),
    "state": (message(state="asleep"), "state: Input should be 'online' or 'offline'"),
    "reason too long": (message(reason="x" * 501), "reason: String should have at most 500"),
    "session negative": (message(session=-1), "session: Input should be greater"),
    "session beyond": (message(session=SEQ_MAX + 1), "session: Input should be less"),
    "session infinite": (message().replace(b"5", b"1e999"), "timestamp: "),
    "thing name": (message(gateway={"thingName": "G", "version": "1", "uptimeSec": 1}), "gateway.thingName: String"),
    "uptime": (message(gateway={"thingName": "g", "version": "1", "uptimeSec": -1}), "gateway.uptimeSec: "),
    "health": (message(health={"mqtt": "fine"}), "health.mqtt: Input should be 'ok' or 'down'"),
    "buffer": (message(health={"buffer": {"queuedMessages": -1}}), "health.buffer.queuedMessages: "),
    "machines as list": (message(machines=[]), "machines: Input should be an object"),
    "machine's name": (message(machines={"a/b": {"lastSeq": 1}}), r"machines\.a/b\.\[key\]: String should match"),
    "a strange name": (message(machines={"a\n\x1b[31m": {"lastSeq": 1}}), r"machines\.a\\n\\x1b\[31m\.\[key\]: "),
    "a huge name": (message(machines={"A" * 100_000: {"lastSeq": 1}}), r"machines\.A{64}\.\[key\]: "),
    "too many machines": (message(machines={f"m{n}": {"lastSeq": 1} for n in range(1001)}), "machines: Dictionary"),
    "no last number": (machines(lastSeq=None), "machines.m.lastSeq: "),
    "dropped without reason": (machines(dropped=[[1, 2]]), "machines.m.dropped.0.2: Field required"),
    "dropped reason too long": (machines(dropped=[[1, 2, "x" * 501]]), "machines.m.dropped.0.2: String"),
    "dropped too often": (machines(dropped=[[1, 2, ""]] * 201), "machines.m.dropped: List"),
    "device's state": (devices(state="gone"), "devices.d.state: "),
    "device since": (devices(since=10**18), "devices.d.since: "),
    "device's machine": (devices(machine="M"), "devices.d.machine: "),
    "nested endlessly": (b'{"x":' * 5000 + b"1" + b"}" * 5000, "message: Invalid JSON"),
}


@pytest.mark.parametrize(("payload", "says"), STRANGE.values(), ids=STRANGE.keys())
def test_what_is_no_status_is_refused_in_one_sentence(payload: bytes, says: str) -> None:
    with pytest.raises(StatusError, match=says) as caught:
        decode(payload)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=80))
def test_random_bytes_never_raise_anything_else(payload: bytes) -> None:
    with pytest.raises(StatusError):
        decode(payload)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)
KEYS = sorted(field.alias or name for name, field in Status.model_fields.items())


@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=4))
@settings(max_examples=300)
def test_any_json_in_any_place_is_refused_or_can_be_told_again(keys: dict[str, Any]) -> None:
    try:
        said = decode(message(**keys))
    except StatusError as error:
        sentence = str(error)
    else:
        sentence = "" if decode(said.encode()) == said else "it was read back as something else\n"
    assert sentence == "" or sentence.isprintable()


def test_a_silent_gateway_is_one_that_missed_three_heartbeats() -> None:
    assert 3 * status.HEARTBEAT_S < status.SILENCE_S < 4 * status.HEARTBEAT_S

"""What takes bytes from strangers, each with its corpus and the only errors that it may raise."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent import settings
from agent.capture.conversation import conversation
from agent.capture.records import CaptureError, Header, Packer, joined, read_capture
from agent.capture.replaying import Replay
from agent.capture.told import lines, served
from cloud import decode
from cloud.store.contract import Telemetry
from cloud.store.memory import MemoryStore
from protocols.field.contract import Happening
from protocols.field.modbus_server import Asked
from protocols.program.problem import SettingsError
from protocols.uplink import confirm, definition, topics
from protocols.uplink.topics import MachineTopic, Plant
from tests.support.make_wire_vectors import DIRECTORY

ROOT = Path(__file__).parent.parent.parent
PLANT = Plant("t", "r", "p")
TELEMETRY, STATUS = "factory/t/r/p/m/telemetry", "ops/t/r/p/gateway/gw/status"
NOW_US = 1_780_000_000_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """`feed` raises nothing but `allowed`, whatever it is given."""

    corpus: tuple[bytes, ...]
    feed: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = ()


def _of(*beginnings: str) -> tuple[bytes, ...]:
    found = [path.read_bytes() for path in sorted(DIRECTORY.glob("*.bin")) if path.name.startswith(beginnings)]
    assert found
    return tuple(found)


@cache
def _definitions() -> Mapping[bytes, definition.Definition]:
    found = {}
    for message in _of("definition"):
        with suppress(definition.DefinitionError):  # some vectors show what is refused
            found[definition.ref(message)] = definition.decode(message)
    return found


def _find(_: MachineTopic, ref: bytes) -> definition.Definition | None:
    return _definitions().get(ref)


def _store(topic: str, payload: bytes) -> None:
    """Through the receiver's own way: whatever it is becomes an item, and every item can be committed."""
    store = MemoryStore()
    store.add_tenant(PLANT.tenant)
    store.add_plant(PLANT)
    found = decode.item(topic, payload, False, NOW_US, _find)
    if not isinstance(found, decode.Undefined):
        store.commit([found])
    if isinstance(found, Telemetry):
        found.batch.readings()


def _settings(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "agent.yaml")
        path.write_bytes(text)
        settings.read(path, environ={})


def _capture(raw: bytes) -> None:
    """A capture file, read and served as `holdfast replay` does."""
    found = read_capture(raw)
    told = conversation(joined(found.records), found.header.transport)
    replay = Replay(told, "tcp", 1.0)
    for unit_id, pdu in told.exchanges:
        replay.answer(Asked(unit_id, pdu, 7))
    assert sum(row.asked for row in served(told)) == told.count
    assert len(list(lines(found.records))) == len(found.records)


def _captures() -> tuple[bytes, ...]:
    packer = Packer()
    for at in range(60):
        ask, told = bytes.fromhex("0006010300000001"), bytes.fromhex("0005010302002a")
        packer.add(Happening.OPENED, at * 1000, b"")
        packer.add(Happening.SENT, at * 1000 + 1, at.to_bytes(2, "big") + b"\0\0" + ask)
        packer.add(Happening.RECEIVED, at * 1000 + 9, at.to_bytes(2, "big") + b"\0\0" + told)
        packer.add(Happening.READ, at * 1000 + 9, b'{"readings": {"a": [1.5, 0]}}')
    header = Header("tcp", "10.0.0.5:502", "holdfast 1", "now", {"name": "plc"})
    return (header.encode() + b"".join(block for _, block in packer.take()),)


def _topic(text: bytes) -> None:
    topics.parse(text.decode("utf-8", "replace"))


TARGETS: dict[str, Callable[[], Target]] = {
    "telemetry": lambda: Target(_everything(), lambda payload: _store(TELEMETRY, payload)),
    "definition": lambda: Target(_of("definition"), lambda p: _store("factory/t/r/p/m/definition/plc-1/main", p)),
    "status": lambda: Target(_of("status", "will"), lambda payload: _store(STATUS, payload)),
    "confirm": lambda: Target(_of("confirm"), confirm.decode, (confirm.ConfirmError,)),
    "capture": lambda: Target(_captures(), _capture, (CaptureError,)),
    "topic": lambda: Target((TELEMETRY.encode(), STATUS.encode()), _topic, (topics.TopicError,)),
    "settings": lambda: Target(
        tuple(path.read_bytes() for path in sorted((ROOT / "config").glob("agent*.yaml"))), _settings, (SettingsError,)
    ),
}


def _everything() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(DIRECTORY.glob("*.bin")))


def seeded(name: str, seed: int) -> random.Random:
    """The chance of one case: target and seed decide everything."""
    return random.Random(f"{name}:{seed}")

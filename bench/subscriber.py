"""An independent subscriber: writes down every message with the moment of its arrival, and decodes by docs/wire.md.

    python -m bench.subscriber ROLE PORT FILE

Role `record` only listens. `confirm` is also the least receiver that docs/wire.md allows (sections 8 and 9): it keeps
no readings, but counts what came, numbers in order, and confirms once a second. `thingsboard` answers the one request
without which thingsboard-gateway holds back its telemetry. Nothing here uses the agent's code.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgpack
import paho.mqtt.client as mqtt
import zstandard
from paho.mqtt.enums import CallbackAPIVersion

from bench.processes import HOST, Process, python, wait_until
from tests.support.independent_decoder import decode_definition, decode_telemetry

Role = Literal["record", "confirm", "thingsboard"]
CONFIRM_S, FULL_S = 1.0, 0.1
FULL_BATCHES, FULL_BYTES = 100, 4 << 20
_RECORD = struct.Struct(">QHI")
_REF_BYTES = 6
_HISTORICAL = bytes.fromhex("502a4d18 01000000 01")  # docs/wire.md, section 2
_LIMITS_ASKED, _LIMITS_ANSWER = "v1/devices/me/rpc/request/", "v1/devices/me/rpc/response/"
_NO_LIMITS = {
    "maxPayloadSize": 65536,
    "maxInflightMessages": 100,
    "rateLimits": {},
    "gatewayRateLimits": {"messages": "", "telemetryMessages": "", "telemetryDataPoints": ""},
}


@dataclass(frozen=True, slots=True)
class Message:
    """`arrived_us`: µs since 1970, taken first thing in the callback."""

    arrived_us: int
    topic: str
    payload: bytes

    @property
    def is_telemetry(self) -> bool:
        return self.topic.endswith("/telemetry")


class Subscriber:
    """The subscriber's process, seen from the harness."""

    def __init__(self, role: Role, broker_port: int, directory: Path) -> None:
        self._file = directory / "messages"
        log = directory / "subscriber.log"
        self.process: Process = python("subscriber", "bench.subscriber", [role, str(broker_port), str(self._file)], log)
        wait_until(lambda: "ready" in self.process.said(), "the subscriber's start", 20.0, self.process)

    def size(self) -> int:
        """Bytes written down so far; grows with each message."""
        return self._file.stat().st_size

    def settle(self, quiet_s: float, timeout_s: float) -> None:
        """Until no message has come for `quiet_s`, or `timeout_s` is over."""
        end_s, size, since_s = time.monotonic() + timeout_s, self.size(), time.monotonic()
        while time.monotonic() < end_s and time.monotonic() - since_s < quiet_s:
            time.sleep(0.05)
            if self.size() != size:
                size, since_s = self.size(), time.monotonic()

    def messages(self) -> Iterator[Message]:
        """All so far, in order of arrival. A message that is being written now is left out."""
        content = self._file.read_bytes()
        at = 0
        while at + _RECORD.size <= len(content):
            arrived_us, topic_length, length = _RECORD.unpack_from(content, at)
            at += _RECORD.size
            topic, payload = content[at : at + topic_length], content[at + topic_length : at + topic_length + length]
            at += topic_length + length
            if at <= len(content):
                yield Message(arrived_us, topic.decode(), payload)


@dataclass(frozen=True, slots=True)
class Head:
    """Of a binary telemetry message: its number, and how many values it holds."""

    seq: int
    values: int


class Book:
    """The definitions said so far, by reference (section 5.6)."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}

    def learn(self, message: Message) -> None:
        """Any message; only definitions are looked at."""
        if "/definition/" in message.topic and message.payload:
            reference = hashlib.blake2b(message.payload, digest_size=_REF_BYTES).hexdigest()
            if reference not in self.known:
                self.known[reference] = decode_definition(message.payload)


def head(payload: bytes, book: Book) -> Head:
    """Without decoding the columns: rows × columns of each block, less what its exceptions say is not there."""
    parts = _unpacked(payload)
    if parts[0] == 1:
        _, _, _, seq, blocks = parts
        return Head(seq, sum(_values(block[1], len(block[2]), block[7]) for block in blocks))
    if parts[0] == 2:
        _, seq, blocks = parts
        return Head(seq, sum(_referring_values(block, book) for block in blocks))
    raise ValueError(f"form {parts[0]} of a message")


def _unpacked(payload: bytes) -> Any:
    plain = payload.removeprefix(_HISTORICAL)
    return msgpack.unpackb(zstandard.ZstdDecompressor().decompress(plain), strict_map_key=False)


def _referring_values(block: list[Any], book: Book) -> int:
    reference, _, rows, _, _, exceptions, steps = [*block, *[None] * 7][:7]
    columns = len(book.known[reference.hex()]["tags"]) if steps is None else len(steps)
    return _values(1 if rows is None else rows, columns, exceptions or {})


def _values(rows: int, columns: int, exceptions: dict[int, Any]) -> int:
    count = rows * columns
    for steps, _, absent, _ in exceptions.values():
        present = rows if steps is None else len(steps)
        gone = 0 if absent is None else sum(n for n, flag in zip(absent[::2], absent[1::2], strict=True) if flag)
        count -= rows - present + gone
    return count


def columns(payload: bytes, book: Book, *names: str) -> list[list[Any]]:
    """The values of these tags of a binary message, by the decoder that was written from docs/wire.md alone."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    for block in decode_telemetry(payload, book.known)["blocks"]:
        for column in block["columns"]:
            if column["name"] in found:
                found[column["name"]] += [int(value) for value in column["values"] if value is not None]
    return [found[name] for name in names]


class _Confirmer:
    """Confirms by section 8. A machine's epoch is that of the status of the gateway that sends for it."""

    def __init__(self, client: mqtt.Client, note: Callable[[str, bytes], None]) -> None:
        self._client, self._note = client, note
        self._lock = threading.Lock()
        self._book = Book()
        self._gateway, self._epoch = "", ""
        self._said: dict[str, Any] = {}
        self._session = -1
        self._told_s = 0.0
        self._since = [0, 0]  # messages and bytes since the last confirm
        self._due = threading.Event()
        self._through: dict[str, int] = {}
        self._early: dict[str, set[int]] = {}

    def take(self, message: Message) -> None:
        """Any message that the subscriber gets."""
        parts = message.topic.split("/")
        with self._lock:
            if parts[0] == "ops" and message.payload:
                self._take_status("/".join(parts[1:6]), json.loads(message.payload))
            elif message.is_telemetry:
                self._take_number(parts[4], head(message.payload, self._book).seq)
                self._since = [self._since[0] + 1, self._since[1] + len(message.payload)]
                if (
                    message.payload.startswith(_HISTORICAL)
                    or self._since[0] >= FULL_BATCHES
                    or self._since[1] >= FULL_BYTES
                ):
                    self._due.set()
            else:
                self._book.learn(message)

    def _take_status(self, gateway: str, status: dict[str, Any]) -> None:
        self._gateway = gateway
        if status["epoch"] != self._epoch:
            self._epoch = status["epoch"]
            self._through.clear()
            self._early.clear()
        for machine in status.get("machines", {}):
            self._through.setdefault(machine, 0)
        if status["session"] != self._session:  # it waits for a word, even an empty one
            self._session, self._told_s = status["session"], 0.0
            self._due.set()

    def _take_number(self, machine: str, seq: int) -> None:
        through, early = self._through.get(machine, 0), self._early.setdefault(machine, set())
        if seq > through:
            early.add(seq)
        while through + 1 in early:
            through += 1
            early.discard(through)
        self._through[machine] = through

    def run(self) -> None:
        """For ever: once a second, and as our receiver does when much came. Written down when it is something new."""
        while True:
            self._due.wait(CONFIRM_S)
            time.sleep(max(0.0, self._told_s + FULL_S - time.monotonic()))
            with self._lock:
                self._due.clear()
                self._since = [0, 0]
                gateway, epoch, machines = self._gateway, self._epoch, dict(self._through)
            if gateway:
                self._told_s = time.monotonic()
                self._tell(gateway, epoch, machines)

    def _tell(self, gateway: str, epoch: str, machines: dict[str, int]) -> None:
        told = {
            machine: {"epoch": epoch, "through": through, "highest": through, "missing": []}
            for machine, through in machines.items()
        }
        said = {"schemaVersion": 1, "timestamp": time.time_ns() // 10**6, "machines": told}
        payload = json.dumps(said).encode()
        self._client.publish(f"ops/{gateway}/confirm", payload, qos=1)
        if told != self._said:
            self._note(f"ops/{gateway}/confirm", payload)
            self._said = told


def _main(role: Role, port: int, path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"bench-{role}", clean_session=True)

    def note(topic: str, payload: bytes) -> None:
        arrived_us, name = time.time_ns() // 1000, topic.encode()
        os.write(file, _RECORD.pack(arrived_us, len(name), len(payload)) + name + payload)

    confirmer = _Confirmer(client, note)

    def on_message(_: mqtt.Client, __: Any, message: mqtt.MQTTMessage) -> None:
        if role == "thingsboard" and message.topic.startswith(_LIMITS_ASKED):
            client.publish(_LIMITS_ANSWER + message.topic.rpartition("/")[2], json.dumps(_NO_LIMITS), qos=1)
            return
        payload = bytes(message.payload)
        note(message.topic, payload)
        if role == "confirm":
            confirmer.take(Message(0, message.topic, payload))

    def on_connect(*_: Any) -> None:
        # The subscriber listens to all but confirms, which it may send itself.
        topics = ["#"] if role != "confirm" else ["factory/#", "ops/+/+/+/gateway/+/status"]
        client.subscribe([(topic, 1) for topic in topics])

    def on_subscribe(*_: Any) -> None:
        print("ready", flush=True)

    client.on_message, client.on_connect, client.on_subscribe = on_message, on_connect, on_subscribe
    client.reconnect_delay_set(1, 1)
    client.connect(HOST, port)
    if role == "confirm":
        threading.Thread(target=confirmer.run, name="confirm", daemon=True).start()
    client.loop_forever()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))  # type: ignore[arg-type]  # one of the roles

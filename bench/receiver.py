"""Rows for the whole receiver: mosquitto → receiver → SQLite, beside the least a receiver must do and bare writing.

How a run goes: broker and receiver are started; each gateway's first message is stored, so that machine and tags are
known; the receiver is frozen (SIGSTOP) while everything else is published, and let go. Time and CPU count from there
until the last reading is committed. So neither the publisher nor the start takes part, and the broker always has more.
A run counts only if every reading is in the database once, with its value.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import yaml
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from bench import limits_store, wire
from bench.broker import Broker
from bench.limits_store import Readings, Stored
from bench.machine import cost
from bench.mixes import float32
from bench.processes import HOST, Process, RunFailed, python, wait_until
from bench.table import Row
from cloud.store.sqlite import SqliteStore
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.topics import MachineTopic, Plant
from protocols.values import ValueType

SECTION = "The whole receiver: mosquitto → SQLite (WAL, synchronous=FULL), 1,000 tags"
GROWTH = "Growth at the receiver: CPU per reading must not grow with the gateways"
PLANT = Plant("b", "b", "b")
PLAIN = "paho + json + executemany"
EXECUTEMANY = "bare executemany"
INSERTS = f"bare INSERT, {limits_store.ROWS} rows each"
COPY = "bare COPY (PostgreSQL)"
GROWTH_TOLERANCE = 1.25
START_US = 1_704_067_200_000_000  # 2024-01-01
TIMEOUT_S = 180.0
SUBSCRIBE_S = 30.0
NO_SUBSCRIBERS = 0x10
IN_FLIGHT_MAX = 100


@dataclass(frozen=True, slots=True)
class Load:
    """`messages` of `scans` rows × `tags` columns, after one of each gateway that is stored before."""

    gateways: int
    tags: int
    scans: int
    messages: int

    @property
    def readings(self) -> int:
        """In the messages that are measured."""
        return self.messages * self.tags * self.scans


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run."""

    messages_per_s: float
    readings_per_s: float
    readings_per_cpu_s: float
    rss_mb: float


def rows(options: argparse.Namespace) -> list[Row]:
    """`options`: `quick`, which leaves growth out, and COPY."""
    return [*_main_rows(options.quick), *([] if options.quick else _growth_rows())]


def _main_rows(quick: bool) -> Iterator[Row]:
    for scans, messages in ((60, 8 if quick else 20), (1, 300 if quick else 1200)):
        load = Load(1, 1000, scans, messages)
        ours, plain = _repeated(Holdfast, load, quick), _repeated(Plain, load, quick)
        bare, one_by_one, copied, absent = _limits(load, with_copy=not quick)
        what = f"{scans} scan{'s' if scans > 1 else ''} per batch"
        copies = (None, None) if copied is None else _rates(copied)
        yield Row(SECTION, f"batches/s, {what}", "batches/s", ours.messages_per_s, {PLAIN: plain.messages_per_s})
        yield Row(
            section=SECTION,
            what=f"readings/s, {what}",
            unit="readings/s",
            ours=ours.readings_per_s,
            peers={PLAIN: plain.readings_per_s, EXECUTEMANY: _rates(one_by_one)[0], COPY: copies[0]},
            limit=(INSERTS, _rates(bare)[0]),
            note=absent,
        )
        yield Row(
            section=SECTION,
            what=f"readings per CPU-second, {what}",
            unit="readings/CPU-s",
            ours=ours.readings_per_cpu_s,
            peers={PLAIN: plain.readings_per_cpu_s, EXECUTEMANY: _rates(one_by_one)[1], COPY: copies[1]},
            limit=(INSERTS, _rates(bare)[1]),
            note=absent,
            detail={"rss_mb": {"ours": ours.rss_mb, PLAIN: plain.rss_mb}},
        )


def _growth_rows() -> Iterator[Row]:
    first: float | None = None
    for gateways in (1, 10, 100):
        figures = _repeated(Holdfast, Load(gateways, 100, 10, 1000), quick=False)
        cpu_us = 1e6 / figures.readings_per_cpu_s
        yield Row(
            section=GROWTH,
            what=f"gateways ×{gateways}, 100 tags × 10 scans each",
            unit="CPU µs/reading",
            ours=cpu_us,
            aim=None if first is None else ("<=", first * GROWTH_TOLERANCE),
            better="lower",
            detail={"readings_per_s": figures.readings_per_s, "rss_mb": figures.rss_mb},
        )
        first = first or cpu_us


def _repeated(kind: type[Candidate], load: Load, quick: bool) -> Figures:
    """The run with the median rate; one run where it must be quick."""
    runs = sorted((run(kind, load) for _ in range(1 if quick else 3)), key=lambda figures: figures.readings_per_cpu_s)
    assert runs
    middle = runs[len(runs) // 2]
    return Figures(
        median(one.messages_per_s for one in runs),
        median(one.readings_per_s for one in runs),
        middle.readings_per_cpu_s,
        max(one.rss_mb for one in runs),
    )


# --- the contestants --------------------------------------------------------------------------------------------------


class Candidate(ABC):
    """A receiver as a process, and how a batch is written for it."""

    name: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / f"{self.name}.db"

    @abstractmethod
    def start(self, broker_port: int) -> Process:
        """The process; it subscribes by itself."""

    @abstractmethod
    def messages(self, gateway: str, batches: Iterator[Batch]) -> Iterator[Publication]:
        """What is published for them, in order."""

    def stored(self) -> int:
        """How many readings are committed. Cheap: rows are never deleted, so the last row's id is their number."""
        return int(self._one("SELECT coalesce(max(rowid), 0) FROM readings")[0])

    def check(self, load: Load, batches: Callable[[int], Iterator[Batch]]) -> None:
        """Raises RunFailed unless every reading is there once, and some tags' values are what was sent."""
        rows, distinct = self._one(
            "SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT series_id, time FROM readings)) FROM readings"
        )
        wanted = load.readings + load.gateways * load.tags * load.scans
        if (rows, distinct) != (wanted, wanted):
            raise RunFailed(f"{self.name}: of {wanted} readings {rows} were stored, {distinct} of them distinct")
        tags = sorted({0, load.tags // 2, load.tags - 1})
        for gateway in {0, load.gateways - 1}:
            sent = {
                (column.name, time_us, value)
                for batch in batches(gateway)
                for column in (batch.blocks[0].columns[at] for at in tags)
                for time_us, value in zip(batch.blocks[0].times_us, column.values, strict=True)
            }
            if sent != self.values(gateway, [_tag(at)[0] for at in tags]):
                raise RunFailed(f"{self.name}: other values are stored than gateway {gateway} has sent")

    @abstractmethod
    def values(self, gateway: int, tags: Sequence[str]) -> set[tuple[str, int, float]]:
        """What is stored of these tags of this gateway's machine: (tag, µs since 1970, value)."""

    def _one(self, query: str) -> tuple[int, ...]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            found: tuple[int, ...] = connection.execute(query).fetchone()
            return found

    def _values(self, series: str, tags: Sequence[str], owner: object) -> set[tuple[str, int, float]]:
        marks = ", ".join("?" * len(tags))
        query = f"SELECT tag, time, value FROM readings JOIN ({series}) USING (series_id) WHERE tag IN ({marks})"  # noqa: S608  # our own text
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return set(connection.execute(query, (owner, *tags)))


class Holdfast(Candidate):
    """`holdfast-cloud run`, with its ledger, latest values, confirms and page."""

    name = "holdfast"

    def start(self, broker_port: int) -> Process:
        with closing(SqliteStore(self.database)) as store:
            store.add_tenant(PLANT.tenant)
            store.add_plant(PLANT)
        settings = {
            "broker": {"host": HOST, "port": broker_port, "client_id": "bench-receiver"},
            "store": {"type": "sqlite", "path": str(self.database)},
            "http": {"host": HOST, "port": 0},
        }
        config = self.directory / "cloud.yaml"
        config.write_text(yaml.safe_dump(settings))
        return python(self.name, "cloud.cli", ["run", "--config", str(config)], self.directory / "holdfast.log")

    def messages(self, gateway: str, batches: Iterator[Batch]) -> Iterator[Publication]:
        ours: wire.Wire | None = None
        told = 0
        for batch in batches:
            [block] = batch.blocks
            ours = ours or wire.Wire(
                block.device, [(column.name, column.type, column.unit) for column in block.columns]
            )
            message = ours.encode(batch)
            for said in ours.beside[told:]:
                yield Publication(_machine(gateway).definition(said.device, said.group), said.message, retain=True)
            told = len(ours.beside)
            yield Publication(_machine(gateway).telemetry, message)

    def check(self, load: Load, batches: Callable[[int], Iterator[Batch]]) -> None:
        super().check(load, batches)
        (events,) = self._one("SELECT count(*) FROM telemetry_events")
        if events != load.messages + load.gateways:
            raise RunFailed(f"{self.name}: {events} messages are in the ledger, not {load.messages + load.gateways}")

    def values(self, gateway: int, tags: Sequence[str]) -> set[tuple[str, int, float]]:
        series = (
            "SELECT series.id AS series_id, tag FROM series JOIN machines ON machines.id = machine_id"
            " WHERE machines.name = ?"
        )
        return self._values(series, tags, _machine(_thing(gateway)).machine)


class Plain(Candidate):
    """bench/peers/receiver_paho.py."""

    name = "plain"

    def start(self, broker_port: int) -> Process:
        words = [str(broker_port), str(self.database)]
        return python(self.name, "bench.peers.receiver_paho", words, self.directory / "plain.log")

    def messages(self, gateway: str, batches: Iterator[Batch]) -> Iterator[Publication]:
        return (Publication(_machine(gateway).telemetry, wire.json_rows(batch)) for batch in batches)

    def values(self, gateway: int, tags: Sequence[str]) -> set[tuple[str, int, float]]:
        series = "SELECT id AS series_id, tag FROM series WHERE topic = ?"
        return self._values(series, tags, _machine(_thing(gateway)).telemetry)


# --- one run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publication:
    topic: str
    payload: bytes
    retain: bool = False


def run(kind: type[Candidate], load: Load, watch: Callable[[Process], Callable[[], None]] | None = None) -> Figures:
    """One contestant under one load. Raises RunFailed where anything is lost, doubled or changed.

    `watch`: called with its process when it is let go, and what that gives when all is stored.
    """
    per_gateway = -(-load.messages // load.gateways)
    load = Load(load.gateways, load.tags, load.scans, per_gateway * load.gateways)
    with TemporaryDirectory(prefix="holdfast-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        contestant = kind(directory)
        broker = Broker(directory / "broker")
        stack.enter_context(broker.start())
        receiver = stack.enter_context(contestant.start(broker.port))
        publisher = stack.enter_context(closing(Publisher(broker.port)))
        streams = [contestant.messages(_thing(at), _batches(load, at, per_gateway + 1)) for at in range(load.gateways)]
        for stream in streams:
            for message in stream:
                publisher.publish_heard(message, receiver)
                if message.topic.endswith("/telemetry"):
                    break
        known = load.gateways * load.tags * load.scans
        wait_until(lambda: contestant.stored() == known, "the first messages' commit", TIMEOUT_S, receiver)
        rest = [list(stream) for stream in streams]
        figures = _let_go(contestant, receiver, publisher, rest, load, watch)
        receiver.stop()
        contestant.check(load, lambda gateway: _batches(load, gateway, per_gateway + 1))
        return figures


def _let_go(
    contestant: Candidate,
    receiver: Process,
    publisher: Publisher,
    rest: list[list[Publication]],
    load: Load,
    watch: Callable[[Process], Callable[[], None]] | None,
) -> Figures:
    before = contestant.stored()
    os.kill(receiver.pid, signal.SIGSTOP)
    try:
        publisher.publish(_in_turn(rest))
        begun, begun_s = cost(receiver.pid), time.perf_counter()
    finally:
        os.kill(receiver.pid, signal.SIGCONT)
    ended_watching = watch(receiver) if watch else None
    wanted = before + load.readings
    wait_until(lambda: contestant.stored() >= wanted, "the last message's commit", TIMEOUT_S, receiver, pause_s=0.01)
    wall_s, ended = time.perf_counter() - begun_s, cost(receiver.pid)
    cpu_s = ended.cpu_s - begun.cpu_s
    if ended_watching:
        ended_watching()
    return Figures(load.messages / wall_s, load.readings / wall_s, load.readings / cpu_s, ended.rss_bytes / 1e6)


class Publisher:
    """Messages into the broker, QoS 1."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "bench-publisher", protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(IN_FLIGHT_MAX)
        self._client.on_publish = self._published
        self._sent = 0
        self._codes: list[int] = []
        self._client.connect(HOST, port)
        self._client.loop_start()

    def publish(self, messages: Iterable[Publication]) -> None:
        """Until the broker has all of them."""
        for message in messages:
            self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
            self._sent += 1
        wait_until(lambda: len(self._codes) >= self._sent, "the broker's last PUBACK", TIMEOUT_S, pause_s=0.005)

    def publish_heard(self, message: Publication, receiver: Process) -> None:
        """Again and again, until the receiver is subscribed to it."""

        def heard() -> bool:
            self.publish([message])
            return self._codes[-1] != NO_SUBSCRIBERS

        wait_until(heard, f"a subscription to {message.topic}", SUBSCRIBE_S, receiver, pause_s=0.05)

    def close(self) -> None:
        """Give back socket and thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _published(self, _client: object, _data: object, _mid: int, code: ReasonCode, _properties: object) -> None:
        self._codes.append(code.value)


def _in_turn(streams: Iterable[Iterable[Publication]]) -> Iterator[Publication]:
    for turn in zip_longest(*streams):
        yield from (message for message in turn if message is not None)


# --- what is sent -----------------------------------------------------------------------------------------------------

_POOL = 4096
_CHANCE = random.Random("receiver")
_FLOATS = [float32(20 + 5 * math.sin(at / 50) + _CHANCE.gauss(0, 0.3)) for at in range(_POOL)]
_INTEGERS = [_CHANCE.randrange(-2000, 30_000) for _ in range(_POOL)]


def _thing(gateway: int) -> str:
    return f"bench-{gateway}"


def _machine(thing: str) -> MachineTopic:
    return MachineTopic(PLANT, f"machine-{thing}")


def _tag(at: int) -> tuple[str, ValueType, Sequence[float]]:
    """Name, type and where its values come from: floats and integers in turn."""
    return (f"i{at}", ValueType.INT, _INTEGERS) if at % 2 else (f"f{at}", ValueType.FLOAT32, _FLOATS)


def _batches(load: Load, gateway: int, count: int) -> Iterator[Batch]:
    """One scan a second; the same for the same arguments."""
    for seq in range(1, count + 1):
        first = (seq - 1) * load.scans
        times_us = [START_US + (first + row) * 1_000_000 for row in range(load.scans)]
        columns = []
        for at in range(load.tags):
            name, kind, pool = _tag(at)
            start = (first + 37 * at + 101 * gateway) % (_POOL - load.scans)
            columns.append(Column(name, kind, pool[start : start + load.scans]))
        yield Batch(_thing(gateway), "0f1e2d3c4b5a6978", seq, [Block("plc-1", times_us, columns)])


def _limits(load: Load, *, with_copy: bool) -> tuple[Stored, Stored, Stored | None, str]:
    """Bare INSERT, executemany and COPY, and why the last is missing. Rows in the order that is best: by time."""
    messages = [_readings(batch) for batch in _batches(load, 0, load.messages)]
    with TemporaryDirectory(prefix="holdfast-bench-") as name:
        bare = limits_store.inserts(Path(name) / "bare.db", messages)
        one_by_one = limits_store.executemany(Path(name) / "one.db", messages)
    if not with_copy:
        return bare, one_by_one, None, "COPY is left out of a quick run"
    try:
        return bare, one_by_one, limits_store.copy(messages), ""
    except limits_store.Absent as error:
        return bare, one_by_one, None, str(error)


def _readings(batch: Batch) -> Readings:
    [block] = batch.blocks
    numbers = [[value for value in column.values if isinstance(value, int | float)] for column in block.columns]
    return [
        (series, time_us, values[row], 0)
        for row, time_us in enumerate(block.times_us)
        for series, values in enumerate(numbers, 1)
    ]


def _rates(stored: Stored) -> tuple[float, float]:
    return stored.rows / stored.wall_s, stored.rows / stored.cpu_s

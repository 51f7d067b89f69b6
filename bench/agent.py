"""Holdfast as a contestant: the whole agent with its durable outbox, and our receiver, as processes of their own."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from bench import scenario
from bench.peers import Arrival
from bench.processes import HOST, Process, RunFailed, free_ports, python, wait_until
from bench.scenario import Load
from bench.subscriber import Book, Message, Role, columns, head
from protocols.program.version import program_version

OUTBOX_BYTES = 2 << 30


DEFAULT_CLIENT = "pymodbus"


class Holdfast:
    """The agent with `delivery: confirmed`, by our receiver or by the confirming subscriber.

    `client`: what speaks Modbus, the lean reader or the default.
    """

    role: Role = "confirm"
    acl: tuple[str, ...] = ()
    fastest_s = 0.05  # the shortest period that it takes

    def __init__(self, client: str = "lean") -> None:
        self._client = client
        self.name = f"Holdfast (client: {client})" if client == DEFAULT_CLIENT else "Holdfast"

    def missing(self) -> str:
        return ""

    def versions(self) -> dict[str, str]:
        return {"holdfast": program_version()}

    def start(self, directory: Path, load: Load, ports: list[int], broker_port: int) -> Process:
        """Starting again in the same directory goes on with the same outbox, with `load` as it is then."""
        devices = [_device(at, port, load) | {"client": self._client} for at, port in enumerate(ports)]
        return start_with(directory, devices, broker_port, batch_s=load.batch_s)

    def samples(self, messages: Iterable[Message]) -> int:
        """Values in telemetry messages, each message once. Raises RunFailed where a number is missing in between."""
        seen: dict[str, dict[int, int]] = {}
        book = Book()
        for message in messages:
            book.learn(message)
            if message.is_telemetry:
                found = head(message.payload, book)
                seen.setdefault(message.topic, {})[found.seq] = found.values
        for whose, numbers in seen.items():
            if sorted(numbers) != list(range(1, len(numbers) + 1)):
                raise RunFailed(f"numbers of {whose} are missing")
        return sum(sum(numbers.values()) for numbers in seen.values())

    def has_samples(self, message: Message) -> bool:
        return message.is_telemetry

    def arrivals(self, messages: Iterable[Message]) -> list[Arrival]:
        found, book = [], Book()
        for message in messages:
            book.learn(message)
            if message.is_telemetry:
                stamps, polls = columns(message.payload, book, "stamp_us", "polls")
                found += [Arrival(poll, stamp, message.arrived_us) for poll, stamp in zip(polls, stamps, strict=True)]
        return found

    def disk_bytes(self, directory: Path) -> int:
        """What the outbox takes on disk, without the reserve that it always keeps."""
        files = [path for path in (directory / "data" / "outbox").rglob("*") if path.is_file()]
        return sum(512 * path.stat().st_blocks for path in files if path.name != "ballast")


def start_with(directory: Path, devices: Sequence[dict[str, Any]], broker_port: int, *, batch_s: float) -> Process:
    """The agent with these devices, in a directory of its own."""
    settings = {
        "gateway": {"thing": "bench-gw", "tenant": "b", "province": "b", "plant": "b"},
        "broker": {"host": HOST, "port": broker_port},
        "data_dir": str(directory / "data"),
        "outbox": {"limit_bytes": OUTBOX_BYTES},
        "batch": {"interval_s": float(batch_s)},
        "clock": {"synchronised": "always"},  # a container may say that it is not: marks would count as bytes
        "shutdown_drain_s": 60.0,
        "devices": list(devices),
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "agent.yaml"
    path.write_text(json.dumps(settings, indent=1))  # which is YAML, and has no anchors
    return python("the agent", "agent.cli", ["run", "--config", str(path)], directory / "agent.log")


def status(directory: Path) -> dict[str, Any]:
    """The agent's own status file; empty before it is there."""
    try:
        found: dict[str, Any] = json.loads((directory / "data" / "status.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def readings(directory: Path) -> int:
    """Readings that the agent's drivers have read in this run, as its status file says."""
    devices = status(directory).get("status", {}).get("devices", {})
    return sum(int(device["readings"]) for device in devices.values())


def _device(at: int, port: int, load: Load) -> dict[str, Any]:
    tags = load.chosen() + (scenario.info() if load.info else [])
    return {
        "name": f"plc-{at}",
        "machine": f"machine-{at}",
        "protocol": "modbus",
        "host": HOST,
        "port": port,
        "groups": [_group(at, load, tags) for at in range(load.groups)],
    }


def _group(at: int, load: Load, tags: list[scenario.Tag]) -> dict[str, Any]:
    prefix = "" if load.groups == 1 else f"g{at}-"
    listed = [{"name": prefix + tag.name, "address": f"holding:{tag.address}", "type": tag.type} for tag in tags]
    return {"name": f"group-{at}", "period_s": load.period_s, "tags": listed}


class Receiver:
    """Our receiver with its SQLite store, in `directory`."""

    def __init__(self, directory: Path, broker_port: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.database = directory / "cloud.db"
        settings = {
            "broker": {"host": HOST, "port": broker_port, "client_id": "bench-receiver"},
            "store": {"type": "sqlite", "path": str(self.database)},
            "http": {"host": HOST, "port": free_ports(1)[0]},
        }
        path = directory / "cloud.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        for words in (("tenant", "add", "b"), ("plant", "add", "b", "b", "b")):
            command = [sys.executable, "-m", "cloud.cli", *words, "--config", str(path)]
            subprocess.run(command, check=True, capture_output=True)
        self.process = python("the receiver", "cloud.cli", ["run", "--config", str(path)], directory / "receiver.log")
        wait_until(lambda: self._listens(), "the receiver's start", 30.0, self.process)

    def rows(self) -> tuple[int, int]:
        """(rows, distinct rows) of readings."""
        with closing(self.connect()) as connection:
            (rows,) = connection.execute("SELECT count(*) FROM readings").fetchone()
            (distinct,) = connection.execute(
                "SELECT count(*) FROM (SELECT DISTINCT series_id, time FROM readings)"
            ).fetchone()
        return int(rows), int(distinct)

    def events(self) -> int:
        """Readings of the batches stored so far: cheap, one row per batch."""
        with closing(self.connect()) as connection:
            (count,) = connection.execute("SELECT coalesce(sum(readings), 0) FROM telemetry_events").fetchone()
        return int(count)

    def polls(self) -> list[int]:
        """The poll counters stored, as often as they are stored."""
        with closing(self.connect()) as connection:
            query = "SELECT value FROM readings JOIN series ON series.id = series_id WHERE tag = 'polls'"
            return [int(value) for (value,) in connection.execute(query) if value is not None]

    def connect(self) -> sqlite3.Connection:
        """For reading."""
        return sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, check_same_thread=False)

    def _listens(self) -> bool:
        """It notes since when it has been subscribed."""
        with closing(self.connect()) as connection:
            (since,) = connection.execute("SELECT listening_since_us FROM receiver").fetchone()
        return since is not None


def wait_for_readings(directory: Path, agent: Process, timeout_s: float = 30.0) -> None:
    """Until the agent's status file tells of readings. Raises RunFailed."""
    wait_until(lambda: readings(directory) > 0, "the agent's first reading", timeout_s, agent, pause_s=0.05)


def stop_and_check(
    directory: Path, agent: Process, receiver: Receiver, counts: Callable[[], dict[str, int]], load: Load
) -> dict[str, int]:
    """Stop the agent in an orderly way, and see that all it read is stored once. Gives the plant's final counts.

    Raises RunFailed: the figures of that run do not count.
    """
    agent.stop()
    polled, read = counts(), readings(directory)
    end_s = time.monotonic() + 60.0
    while receiver.events() < read and time.monotonic() < end_s:
        time.sleep(0.1)
    rows = receiver.rows()
    if rows != (read, read):
        raise RunFailed(f"read {read:,}, stored {rows[0]:,}, of them distinct {rows[1]:,}")
    if not (polled["whole"] - load.devices * load.groups) * load.tags <= read <= polled["scans"] * load.tags:
        raise RunFailed(f"the plant answered {polled['whole']:,} whole scans, and the agent counts {read:,} readings")
    return polled

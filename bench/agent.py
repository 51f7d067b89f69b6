"""The whole agent against a plant of 1,000 Modbus tags: real processes, durable outbox, MQTT, a receiver that confirms.

CPU is what the operating system accounts to the agent's process. The run counts only if every reading that the drivers
read is in the receiver's database once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.machine import cost

HOST = "127.0.0.1"
FLOATS = INTEGERS = 500
WARM_UP_S = 4.0
START_S = 30.0


@dataclass(frozen=True, slots=True)
class AgentRow:
    """One scenario's result."""

    scenario: str
    tags: int
    period_s: float
    samples_per_s: float
    samples_per_cpu_s: float
    cpu_percent: float
    rss_mb: float
    read: int
    stored: int


def measure(directory: Path, *, period_s: float, devices: int, seconds: float, broker_port: int) -> AgentRow:
    """Run it all for `seconds` after a warm-up. `broker_port`: of a broker that runs already."""
    ports = _free_ports(devices + 1)
    agent_yaml, cloud_yaml = _configurations(directory, ports[:devices], ports[devices], broker_port, period_s)
    with ExitStack() as stack:
        plant = _start(stack, directory / "plant.log", "bench.plant", *map(str, ports[:devices]))
        assert plant.stdout is not None
        plant.stdout.readline()
        for words in (("tenant", "add", "b"), ("plant", "add", "b", "b", "b")):
            command = [sys.executable, "-m", "cloud.cli", *words, "--config", str(cloud_yaml)]
            subprocess.run(command, check=True, capture_output=True)
        receiver = _start(stack, directory / "receiver.log", "cloud.cli", "run", "--config", str(cloud_yaml))
        agent = _start(stack, directory / "agent.log", "agent.cli", "run", "--config", str(agent_yaml))
        status_path = directory / "agent" / "status.json"
        _wait_for_status(status_path, agent)
        time.sleep(WARM_UP_S)
        before, before_read, begun_s = cost(agent.pid), _read(status_path), time.monotonic()
        time.sleep(seconds)
        after, after_read, ended_s = cost(agent.pid), _read(status_path), time.monotonic()
        _stop(agent)
        _stop(receiver)
        _stop(plant)
    stored = _stored(directory / "cloud.db")
    read = _read(status_path)[0]
    assert stored == (read, read), f"read {read}, stored {stored}: the figures of this run do not count"
    samples = after_read[0] - before_read[0]
    span_s = after_read[1] - before_read[1]
    rate = samples / span_s
    cpu = (after.cpu_s - before.cpu_s) / (ended_s - begun_s)
    tags = (FLOATS + INTEGERS) * devices
    return AgentRow(
        f"{devices} × {FLOATS + INTEGERS} tags every {period_s:g} s",
        tags,
        period_s,
        rate,
        rate / cpu,
        100 * cpu,
        after.rss_bytes / 1e6,
        read,
        stored[0],
    )


def _configurations(
    directory: Path, plant_ports: list[int], page_port: int, broker_port: int, period_s: float
) -> tuple[Path, Path]:
    directory.mkdir(parents=True, exist_ok=True)
    where = {"host": HOST, "port": broker_port}
    agent: dict[str, Any] = {
        "gateway": {"thing": "bench-gw", "tenant": "b", "province": "b", "plant": "b"},
        "broker": where,
        "data_dir": str(directory / "agent"),
        "shutdown_drain_s": 60.0,
        "devices": [_device(at, port, period_s) for at, port in enumerate(plant_ports)],
    }
    cloud = {
        "broker": {**where, "client_id": "bench-receiver"},
        "store": {"type": "sqlite", "path": str(directory / "cloud.db")},
        "http": {"host": HOST, "port": page_port},
    }
    agent_yaml, cloud_yaml = directory / "agent.yaml", directory / "cloud.yaml"
    agent_yaml.write_text(yaml.safe_dump(agent, sort_keys=False))
    cloud_yaml.write_text(yaml.safe_dump(cloud, sort_keys=False))
    return agent_yaml, cloud_yaml


def _device(at: int, port: int, period_s: float) -> dict[str, Any]:
    floats = [{"name": f"f{n}", "address": f"holding:{2 * n}", "type": "float32"} for n in range(FLOATS)]
    integers = [{"name": f"i{n}", "address": f"holding:{2 * FLOATS + n}", "type": "int16"} for n in range(INTEGERS)]
    return {
        "name": f"plc-{at}",
        "machine": f"machine-{at}",
        "protocol": "modbus",
        "host": HOST,
        "port": port,
        "groups": [{"period_s": period_s, "tags": floats + integers}],
    }


def _start(stack: ExitStack, log: Path, module: str, *words: str) -> subprocess.Popen[str]:
    file = stack.enter_context(log.open("w"))
    command, is_plant = [sys.executable, "-m", module, *words], module == "bench.plant"
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE if is_plant else file, stderr=file, text=True, env=os.environ
    )
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(90)
    if process.stdout is not None:
        process.stdout.close()


def _wait_for_status(path: Path, agent: subprocess.Popen[str]) -> None:
    end_s = time.monotonic() + START_S
    while not path.exists() or _read(path)[0] == 0:
        assert agent.poll() is None, "the agent ended by itself"
        assert time.monotonic() < end_s, "the agent reads nothing"
        time.sleep(0.05)


def _read(status_path: Path) -> tuple[int, float]:
    """(readings that the drivers have read, when that was written, seconds since 1970)."""
    content = json.loads(status_path.read_text())
    return sum(device["readings"] for device in content["status"]["devices"].values()), content["written_s"]


def _stored(database: Path) -> tuple[int, int]:
    """(rows, distinct rows) in the receiver's database."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        (rows,) = connection.execute("SELECT count(*) FROM readings").fetchone()
        (distinct,) = connection.execute(
            "SELECT count(*) FROM (SELECT DISTINCT series_id, time FROM readings)"
        ).fetchone()
    finally:
        connection.close()
    return rows, distinct


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind((HOST, 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports

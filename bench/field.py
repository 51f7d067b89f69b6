"""The field side: what OPC UA costs, and what a device's holes, slowness and dead neighbours do to the cycle."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import agent
from bench.broker import Broker
from bench.field_plant import NAMESPACE_URI, REGISTERS, Device, Request
from bench.processes import HOST, Process, RunFailed, free_ports, python, wait_until
from bench.scenario import BLOCK
from bench.subscriber import Subscriber
from bench.table import Row

if TYPE_CHECKING:
    from bench.edge import Edge

OPCUA = "OPC UA, one server (asyncua) whose values all change every second; whole agent with durable outbox and MQTT"
MODBUS = "Modbus devices with troubles: what the device saw"
TAGS = 1000
SLOW = 8
LATENCY_S = 0.005
PERIOD_S = 1.0
MAX_GAP = 16  # the default of a device
CHANCE = 20
HOLES, SPREAD = 40, 800
UNITS, DEAD = (1, 2, 3, 4), 3
LEARN_S = 8.0
HOLES_LATENCY_S, HOLES_PERIOD_S, HOLES_READS = 0.001, 0.4, 70  # it takes about forty reads to learn them

Devices = Sequence[dict[str, Any]]


def rows(edge: Edge) -> Iterator[Row]:
    """All of it in under a minute when quick."""
    seconds = 5.0 if edge.quick else 8.0
    yield from _opcua_rows(edge, seconds)
    yield from _holes_rows(edge)
    yield from _slow_rows(edge, seconds)
    yield from _dead_rows(edge, seconds)


class _Field(ExitStack):
    """Broker, confirming subscriber and the agent with these devices."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self.home = directory / "agent"

    def start(self, devices: Devices) -> Process:
        broker = Broker(self._directory / "broker")
        self.callback(broker.start().stop)
        self.callback(Subscriber("confirm", broker.port, self._directory).process.stop)
        process = agent.start_with(self.home, devices, broker.port, batch_s=1.0)
        self.callback(process.kill)
        agent.wait_for_readings(self.home, process)
        return process


# --- OPC UA -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cost:
    samples_per_cpu_s: float
    cpu_percent: float
    rss_mb: float


def _opcua_rows(edge: Edge, seconds: float) -> Iterator[Row]:
    for mode in ("subscribe", "poll"):
        found, why = edge.run(f"OPC UA, {mode}", lambda at, mode=mode: _opcua(at, mode, TAGS, seconds))  # type: ignore[misc]
        what = f"{TAGS:,} tags every 1 s, {'subscribed' if mode == 'subscribe' else 'polled'}"
        per_cpu_s = found.samples_per_cpu_s if found else None
        yield Row(OPCUA, f"samples per CPU-second, {what}", "samples/CPU-s", per_cpu_s, note=why)
        yield Row(OPCUA, f"CPU, {what}", "% of a core", found.cpu_percent if found else None, better="lower")
        yield Row(OPCUA, f"RSS, {what}", "MB", found.rss_mb if found else None, better="lower")
    if edge.quick:
        return
    many, why = edge.run("OPC UA, 10,000 tags", lambda at: _opcua(at, "subscribe", 10 * TAGS, seconds))
    yield Row(OPCUA, f"RSS, {10 * TAGS:,} tags every 1 s, subscribed", "MB", many.rss_mb if many else None, note=why)


def _opcua(directory: Path, mode: str, tags: int, seconds: float) -> _Cost:
    """Samples as the agent's status file counts them, between two of its writings."""
    [port] = free_ports(1)
    with _Field(directory) as field:
        words, log = ["opcua", str(port), str(tags)], directory / "opcua.log"
        server = python("the OPC UA server", "bench.field_plant", words, log)
        field.callback(server.stop)
        wait_until(lambda: "listens" in server.said(), "the OPC UA server's start", 60.0, server)
        group = {
            "name": "all",
            "period_s": 1.0,
            "mode": mode,
            "tags": [_node(at) for at in range(tags)],
        }
        url = f"opc.tcp://{HOST}:{port}/"
        process = field.start([{"name": "server", "machine": "m", "protocol": "opcua", "url": url, "groups": [group]}])
        time.sleep(LEARN_S / 2)
        begun, begun_s, before = _next_count(field.home, process)
        time.sleep(seconds)
        ended, ended_s, after = _next_count(field.home, process)
        rss_mb = process.cost().rss_bytes / 1e6
    cpu_s, span_s, samples = after - before, ended_s - begun_s, ended - begun
    if samples < 0.5 * tags * span_s:
        raise RunFailed(f"{samples:,} samples came in {span_s:.0f} s, of {tags:,} a second")
    return _Cost(samples / cpu_s, 100 * cpu_s / span_s, rss_mb)


def _node(at: int) -> dict[str, Any]:
    return {"name": f"t{at}", "node": f"nsu={NAMESPACE_URI};s=t{at}", "type": "float64"}


def _next_count(home: Path, process: Process) -> tuple[int, float, float]:
    """(readings, monotonic seconds, CPU seconds) when the status file next tells of more readings."""
    known = agent.readings(home)
    wait_until(lambda: agent.readings(home) > known, "more readings", 20.0, process, pause_s=0.01)
    return agent.readings(home), time.monotonic(), process.cost().cpu_s


# --- Modbus -----------------------------------------------------------------------------------------------------------


def cycles(requests: Sequence[Request], unit: int, period_s: float = PERIOD_S) -> list[list[Request]]:
    """The requests of a unit by reads of its group: they follow each other, and between two reads is a pause."""
    found: list[list[Request]] = []
    for request in (one for one in requests if one.unit == unit):
        if not found or request.came_s - found[-1][-1].came_s > period_s / 3:
            found.append([])
        found[-1].append(request)
    return found


def least_requests(addresses: Sequence[int], holes: set[int], gap: int = MAX_GAP) -> int:
    """The fewest requests that read these registers one by one in order and touch no hole."""
    count, start, before = 0, -1, -1
    for address in sorted(addresses):
        blocked = not holes.isdisjoint(range(before, address))
        if start < 0 or address - start >= BLOCK or address - before - 1 > gap or blocked:
            count, start = count + 1, address
        before = address
    return count


def _device(
    name: str, port: int, tags: Sequence[dict[str, Any]], period_s: float = PERIOD_S, **settings: Any
) -> dict[str, Any]:
    group = {"name": "all", "period_s": period_s, "tags": list(tags)}
    about = {"name": name, "machine": name, "protocol": "modbus", "host": HOST, "port": port, "client": "lean"}
    return {**about, **settings, "groups": [group]}


def _tags(addresses: Sequence[int], **more: Any) -> list[dict[str, Any]]:
    return [{"name": f"r{at}", "address": f"holding:{at}", "type": "uint16", **more} for at in addresses]


def _holes_rows(edge: Edge) -> Iterator[Row]:
    chance = random.Random(CHANCE)
    addresses = sorted(chance.sample(range(REGISTERS), SPREAD))
    holes = set(chance.sample(sorted(set(range(REGISTERS)) - set(addresses)), HOLES))

    def measure(directory: Path) -> tuple[float, float]:
        with _Field(directory) as field:
            device = Device(directory, free_ports(1)[0], holes=sorted(holes), latency_s=HOLES_LATENCY_S)
            field.callback(device.process.stop)
            field.start([_device("plc", device.port, _tags(addresses), HOLES_PERIOD_S)])
            time.sleep(HOLES_READS * HOLES_PERIOD_S)
            last = cycles(device.requests(), 1, HOLES_PERIOD_S)[-9:-1]
        lengths_s = [cycle[-1].came_s - cycle[0].came_s + HOLES_LATENCY_S for cycle in last]
        return statistics.median(map(len, last)), 1000 * statistics.median(lengths_s)

    found, why = edge.run("Modbus, holes", measure)
    least = least_requests(addresses, holes)
    what = f"{SPREAD} of {REGISTERS:,} registers, {HOLES} others refused"
    yield Row(
        MODBUS, f"requests per cycle, {what}", "requests", found[0] if found else None,
        limit=("the fewest possible", least), aim=("<=", least), note=why, better="lower",
    )  # fmt: skip
    yield Row(
        MODBUS, f"cycle, {what}, answers after {1000 * HOLES_LATENCY_S:g} ms", "ms", found[1] if found else None,
        limit=("the fewest requests one by one", 1000 * HOLES_LATENCY_S * least), better="lower",
    )  # fmt: skip


def _slow_rows(edge: Edge, seconds: float) -> Iterator[Row]:
    def measure(directory: Path) -> tuple[float, float]:
        with _Field(directory) as field:
            devices = [Device(directory, port, latency_s=LATENCY_S) for port in free_ports(SLOW)]
            for device in devices:
                field.callback(device.process.stop)
            tags = _tags(range(0, REGISTERS, 2))
            field.start([_device(f"plc-{at}", device.port, tags) for at, device in enumerate(devices)])
            time.sleep(seconds)
            each = [cycles(device.requests(), 1)[1:-1] for device in devices]
        lengths_s = [statistics.median(c[-1].came_s - c[0].came_s + LATENCY_S for c in found) for found in each]
        return 1000 * max(lengths_s), 1000 * statistics.median(_periods(each[0]))

    found, why = edge.run(f"Modbus, {SLOW} slow devices", measure)
    alone_ms = 1000 * LATENCY_S * REGISTERS / BLOCK
    what = f"{SLOW} devices at once, 12 requests each, answers after {1000 * LATENCY_S:g} ms"
    yield Row(
        MODBUS, f"the slowest's cycle, {what}", "ms", found[0] if found else None,
        limit=("one alone, without any cost", alone_ms), note=why, better="lower",
    )  # fmt: skip
    yield Row(
        MODBUS, f"period kept, {what}", "ms", found[1] if found else None,
        limit=("as configured", 1000 * PERIOD_S), aim=("<=", 1010 * PERIOD_S), better="lower",
    )  # fmt: skip


def _dead_rows(edge: Edge, seconds: float) -> Iterator[Row]:
    def measure(directory: Path) -> float:
        with _Field(directory) as field:
            device = Device(directory, free_ports(1)[0], latency_s=LATENCY_S, dead=[DEAD])
            field.callback(device.process.stop)
            units = [
                _device(f"unit-{unit}", device.port, _tags(range(100)), unit_id=unit, timeout_s=1.0) for unit in UNITS
            ]
            field.start(units)
            time.sleep(LEARN_S + seconds)
            since_s = time.monotonic() - seconds
            requests = [one for one in device.requests() if one.came_s > since_s]
        return 1000 * max(statistics.mean(_periods(cycles(requests, unit))) for unit in UNITS if unit != DEAD)

    found, why = edge.run("Modbus, a dead unit", measure)
    what = f"a living unit's mean period, {len(UNITS)} units behind one gateway and one of them dead"
    yield Row(
        MODBUS, what, "ms", found, limit=("as configured", 1000 * PERIOD_S), aim=("<=", 1010 * PERIOD_S), note=why,
        better="lower",
    )  # fmt: skip


def _periods(found: Sequence[Sequence[Request]]) -> list[float]:
    starts = [cycle[0].came_s for cycle in found]
    if len(starts) < 3:
        raise RunFailed(f"the device saw {len(starts)} reads only")
    return [after - before for before, after in pairwise(starts)]

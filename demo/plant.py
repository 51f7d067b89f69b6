"""The simulated plant of `make demo`: two Modbus TCP PLCs and one OPC UA server on real sockets of 127.0.0.1.

    python -m demo.plant --modbus-1 PORT --modbus-2 PORT --opcua PORT [--recording FILE]

Runs in the foreground until SIGTERM or SIGINT and then exits 0. Port 0 stands for any free port. When all three
listen, one line of JSON on standard output says so, with the real ports:

    {"ready": true, "modbus_1": 40211, "modbus_2": 40212, "opcua": 40213}

Exit codes: 64 wrong usage or a recording that cannot be used, 69 a port that cannot be had. The reason is one
sentence on standard error.

`DEVICES` describes the three as plain data, from which a configuration of the agent can be written.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, TypedDict

from demo.plant_modbus import HOST, PRESS, PRESS_UNIT_ID, SOLAR, SOLAR_UNIT_ID, ModbusPlc, Point
from demo.plant_opcua import OVEN, Oven
from demo.signals import TICK_S, Moment, Recording, RecordingError, load_recording

EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
EXCERPT = Path(__file__).parent / "data" / "solar-plant-excerpt.csv.gz"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the plant listens. The defaults are those of `DEVICES`."""

    modbus_1: int = 15020
    modbus_2: int = 15021
    opcua: int = 14840


class PollGroup(TypedDict):
    """Tags that are read together; `options` are further keys of the group, for this protocol alone."""

    name: str
    period_s: float
    options: dict[str, Any]
    tags: list[dict[str, Any]]


class Device(TypedDict):
    """One device of the plant as the agent's configuration has it; `settings` are the protocol's own keys."""

    name: str
    machine: str
    protocol: str
    settings: dict[str, Any]
    groups: list[PollGroup]


def devices(ports: Ports) -> list[Device]:
    """The plant's devices when it listens on `ports`."""
    subscription = PollGroup(
        name="subscription",
        period_s=1.0,
        options={"mode": "subscribe", "sampling_ms": 200},
        tags=[node.tag() for node in OVEN],
    )
    return [
        _plc("solar-plc", "solar-1", ports.modbus_1, SOLAR_UNIT_ID, SOLAR),
        _plc("press-plc", "press-1", ports.modbus_2, PRESS_UNIT_ID, PRESS),
        Device(
            name="oven-controller",
            machine="oven-1",
            protocol="opcua",
            settings={"url": f"opc.tcp://{HOST}:{ports.opcua}/"},
            groups=[subscription],
        ),
    ]


def _plc(name: str, machine: str, port: int, unit_id: int, points: Sequence[Point]) -> Device:
    fast = [point.tag() for point in points if point.fast]
    process = [point.tag() for point in points if not point.fast]
    groups = [PollGroup(name="process", period_s=1.0, options={}, tags=process)]
    if fast:
        groups.insert(0, PollGroup(name="fast", period_s=0.2, options={}, tags=fast))
    settings = {"host": HOST, "port": port, "unit_id": unit_id}
    return Device(name=name, machine=machine, protocol="modbus", settings=settings, groups=groups)


DEVICES: list[Device] = devices(Ports())


class PlantClock:
    """Turns the time since it was made into moments."""

    def __init__(self, recording: Recording) -> None:
        self._started_s = time.monotonic()
        self.at = recording.at

    def now(self) -> Moment:
        """The current moment."""
        return self.at(int((time.monotonic() - self._started_s) / TICK_S))


async def run(wanted: Ports, recording: Recording) -> None:
    """Run the plant until SIGTERM or SIGINT. Raises OSError when a port cannot be had."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    clock = PlantClock(recording)
    async with AsyncExitStack() as stack:
        solar = ModbusPlc(SOLAR_UNIT_ID, SOLAR, clock.now)
        stack.push_async_callback(solar.stop)
        modbus_1 = await solar.start(wanted.modbus_1)
        press = ModbusPlc(PRESS_UNIT_ID, PRESS, clock.now)
        stack.push_async_callback(press.stop)
        modbus_2 = await press.start(wanted.modbus_2)
        # It takes most of a second; in a thread, the PLCs answer meanwhile.
        await asyncio.to_thread(importlib.import_module, "asyncua")
        oven = Oven(clock.now, clock.at)
        stack.push_async_callback(oven.stop)
        ports = Ports(modbus_1, modbus_2, await oven.start(wanted.opcua))
        print(json.dumps({"ready": True} | asdict(ports)), flush=True)
        async with asyncio.TaskGroup() as tasks:  # should the updates fail, so does the plant
            updates = tasks.create_task(oven.run(), name="oven updates")
            await stopped.wait()
            updates.cancel()


def unavailable(ports: Ports) -> str | None:
    """Why the plant cannot listen on `ports`, as a sentence; None when it can."""
    for name, port in asdict(ports).items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as problem:
                option = "--" + name.replace("_", "-")
                return f"port {port} of {HOST} cannot be used ({problem.strerror}); give {option} another one, or 0."
    return None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _give_up(EXIT_USAGE, f"{message}; see --help.")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError
    return port


def _give_up(code: int, sentence: str) -> NoReturn:
    print(f"demo plant: {sentence}", file=sys.stderr)
    raise SystemExit(code)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line described above."""
    _port.__name__ = "port"  # argparse names the type in its complaint
    parser = _Parser(
        prog="python -m demo.plant", description="Simulated plant: two Modbus TCP PLCs and an OPC UA server."
    )
    for name, port in asdict(Ports()).items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=_port, default=port, metavar="PORT", help=f"default {port}; 0: any free port")
    parser.add_argument(
        "--recording", type=Path, default=EXCERPT, metavar="FILE", help="CSV (.csv or .csv.gz) to replay"
    )
    options = vars(parser.parse_args(arguments))
    try:
        recording = load_recording(options.pop("recording"))
    except RecordingError as problem:
        _give_up(EXIT_USAGE, str(problem))
    wanted = Ports(**options)
    if sentence := unavailable(wanted):
        _give_up(EXIT_UNAVAILABLE, sentence)
    # Both libraries log tracebacks for what is the client's fault: a request to a unit that is not there, a cut line.
    for library in ("pymodbus", "asyncua"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        asyncio.run(run(wanted, recording))
    except OSError as problem:  # somebody took the port between the check and now
        _give_up(EXIT_UNAVAILABLE, f"{problem.strerror or problem}; give other ports, or 0.")


if __name__ == "__main__":
    main()

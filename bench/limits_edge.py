"""The machine's own limit for the edge: clients that read the same twelve blocks and throw them away.

    python -m bench.limits_edge bare|libmodbus PORT PERIOD_S SECONDS

`bare` is asyncio streams and nothing else, what a Python program at the least must do. `libmodbus` is the C library
through ctypes. With a period of 0 they read as fast as they can. Prints {"samples", "cpu_s", "elapsed_s"}.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import scenario
from bench.plant import Plant
from bench.processes import HOST, ROOT, RunFailed

BLOCKS = [(start, scenario.BLOCK) for start in range(scenario.MIXED_AT, scenario.REGISTERS, scenario.BLOCK)]


@dataclass(frozen=True, slots=True)
class Limit:
    """What the client did, by its own process' CPU clock."""

    samples_per_s: float
    samples_per_cpu_s: float
    cpu_percent: float


def measure(directory: Path, client: str, period_s: float, seconds: float) -> Limit:
    """Raises RunFailed with the reason where the client cannot run here."""
    if client == "libmodbus" and ctypes.util.find_library("modbus") is None:
        raise RunFailed("libmodbus is not installed here (Debian: libmodbus5)")
    directory.mkdir(parents=True, exist_ok=True)
    plant = Plant(1, directory / "plant.log")
    try:
        words = [client, str(plant.ports[0]), str(period_s), str(seconds)]
        command = [sys.executable, "-m", "bench.limits_edge", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    finally:
        plant.process.stop()
    if done.returncode != 0:
        raise RunFailed(f"the {client} client failed: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout)
    cpu_s, elapsed_s = found["cpu_s"], found["elapsed_s"]
    return Limit(found["samples"] / elapsed_s, found["samples"] / cpu_s, 100 * cpu_s / elapsed_s)


async def _bare(port: int, period_s: float, seconds: float) -> int:
    reader, writer = await asyncio.open_connection(HOST, port)
    requests = [struct.pack(">HHHBBHH", at, 0, 6, 1, 3, *block) for at, block in enumerate(BLOCKS)]
    scans, begun_s = 0, time.monotonic()
    while (now_s := time.monotonic()) < begun_s + seconds:
        await asyncio.sleep(max(0.0, begun_s + scans * period_s - now_s) if period_s else 0)
        for request, (_, count) in zip(requests, BLOCKS, strict=True):
            writer.write(request)
            head = await reader.readexactly(9)
            if head[7] != 3:
                raise RunFailed(f"the plant refused a request with exception {head[8]}")
            await reader.readexactly(2 * count)
        scans += 1
    writer.close()
    await writer.wait_closed()
    return scans


def _libmodbus(port: int, period_s: float, seconds: float) -> int:
    library = ctypes.CDLL(ctypes.util.find_library("modbus"))
    library.modbus_new_tcp.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.modbus_new_tcp(HOST.encode(), port))
    if library.modbus_connect(context) != 0:
        raise RunFailed("libmodbus cannot connect")
    into = (ctypes.c_uint16 * scenario.BLOCK)()
    scans, begun_s = 0, time.monotonic()
    while (now_s := time.monotonic()) < begun_s + seconds:
        if period_s:
            time.sleep(max(0.0, begun_s + scans * period_s - now_s))
        for start, count in BLOCKS:
            if library.modbus_read_registers(context, start, count, into) != count:
                raise RunFailed("libmodbus read fewer registers")
        scans += 1
    library.modbus_close(context)
    library.modbus_free(context)
    return scans


def _main(client: str, port: int, period_s: float, seconds: float) -> None:
    read: Callable[[], int] = lambda: _libmodbus(port, period_s, seconds)  # noqa: E731  # one of two, by name
    if client == "bare":
        read = lambda: asyncio.run(_bare(port, period_s, seconds))  # noqa: E731  # the other
    begun_s, cpu_s = time.monotonic(), time.process_time()
    scans = read()
    cpu_s, elapsed_s = time.process_time() - cpu_s, time.monotonic() - begun_s
    print(json.dumps({"samples": scans * scenario.TAGS, "cpu_s": cpu_s, "elapsed_s": elapsed_s}))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))

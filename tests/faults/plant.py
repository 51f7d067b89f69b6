"""The plant as a process of its own: counting devices, and the log that the oracle believes.

    python -m tests.faults.plant FOLDER NAME:BASE [NAME:BASE …]

Each source is a Modbus device (tests/support/programs.py, CountingDevice) whose registers hold the number of the read,
counted from BASE + 1, so that no two sources ever give the same number. FOLDER/NAME.log has one line for each answer,
written when the answer goes out: `NUMBER MONOTONIC_US`. FOLDER/ports.json says where the sources listen, once all do.
This process is never killed, stalled or given a false clock by any row.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import SupportsIndex

from tests.support.programs import CountingDevice


class Log(list[int]):
    """What a device notes its answers in: on disk at once, with the time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, number: int, /) -> None:
        os.write(self._file, b"%d %d\n" % (number, time.monotonic_ns() // 1000))

    def extend(self, numbers: Iterable[int], /) -> None:
        raise NotImplementedError("one answer after another")

    def insert(self, at: SupportsIndex, number: int, /) -> None:
        raise NotImplementedError("answers are never put in later")


async def serve(folder: Path, sources: Iterable[str]) -> None:
    """Until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    ports: dict[str, int] = {}
    devices = []
    for source in sources:
        name, _, base = source.partition(":")
        device = CountingDevice(served=Log(folder / f"{name}.log"), requests=int(base))
        await device.start()
        devices.append(device)
        ports[name] = device.port
    _publish(folder, ports)
    await stopping.wait()
    for device in devices:
        await device.stop()


def _publish(folder: Path, ports: dict[str, int]) -> None:
    unfinished = folder / "ports.new"
    unfinished.write_text(json.dumps(ports))
    unfinished.rename(folder / "ports.json")


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2:]))

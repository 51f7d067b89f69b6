"""Whether programs keep to the memory that they have, as the kernel counts it."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.faults.services import Service

MIB = 2**20
SAMPLE_S = 0.5
GROWTH_SHARE_MAX, GROWTH_MAX = 0.05, 3 * MIB
"""What the last quarter may have more than the second: whichever is more. Room for what the allocator keeps; a leak of
100 bytes per batch would show."""


CACHE_MAX = 32 * MIB
"""Of a database that grows, SQLite keeps up to so much in memory (cloud/store/sqlite_connection.py)."""


class MemoryWatch:
    """Resident bytes of running programs, every SAMPLE_S, until cancelled, without the pages of their databases that
    SQLite keeps. By the program's name, as `databases`."""

    def __init__(self, services: Iterable[Service], databases: Mapping[str, Path]) -> None:
        self._services = list(services)
        self._databases = databases
        self.samples: dict[str, list[int]] = {service.name: [] for service in self._services}

    async def run(self) -> None:
        while True:
            for service in self._services:
                self.samples[service.name].append(resident(service.pid) - self._cached(service.name))
            await asyncio.sleep(SAMPLE_S)

    def _cached(self, name: str) -> int:
        database = self._databases.get(name)
        return 0 if database is None else min(database.stat().st_size, CACHE_MAX)


def resident(pid: int) -> int:
    """Bytes of the process that are in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory: it has ended")


def told(name: str, samples: Sequence[int]) -> str:
    """For people: how much in the second and in the last quarter, and at most."""
    before, after = _quarters(samples)
    return f"{name}: {before / MIB:.1f} MiB, in the end {after / MIB:.1f} MiB, at most {max(samples) / MIB:.1f} MiB"


def grows(samples: Sequence[int]) -> bool:
    """Whether it has more in the last quarter than in the second. The first is for warming up."""
    before, after = _quarters(samples)
    return after - before > max(GROWTH_MAX, GROWTH_SHARE_MAX * before)


def _quarters(samples: Sequence[int]) -> tuple[float, float]:
    quarter = len(samples) // 4
    assert quarter, "too few samples to say anything"
    return statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])

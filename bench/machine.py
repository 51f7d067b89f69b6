"""What processes cost, from the operating system's own accounting, and what machine this is."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: the process' time on a CPU, as the scheduler counts it
PACKAGES = ("holdfast", "pymodbus", "asyncua", "diskcache", "paho-mqtt", "backports.zstd", "msgpack", "numpy", "uvloop")


@dataclass(frozen=True, slots=True)
class Cost:
    """`cpu_s`: user and system time ever used. `rss_bytes`: resident memory now."""

    cpu_s: float
    rss_bytes: int


def cost(pid: int) -> Cost:
    """Of one process with all its threads, ended ones too.

    The CPU time is clock_getcpuclockid(3)'s clock, which counts in nanoseconds what utime + stime of /proc/PID/stat
    count in ticks of 10 ms; the memory is VmRSS of /proc/PID/status.
    """
    cpu_s = time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Cost(cpu_s, int(status["VmRSS"].split()[0]) * 1024)


def tree_cost(pid: int) -> Cost:
    """Of a process and all its living descendants."""
    costs = [cost(each) for each in _tree(pid)]
    return Cost(sum(each.cpu_s for each in costs), sum(each.rss_bytes for each in costs))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found.extend(_tree(int(child)))
    return found


def describe() -> dict[str, str]:
    """Machine and versions, for the output."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory_kib = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    found = {
        "cpu": f"{os.cpu_count()} × {model}",
        "memory": f"{memory_kib / 2**20:.1f} GiB",
        "kernel": platform.release(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found

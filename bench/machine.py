"""What processes cost, from the operating system's own accounting, and what machine this is."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """`cpu_s`: user and system time ever used. `rss_bytes`: resident memory now."""

    cpu_s: float
    rss_bytes: int


def cost(pid: int) -> Cost:
    """Of one process with all its threads (proc(5): utime and stime of /proc/PID/stat, VmRSS of /proc/PID/status)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Cost((int(fields[11]) + int(fields[12])) / _TICKS_PER_S, int(status["VmRSS"].split()[0]) * 1024)


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
    found = {"cpu": f"{os.cpu_count()} × {model}", "python": platform.python_version(), "kernel": platform.release()}
    for package in ("holdfast", "pymodbus", "asyncua", "paho-mqtt", "zstandard", "msgpack"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found

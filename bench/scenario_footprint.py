"""What the agent takes where it is installed: memory, disk, and the time until the first sample."""

from __future__ import annotations

import hashlib
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.peers import ENVIRONMENTS, Contestant
from bench.peers.thingsboard import disk_bytes
from bench.processes import ROOT, carry_out, wait_until
from bench.run import Run
from bench.scenario import Load

LOCK = ROOT / "locks" / "gateway.txt"
LOCK_OPCUA = ROOT / "locks" / "gateway-opcua.txt"
START_LOAD = Load(batch_s=0.0)


def rss_mb(directory: Path, contestant: Contestant, load: Load, seconds: float) -> float:
    """After `seconds` of reading."""
    with Run(directory, contestant, load) as run:
        process = run.start()
        run.wait_for_first_message()
        time.sleep(seconds)
        found = process.cost().rss_bytes / 1e6
        run.process_stops_at_once()
    return found


def start_s(directory: Path, contestant: Contestant, repeats: int) -> float:
    """Median of the time from the start of the process to the first telemetry at the subscriber."""
    found = []
    for repeat in range(repeats):
        with Run(directory / str(repeat), contestant, START_LOAD) as run:
            process = run.start()
            wait_until(lambda run=run: run.first_arrival_us() is not None, "telemetry", 60.0, process)  # type: ignore[misc]
            arrived_us = run.first_arrival_us()
            assert arrived_us is not None
            run.process_stops_at_once()
            found.append((arrived_us - process.started_us) / 1e6)
    return statistics.median(found)


def install_size(lock: Path = LOCK) -> tuple[int, int]:
    """(bytes, distributions) of a virtual environment with what the lock lists and Holdfast itself; kept per lock."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    home = ENVIRONMENTS / f"gateway-{digest}"
    if not (home / "installed").exists():
        shutil.rmtree(home, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        install = [*pip, "--python", str(home / "bin" / "python"), "install"]
        with tempfile.TemporaryDirectory() as wheels:
            wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, str(ROOT)]
            make = [sys.executable, "-m", "venv", "--without-pip", str(home)]
            locked = [*install, "--require-hashes", "-r", str(lock)]
            carry_out("the gateway's installation", make, locked, wheel)
            carry_out("the gateway's installation", [*install, "--no-deps", *map(str, Path(wheels).glob("*.whl"))])
        (home / "installed").touch()
    return disk_bytes(home), sum(1 for _ in home.rglob("*.dist-info"))

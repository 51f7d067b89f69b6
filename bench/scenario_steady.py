"""Samples per CPU-second, memory and requests at a steady load, and the most that is sustained with nothing lost."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Contestant
from bench.processes import RunFailed
from bench.progress import progress
from bench.run import Run
from bench.scenario import TAGS, Load

WARM_UP_S = 3.0
SETTLED_S = 12.0
"""By then the receiver has spoken for the first time, and what the agent sends has settled."""
GRACE_S = 10.0
KEEPS_UP = 0.9  # of the polls asked for


@dataclass(frozen=True, slots=True)
class Steady:
    """Medians over the windows of one run. `requests_per_scan`: over the whole run, as the plant counted."""

    samples_per_s: float
    samples_per_cpu_s: float
    cpu_percent: float
    rss_mb: float
    requests_per_scan: float


def steady(
    directory: Path,
    contestant: Contestant,
    load: Load,
    *,
    seconds: float,
    windows: int = 3,
    receiver: bool = False,
    warm_up_s: float = WARM_UP_S,
) -> Steady:
    """`windows` windows that make `seconds` in all. Raises RunFailed where anything was lost or doubled."""
    with Run(directory, contestant, load, receiver=receiver) as run:
        process = run.start()
        run.wait_for_first_message()
        time.sleep(warm_up_s)
        found = []
        for _ in range(windows):
            scans, begun_s = run.next_scan()
            before = process.cost()
            time.sleep(max(0.0, seconds / windows - load.period_s))
            ended_scans, ended_s = run.next_scan()
            after = process.cost()
            samples, span_s, cpu_s = (ended_scans - scans) * load.tags, ended_s - begun_s, after.cpu_s - before.cpu_s
            found.append((samples / span_s, samples / cpu_s, 100 * cpu_s / span_s, after.rss_bytes / 1e6))
        requests = run.check_all_stored() if receiver else run.check_all_received(GRACE_S)
    rate, per_cpu_s, percent, rss_mb = (statistics.median(column) for column in zip(*found, strict=True))
    return Steady(rate, per_cpu_s, percent, rss_mb, requests)


@dataclass(frozen=True, slots=True)
class Sustained:
    """The run with the highest rate at which nothing was lost; `limits`: what the loads above it came to."""

    load: Load
    steady: Steady
    limits: tuple[str, ...]


def sustained(
    directory: Path, contestant: Contestant, first: float, *, seconds: float, trials: int, receiver: bool = False
) -> Sustained:
    """From `first` samples/s double while it keeps up, else halve; then half way between; `trials` in all.

    What counts is the rate that was measured, and only where nothing was lost. Raises RunFailed where nothing passes.
    """
    best: tuple[Load, Steady] | None = None
    rate, kept_up, too_much = first, 0.0, math.inf
    limits: list[str] = []
    for trial in range(trials):
        load = _load(rate, contestant.fastest_s)
        try:
            found = steady(directory / f"{trial}", contestant, load, seconds=seconds, windows=1, receiver=receiver)
            said = f"{found.samples_per_s:,.0f} of {load.rate:,.0f} samples/s, nothing lost"
            keeps_up = found.samples_per_s >= KEEPS_UP * load.rate
            if best is None or found.samples_per_s > best[1].samples_per_s:
                best = (load, found)
        except RunFailed as error:
            said, keeps_up = f"at {load.rate:,.0f} samples/s: {error}", False
        progress(f"{contestant.name}: {said}")
        if keeps_up:
            kept_up = max(kept_up, rate)
        else:
            limits.append(said)
            too_much = min(too_much, rate)
        rate = _next(kept_up, too_much)
    if best is None:
        raise RunFailed(f"nothing down to {rate:,.0f} samples/s passed; {limits[-1]}")
    return Sustained(*best, tuple(limits))


def _next(kept_up: float, too_much: float) -> float:
    """Up while it keeps up, down while it does not, and then half way between, by ratio."""
    if not kept_up:
        return too_much / 2
    return 2 * kept_up if math.isinf(too_much) else math.sqrt(kept_up * too_much)


def _load(rate: float, fastest_s: float) -> Load:
    """As few devices as the shortest period allows that suits the contestant."""
    devices = max(1, math.ceil(rate * fastest_s / TAGS))
    return Load(devices=devices, period_s=round(devices * TAGS / rate, 3))

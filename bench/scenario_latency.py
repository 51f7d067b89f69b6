"""From the moment the plant writes an answer to the subscriber, and to a row that another connection sees."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.agent import Receiver
from bench.peers import Arrival, Contestant
from bench.processes import RunFailed
from bench.run import Run
from bench.scenario import Load

LOAD = Load(devices=1, period_s=0.2, info=True, batch_s=0.0)
WARM_UP_S = 3.0
LOOK_S = 0.0005
_NEWEST = "SELECT value FROM readings WHERE series_id = ? AND time > ? ORDER BY time"


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds. `p50_ms`, `p95_ms`: read → subscriber; `row_p95_ms`: read → committed row, ours only."""

    count: int
    p50_ms: float
    p95_ms: float
    row_p95_ms: float | None = None


def latency(directory: Path, contestant: Contestant, *, seconds: float, receiver: bool = False) -> Latency:
    """Raises RunFailed where a poll is missing in between."""
    with Run(directory, contestant, LOAD, receiver=receiver) as run:
        run.start()
        run.wait_for_first_message()
        time.sleep(WARM_UP_S)
        since_us = time.time_ns() // 1000
        watch = _Watch(run.receiver) if receiver else None
        time.sleep(seconds)
        rows = watch.stop() if watch else []
        if receiver:
            run.check_all_stored()
        arrivals = run.contestant.arrivals(run.subscriber.messages())
    check_whole([arrival.poll for arrival in arrivals])
    delays = delays_ms(arrivals, since_us)
    row_p95 = percentile([delay / 1000 for delay in rows], 95) if rows else None
    return Latency(len(delays), statistics.median(delays), percentile(delays, 95), row_p95)


def check_whole(polls: list[int]) -> None:
    """Raises RunFailed where one is missing between the first and the last, or came twice."""
    if not polls or sorted(polls) != list(range(min(polls), max(polls) + 1)):
        raise RunFailed(f"of polls {min(polls, default=0)} to {max(polls, default=0)} {len(polls)} arrived")


def delays_ms(arrivals: list[Arrival], since_us: int) -> list[float]:
    """Of polls from `since_us` on. Raises RunFailed where there are none."""
    found = [(each.arrived_us - each.stamp_us) / 1000 for each in arrivals if each.stamp_us >= since_us]
    if not found:
        raise RunFailed("nothing arrived")
    return found


def percentile(values: list[float], percent: int) -> float:
    """The least value that `percent` of all do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, -(-percent * len(ranked) // 100) - 1)]


class _Watch:
    """Looks twice a millisecond, from a connection of its own, which rows have come; notes how old each is then."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._stopping = threading.Event()
        self._delays_us: list[int] = []
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()

    def stop(self) -> list[int]:
        """The delays, in µs."""
        self._stopping.set()
        self._thread.join()
        return self._delays_us

    def _run(self) -> None:
        with closing(self._receiver.connect()) as connection:
            (series,) = connection.execute("SELECT id FROM series WHERE tag = 'stamp_us'").fetchone()
            version, seen_us = None, time.time_ns() // 1000
            while not self._stopping.wait(LOOK_S):
                (now,) = connection.execute("PRAGMA data_version").fetchone()
                if now == version:
                    continue
                version = now
                stamps = [int(stamp) for (stamp,) in connection.execute(_NEWEST, (series, seen_us - 1_000_000))]
                now_us = time.time_ns() // 1000
                self._delays_us += [now_us - stamp for stamp in stamps if stamp > seen_us]
                seen_us = max([seen_us, *stamps])

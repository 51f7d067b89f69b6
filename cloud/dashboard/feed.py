"""Snapshots for the page: one at a time, at most one a second, shared by all clients, and none while nobody looks.

A client is told the whole snapshot first, then what has changed since the last one that it took. A slow client skips
snapshots: nothing is queued for anybody. Reading takes at most a tenth of the store's time (values: a quarter),
however large the plant.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cloud.dashboard import backlog
from cloud.dashboard.snapshot import Rows, State, build, change, gather
from cloud.receiver import ReceiverState
from cloud.store.contract import LatestValue, StoreError
from cloud.worker import StoreWorker
from protocols.program.logs import get_logger
from protocols.uplink.topics import MachineTopic

CLIENTS_MAX = 100
PERIOD_S = 1.0
ROWS_S_MAX = 5.0
"""Rows are read again after this long even if nothing was stored: an operator may have approved something."""

RATE_S = 10.0

_log = get_logger(part="page")


class TooManyClients(Exception):
    """CLIENTS_MAX are being served."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one moment; the numbers rise."""

    number: int
    state: State


class Feed:
    """`fresh` for one look; `client` and `newer` to follow; `run` in the background."""

    def __init__(self, store: StoreWorker, receiver: ReceiverState) -> None:
        self._store = store
        self._receiver = receiver
        self._rows = Rows(0, 0, (), (), 0)
        self._rows_s = -ROWS_S_MAX
        self._backlogs: backlog.Seen = {}
        self._is_changed = True
        self._trouble = ""
        self._snapshot: Snapshot | None = None
        self._snapshot_s = -PERIOD_S
        self._took_s = 0.0
        self._taking = asyncio.Lock()
        self._news = asyncio.Event()
        self._closed = False
        self._clients = 0
        self._wanted = asyncio.Event()
        self._rates: deque[tuple[float, int]] = deque()
        self._told: tuple[int, dict[int, str]] = (0, {})
        self._latest: dict[MachineTopic, tuple[float, Sequence[LatestValue]]] = {}
        self._reading = asyncio.Lock()
        self._rest_until_s = 0.0

    @property
    def clients(self) -> int:
        """How many follow."""
        return self._clients

    def changed(self) -> None:
        """Something was stored."""
        self._is_changed = True

    async def run(self) -> None:
        """A snapshot every PERIOD_S while there are clients; until cancelled."""
        while True:
            await self._wanted.wait()
            await self.fresh()
            await asyncio.sleep(max(PERIOD_S, 9 * self._took_s))

    async def fresh(self) -> Snapshot:
        """A snapshot that is less than PERIOD_S old."""
        async with self._taking:
            if self._snapshot is None or time.monotonic() - self._snapshot_s >= PERIOD_S:
                await self._take()
            return self._snapshot or await self._take()

    @contextmanager
    def client(self) -> Iterator[None]:
        """Follow for as long as this lasts. Raises TooManyClients."""
        if self._clients >= CLIENTS_MAX:
            raise TooManyClients
        self._clients += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._clients -= 1
            if not self._clients:
                self._wanted.clear()

    async def newer(self, seen: Snapshot | None) -> Snapshot | None:
        """The next snapshot after `seen`, or the present one; None once the feed is closed."""
        if seen is None and not self._closed:
            return await self.fresh()
        while self._snapshot is seen and not self._closed:
            await self._news.wait()
        return None if self._closed else self._snapshot

    def told(self, seen: Snapshot | None, snapshot: Snapshot) -> str:
        """JSON of the whole of it, or of what has changed since `seen`; made once for all clients."""
        number, texts = self._told
        if number != snapshot.number:
            texts = {}
            self._told = (snapshot.number, texts)
        before = 0 if seen is None else seen.number
        if before not in texts:
            texts[before] = json.dumps(snapshot.state if seen is None else change(seen.state, snapshot.state))
        return texts[before]

    async def latest(self, machine: MachineTopic) -> Sequence[LatestValue]:
        """The machine's latest values, less than PERIOD_S old. Raises StoreError."""
        async with self._reading:
            now_s = time.monotonic()
            self._latest = {at: found for at, found in self._latest.items() if now_s - found[0] < PERIOD_S}
            if machine not in self._latest:
                await asyncio.sleep(max(0.0, self._rest_until_s - now_s))
                began_s = time.monotonic()
                values = await self._store.call(lambda store: store.latest(machine))
                ended_s = time.monotonic()
                self._latest[machine] = (ended_s, values)
                self._rest_until_s = ended_s + 3 * (ended_s - began_s)
            return self._latest[machine][1]

    def close(self) -> None:
        """Let every client go."""
        self._closed = True
        self._news.set()

    async def _take(self) -> Snapshot:
        began_s = time.monotonic()
        await self._read(began_s)
        rate = self._rate(time.monotonic())
        state = build(self._rows, self._receiver, rate, self._trouble, time.time_ns() // 1000, self._backlogs)
        taken = Snapshot(1 if self._snapshot is None else self._snapshot.number + 1, state)
        self._snapshot, self._snapshot_s = taken, time.monotonic()
        self._took_s = self._snapshot_s - began_s
        if not self._closed:
            news, self._news = self._news, asyncio.Event()
            news.set()
        return taken

    async def _read(self, now_s: float) -> None:
        if not self._is_changed and now_s - self._rows_s < ROWS_S_MAX:
            return
        self._is_changed = False
        try:
            self._rows = await self._store.call(gather)
            self._backlogs = backlog.noted(self._backlogs, self._rows.gateways)
            self._rows_s = now_s
            self._trouble = ""
        except StoreError as error:
            self._is_changed = True
            if self._trouble != str(error):
                _log.warning(str(error))
                self._trouble = str(error)

    def _rate(self, now_s: float) -> float | None:
        """Readings stored per second in the last RATE_S; None until it has been watched for a while."""
        while self._rates and now_s - self._rates[0][0] > RATE_S:
            self._rates.popleft()
        self._rates.append((now_s, self._receiver.readings))
        (first_s, first), (last_s, last) = self._rates[0], self._rates[-1]
        return None if last_s - first_s < PERIOD_S else round((last - first) / (last_s - first_s), 1)

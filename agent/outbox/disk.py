"""The outbox on disk: diskcache, hardened into a queue.

diskcache as it comes is a cache: it evicts, syncs lazily, keeps large values in files that it never syncs, and pickles.
Here it neither evicts nor culls; SQLite syncs every commit (`synchronous=FULL` in WAL mode); every value lies in the
database; and nothing but integer keys and bytes values goes in or out, so that no pickle is ever read. A batch, its
number, its definitions and its lane's record change in one transaction.

A ballast file keeps space in reserve. On a full disk it is deleted first, because SQLite cannot even delete a row
without room for its log. From then on the database file may not grow, so that the reserve stays with the log, and the
oldest batches make room within the file. When there is space again, the ballast is laid anew and growth allowed. The
database file does not shrink: what it once took stays its own. Where there is space and the disk fails all the same,
nothing is let go of: the caller keeps its drafts.

Failed transactions, damage, and copies that have to be recognised are the database's concern (database.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.outbox import identity, room
from agent.outbox.ballast import Ballast
from agent.outbox.contract import (
    GRACE_S,
    NORMAL,
    NOTHING,
    Draft,
    Former,
    GroupDefinition,
    Held,
    Lane,
    OutboxError,
    OutboxFull,
    OutboxStats,
    Stored,
)
from agent.outbox.database import Database, NoSpace
from agent.outbox.lanes import Lanes, Limits
from agent.outbox.opening import Place
from agent.outbox.rewrite import move
from protocols.program.logs import get_logger
from protocols.uplink.ranges import Range, Ranges

T = TypeVar("T")

_ROOM_BYTES = 64 << 10  # what is let go of first on a full disk; then four times as much, and so on
_ROOM_TRIES = 8
_EVERY_ROW = 1 << 62
_TELL_PAUSE_S = 600.0

_log = get_logger(part="outbox")


class DiskOutbox:
    """`limit_bytes`: of payload held, waiting or kept. `reserve_bytes`: the ballast. `age_max_s`: 0 for no limit.

    `grace_s`: how long confirmed batches are kept. `free_disk_bytes`: below so much free space the file grows no more.
    `thin_out`: when full, keep every second scan of the oldest rather than nothing of them.

    `monotonic_s`: the clock that the steady time goes by.

    Raises OutboxError where it cannot be opened.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limit_bytes: int = 1 << 30,
        reserve_bytes: int = 8 << 20,
        age_max_s: float = 0,
        grace_s: float = GRACE_S,
        free_disk_bytes: int = 0,
        thin_out: bool = False,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = Place(directory)
        self._thin_out = thin_out
        self._closed = False
        self._oldest_us: int | None = None
        self._lock = self._place.take()
        limits = Limits(limit_bytes, int(age_max_s * 1e6), int(grace_s * 1e6), thin_out)
        ballast = Ballast(directory / "ballast", reserve_bytes)
        try:
            self._database = Database(self._place, ballast, limits, free_disk_bytes, monotonic_s)
        except BaseException:  # whatever ends the opening, the next attempt must find the lock free; it is passed on
            os.close(self._lock)
            raise
        self._told_dropped = self._lanes.whole.dropped, -_TELL_PAUSE_S  # as last said, and when that was

    @property
    def _lanes(self) -> Lanes:
        return self._database.lanes

    @property
    def epoch(self) -> str:
        return self._lanes.epoch(NORMAL)

    @property
    def instance(self) -> str:
        return identity.instance(self._lanes.whole.signs, self._lanes.whole.id)

    @property
    def news(self) -> Sequence[str]:
        return self._database.news

    @property
    def damaged(self) -> Path | None:
        """Where a damaged predecessor was set aside, if there was one."""
        return self._database.damaged

    def _change(self, change: Callable[[], T]) -> T:
        return self._database.safely(lambda: self._database.write(change))

    # --- a full disk ---

    def _tell_dropped(self) -> None:
        """At once when it begins, and from time to time while it goes on."""
        told, at_s = self._told_dropped
        dropped, now_s = self._lanes.whole.dropped, time.monotonic()
        if dropped != told and now_s - at_s >= _TELL_PAUSE_S:
            self._told_dropped = dropped, now_s
            reasons = {held.dropped[-1].reason for held in self.held().values() if held.dropped}
            _log.warning(
                "the outbox let go of its oldest batches", now=dropped - told, ever=dropped, reasons=sorted(reasons)
            )

    # --- the contract ---

    def next_session(self) -> int:
        """Also above the present Unix time, so that a new outbox on the same gateway counts on from the old one."""

        def change() -> int:
            whole = self._lanes.touch_whole()
            whole.session = max(whole.session + 1, int(time.time()))
            return whole.session

        return self._change(change)

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        steady_us = self._database.clock.now_us(now_us)
        numbers = self._database.safely(lambda: self._append(drafts, steady_us))
        mine = {id(draft) for draft in drafts}
        stored = self._database.stored
        others = [entry for entry in stored if id(entry[0]) not in mine]
        self._database.stored = others if len(others) < len(stored) else ()  # the oldest come first, or never again
        self._database.look()
        self._tell_dropped()
        return numbers

    def _append(self, drafts: Sequence[Draft], steady_us: int) -> Sequence[int]:
        """On a disk that is full, of others' files perhaps, the oldest batches make room within our own file."""
        wanted_bytes = _ROOM_BYTES
        for _ in range(_ROOM_TRIES):
            try:
                return self._database.write(lambda: self._append_new(drafts, steady_us))
            except NoSpace:
                if not self._make_room(wanted_bytes):
                    raise
                wanted_bytes *= 4
        return self._database.write(lambda: self._append_new(drafts, steady_us))

    def _append_new(self, drafts: Sequence[Draft], steady_us: int) -> Sequence[int]:
        """Those that an earlier transaction has stored keep the numbers that it gave."""
        stored = {id(draft): number for draft, number in self._database.stored}
        new = [draft for draft in drafts if id(draft) not in stored]
        given = self._lanes.append(new, steady_us)
        self._database.given = list(zip(new, given, strict=True))
        numbers = iter(given)
        return [stored[id(draft)] if id(draft) in stored else next(numbers) for draft in drafts]

    def _make_room(self, wanted_bytes: int) -> bool:
        """Whether there was anything to let go of."""
        doomed = any(state.doomed for state in self._lanes.states.values())
        reason = "disk full" if self._database.space.pressed else "disk nearly full"

        def make(thin_out: bool) -> int:
            return self._database.write(lambda: room.make(self._lanes, wanted_bytes, reason, thin_out), _EVERY_ROW)

        try:
            return make(self._thin_out) > 0 or doomed
        except OutboxFull:
            if not self._thin_out:
                raise
        return make(thin_out=False) > 0 or doomed  # there is no room to write anything anew

    def pending(self, lane: Lane, first: int, last: int, count_max: int) -> Sequence[Stored]:
        return self._database.safely(lambda: self._lanes.pending(lane, first, last, count_max))

    def offer(self, lane: Lane, first: int, last: int) -> None:
        if self._lanes.is_marked(lane, first, last):
            self._lanes.offer(lane, first, last)
        else:
            self._change(lambda: self._lanes.offer(lane, first, last))

    def definition(self, lane: Lane, ref: bytes) -> GroupDefinition | None:
        return self._lanes.definition(lane, ref)

    def confirmed(self, lane: Lane, through: int, above: Ranges, now_us: int) -> None:
        steady_us = self._database.clock.now_us(now_us)
        self._database.safely(lambda: self._lanes.confirmed(lane, through, above, steady_us))

    def wanted(self, lane: Lane, missing: Ranges) -> Ranges:
        return self._database.safely(lambda: self._lanes.wanted(lane, missing))

    def former(self, lane: Lane) -> Former | None:
        return self._lanes.former(lane)

    def formers(self) -> Mapping[Lane, int]:
        return self._lanes.formers()

    def declare_dropped(self, lane: Lane, first: int, last: int, reason: str) -> None:
        self._change(lambda: self._lanes.declare_dropped(lane, first, last, reason))

    def give_up(self, lane: Lane, seq: int, reason: str) -> None:
        self._change(lambda: self._lanes.give_up(lane, seq, reason))

    def fork(self, reason: str, unsent: Mapping[Lane, Ranges] = NOTHING) -> None:
        runs = self._change(lambda: self._database.fork(unsent))
        self._database.say(f"a new epoch begins: {reason}")
        try:
            for lane, run in runs:
                self._change(partial(self._move, lane, run))
        except OutboxError as error:  # they are sent under the numbers that they have
            self._database.say(f"what was appended since the opening could not be numbered anew: {error}")

    def _move(self, lane: Lane, run: Range) -> None:
        move(self._lanes, lane, run)

    def tend(self, now_us: int) -> None:
        try:
            self._database.safely(lambda: self._tend(self._database.clock.now_us(now_us)))
        except OutboxFull as error:  # nothing is lost by waiting; `append` says so, too
            _log.info("the outbox could not write down what was confirmed; it tries again", error=str(error))
        self._database.look()
        self._tell_dropped()

    def _tend(self, steady_us: int) -> None:
        self._lanes.tend(steady_us)
        whole = self._lanes.whole
        if self._lanes.is_dirty() or self._database.clock.was_set(whole.steady_us, whole.wall_us):
            self._database.write(lambda: None)

    def held(self) -> Mapping[Lane, Held]:
        return self._lanes.held()

    def stats(self) -> OutboxStats:
        try:
            self._oldest_us = self._database.safely(self._lanes.oldest_us)
        except OutboxError as error:  # whoever stores or tends tells it loudly
            _log.debug("the outbox could not be read: the oldest batch is the last known", error=str(error))
        oldest_us = None if self._oldest_us is None else self._oldest_us + self._database.clock.ahead_us
        return replace(self._lanes.stats(oldest_us), disk_free_bytes=self._place.free_bytes())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._database.close()
        os.close(self._lock)

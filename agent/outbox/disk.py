"""The outbox on disk: diskcache, hardened into a queue.

diskcache as it comes is a cache: it evicts, syncs lazily, keeps large values in files that it never syncs, and pickles.
Here it neither evicts nor culls; SQLite syncs every commit (`synchronous=FULL` in WAL mode); every value lies in the
database; and nothing but integer keys and bytes values goes in or out, so that no pickle is ever read. A batch, its
number, its definitions and its lane's record change in one transaction.

A ballast file keeps space in reserve. On a full disk it is deleted first, because SQLite cannot even delete a row
without room for its log. From then on the database file may not grow, so that the reserve stays with the log, and the
oldest batches make room within the file. When there is space again, the ballast is laid anew and growth allowed. The
database file does not shrink: what it once took stays its own.

Damage is looked for where something is read, at opening or later, and mended on the spot (opening.py, salvage.py). A
copy, or a backup that was put back, is recognised at opening (identity.py).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import diskcache

from agent.outbox import identity, room
from agent.outbox.ballast import Ballast
from agent.outbox.contract import (
    GRACE_S,
    NORMAL,
    Draft,
    GroupDefinition,
    Held,
    Lane,
    OutboxError,
    OutboxFull,
    OutboxStats,
    Stored,
)
from agent.outbox.lanes import DELETE_MAX, Limits, new_epoch
from agent.outbox.opening import Opened, Place, is_damage, mend, open_outbox
from agent.outbox.records import RecordError
from agent.outbox.rewrite import move
from agent.outbox.rows import RowsMissing
from protocols.program.logs import get_logger
from protocols.uplink.ranges import Range, Ranges

T = TypeVar("T")

_ROOM_BYTES = 64 << 10  # what is let go of first on a full disk; then four times as much, and so on
_ROOM_TRIES = 8
_PAGES_MAX = 1_073_741_823  # SQLite's own default
_EVERY_ROW = 1 << 62
_MEND_PAUSE_S = 60.0
_TELL_PAUSE_S = 600.0

_log = get_logger(part="outbox")


class DiskOutbox:
    """`limit_bytes`: of payload held, waiting or kept. `reserve_bytes`: the ballast. `age_max_s`: 0 for no limit.

    `grace_s`: how long confirmed batches are kept. `free_disk_bytes`: below so much free space the file grows no more.
    `thin_out`: when full, keep every second scan of the oldest rather than nothing of them.

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
    ) -> None:
        self._place = Place(directory)
        self._limits = Limits(limit_bytes, int(age_max_s * 1e6), int(grace_s * 1e6), thin_out)
        self._free_disk_bytes = free_disk_bytes
        self._ballast = Ballast(directory / "ballast", reserve_bytes)
        self._closed = False
        self._pressed = False  # the disk was full, and the ballast is not laid again yet
        self._tight = False  # less is free than there should be
        self._capped = False
        self._told_dropped = (0, -_TELL_PAUSE_S)  # how many were when it was last said, and when that was
        self._mend_after_s: float | None = None  # damaged, and not to be mended before
        self.news: Sequence[str] = ()
        self.damaged: Path | None = None
        """Where a damaged predecessor was set aside, if there was one."""
        self._lock = self._place.take()
        try:
            self._use(open_outbox(self._place, self._ballast, self._limits))
            self._recognise()
            self._place.register.begin(self._lanes.states.values())
        except BaseException:  # whatever ends the opening, the next attempt must find the lock free; it is passed on
            os.close(self._lock)
            raise
        self._look_at_disk()
        self._told_dropped = self._lanes.whole.dropped, -_TELL_PAUSE_S

    @property
    def epoch(self) -> str:
        return self._lanes.epoch(NORMAL)

    @property
    def instance(self) -> str:
        return identity.instance(self._lanes.whole.signs, self._lanes.whole.id)

    # --- opening ---

    def _use(self, opened: Opened) -> None:
        self._rows, self._lanes = opened.rows, opened.lanes
        self.damaged = opened.aside or self.damaged
        for sentence in opened.news:
            self._say(sentence)

    def _say(self, sentence: str) -> None:
        self.news = (*self.news, f"outbox {self._place.directory}: {sentence}")
        _log.error(self.news[-1])

    def _recognise(self) -> None:
        """Where this is a copy, or was put back from a backup, its numbers may be in use: new epochs."""
        marker, signs = identity.Marker(self._place.directory), identity.find_signs(self._place.directory)
        before, found = self._lanes.whole.signs, marker.found()
        differences = identity.differences(before, signs)
        if "marker" in before and found not in before["marker"]:
            differences.append("a copy or a restored backup")
        made = marker.make()

        def change() -> None:
            whole = self._lanes.touch_whole()
            kept = {} if differences else before
            whole.signs = {**kept, **signs, "marker": [one for one in (found, made) if one is not None]}
            if differences:
                self._lanes.fork()
                whole.id = new_epoch()

        try:
            self._safely(lambda: self._write(change))
        except OutboxFull:
            if differences:
                raise
            return  # next time
        if made is not None:
            marker.put()
        if differences:
            self._say(f"this is {' and '.join(differences)}; what is in it keeps its numbers, and a new epoch begins")

    # --- a full disk ---

    def _look_at_disk(self) -> None:
        """Lay the ballast again where there is space; grow no more where too little is left."""
        if self._ballast.lay() and self._pressed:
            self._pressed = False
            _log.info("the disk has space again: the outbox laid its reserve anew")
        tight = self._place.free_bytes() < self._free_disk_bytes
        if tight != self._tight:
            self._tight = tight
            _log.warning("the disk is nearly full: the outbox grows no more" if tight else "the disk has space again")
        if (self._pressed or tight) != self._capped:
            self._cap_file()

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

    def _press(self) -> None:
        """The disk is full: free the reserve for the log, keep the file from growing into it, empty the log."""
        self._pressed = True
        self._ballast.drop()
        self._cap_file()
        self._rows.checkpoint()

    def _cap_file(self) -> None:
        self._capped = self._pressed or self._tight
        self._rows.cap_pages(self._rows.pages() if self._capped else _PAGES_MAX)

    # --- transactions ---

    @contextmanager
    def _transaction(self, delete_max: int) -> Iterator[None]:
        """All or nothing, in memory too: what is remembered of the lanes goes back if the disk refuses."""
        self._lanes.begin()
        try:
            with self._rows.transaction():
                yield
                self._lanes.flush(delete_max)
                if self._lanes.made:
                    self._place.register.add(self._lanes.made)
        except BaseException:  # an interrupt undoes it, too; it is passed on
            self._lanes.undo()
            self._rows.end_failed()
            raise
        self._lanes.done()

    def _write(self, change: Callable[[], T], delete_max: int = DELETE_MAX) -> T:
        """Run a change in a transaction; on a full disk use the reserve, and then try once more."""
        try:
            with self._transaction(delete_max):
                return change()
        except (sqlite3.Error, diskcache.Timeout) as error:
            if is_damage(error):
                raise
            if self._tight and self._place.free_bytes() > self._free_disk_bytes // 2:
                raise self._full(error) from None  # it is only our own limit
        try:
            self._press()
            with self._transaction(delete_max):
                return change()
        except (sqlite3.Error, diskcache.Timeout) as error:
            if is_damage(error):
                raise
            raise self._full(error) from None

    def _full(self, error: Exception) -> OutboxFull:
        what = str(error) or "the database is locked"
        is_full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        remedy = "free some space on this disk" if is_full else "check the disk: its free space, rights and health"
        return OutboxFull(f"outbox {self._place.directory}: {what}; {remedy}")

    def _safely(self, job: Callable[[], T]) -> T:
        """Do it; where the database turns out to be damaged, mend it first, and then do it."""
        if self._mend_after_s is not None:
            self._mend("it could not be mended before")
        try:
            return job()
        except (sqlite3.Error, RowsMissing) as error:
            if not is_damage(error):
                raise self._place.error(error) from None
            self._mend(str(error))
        try:
            return job()
        except (sqlite3.Error, RowsMissing) as error:
            raise self._place.error(error) from None

    def _mend(self, why: str) -> None:
        if self._mend_after_s is not None and time.monotonic() < self._mend_after_s:
            raise self._place.error("it is damaged, and could not be mended", "check the disk")
        self._mend_after_s = time.monotonic() + _MEND_PAUSE_S
        self._rows.close()
        try:
            self._use(mend(self._place, self._ballast, self._limits, why, self._lanes))
        except (sqlite3.Error, diskcache.Timeout, OSError, RecordError) as error:
            raise self._place.error(f"it is damaged, and could not be mended: {error}", "check the disk") from None
        self._mend_after_s = None
        self._cap_file()

    # --- the contract ---

    def next_session(self) -> int:
        """Also above the present Unix time, so that a new outbox on the same gateway counts on from the old one."""

        def change() -> int:
            whole = self._lanes.touch_whole()
            whole.session = max(whole.session + 1, int(time.time()))
            return whole.session

        return self._safely(lambda: self._write(change))

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        numbers = self._safely(lambda: self._append(drafts, now_us))
        self._look_at_disk()
        self._tell_dropped()
        return numbers

    def _append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        """On a disk that is full, of others' files perhaps, the oldest batches make room within our own file."""
        wanted_bytes = _ROOM_BYTES
        for _ in range(_ROOM_TRIES):
            try:
                return self._write(lambda: self._lanes.append(drafts, now_us))
            except OutboxFull:
                if not self._make_room(wanted_bytes):
                    raise
                wanted_bytes *= 4
        return self._write(lambda: self._lanes.append(drafts, now_us))

    def _make_room(self, wanted_bytes: int) -> bool:
        """Whether there was anything to let go of."""
        doomed = any(state.doomed for state in self._lanes.states.values())
        reason = "disk full" if self._pressed else "disk nearly full"

        def make(thin_out: bool) -> int:
            return self._write(lambda: room.make(self._lanes, wanted_bytes, reason, thin_out), _EVERY_ROW)

        try:
            return make(self._limits.thin_out) > 0 or doomed
        except OutboxFull:
            if not self._limits.thin_out:
                raise
        return make(thin_out=False) > 0 or doomed  # there is no room to write anything anew

    def pending(self, lane: Lane, first: int, last: int, count_max: int) -> Sequence[Stored]:
        return self._safely(lambda: self._lanes.pending(lane, first, last, count_max))

    def offer(self, lane: Lane, first: int, last: int) -> None:
        if self._lanes.is_marked(lane, first, last):
            self._lanes.offer(lane, first, last)
        else:
            self._safely(lambda: self._write(lambda: self._lanes.offer(lane, first, last)))

    def definition(self, lane: Lane, ref: bytes) -> GroupDefinition | None:
        return self._lanes.definition(lane, ref)

    def confirmed(self, lane: Lane, through: int, above: Ranges, now_us: int) -> None:
        self._safely(lambda: self._lanes.confirmed(lane, through, above, now_us))

    def wanted(self, lane: Lane, missing: Ranges) -> Ranges:
        return self._safely(lambda: self._lanes.wanted(lane, missing))

    def declare_dropped(self, lane: Lane, first: int, last: int, reason: str) -> None:
        self._safely(lambda: self._write(lambda: self._lanes.declare_dropped(lane, first, last, reason)))

    def give_up(self, lane: Lane, seq: int, reason: str) -> None:
        self._safely(lambda: self._write(lambda: self._lanes.give_up(lane, seq, reason)))

    def fork(self, reason: str) -> None:
        runs = self._safely(lambda: self._write(self._lanes.fork))
        self._say(f"a new epoch begins: {reason}")
        try:
            for lane, run in runs:
                self._safely(partial(self._move, lane, run))
        except OutboxFull as error:  # they are sent under the numbers that they have
            self._say(f"what was appended since the opening could not be numbered anew: {error}")

    def _move(self, lane: Lane, run: Range) -> None:
        self._write(lambda: move(self._lanes, lane, run))

    def tend(self, now_us: int) -> None:
        try:
            self._safely(lambda: self._tend(now_us))
        except OutboxFull as error:  # nothing is lost by waiting; `append` says so, too
            _log.info("the outbox could not write down what was confirmed; it tries again", error=str(error))
        self._look_at_disk()
        self._tell_dropped()

    def _tend(self, now_us: int) -> None:
        self._lanes.tend(now_us)
        if self._lanes.is_dirty():
            self._write(lambda: None)

    def held(self) -> Mapping[Lane, Held]:
        return self._lanes.held()

    def stats(self) -> OutboxStats:
        found = self._safely(self._lanes.stats)
        return replace(found, disk_free_bytes=self._place.free_bytes())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._lanes.is_dirty():
                self._write(lambda: None)
            self._rows.close()
        except (OutboxError, sqlite3.Error, diskcache.Timeout) as error:
            _log.warning("the outbox could not write down its last changes", error=str(error))
        os.close(self._lock)

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

After a COMMIT that failed nobody knows whether the transaction is there: SQLite may have written all of it to its log
and failed only to sync that. The count of commits in the main record tells, before anything else is done.

Damage is looked for where something is read, at opening or later, and mended on the spot (opening.py, salvage.py). A
disk that only cannot be read is read again, and is no damage before that has gone on for long (reading.py). A
copy, or a backup that was put back, is recognised at opening (identity.py).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import diskcache

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
from agent.outbox.lanes import DELETE_MAX, Limits, new_epoch
from agent.outbox.opening import Opened, Place, is_damage, load, mend, open_outbox
from agent.outbox.reading import PAUSES_S, Patience, is_partly_readable, is_unreadable, reads_whole
from agent.outbox.records import RecordError, unpack_whole
from agent.outbox.rewrite import move
from agent.outbox.rows import RowsMissing
from agent.outbox.space import Space
from agent.outbox.steady import SteadyClock
from protocols.program.logs import get_logger
from protocols.uplink.ranges import Range, Ranges

T = TypeVar("T")

_ROOM_BYTES = 64 << 10  # what is let go of first on a full disk; then four times as much, and so on
_ROOM_TRIES = 8
_EVERY_ROW = 1 << 62
_MEND_PAUSE_S = 60.0
_TELL_PAUSE_S = 600.0

_log = get_logger(part="outbox")


class _NoSpace(OutboxFull):
    """Making room may help."""


class _Doubt(NamedTuple):
    """A transaction whose COMMIT failed: which one it was, and the numbers that it gave."""

    commit: int
    given: Sequence[tuple[Draft, int]]


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
        self._limits = Limits(limit_bytes, int(age_max_s * 1e6), int(grace_s * 1e6), thin_out)
        self._ballast = Ballast(directory / "ballast", reserve_bytes)
        self._closed = False
        self._space = Space(self._place, self._ballast, free_disk_bytes)
        self._told_dropped = (0, -_TELL_PAUSE_S)  # how many were when it was last said, and when that was
        self._patience = Patience()
        self._mend_after_s: float | None = None  # damaged, and not to be mended before
        self._given: Sequence[tuple[Draft, int]] = ()  # by the transaction that runs
        self._doubt: _Doubt | None = None
        self._oldest_us: int | None = None
        self._stored: Sequence[tuple[Draft, int]] = ()  # while the caller was told that they are not
        self.news: Sequence[str] = ()
        self.damaged: Path | None = None
        """Where a damaged predecessor was set aside, if there was one."""
        self._lock = self._place.take()
        try:
            self._use(open_outbox(self._place, self._ballast, self._limits))
            whole = self._lanes.whole
            self._clock = SteadyClock(monotonic_s, whole.steady_us, whole.wall_us)
            self._recognise()
            self._place.register.begin(self._lanes.states.values())
        except BaseException:  # whatever ends the opening, the next attempt must find the lock free; it is passed on
            os.close(self._lock)
            raise
        self._space.look(self._rows)
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
        """Where this is a copy, was put back from a backup, or may have been, its numbers may be in use: new epochs."""
        marker, signs = identity.Marker(self._place.directory), identity.find_signs(self._place.directory)
        before, found, boot = self._lanes.whole.signs, marker.found(), identity.find_boot()
        differences = identity.differences(before, signs)
        if "marker" in before and found not in before["marker"]:
            differences.append("a copy or a restored backup")
        is_booted = "marker" in before and (not boot or before.get("boot") != [boot])
        made = marker.make()

        def change() -> None:
            whole = self._lanes.touch_whole()
            kept = {} if differences else before
            whole.signs = {**kept, **signs, "marker": [one for one in (found, made) if one is not None], "boot": [boot]}
            if differences or is_booted:
                self._lanes.fork()
            if differences:
                whole.id = new_epoch()
                whole.damaged = ()  # what was damaged may be the copy, and what it was copied from still go on

        try:
            self._safely(lambda: self._write(change))
        except OutboxFull:
            change()  # it is written with whatever is written next, so before any number is given
        else:
            if made is not None:
                marker.put()
        if differences:
            self._say(f"this is {' and '.join(differences)}; what is in it keeps its numbers, and a new epoch begins")

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

    # --- transactions ---

    def _transact(self, change: Callable[[], T], delete_max: int) -> T:
        """All or nothing, in memory too: what is remembered of the lanes goes back if the disk refuses."""
        self._settle_doubt()
        self._lanes.begin()
        self._given = ()
        whole = self._lanes.touch_whole()
        whole.commits += 1
        doubt = None
        try:
            with self._rows.transaction():
                result = change()
                whole.steady_us, whole.wall_us = self._clock.steady_us, self._clock.wall_us
                self._lanes.flush(delete_max)
                if self._lanes.made:
                    self._place.register.add(self._lanes.made)
                doubt = _Doubt(whole.commits, self._given)  # from here on, until COMMIT says that it is done
        except BaseException:  # an interrupt undoes it, too; it is passed on
            self._lanes.undo()
            self._doubt = doubt
            self._rows.end_failed()
            raise
        self._lanes.done()
        return result

    def _settle_doubt(self) -> None:
        """Raises sqlite3.Error where the disk does not tell yet whether a transaction is there."""
        if self._doubt is None:
            return
        packed = self._rows.whole()
        try:
            if packed is None:
                raise RecordError("the outbox's main record is damaged")
            is_there = unpack_whole(packed)[0].commits == self._doubt.commit
        except RecordError as error:
            raise RowsMissing(str(error)) from None
        self._space.cap(self._rows)  # the connection may be another one
        if is_there:
            self._reload()
            self._stored = (*self._stored, *self._doubt.given)
        self._doubt = None

    def _reload(self) -> None:
        """Memory is as the database says, but for what that does not say exactly."""
        try:
            lanes = load(self._rows, self._limits)
        except RecordError as error:
            raise RowsMissing(str(error)) from None
        for name, state in lanes.states.items():
            if name in self._lanes.states:
                before = self._lanes.states[name]
                state.fresh, state.offered = before.fresh, before.offered
        self._lanes = lanes

    def _write(self, change: Callable[[], T], delete_max: int = DELETE_MAX) -> T:
        """Run a change in a transaction; on a full disk use the reserve, and then try once more."""
        try:
            return self._transact(change, delete_max)
        except (sqlite3.Error, diskcache.Timeout) as error:
            if is_damage(error) or is_unreadable(error):
                raise
            if self._space.is_own_limit():
                raise self._full(error) from None  # it is only our own limit
            lacks_space = self._space.lacks(error)
        try:
            if lacks_space:
                self._space.press(self._rows)
            return self._transact(change, delete_max)
        except (sqlite3.Error, diskcache.Timeout) as error:
            if is_damage(error) or is_unreadable(error):
                raise
            raise self._full(error) from None

    def _full(self, error: Exception) -> OutboxFull:
        what = str(error) or "the database is locked"
        is_full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        remedy = "free some space on this disk" if is_full else "check the disk: its free space, rights and health"
        kind = _NoSpace if self._space.lacks(error) else OutboxFull
        return kind(f"outbox {self._place.directory}: {what}; {remedy}")

    def _safely(self, job: Callable[[], T]) -> T:
        """Do it; where the database turns out to be damaged, mend it first, and then do it."""
        if self._mend_after_s is not None:
            self._mend("it could not be mended before")
        try:
            return self._reading(job)
        except (sqlite3.Error, diskcache.Timeout, RowsMissing) as error:
            if not self._is_damaged(error):
                raise self._failed(error) from None
            self._mend(str(error))
        try:
            return job()
        except (sqlite3.Error, diskcache.Timeout, RowsMissing) as error:
            raise self._failed(error) from None

    def _reading(self, job: Callable[[], T]) -> T:
        """Do it; a disk that could not be read may be, a moment later."""
        for pause_s in PAUSES_S:
            try:
                return self._agreeing(job)
            except (sqlite3.Error, RowsMissing) as error:
                if not (is_unreadable(error) or is_damage(error)):
                    raise
                _log.debug("the outbox could not be read and is tried again", error=str(error))
            time.sleep(pause_s)
        return self._agreeing(job)

    def _is_damaged(self, error: Exception) -> bool:
        """Whether what can be read is to be salvaged: not as long as the disk may be what fails."""
        if not is_unreadable(error) and (not is_damage(error) or reads_whole(self._place.queue)):
            return is_damage(error)
        return self._patience.failed(time.monotonic()) and is_partly_readable(self._place.queue)

    def _failed(self, error: Exception) -> OutboxError:
        if is_unreadable(error) or is_damage(error):
            return self._place.error(f"the disk could not be read ({error})", "it is tried again; check the disk")
        return self._place.error(error)

    def _agreeing(self, job: Callable[[], T]) -> T:
        """Where a row is that cannot be, memory is what is taken to be wrong; only then, the database."""
        self._settle_doubt()
        try:
            return job()
        except sqlite3.IntegrityError as error:
            _log.warning("the outbox reads anew what it holds", error=str(error))
            self._reload()
        return job()

    def _mend(self, why: str) -> None:
        if self._mend_after_s is not None and time.monotonic() < self._mend_after_s:
            raise self._place.error("it is damaged, and could not be mended", "check the disk")
        self._mend_after_s = time.monotonic() + _MEND_PAUSE_S
        self._rows.close()
        try:
            self._use(mend(self._place, self._ballast, self._limits, why, self._lanes))
            self._space.cap(self._rows)
        except (sqlite3.Error, diskcache.Timeout, OSError, RecordError) as error:
            raise self._place.error(f"it is damaged, and could not be mended: {error}", "check the disk") from None
        self._mend_after_s = self._doubt = None

    # --- the contract ---

    def next_session(self) -> int:
        """Also above the present Unix time, so that a new outbox on the same gateway counts on from the old one."""

        def change() -> int:
            whole = self._lanes.touch_whole()
            whole.session = max(whole.session + 1, int(time.time()))
            return whole.session

        return self._safely(lambda: self._write(change))

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        steady_us = self._clock.now_us(now_us)
        numbers = self._safely(lambda: self._append(drafts, steady_us))
        mine = {id(draft) for draft in drafts}
        others = [entry for entry in self._stored if id(entry[0]) not in mine]
        self._stored = others if len(others) < len(self._stored) else ()  # the oldest come first, or never again
        self._space.look(self._rows)
        self._tell_dropped()
        return numbers

    def _append(self, drafts: Sequence[Draft], steady_us: int) -> Sequence[int]:
        """On a disk that is full, of others' files perhaps, the oldest batches make room within our own file."""
        wanted_bytes = _ROOM_BYTES
        for _ in range(_ROOM_TRIES):
            try:
                return self._write(lambda: self._append_new(drafts, steady_us))
            except _NoSpace:
                if not self._make_room(wanted_bytes):
                    raise
                wanted_bytes *= 4
        return self._write(lambda: self._append_new(drafts, steady_us))

    def _append_new(self, drafts: Sequence[Draft], steady_us: int) -> Sequence[int]:
        """Those that an earlier transaction has stored keep the numbers that it gave."""
        stored = {id(draft): number for draft, number in self._stored}
        new = [draft for draft in drafts if id(draft) not in stored]
        given = self._lanes.append(new, steady_us)
        self._given = list(zip(new, given, strict=True))
        numbers = iter(given)
        return [stored[id(draft)] if id(draft) in stored else next(numbers) for draft in drafts]

    def _make_room(self, wanted_bytes: int) -> bool:
        """Whether there was anything to let go of."""
        doomed = any(state.doomed for state in self._lanes.states.values())
        reason = "disk full" if self._space.pressed else "disk nearly full"

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
        steady_us = self._clock.now_us(now_us)
        self._safely(lambda: self._lanes.confirmed(lane, through, above, steady_us))

    def wanted(self, lane: Lane, missing: Ranges) -> Ranges:
        return self._safely(lambda: self._lanes.wanted(lane, missing))

    def former(self, lane: Lane) -> Former | None:
        return self._lanes.former(lane)

    def formers(self) -> Mapping[Lane, int]:
        return self._lanes.formers()

    def declare_dropped(self, lane: Lane, first: int, last: int, reason: str) -> None:
        self._safely(lambda: self._write(lambda: self._lanes.declare_dropped(lane, first, last, reason)))

    def give_up(self, lane: Lane, seq: int, reason: str) -> None:
        self._safely(lambda: self._write(lambda: self._lanes.give_up(lane, seq, reason)))

    def fork(self, reason: str, unsent: Mapping[Lane, Ranges] = NOTHING) -> None:
        runs = self._safely(lambda: self._write(lambda: self._lanes.fork(unsent)))
        self._say(f"a new epoch begins: {reason}")
        try:
            for lane, run in runs:
                self._safely(partial(self._move, lane, run))
        except OutboxError as error:  # they are sent under the numbers that they have
            self._say(f"what was appended since the opening could not be numbered anew: {error}")

    def _move(self, lane: Lane, run: Range) -> None:
        self._write(lambda: move(self._lanes, lane, run))

    def tend(self, now_us: int) -> None:
        try:
            self._safely(lambda: self._tend(self._clock.now_us(now_us)))
        except OutboxFull as error:  # nothing is lost by waiting; `append` says so, too
            _log.info("the outbox could not write down what was confirmed; it tries again", error=str(error))
        self._space.look(self._rows)
        self._tell_dropped()

    def _tend(self, steady_us: int) -> None:
        self._lanes.tend(steady_us)
        whole = self._lanes.whole
        if self._lanes.is_dirty() or self._clock.was_set(whole.steady_us, whole.wall_us):
            self._write(lambda: None)

    def held(self) -> Mapping[Lane, Held]:
        return self._lanes.held()

    def stats(self) -> OutboxStats:
        try:
            self._oldest_us = self._safely(self._lanes.oldest_us)
        except OutboxError as error:  # whoever stores or tends tells it loudly
            _log.debug("the outbox could not be read: the oldest batch is the last known", error=str(error))
        oldest_us = None if self._oldest_us is None else self._oldest_us + self._clock.ahead_us
        return replace(self._lanes.stats(oldest_us), disk_free_bytes=self._place.free_bytes())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._settle_doubt()
            if self._lanes.is_dirty():
                self._write(lambda: None)
        except (OutboxError, sqlite3.Error, diskcache.Timeout, RowsMissing) as error:
            _log.warning("the outbox could not write down its last changes", error=str(error))
        self._rows.close()
        os.close(self._lock)

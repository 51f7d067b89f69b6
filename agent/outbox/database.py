"""The outbox's database and what is known of it in memory: opened, recognised, changed in transactions, mended.

After a COMMIT that failed nobody knows whether the transaction is there: SQLite may have written all of it to its log
and failed only to sync that. The count of commits in the main record tells, before anything else is done.

Damage is looked for where something is read, at opening or later, and mended on the spot (opening.py, salvage.py). A
disk that only cannot be read is read again, and is no damage before that has gone on for long (reading.py). A
copy, or a backup that was put back, is recognised at opening, and so is a database that is lost (recognition.py).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import diskcache

from agent.outbox import identity
from agent.outbox.ballast import Ballast
from agent.outbox.contract import Draft, Lane, OutboxError, OutboxFull
from agent.outbox.lanes import DELETE_MAX, Limits
from agent.outbox.opening import Opened, Place, is_damage, load, mend, open_outbox
from agent.outbox.passport import Passport
from agent.outbox.reading import PAUSES_S, Patience, is_partly_readable, is_unreadable, reads_whole
from agent.outbox.recognition import Here, recognise, settle, told
from agent.outbox.records import RecordError, unpack_whole
from agent.outbox.rows import RowsMissing
from agent.outbox.space import Space
from agent.outbox.steady import SteadyClock
from agent.outbox.tally import Count
from protocols.program.logs import get_logger
from protocols.uplink.ranges import Range, Ranges

T = TypeVar("T")

_MEND_PAUSE_S = 60.0

_log = get_logger(part="outbox")


class NoSpace(OutboxFull):
    """Making room may help."""


class _Doubt(NamedTuple):
    """A transaction whose COMMIT failed: which one it was, and the numbers that it gave."""

    commit: int
    given: Sequence[tuple[Draft, int]]


class Database:
    """`rows`, `lanes`: as they are now; what is mended has others. `given`: the numbers that the running transaction
    gave. `stored`: those of drafts that are there, though the caller was told that they are not. `news`: as the
    contract says. `damaged`: where a damaged predecessor was set aside, if one was.

    Raises OutboxError where it cannot be opened.
    """

    def __init__(
        self,
        place: Place,
        ballast: Ballast,
        limits: Limits,
        free_disk_bytes: int,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._place = place
        self._ballast = ballast
        self._limits = limits
        self._patience = Patience()
        self._mend_after_s: float | None = None  # damaged, and not to be mended before
        self._doubt: _Doubt | None = None
        self.space = Space(place, ballast, free_disk_bytes)
        self.given: Sequence[tuple[Draft, int]] = ()
        self.stored: Sequence[tuple[Draft, int]] = ()
        self.news: Sequence[str] = ()
        self.damaged: Path | None = None
        self._epochs: tuple[str, ...] = ()  # that are over, and in which numbers were given nowhere else
        self._use(open_outbox(place, ballast, limits))
        self.clock = SteadyClock(monotonic_s, self.lanes.whole.steady_us, self.lanes.whole.wall_us)
        self._recognise()
        place.register.begin(self.lanes.states.values())
        self.look()

    # --- opening ---

    def _use(self, opened: Opened) -> None:
        self.rows, self.lanes = opened.rows, opened.lanes
        self.damaged = opened.aside or self.damaged
        for sentence in opened.news:
            self.say(sentence)

    def say(self, sentence: str) -> None:
        self.news = (*self.news, f"outbox {self._place.directory}: {sentence}")
        _log.error(self.news[-1])

    def _recognise(self) -> None:
        marker, whole = identity.Marker(self._place.directory), self.lanes.whole
        signs, boot = identity.find_signs(self._place.directory), identity.find_boot()
        here = Here(marker.found(), marker.make(), signs, boot)
        found = recognise(whole, self._place.passport.read(), self._place.tally.read(), here)
        is_new = not (whole.signs or self.lanes.states or self.damaged) and here.marker is not None
        sentence = told(found, whole, is_new=is_new)
        registered = list(self._place.register.read().values())

        def change() -> None:
            settle(self.lanes, found, here, registered)

        self._epochs = found.epochs
        try:
            self.safely(lambda: self.write(change))
        except OutboxFull:
            change()  # it is written with whatever is written next, so before any number is given
        else:
            if here.made is not None:
                marker.put()
        if sentence:
            self.say(sentence)

    # --- transactions ---

    def _transact(self, change: Callable[[], T], delete_max: int) -> T:
        """All or nothing, in memory too: what is remembered of the lanes goes back if the disk refuses."""
        self._settle_doubt()
        self.lanes.begin()
        self.given = ()
        whole = self.lanes.touch_whole()
        whole.commits += 1
        doubt = None
        try:
            with self.rows.transaction():
                result = change()
                whole.steady_us, whole.wall_us = self.clock.steady_us, self.clock.wall_us
                self.lanes.flush(delete_max)
                if self.lanes.made:
                    self._place.register.add(self.lanes.made)
                self._place.passport.keep(self._passport())
                doubt = _Doubt(whole.commits, self.given)  # from here on, until COMMIT says that it is done
        except BaseException:  # an interrupt undoes it, too; it is passed on
            self.lanes.undo()
            self._doubt = doubt
            self.rows.end_failed()
            raise
        self.lanes.done()
        self._place.tally.note(Count(whole.commits, whole.session))
        return result

    def _passport(self) -> Passport:
        """As it is to be when the running transaction is done."""
        whole = self.lanes.whole
        return Passport.of(whole, self._epochs, Count(whole.commits - 1, whole.session))

    def fork(self, unsent: Mapping[Lane, Ranges]) -> list[tuple[Lane, Range]]:
        """In a transaction: of the epochs up to now, somebody else may have numbers, too."""
        self._epochs = ()
        return self.lanes.fork(unsent)

    def _settle_doubt(self) -> None:
        """Raises sqlite3.Error where the disk does not tell yet whether a transaction is there."""
        if self._doubt is None:
            return
        packed = self.rows.whole()
        try:
            if packed is None:
                raise RecordError("the outbox's main record is damaged")
            is_there = unpack_whole(packed)[0].commits == self._doubt.commit
        except RecordError as error:
            raise RowsMissing(str(error)) from None
        self.space.cap(self.rows)  # the connection may be another one
        if is_there:
            self._reload()
            self.stored = (*self.stored, *self._doubt.given)
        self._doubt = None

    def _reload(self) -> None:
        """Memory is as the database says, but for what that does not say exactly."""
        try:
            lanes = load(self.rows, self._limits)
        except RecordError as error:
            raise RowsMissing(str(error)) from None
        for name, state in lanes.states.items():
            if name in self.lanes.states:
                before = self.lanes.states[name]
                state.fresh, state.offered = before.fresh, before.offered
        self.lanes = lanes

    def write(self, change: Callable[[], T], delete_max: int = DELETE_MAX) -> T:
        """Run a change in a transaction; on a full disk use the reserve, and then try once more."""
        try:
            return self._transact(change, delete_max)
        except (sqlite3.Error, diskcache.Timeout) as error:
            if is_damage(error) or is_unreadable(error):
                raise
            if self.space.is_own_limit():
                raise self._full(error) from None  # it is only our own limit
            lacks_space = self.space.lacks(error)
        try:
            if lacks_space:
                self.space.press(self.rows)
            return self._transact(change, delete_max)
        except (sqlite3.Error, diskcache.Timeout) as error:
            if is_damage(error) or is_unreadable(error):
                raise
            raise self._full(error) from None

    def _full(self, error: Exception) -> OutboxFull:
        what = str(error) or "the database is locked"
        is_full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        remedy = "free some space on this disk" if is_full else "check the disk: its free space, rights and health"
        kind = NoSpace if self.space.lacks(error) else OutboxFull
        return kind(f"outbox {self._place.directory}: {what}; {remedy}")

    def safely(self, job: Callable[[], T]) -> T:
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
        self.rows.close()
        try:
            self._use(mend(self._place, self._ballast, self._limits, why, self.lanes))
            self.space.cap(self.rows)
        except (sqlite3.Error, diskcache.Timeout, OSError, RecordError) as error:
            raise self._place.error(f"it is damaged, and could not be mended: {error}", "check the disk") from None
        self._mend_after_s = self._doubt = None

    def look(self) -> None:
        """How much space there is, from time to time."""
        self.space.look(self.rows)

    def close(self) -> None:
        """Write down what waits to be; never raises."""
        try:
            self._settle_doubt()
            if self.lanes.is_dirty():
                self.write(lambda: None)
        except (OutboxError, sqlite3.Error, diskcache.Timeout, RowsMissing) as error:
            _log.warning("the outbox could not write down its last changes", error=str(error))
        self.rows.close()
        self._place.tally.close()

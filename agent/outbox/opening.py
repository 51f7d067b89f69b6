"""Opening an outbox on disk: a sound one, one of an older version, a damaged one, or a new one.

A damaged database is set aside whole, and what can be read of it is put into a new one, which takes its place when it
is complete. Until then a note beside it says so, so that this is begun again after a crash, and so that damage that was
only found in operation is mended at the next opening at the latest.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

import diskcache

from agent.outbox.ballast import Ballast
from agent.outbox.cache import CacheRows
from agent.outbox.contract import NORMAL, GroupDefinition, OutboxError
from agent.outbox.durable import sync
from agent.outbox.lanes import Lanes, Limits, new_epoch
from agent.outbox.passport import PassportFile
from agent.outbox.reading import OPENING_PAUSES_S, is_partly_readable, is_unreadable, reads_whole
from agent.outbox.records import RecordError, unpack_definition, unpack_lane, unpack_machine, unpack_whole
from agent.outbox.register import Register
from agent.outbox.rows import RowsMissing, Whole
from agent.outbox.salvage import Wreck, salvage
from agent.outbox.tally import Tally
from agent.outbox.wal import is_headless, restore
from protocols.program.logs import get_logger

ASIDE_MAX = 3
"""So many damaged databases are left lying; older ones are deleted."""

_DAMAGE = (
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_IOERR_SHORT_READ",
    "SQLITE_CONSTRAINT",  # a row is where none can be: records and rows disagree
)
_PAGE_BYTES = 4096

_log = get_logger(part="outbox")


class Opened(NamedTuple):
    """`news`: sentences to be said loudly. `aside`: where a damaged database was set aside, if one was."""

    rows: CacheRows
    lanes: Lanes
    news: list[str]
    aside: Path | None = None


class Place:
    """The outbox's directory and what lies in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.queue = directory / "queue"
        self.rebuilt = directory / "queue.new"
        self.note = directory / "damaged"
        self.register = Register(directory / "lanes")
        self.passport = PassportFile(directory / "passport")
        self.tally = Tally(directory / "tally")

    def error(self, what: object, remedy: str = "check the disk and its free space") -> OutboxError:
        """One sentence."""
        return OutboxError(f"outbox {self.directory}: {what}; {remedy}")

    def take(self) -> int:
        """Make it ours alone: the open lock."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.chmod(0o700)
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self.error(error.strerror, "check the path and its owner and rights") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise self.error("another agent is using it", "stop that one first (two would share numbers)") from None
        return lock

    def free_bytes(self) -> int:
        """Of the file system; 0 where it cannot be asked."""
        try:
            found = os.statvfs(self.directory)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize


def is_damage(error: Exception) -> bool:
    """Whether this says that the database, and not the space for it, is at fault."""
    return isinstance(error, RowsMissing) or getattr(error, "sqlite_errorname", "").startswith(_DAMAGE)


def open_outbox(place: Place, ballast: Ballast, limits: Limits) -> Opened:
    """Open it, whatever is there. Raises OutboxError."""
    try:
        if place.note.exists():
            return mend(place, ballast, limits, "it was found damaged before")
        found = _open_readable(place, ballast, limits)
        if isinstance(found, str):
            return mend(place, ballast, limits, found)
        return Opened(*found, [])
    except OutboxError as error:
        raise error if str(error).startswith("outbox") else place.error(error, "nothing was changed") from None
    except (sqlite3.Error, diskcache.Timeout, OSError, RecordError) as error:
        raise place.error(error) from None


def _open_readable(place: Place, ballast: Ballast, limits: Limits) -> tuple[CacheRows, Lanes] | str:
    """As `_open_sound`. A disk that cannot be read is given time; then it is damage, if most of it can be read."""
    why = ""
    for pause_s in (0.0, *OPENING_PAUSES_S):
        if pause_s:  # below libfaketime even a sleep of nothing fails
            time.sleep(pause_s)
        try:
            found = _open_sound(place, ballast, limits)
        except sqlite3.DatabaseError as error:
            if not is_unreadable(error):
                raise
            why = str(error)
        else:
            if not isinstance(found, str) or reads_whole(place.queue):
                return found
            why = found
        _log.warning("the outbox cannot be read and is tried again", error=why)
    if not is_partly_readable(place.queue):
        raise place.error(f"the disk cannot be read ({why})", "nothing was changed; check the disk")
    return f"{why}, again and again"


def _open_sound(place: Place, ballast: Ballast, limits: Limits) -> tuple[CacheRows, Lanes] | str:
    """Or what is wrong with it."""
    if is_headless(place.queue):
        return "its database file is gone or empty, and its log is not"
    rows = None
    try:
        rows = _connect(place.queue, ballast)
        return rows, load(rows, limits)
    except (sqlite3.DatabaseError, RecordError) as error:
        if rows is not None:
            rows.close()
        if isinstance(error, RecordError) or is_damage(error):
            return str(error)
        raise


def _connect(queue: Path, ballast: Ballast) -> CacheRows:
    """On a full disk with the ballast gone."""
    try:
        return CacheRows(queue)
    except (sqlite3.OperationalError, diskcache.Timeout) as error:
        if is_damage(error) or not ballast.drop():
            raise
        return CacheRows(queue)


def load(rows: CacheRows, limits: Limits) -> Lanes:
    """What the database says of the lanes; a new outbox where there is nothing yet.

    Raises RecordError where something is not as it was written.
    """
    packed = rows.whole()
    if packed is None:
        if not rows.is_new():
            raise RecordError("the outbox's main record is damaged")
        lanes = Lanes(rows, Whole({NORMAL: new_epoch()}, id=new_epoch()), limits, new_epoch)
        lanes.touch_whole()
        with rows.transaction():
            lanes.flush()
        return lanes
    whole, machines = unpack_whole(packed)
    found = rows.lanes()
    if len(found) < rows.lane_count():
        raise RecordError("the record of a lane is damaged")
    states = []
    for number, record in found:

        def definition_of(ref: bytes, number: int = number) -> GroupDefinition | None:
            there = rows.definition(number, ref)
            return None if there is None else unpack_definition(ref, there)[1]

        if machines is None:
            states.append(unpack_lane(number, record, definition_of))
        elif number < len(machines):
            states.append(unpack_machine(number, machines[number], whole.epochs[NORMAL], record, definition_of))
    lanes = Lanes(rows, whole, limits, new_epoch, states)
    if machines is not None:
        _upgrade(lanes)
    return lanes


def _upgrade(lanes: Lanes) -> None:
    """Write schema 2 over schema 1."""
    lanes.touch_whole().id = new_epoch()
    for state in list(lanes.states.values()):
        lanes.touch(state.name)
    _log.info("the outbox of an older version is carried on", lanes=len(lanes.states))


# --- damage -----------------------------------------------------------------------------------------------------------


def mend(place: Place, ballast: Ballast, limits: Limits, why: str, known: Lanes | None = None) -> Opened:
    """Set the database aside and put what can be read of it into a new one. `known`: the lanes as memory has them."""
    ballast.drop()
    aside = _set_aside(place)
    _log.error("the outbox is damaged and was set aside whole; a new epoch begins", aside=str(aside), error=why)
    if place.queue.exists():  # a crash came when all was done
        rows = CacheRows(place.queue)
        lanes, what = load(rows, limits), "what could be read of it is here"
    else:
        what = _rebuild(place, limits, known, aside)
        rows = CacheRows(place.queue)
        lanes = load(rows, limits)
    place.note.unlink(missing_ok=True)
    place.register.begin(lanes.states.values())
    sentence = f"the outbox was damaged ({why}) and was set aside whole as {aside.name}: {what}; a new epoch begins"
    return Opened(rows, lanes, [sentence, *_tidy(place, aside)], aside)


def _set_aside(place: Place) -> Path:
    name = place.note.read_text(errors="replace").strip() if place.note.exists() else ""
    if not name.startswith("damaged-"):
        name = _free_name(place)
        place.note.write_text(name)
        sync(place.note)
    aside = place.directory / name
    if place.queue.exists() and not aside.exists():
        place.queue.rename(aside)
        sync(place.directory)
    return aside


def _free_name(place: Place) -> str:
    name = stem = time.strftime("damaged-%Y%m%dT%H%M%S", time.gmtime())
    count = 1
    while (place.directory / name).exists():
        count += 1
        name = f"{stem}-{count}"
    return name


def _rebuild(place: Place, limits: Limits, known: Lanes | None, aside: Path) -> str:
    """What was read and what is lost, in words."""
    shutil.rmtree(place.rebuilt, ignore_errors=True)
    size = sum(path.stat().st_size for path in aside.glob("cache.db*"))
    free = place.free_bytes()
    rows = CacheRows(place.rebuilt)
    wreck = Wreck(_readable(aside, rows, place.rebuilt))
    try:
        rows.cap_pages(max(256, (free - (8 << 20)) // _PAGE_BYTES))  # room is left for the log and the records
        found = salvage(wreck, rows, limits, known, place.register.read(), with_kept=free > size + (64 << 20))
    finally:
        wreck.close()
        rows.close()
    place.rebuilt.rename(place.queue)
    sync(place.directory)
    return f"{found.read} waiting batches were read from it and keep their numbers, {found.lost} are lost"


def _readable(aside: Path, empty: CacheRows, place: Path) -> Path:
    """The damaged database's file; where there is only a log, one of what it holds. `empty`: a new one, in `place`."""
    if not is_headless(aside):
        return aside / "cache.db"
    empty.checkpoint()
    restore(aside, place / "cache.db", aside / "restored.db")
    return aside / "restored.db"


def _tidy(place: Place, newest: Path) -> list[str]:
    there = sorted((path for path in place.directory.glob("damaged-*") if path != newest), key=lambda p: p.name)
    gone = there[: max(0, len(there) + 1 - ASIDE_MAX)]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return [f"the older damaged outbox {path.name} was deleted to save space" for path in gone]

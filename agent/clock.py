"""The gateway's clock: read, asked whether it is synchronised, and what came of it kept over restarts of the agent."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from agent.vouching import SET_US, Moment, Record, Vouching
from protocols.program.logs import get_logger
from protocols.uplink.status import Clock

KERNEL, ALWAYS = "kernel", "always"
LOOK_US = 1_000_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_APART_NS = 1_000_000
_TRIES = 5

_log = get_logger(part="clock")


class GatewayClock:
    """`source`: who says that it is synchronised: KERNEL, ALWAYS, or the path of a file that exists then.

    `path`: of the record. `on_change`: is called when a span begins or ends; `on_set`: when the clock was set, with by
    how many microseconds it is ahead of what it was.
    """

    def __init__(
        self,
        source: str,
        path: Path,
        on_change: Callable[[], None] = lambda: None,
        on_set: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._path = path
        self._on_change = on_change
        self._on_set = on_set
        self._vouching = Vouching(boot_id(), _read(path))
        self._looked: Moment | None = None
        self._is_unwritten = False
        self._synchronised: bool | None = None
        self._marked = 0

    def mark(self, time_us: int) -> bytes:
        """The mark for what was stamped with this time and is taken now; empty: somebody vouches for the clock."""
        at = moment()
        before = self._looked
        if before is None or at.boot_us - before.boot_us >= LOOK_US or abs(at.zero_us - before.zero_us) > SET_US:
            self._look(at)
        return self._vouching.mark(time_us, at)

    def look(self) -> None:
        """To be called every few seconds, also while nothing is stamped."""
        self._look(moment())

    def marked(self, count: int) -> None:
        """So many batches were stored with a mark."""
        self._marked += count

    def status(self) -> Clock:
        """What the heartbeat says."""
        span = self._vouching.span
        zeros = dict(self._vouching.record.zeros)
        return Clock(synchronised=self._synchronised, span=span, marked=self._marked if span else 0, zeros=zeros)

    def _look(self, at: Moment) -> None:
        before, looked = self._vouching.span, self._looked
        if looked is not None and abs(at.zero_us - looked.zero_us) > SET_US:
            self._on_set(at.zero_us - looked.zero_us)
        self._looked, self._synchronised = at, synchronised(self._source)
        self._is_unwritten |= self._vouching.look(at, self._synchronised)
        if self._is_unwritten:
            self._is_unwritten = not _write(self._path, self._vouching.record)
        if self._vouching.span != before:
            self._say(self._vouching.span)
            self._marked = 0
            self._on_change()

    def _say(self, span: str) -> None:
        if span:
            _log.warning("the clock is not synchronised: what is read is marked, and corrected once it is")
        else:
            _log.info("the clock is synchronised", batches_to_correct=self._marked)


def moment() -> Moment:
    """Now, by both clocks."""
    for _ in range(_TRIES):  # whoever is interrupted between the two reads again
        before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall_ns = time.time_ns()
        after_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if after_ns - before_ns < _APART_NS:
            break
    return Moment((before_ns + after_ns) // 2000, wall_ns // 1000)


def boot_id() -> str:
    """The kernel's name for this boot; where it gives none, one that no other start of the agent has."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or secrets.token_hex(16)
    except OSError:
        return secrets.token_hex(16)


def synchronised(source: str) -> bool | None:
    """Whether the clock is, as this source says; None where it says nothing."""
    if source == KERNEL:
        return kernel_says()
    return source == ALWAYS or Path(source).exists()


def kernel_says() -> bool | None:
    """What adjtimex(2) says (TIME_ERROR = 5 means not synchronised); None where it says nothing."""
    libc = _libc()
    if libc is None:
        return None
    state: int = libc.adjtimex(ctypes.create_string_buffer(512))  # struct timex of zeros: modes 0 only reads
    return None if state < 0 else state != 5


@cache
def _libc() -> ctypes.CDLL | None:
    """The C library, where it knows of clocks."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None
    return libc if hasattr(libc, "adjtimex") else None


def _read(path: Path) -> Record:
    """An empty record where there is none that can be read: then what it said is uncertain."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        zeros = {str(span): int(zero_us) for span, zero_us in found["zeros"].items()}
        vouched_us = None if found["vouched_us"] is None else int(found["vouched_us"])
        return Record(str(found["boot"]), int(found["count"]), bool(found["is_open"]), vouched_us, zeros)
    except FileNotFoundError:
        return Record()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("what was known of the clock cannot be read", path=str(path), error=str(error))
        return Record()


def _write(path: Path, record: Record) -> bool:
    """Whether it is on the disk. A disk that takes nothing is told by the outbox."""
    content = {
        "boot": record.boot,
        "count": record.count,
        "is_open": record.is_open,
        "vouched_us": record.vouched_us,
        "zeros": record.zeros,
    }
    beside = path.with_suffix(".new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        _log.debug("what is known of the clock could not be written down", path=str(path), error=error.strerror)
        return False
    return True

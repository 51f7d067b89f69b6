"""Whether an agent is at work on a data directory: from its status file, and where that is old, from its lock.

The file alone is not enough: on a full disk it cannot be written, and that is just when people ask.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from agent.statusfile import AgentStatus, read_status
from protocols.uplink.status import Status

FRESH_S = 10.0
"""The file is written every 4 s; older than this it says nothing about now."""

STOPPED = "stopped"
"""What the file's `link` says after a planned stop."""


class Life(StrEnum):
    """What an agent does on a data directory."""

    RUNNING = "running"
    SILENT = "running, but its status file is old"
    STOPPED = "stopped"
    DEAD = "not running"
    NEVER = "never ran"


@dataclass(frozen=True, slots=True)
class Sighting:
    """`status`: its last word, if there is one; `age_s`: how old that is."""

    life: Life
    status: AgentStatus | None = None
    age_s: float = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether an agent holds this directory now."""
        return self.life in (Life.RUNNING, Life.SILENT)

    @property
    def said(self) -> Status | None:
        """Its last word, where it can be read: another version may have written it."""
        try:
            return None if self.status is None else Status.model_validate(self.status.status)
        except ValidationError:
            return None


def look(data_dir: Path, now_s: float) -> Sighting:
    """`now_s`: seconds since 1970. Raises PermissionError where this user may not look."""
    with suppress(FileNotFoundError, NotADirectoryError):
        (data_dir / "status.json").open("rb").close()
    status = read_status(data_dir / "status.json")
    age_s = 0.0 if status is None else now_s - status.written_s
    if status is not None and status.link != STOPPED and abs(age_s) <= FRESH_S:
        return Sighting(Life.RUNNING, status, age_s)
    if is_locked(data_dir / "outbox" / "lock"):
        return Sighting(Life.SILENT, status, age_s)
    if status is None:
        return Sighting(Life.NEVER)
    return Sighting(Life.STOPPED if status.link == STOPPED else Life.DEAD, status, age_s)


def is_locked(lock: Path) -> bool:
    """Whether a process holds the outbox's lock, see flock(2). False where there is none, or this user may not look.

    Asking takes the lock for an instant if it is free: an agent that starts just then fails, and is started again.
    """
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False

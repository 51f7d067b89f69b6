"""What `holdfast check` looks at on this machine: the clock, the disk beneath the outbox, the port of the page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from agent.commands.findings import Finding, Mark, split
from agent.settings import OutboxSettings, PageSettings
from protocols.program.listening import PageError, listen, url
from protocols.program.terminal import size

FREE_BYTES_MIN = 16 << 20
"""Below this a disk counts as full: SQLite needs room even to delete."""

_UNFIT = {
    "tmpfs": "is in memory (tmpfs): a power cut takes all of it",
    "ramfs": "is in memory (ramfs): a power cut takes all of it",
    "nfs": "is on a network drive (nfs), where SQLite's log does not work",
    "nfs4": "is on a network drive (nfs4), where SQLite's log does not work",
    "cifs": "is on a network drive (cifs), where SQLite's log does not work",
    "smb3": "is on a network drive (smb3), where SQLite's log does not work",
}


def clock(source: str, synchronised: bool | None) -> Finding:
    """`synchronised`: what the source says (clock.synchronised of the configuration); None: nothing."""
    match source, synchronised:
        case "always", _:
            return Finding(Mark.OK, "clock", "right by clock.synchronised: always")
        case _, True:
            return Finding(Mark.OK, "clock", "synchronised")
        case "kernel", False:
            text = "not synchronised, says the kernel: what is read is marked, and corrected once it is"
            return Finding(Mark.BAD, "clock", text, "timedatectl set-ntp true")
        case _, False:
            text = f"{source} does not exist yet: what is read is marked, and corrected once it does"
            return Finding(Mark.BAD, "clock", text, "see why nothing makes that file, or change clock.synchronised")
    return Finding(Mark.NOTE, "clock", "this system does not say whether it is synchronised", "timedatectl status")


@dataclass(frozen=True, slots=True)
class Space:
    """Where the data directory is, or will be. `used_bytes`: what the outbox takes already."""

    existing: Path
    free_bytes: int
    used_bytes: int
    file_system: str


def disk(data_dir: Path, outbox: OutboxSettings, is_in_use: bool) -> Finding:
    """Whether the outbox can live there. `is_in_use`: by a running agent, which is fine."""
    try:
        space = _space(data_dir)
        obstacle = _obstacle(space.existing)
    except OSError as error:
        text, fix = f"{data_dir}: {error.strerror}", "check data_dir, and the rights of this user"
        return Finding(Mark.BAD, "disk", text, fix)
    if obstacle:
        return Finding(Mark.BAD, "disk", f"{data_dir}: {obstacle}", "check as the agent's own user, or change data_dir")
    return _room(data_dir, outbox, space, is_in_use)


def _space(data_dir: Path) -> Space:
    # stat, not exists(): where this user may not look, it must not seem to be missing.
    existing = data_dir.absolute()
    while True:
        try:
            existing.stat()
            break
        except FileNotFoundError:
            existing = existing.parent
    free = os.statvfs(existing)
    return Space(existing, free.f_bavail * free.f_frsize, _used(data_dir / "outbox"), file_system(existing))


def _obstacle(existing: Path) -> str:
    """Why nothing can be written there; "" where it can."""
    if not existing.is_dir():
        return f"{existing} is no directory"
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        return "the file system is read-only"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"this user may not write to {existing}"
    return ""


def _used(outbox: Path) -> int:
    """Bytes of disk; none of what this user may not see."""
    return sum(
        os.stat(os.path.join(folder, name), follow_symlinks=False).st_blocks * 512  # noqa: PTH116, PTH118  # os.walk's
        for folder, _, names in os.walk(outbox)
        for name in names
    )


def _room(data_dir: Path, outbox: OutboxSettings, space: Space, is_in_use: bool) -> Finding:
    free, wanted = size(space.free_bytes), outbox.limit_bytes + outbox.reserve_bytes
    text = f"{data_dir}: {free} free, the outbox may take {size(wanted)}"
    if space.used_bytes:
        text += f" and has {size(space.used_bytes)}"
    if is_in_use:
        text += "; the running agent uses it"
    if space.free_bytes < FREE_BYTES_MIN:
        return Finding(Mark.BAD, "disk", f"{data_dir}: full, {free} are free", "make room on this disk")
    if space.file_system in _UNFIT:
        fix = "set data_dir to a directory on a disk of this machine"
        return Finding(Mark.NOTE, "disk", f"{data_dir} {_UNFIT[space.file_system]}", fix)
    if space.free_bytes + space.used_bytes < wanted:
        fix = "make room, or lower outbox.limit_bytes, so that the disk never fills up"
        return Finding(Mark.NOTE, "disk", text, fix)
    if space.existing != data_dir.absolute():
        text += "; it does not exist yet, the agent makes it"
    return Finding(Mark.OK, "disk", text)


def page(settings: PageSettings, is_running: bool) -> Finding:
    """Whether the agent's page can be served. `is_running`: an agent is, which may hold the port already."""
    from agent.page.service import is_local

    if find_spec("aiohttp") is None or find_spec("aiohttp_sse") is None:
        return Finding(Mark.BAD, "page", "aiohttp is not installed", "pip install 'holdfast[page]'")
    try:
        with listen(settings.host, settings.port, page="the agent's page", key="page") as listening:
            shown = f"{url(settings.host, listening)} is free" if settings.port else "any free port will be taken"
    except PageError as error:
        if error.in_use and is_running:
            return Finding(Mark.OK, "page", f"{settings.host}:{settings.port} is in use; the agent runs")
        return Finding(Mark.BAD, "page", *split(str(error)))
    if not is_local(settings.host):
        return Finding(Mark.NOTE, "page", f"{shown}; it has no login, and others can reach it", "docs/security.md")
    return Finding(Mark.OK, "page", shown)


def file_system(path: Path) -> str:
    """The type of the file system that a path is on, as in /proc/self/mountinfo (proc(5)); "" where it is not told."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    best, found = -1, ""
    resolved = path.resolve()
    for line in mounts.splitlines():
        place, _, rest = line.partition(" - ")
        point = Path(place.split(" ")[4].replace("\\040", " "))
        if (resolved == point or point in resolved.parents) and len(point.parts) >= best:
            best, found = len(point.parts), rest.split(" ")[0]
    return found

"""How an outbox knows that it is still itself: on the same machine and disk, and not a copy or a restored backup.

Kept in the outbox, a second time in its passport (passport.py), and compared when it is opened: signs of the machine
and its disk, all hashed, and the inode number and time of birth of a marker file beside the database. The marker is
made anew at each opening, so that a database that was put back from a backup names one that is gone; moving or renaming
the directory changes nothing, copying it does. A false alarm costs no more than a new epoch.

A disk that was set back as a whole, as a virtual machine's to a snapshot, differs in nothing from what it was. But the
machine has to be started then: so every boot begins a new epoch, and a number that was given before is never given
again, whatever became of it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from agent.outbox.contract import OutboxError

Signs = Mapping[str, list[str]]

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_NAMES = {
    "machine": "another machine",
    "board": "another machine",
    "network": "another machine",
    "disk": "another disk",
}


def find_signs(directory: Path, root: Path = Path("/")) -> dict[str, list[str]]:
    """The signs of this machine, and of the disk that the directory is on. What is not to be had is left out.

    Sources: machine-id(5); the device tree's serial number; addresses of network adapters that are hardware and have
    one of their own (/sys/class/net/*/addr_assign_type is 0); a disk's serial number or card id from sysfs.
    """
    adapters = [
        _text(adapter / "address")
        for adapter in sorted((root / "sys/class/net").glob("*"))
        if (adapter / "device").exists() and _text(adapter / "addr_assign_type") == "0"
    ]
    signs = {
        "machine": [_text(root / "etc/machine-id")],
        "board": [_text(root / "proc/device-tree/serial-number")],
        "network": adapters,
        "disk": _disk(directory, root),
    }
    return {name: [_hash(value) for value in values if value] for name, values in signs.items() if any(values)}


def find_boot(root: Path = Path("/")) -> str:
    """Which boot of the machine this is, hashed; empty where the kernel does not say."""
    found = _text(root / "proc/sys/kernel/random/boot_id")
    return _hash(found) if found else ""


def differences(before: Signs, now: Signs) -> list[str]:
    """In words, what is not as it was. A sign that is missing on either side says nothing."""
    found = [
        words
        for name, words in _NAMES.items()
        if before.get(name) and now.get(name) and not set(before[name]) & set(now[name])
    ]
    return list(dict.fromkeys(found))


def instance(signs: Signs, own_id: str) -> str:
    """Which installation this is, for others."""
    return _hash(f"{''.join(signs.get('machine', []))} {own_id}")


def is_dated(marker: str) -> bool:
    """Whether it has a time of birth, too: a copy may well have the inode number of what it was copied from."""
    return not marker.endswith(" 0")


class Marker:
    """The file that a copy does not have."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "life"
        self._next = directory / "life.new"

    def found(self) -> str | None:
        """What there is; None: nothing."""
        return _birth(self._path)

    def make(self) -> str | None:
        """A new one, which counts from `put` on; None where the disk takes none."""
        try:
            self._next.unlink(missing_ok=True)
            self._next.touch(mode=0o600)
        except OSError:
            return None
        return _birth(self._next)

    def put(self) -> None:
        """Let the new one take the old one's place. Where that fails, the old one is still good."""
        with suppress(OSError):
            self._next.rename(self._path)


def _birth(path: Path) -> str | None:
    """Inode number and time of birth, as statx(2) has it; 0 where file system or kernel do not say."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutboxError(f"{path}: {error.strerror}; check the disk") from None
    try:
        failed = ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer)
    except (OSError, AttributeError):  # an old C library
        failed = -1
    [mask] = struct.unpack_from("=I", buffer)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, 80)  # struct statx: stx_btime
    known = not failed and mask & _STATX_BTIME
    return f"{inode} {seconds}.{nanoseconds:09d}" if known else f"{inode} 0"


def _disk(directory: Path, root: Path) -> list[str]:
    device = directory.stat().st_dev
    block = root / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}"
    return sorted(_serials(block.resolve())) if block.exists() else []


def _serials(block: Path) -> Iterable[str]:
    """Of the disk itself, of the one that it is a partition of, or of those below it."""
    for below in sorted((block / "slaves").glob("*")):
        yield from _serials(below.resolve())
    disk = block.parent if (block / "partition").exists() else block
    for name in ("device/cid", "device/serial", "serial", "device/wwid", "wwid"):
        if found := _text(disk / name):
            yield found
            return


def _text(path: Path) -> str:
    try:
        return path.read_bytes().strip(b"\0 \r\n").decode(errors="replace")
    except OSError:
        return ""


def _hash(text: str) -> str:
    return hashlib.sha256(f"holdfast {text}".encode()).hexdigest()[:16]

"""A file system of its own, whose power can be cut, or that another program fills.

It says itself whether this machine can do it; where not, its rows are skipped with that reason.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, as FS_IOC_SHUTDOWN (Linux, fs/ext4/ext4.h)
NO_LOG_FLUSH = 2  # at once: neither data nor journal are written any more
UNMOUNT_PATIENCE_S = 10.0


class DiskProblem(OSError):
    """A command of the operating system failed; the text is what it said."""


def system(*command: str) -> None:
    """Run a command, also one that only root's PATH knows. Raises DiskProblem."""
    path = "/usr/sbin:/sbin:" + os.environ.get("PATH", "")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    if done.returncode:
        raise DiskProblem(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()}")


class LoopDisk:
    """An ext4 file system in a file. `path`: where it is mounted."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.path = folder / "disk"
        self._image = folder / "disk.img"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(size_mib << 20)
        system("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        self._mount()

    def _mount(self) -> None:
        system("mount", "-o", "loop", str(self._image), str(self.path))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk: neither pages in memory nor the journal. Calls fail with EIO."""
        directory = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(directory)

    def boot(self) -> None:
        """Mount it again, with what had reached the disk; nobody may have files of it open."""
        self._unmount()
        self._mount()

    def fill(self) -> None:
        """Another program's file takes all the space there is."""
        filler = os.open(self.path / "filler", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for chunk in (b"\0" * (1 << 20), b"\0" * 4096):
                with contextlib.suppress(OSError):
                    while os.write(filler, chunk) > 0:
                        pass
        finally:
            os.close(filler)

    def empty(self) -> None:
        """That file is gone again."""
        (self.path / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        self._unmount()

    def _unmount(self) -> None:
        end_s = time.monotonic() + UNMOUNT_PATIENCE_S
        while True:
            try:
                system("umount", str(self.path))
                return
            except DiskProblem:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.05)


@contextlib.contextmanager
def loop_disk(folder: Path, size_mib: int = 64) -> Iterator[LoopDisk]:
    """An ext4 file system, unmounted at the end; what uses it must have ended by then."""
    disk = LoopDisk(folder, size_mib)
    try:
        yield disk
    finally:
        disk.close()


@functools.cache
def no_power_cut() -> str:
    """Why this machine cannot rehearse a power cut; found out by doing it."""
    if os.geteuid() != 0:
        return "a power cut is rehearsed on a loop device, for which root is needed"
    with tempfile.TemporaryDirectory(prefix="holdfast-probe-") as folder:
        try:
            with loop_disk(Path(folder), 16) as disk:
                disk.cut_power()
                disk.boot()
        except OSError as error:
            return f"no ext4 on a loop device that can be shut down: {error}"
    return ""

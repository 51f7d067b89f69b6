"""shim.c, compiled, and the control of it: failing calls of the disk, and a time of day that runs faster."""

from __future__ import annotations

import functools
import mmap
import shutil
import struct
import tempfile
import time
from pathlib import Path

from tests.faults.disks import DiskProblem, system

_SOURCE = Path(__file__).with_name("shim.c")
_SIZE = 48  # of struct control


class Shim:
    """For one program. `environ`: what to start it with. `directory`: whose files' calls fail."""

    def __init__(self, folder: Path, directory: Path, seed: int) -> None:
        library = folder / "shim.so"
        build(library)
        control = folder / "shim.control"
        control.write_bytes(bytes(_SIZE))
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAULT_SHIM": str(control),
            "FAULT_SHIM_PATH": str(directory),
            "FAULT_SHIM_SEED": str(seed % 2**31 or 1),
        }

    def set(self, *, fsync_eio: float = 0.0, no_space: float = 0.0, slow_s: float = 0.0, read_eio: float = 0.0) -> None:
        """The parts of the calls that fail, from 0 to 1, and by how much each fsync is delayed."""
        self._map[40:44] = struct.pack("=I", round(read_eio * 1e6))
        self._map[:12] = struct.pack("=III", round(fsync_eio * 1e6), round(no_space * 1e6), round(slow_s * 1e6))

    def set_clock(self, ahead_s: float, speed: float = 1.0) -> None:
        """From now on so many seconds ahead, and so many times as fast."""
        self._map[16:40] = struct.pack("=qqd", time.time_ns() // 1000, round(ahead_s * 1e6), speed - 1)

    @property
    def injected(self) -> int:
        """How many calls of the disk it has spoilt so far."""
        count: int = struct.unpack("=I", self._map[12:16])[0]
        return count


def build(library: Path) -> None:
    """Compile the shim."""
    system("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(_SOURCE), "-ldl")


@functools.cache
def no_shim() -> str:
    """Why there can be no shim here."""
    if shutil.which("gcc") is None:
        return "failing disk calls and fast clocks come from a small C library, for which gcc is needed"
    with tempfile.TemporaryDirectory(prefix="holdfast-probe-") as folder:
        try:
            build(Path(folder) / "shim.so")
        except DiskProblem as error:
            return str(error)
    return ""

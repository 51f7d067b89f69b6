"""False clocks for a program: libfaketime, told of the time by a file. Only the time of day is false: programs measure
durations by a clock that no operator and no NTP sets, and so it stays true here.
"""

from __future__ import annotations

import functools
from pathlib import Path

_PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/local/lib/faketime/libfaketimeMT.so.1")
YEAR_S = 365.25 * 86_400


def _library() -> str:
    found = [str(path) for place in _PLACES for path in Path("/").glob(place.lstrip("/"))]
    return found[0] if found else ""


@functools.cache
def no_false_clock() -> str:
    """Why there can be no false clock here."""
    return "" if _library() else "clocks are set by libfaketime, which is missing (Debian: apt install libfaketime)"


class FalseClock:
    """`environ`: for the program. The file may be changed while it runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0)
        self.environ = {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def set(self, ahead_s: float) -> None:
        """So many seconds ahead of the true time."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{ahead_s:+.3f}\n")
        new.replace(self._path)

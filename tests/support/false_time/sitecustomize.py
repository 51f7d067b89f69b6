"""A false time of day for one Python program: with this directory in PYTHONPATH it is loaded before all else.

FALSE_TIME names a file with the nanoseconds by which the program's clock is ahead; it may change while the program
runs. Only the time of day is false, as where an operator or NTP sets it: durations are measured by other clocks.
"""

from __future__ import annotations

import os
import time

_true_ns = time.time_ns
_file = os.open(os.environ["FALSE_TIME"], os.O_RDONLY | os.O_CLOEXEC)


def _time_ns() -> int:
    return _true_ns() + int(os.pread(_file, 32, 0))


def _time() -> float:
    return _time_ns() / 1e9


time.time_ns = _time_ns
time.time = _time

"""What the simulated plant measures, as pure functions of time: no sockets, no clock.

Time is counted in ticks of `TICK_S` since the plant started. A `Moment` is one tick together with the row of the
recording that is replayed then; a `Signal` turns a moment into a value. The same moment always gives the same
value, so that a test can say what a register must hold.

The recording is stepped, never interpolated: every `TICKS_PER_ROW` ticks (one second) the next row (one recorded
minute) holds, and after the last row the first one follows.
"""

from __future__ import annotations

import csv
import gzip
import math
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

TICK_S = 0.1
TICKS_PER_ROW = 10
NUMBER_LIMIT = 1e12  # beyond what any column of such a recording can mean, and safe to encode as float32
COLUMNS = (
    *("temp_1_c", "temp_2_c", "temp_3_c", "temp_4_c", "temp_5_c", "temp_6_c", "pressure_7_bar", "temp_8_c"),
    *("flow_9_lph", "flow_v40_lph", "unit", "pwm_1_pct", "pwm_2_pct"),
    *("relay_1_pct", "relay_2_pct", "relay_3_pct", "relay_4_pct"),
    *("relay_1_seconds", "relay_2_seconds", "relay_3_seconds", "relay_4_seconds"),
    *("fault_mask", "status_mask", "heat_wh"),
)


class RecordingError(Exception):
    """The recording cannot be used. The message is one sentence: which file, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded minute: `time` as the recording has it, and the number in each of `COLUMNS`."""

    time: str
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Moment:
    """Tick `tick` of the plant, at which row number `row_number` of the recording holds."""

    tick: int
    row_number: int
    row: Row

    @property
    def time_s(self) -> float:
        """Seconds since the plant started."""
        return self.tick * TICK_S


Value: TypeAlias = bool | int | float | str
Signal: TypeAlias = Callable[[Moment], Value]
NumberSignal: TypeAlias = Callable[[Moment], float]


@dataclass(frozen=True, slots=True)
class Recording:
    """The rows to replay; at least one."""

    rows: Sequence[Row]

    def at(self, tick: int) -> Moment:
        """The moment of a tick."""
        number = tick // TICKS_PER_ROW % len(self.rows)
        return Moment(tick, number, self.rows[number])


def load_recording(path: Path) -> Recording:
    """Read a CSV file (`.csv`, or `.csv.gz`) with a column `time` and all of `COLUMNS`; others are ignored.

    Raises RecordingError.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in ("time", *COLUMNS) if name not in (reader.fieldnames or ())]
            if missing:
                raise RecordingError(f"{path}: no column {', '.join(missing)}; take a recording with these columns.")
            rows = [_row(path, reader.line_num, cells) for cells in reader]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as problem:
        reason = (isinstance(problem, OSError) and problem.strerror) or problem
        raise RecordingError(f"{path}: the recording cannot be read ({reason}); check the file.") from problem
    if not rows:
        raise RecordingError(f"{path}: the recording has no rows; take another file.")
    return Recording(rows)


def _row(path: Path, line: int, cells: Mapping[str, str | None]) -> Row:
    numbers = {}
    for name in COLUMNS:
        text = cells[name]
        try:
            number = float(text or "")
        except ValueError:
            number = math.nan
        if not -NUMBER_LIMIT <= number <= NUMBER_LIMIT:  # false for NaN too
            raise RecordingError(f"{path}:{line}: {name} is {text!r}, not a usable number; mend or remove the line.")
        numbers[name] = number
    return Row(cells["time"] or "", numbers)


def recorded(column: str) -> NumberSignal:
    """A column of the recording."""
    return lambda moment: moment.row.numbers[column]


def recorded_time(moment: Moment) -> str:
    """When the replayed row was recorded, to the minute: `2017-06-23T08:00`."""
    return moment.row.time[:16]


def wave(mean: float, amplitude: float, period_s: float, noise: float = 0.0, seed: int = 0) -> NumberSignal:
    """A sine around `mean`, with uniform noise of at most ±`noise`."""

    def signal(moment: Moment) -> float:
        swing = amplitude * math.sin(math.tau * moment.time_s / period_s)
        return mean + swing + (noise * jitter(seed, moment.tick) if noise else 0.0)

    return signal


def counter(start: int, per_s: float) -> Callable[[Moment], int]:
    """An integer that grows by `per_s` a second."""
    return lambda moment: start + int(moment.tick * TICK_S * per_s)


def alternating(values: Sequence[Value], period_s: float) -> Signal:
    """Each of `values` in turn, for `period_s` seconds."""
    return lambda moment: values[int(moment.time_s / period_s) % len(values)]


def constant(value: Value) -> Signal:
    """Always the same."""
    return lambda _moment: value


def jitter(seed: int, tick: int) -> float:
    """Noise between -1 and 1 that is the same for the same seed and tick on every machine."""
    return random.Random(seed << 40 | tick).uniform(-1, 1)

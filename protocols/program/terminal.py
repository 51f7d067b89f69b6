"""What a command writes for people: tables, JSON, progress, durations and sizes.

Nothing here needs rich. Colour only where stdout is a terminal and NO_COLOR is unset. What devices and strangers
named is printed with its control characters made visible, so that a tag's name cannot steer the terminal.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import Any, TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NARROWEST = (16, 6)  # columns are shortened to the first, and below that, to the second, only when they must be
_INDENT = "    "
_SPINNER_DELAY_S = 0.5
_SPINNER_STEP_S = 0.1
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def clean(text: str) -> str:
    """The text with control characters, and those that reverse its direction, shown as `\\x1b` and the like."""
    if text.isprintable():  # which none of these is
        return text
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def width(text: str) -> int:
    """How many cells of a terminal the text takes: two for wide East Asian characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, cells: int) -> str:
    """The text in at most that many cells, ending in `…` where something was cut off."""
    if width(text) <= cells:
        return text
    kept, used = [], 0
    for character in text:
        used += _cells(character)
        if used > cells - 1:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, fold: bool = False) -> None:
    """Print a table, fitted to the terminal; at full width where stdout is a file or a pipe. See table_lines.

    `fold`: what does not fit beside the rest goes below it. See folded_lines.
    """
    fitted = sys.stdout.isatty() or "COLUMNS" in os.environ
    cells = get_terminal_size().columns if fitted else None
    lines = folded_lines(columns, rows, cells) if fold and cells is not None else table_lines(columns, rows, cells)
    if colourful(sys.stdout):
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    sys.stdout.write("\n".join(lines) + "\n")


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[Any]], cells: int | None = None) -> list[str]:
    """A heading and one line per row; two blanks between columns, none at the end of a line.

    A column of numbers stands to the right, and one whose title begins with `>`, which is not shown. With `cells`,
    the widest column of text is shortened, then the next, until the lines fit, as far as that is possible.
    """
    titles = [title.removeprefix(">") for title in columns]
    right = [title.startswith(">") or _all_numbers([row[index] for row in rows]) for index, title in enumerate(columns)]
    grid = [titles, *([_cell(value) for value in row] for row in rows)]
    widths = [max(width(line[index]) for line in grid) for index in range(len(titles))]
    if cells is not None:
        _fit(widths, right, cells)
    return [_line(line, widths, right) for line in grid]


def folded_lines(columns: Sequence[str], rows: Sequence[Sequence[Any]], cells: int) -> list[str]:
    """As table_lines where all columns fit whole; otherwise those that do, and the others below each row, by title."""
    whole = table_lines(columns, rows)
    if max(map(width, whole)) <= cells:
        return whole
    beside = len(columns)
    while beside > 1 and max(map(width, table_lines(columns[:beside], [row[:beside] for row in rows]))) > cells:
        beside -= 1
    heading, *firsts = table_lines(columns[:beside], [row[:beside] for row in rows], cells)
    titles = [title.removeprefix(">") for title in columns[beside:]]
    lines = [heading]
    for first, row in zip(firsts, rows, strict=True):
        details = " · ".join(f"{title} {_cell(value)}" for title, value in zip(titles, row[beside:], strict=True))
        lines += [first, *textwrap.wrap(details, cells, initial_indent=_INDENT, subsequent_indent=_INDENT)]
    return lines


def fold(text: str, cells: int) -> list[str]:
    """The text in lines that end between words; a word that is wider stays whole, so that it can be copied."""
    return textwrap.wrap(text, max(cells, 20), break_long_words=False, break_on_hyphens=False) or [""]


def tell(sentence: str, stream: TextIO | None = None) -> None:
    """Write a sentence, on stdout if nothing else is said; between words, where it is a terminal's."""
    out = sys.stdout if stream is None else stream
    lines = [clean(line) for line in sentence.split("\n")]
    if out.isatty():
        lines = [piece for line in lines for piece in fold(line, get_terminal_size().columns)]
    out.write("\n".join(lines) + "\n")


def _line(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = []
    for text, room, to_right in zip(line, widths, right, strict=True):
        shown = shorten(text, room)
        blanks = " " * (room - width(shown))
        parts.append(blanks + shown if to_right else shown + blanks)
    return "  ".join(parts).rstrip()


def _fit(widths: list[int], right: Sequence[bool], cells: int) -> None:
    """Take what is too much from the widest column of text, then from the next; the others stay whole."""
    texts = sorted((index for index, to_right in enumerate(right) if not to_right), key=lambda index: -widths[index])
    for narrowest in _NARROWEST:
        for index in texts:
            excess = sum(widths) + 2 * (len(widths) - 1) - cells
            widths[index] -= max(0, min(excess, widths[index] - narrowest))


def _all_numbers(values: Sequence[Any]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in present)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(str(value))


def colourful(stream: TextIO) -> bool:
    """Whether colour may be written there (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(value: Any) -> None:
    """Print any value as JSON, indented by two: models, dataclasses, dates, enumerations and bytes too.

    NaN and infinity, which JSON does not have, become null; bytes become hexadecimal digits.
    """
    from pydantic_core import to_json  # only commands with --json need it

    sys.stdout.write(to_json(value, indent=2, inf_nan_mode="null", bytes_mode="hex").decode() + "\n")


class Progress:
    """The line that `progress` shows. `update` says how far it is."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._detail = ""
        self._ended = threading.Event()

    def update(self, detail: str) -> None:
        """Show this behind the label, for example `12 of 40`."""
        self._detail = detail

    def _spin(self) -> None:
        pause_s, step = _SPINNER_DELAY_S, 0
        while not self._ended.wait(pause_s):
            pause_s, step = _SPINNER_STEP_S, step + 1
            line = clean(f"{_SPINNER[step % len(_SPINNER)]} {self._label} {self._detail}".rstrip())
            sys.stderr.write(f"\r{shorten(line, get_terminal_size().columns - 1)}\x1b[K")
            sys.stderr.flush()
        if step:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    """For what takes longer than two seconds: a line on stderr that moves, gone at the end. Only on a terminal.

    A thread moves it, so that it also moves while the caller waits for something.
    """
    shown = Progress(label)
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield shown
        return
    thread = threading.Thread(target=shown._spin, name="progress", daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        shown._ended.set()
        thread.join()


def bar(done: int, of: int, cells: int = 20) -> str:
    """How much of the whole is done, drawn: `█████░░░░░`."""
    full = cells if of <= 0 else min(cells, cells * done // of)
    return "█" * full + "░" * (cells - full)


def ago(seconds: float) -> str:
    """A duration for people: `3 s`, `2 min`, `5 h`, `9 d 4 h`. Rounded down; a minus sign means in the future."""
    if seconds <= -1:
        return f"-{ago(-seconds)}"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h"
    days, hours = whole // 86400, whole % 86400 // 3600
    return f"{days} d {hours} h" if hours else f"{days} d"


def size(number: int) -> str:
    """A number of bytes for people, in powers of 1000: `512 B`, `1.2 MB`."""
    if number < 1000:
        return f"{number} B"
    value = float(number)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if round(value, 1) < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} PB"

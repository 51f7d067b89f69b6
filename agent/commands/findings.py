"""What a command found out, as lines with ✓, ✗ or !: the same for `check` and `status`."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from shutil import get_terminal_size

from protocols.program.terminal import clean, colourful

SUBJECT_CELLS_MAX = 18


class Mark(StrEnum):
    """`NOTE` is worth knowing and fails nothing."""

    OK = "ok"
    BAD = "bad"
    NOTE = "note"


_SIGNS = {Mark.OK: "✓", Mark.BAD: "✗", Mark.NOTE: "!"}
_COLOURS = {Mark.OK: "\x1b[32m", Mark.BAD: "\x1b[31m", Mark.NOTE: "\x1b[33m"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, and how it is. `fix`: what to do about it; `details`: further lines."""

    mark: Mark
    subject: str
    text: str
    fix: str = ""
    details: tuple[str, ...] = ()


def say(findings: Sequence[Finding]) -> None:
    """Print them, wrapped to the terminal; unwrapped into a file or a pipe."""
    in_colour = colourful(sys.stdout)
    for line in lines(findings, terminal_cells()):
        sign = next((mark for mark, sign in _SIGNS.items() if line.startswith(sign)), None)
        if in_colour and sign is not None:
            line = f"{_COLOURS[sign]}{line[0]}\x1b[0m{line[1:]}"
        sys.stdout.write(line + "\n")


def terminal_cells() -> int | None:
    """How wide the terminal is; None where stdout is none."""
    return get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None


def lines(findings: Sequence[Finding], cells: int | None) -> list[str]:
    """One or more lines per finding, the texts one below the other."""
    room = min(SUBJECT_CELLS_MAX, max((len(clean(finding.subject)) for finding in findings), default=0))
    indent = " " * (room + 4)
    found: list[str] = []
    for finding in findings:
        head = f"{_SIGNS[finding.mark]} {clean(finding.subject):{room}}  "
        found += wrapped(finding.text, cells, head, indent)
        for detail in finding.details:
            found += wrapped(detail, cells, indent, indent + "  ")
        if finding.fix:
            found += wrapped(finding.fix, cells, indent + "→ ", indent + "  ")
    return found


def wrapped(text: str, cells: int | None, first: str = "", then: str = "") -> Iterator[str]:
    """The text in lines of at most `cells`, where no single word is longer."""
    if cells is None:
        yield first + clean(text)
        return
    wrapper = textwrap.TextWrapper(
        max(cells, 40),
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield from wrapper.wrap(clean(text)) or [first.rstrip()]


def split(sentence: str, *, first: bool = False) -> tuple[str, str]:
    """What failed, and what to do: our sentences have a semicolon between them, the last one counts, or the first."""
    whole = sentence.removesuffix(".")
    what, semicolon, fix = whole.partition("; ") if first else whole.rpartition("; ")
    return (what, fix) if semicolon else (whole, "")

"""What a command found out, as lines with ✓, ✗ or !: the same for `check` and `status`."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from shutil import get_terminal_size

from agent.findings import Finding as Finding
from agent.findings import Mark as Mark
from agent.findings import split as split
from protocols.program.findings import SIGNS, coloured
from protocols.program.terminal import clean, colourful

SUBJECT_CELLS_MAX = 18


def say(findings: Sequence[Finding]) -> None:
    """Print them, wrapped to the terminal; unwrapped into a file or a pipe."""
    in_colour = colourful(sys.stdout)
    for line in lines(findings, terminal_cells()):
        mark = next((mark for mark, sign in SIGNS.items() if line.startswith(sign)), None)
        if in_colour and mark is not None:
            line = coloured(mark) + line[1:]
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
        head = f"{SIGNS[finding.mark]} {clean(finding.subject):{room}}  "
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

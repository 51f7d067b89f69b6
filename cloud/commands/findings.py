"""What `check` and `status` found out, as lines with ✓, ✗ or !."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocols.program.terminal import clean, colourful


class Mark(StrEnum):
    """`NOTE` is worth knowing and fails nothing."""

    OK = "ok"
    BAD = "bad"
    NOTE = "note"


_SIGNS = {Mark.OK: "✓", Mark.BAD: "✗", Mark.NOTE: "!"}
_COLOURS = {Mark.OK: "\x1b[32m", Mark.BAD: "\x1b[31m", Mark.NOTE: "\x1b[33m"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, and how it is. `fix`: what to do about it."""

    mark: Mark
    subject: str
    text: str
    fix: str = ""


def say(findings: Sequence[Finding]) -> None:
    """Print them, the texts one below the other."""
    in_colour = colourful(sys.stdout)
    room = max((len(finding.subject) for finding in findings), default=0)
    for finding in findings:
        sign = _SIGNS[finding.mark]
        shown = f"{_COLOURS[finding.mark]}{sign}\x1b[0m" if in_colour else sign
        sys.stdout.write(f"{shown} {finding.subject:{room}}  {clean(finding.text)}\n")
        if finding.fix:
            sys.stdout.write(f"{'':{room + 4}}→ {clean(finding.fix)}\n")


def failed(subject: str, sentence: str) -> Finding:
    """From an error's sentence: what failed before its last semicolon, what to do after it."""
    what, semicolon, fix = sentence.removesuffix(".").rpartition("; ")
    return Finding(Mark.BAD, subject, what if semicolon else fix, fix if semicolon else "")

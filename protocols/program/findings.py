"""What a command found out, each finding with its ✓, ✗ or !."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """`NOTE` is worth knowing and fails nothing."""

    OK = "ok"
    BAD = "bad"
    NOTE = "note"


SIGNS = {Mark.OK: "✓", Mark.BAD: "✗", Mark.NOTE: "!"}
_COLOURS = {Mark.OK: "\x1b[32m", Mark.BAD: "\x1b[31m", Mark.NOTE: "\x1b[33m"}


def coloured(mark: Mark) -> str:
    """The mark's sign in its colour, for a terminal."""
    return f"{_COLOURS[mark]}{SIGNS[mark]}\x1b[0m"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, and how it is. `fix`: what to do about it."""

    mark: Mark
    subject: str
    text: str
    fix: str = ""


def split(sentence: str, *, first: bool = False) -> tuple[str, str]:
    """What failed, and what to do: our sentences have a semicolon between them, the last one counts, or the first."""
    whole = sentence.removesuffix(".")
    what, semicolon, fix = whole.partition("; ") if first else whole.rpartition("; ")
    return (what, fix) if semicolon else (whole, "")

"""What strangers chose, for people: text that steers no screen, and figures that can be reckoned with."""

from __future__ import annotations

from protocols.program.terminal import clean

TEXT_MAX = 300
FIGURE_MAX = 2**53 - 1
"""The largest whole number that a browser takes as it is (Number.MAX_SAFE_INTEGER)."""


def plain(text: str) -> str:
    """At most TEXT_MAX characters; control characters, and those that reverse its direction, are made visible."""
    return clean(text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…")


def figure(number: int) -> int:
    """At most FIGURE_MAX: a status may say numbers of any length."""
    return max(-FIGURE_MAX, min(number, FIGURE_MAX))


def maybe(number: int | None) -> int | None:
    """Likewise, or None."""
    return None if number is None else figure(number)

"""Parts of arrays and structures: how they are written in the configuration, and taken out of a value. Pure.

    [3]                 an element of an array, counted from 0; [1][2] of a matrix
    Position.X          a member of a structure
    Axes[2].Speed       and both

A structure is a dict of its members here, an array a list.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

Part = tuple[str | int, ...]


class NoSuchPart(Exception):
    """The value has no such part; half a sentence."""


def parse_part(text: str) -> Part:
    """A part's text form. ValueError with a sentence on one that cannot be."""
    steps: list[str | int] = []
    at = 0
    while at < len(text):
        found = re.compile(r"\[([0-9]{1,9})\]" if text[at] == "[" else r"\.?([^.\[\]]{1,128})").match(text, at)
        if found is None or (text[at] not in "[." and at > 0) or (text[at] == "." and at == 0):
            raise ValueError(f"{text!r} names no part of a value; write for example [3], Position.X or Axes[2].Speed")
        steps.append(int(found[1]) if text[at] == "[" else found[1])
        at = found.end()
    return tuple(steps)


def part_of(value: Any, part: Part) -> Any:
    """Raises NoSuchPart."""
    for depth, step in enumerate(part):
        so_far = text_of(part[:depth]) or "the value"
        if isinstance(step, int):
            if not isinstance(value, list):
                raise NoSuchPart(f"{so_far} is no array, so there is no [{step}]")
            if step >= len(value):
                raise NoSuchPart(f"{so_far} has {len(value)} elements, so there is no [{step}]")
        elif not isinstance(value, dict):
            raise NoSuchPart(f"{so_far} is no structure, so there is no member {step}")
        elif step not in value:
            raise NoSuchPart(f"{so_far} has no member {step}, but {', '.join(list(value)[:12]) or 'none'}")
        value = value[step]
    return value


def text_of(part: Sequence[str | int]) -> str:
    """As it is written in the configuration."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in part).removeprefix(".")


def as_json(value: Any) -> str:
    """A whole array or structure as text. Dates are ISO 8601, bytes Base64, numbers that JSON has not are null."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value if isinstance(value, bool | int | None) else str(value)

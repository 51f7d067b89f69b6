"""Values as the configuration's YAML has them: on one line, and so that our strict reader takes them back. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from protocols.program.scalar import Ambiguous, resolve

Plain = str | int | float | bool | None | Sequence["Plain"] | Mapping[str, "Plain"]

# What needs no quotes even inside of {…} and […]: no sign that means something to YAML.
_BARE = re.compile(r"[^\W_][\w.°%/²³µ-]*(?: [\w.°%/²³µ()-]+)*|°[\w/]*")
_INVISIBLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_ADDRESS = re.compile(r"[a-z]+:[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+")


def scalar(value: str | float | bool | None) -> str:
    """One word of YAML that reads back as this value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
    if _BARE.fullmatch(value) or _ADDRESS.fullmatch(value):
        try:
            if resolve(value) == value:
                return value
        except Ambiguous:
            pass
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(value, ensure_ascii=False))


def _key(name: str) -> str:
    """Keys are always texts, so that a number needs no quotes as one."""
    return name if _NUMBER.fullmatch(name) else scalar(name)


def _number(value: float) -> str:
    """A float without its needless `.0`; settings take whole numbers where they take floats."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value).replace("e+", "e")


def flow(value: Plain) -> str:
    """On one line: {name: pressure, address: 40001}."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(inner) for inner in value) + "]"
    return scalar(value)


def tag_line(tag: Mapping[str, Plain]) -> str:
    """A tag as a line of a group's `tags`, to be pasted."""
    return f"- {flow(tag)}"


def block(value: Mapping[str, Plain], indent: int) -> list[str]:
    """A mapping as lines of its own, indented by so many blanks; mappings in lists named `tags` on one line each."""
    lines: list[str] = []
    margin = " " * indent
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            lines += [f"{margin}{_key(key)}:", *block(inner, indent + 2)] if inner else [f"{margin}{_key(key)}: {{}}"]
        elif isinstance(inner, Sequence) and not isinstance(inner, str) and inner:
            lines.append(f"{margin}{_key(key)}:")
            for item in inner:
                lines += _item(item, indent + 2, is_flow=key == "tags")
        else:
            lines.append(f"{margin}{_key(key)}: {flow(inner)}")
    return lines


def _item(item: Plain, indent: int, is_flow: bool) -> list[str]:
    margin = " " * indent
    if is_flow or not isinstance(item, Mapping) or not item:
        return [f"{margin}- {flow(item)}"]
    first, *rest = block(item, indent + 2)
    return [f"{margin}- {first.lstrip()}", *rest]


def block_item(item: Mapping[str, Plain], indent: int) -> list[str]:
    """A mapping as an item of a list whose dashes stand in that column."""
    return _item(item, indent, is_flow=False)

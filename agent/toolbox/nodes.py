"""The address space of an OPC UA server as a tree: which of it is shown, and its variables as tags. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from agent.toolbox.written import Plain

# Built-in type (OPC 10000-6, 5.1.2) → the type of a tag.
TAG_TYPES: Mapping[str, str] = {
    "Boolean": "bool",
    **dict.fromkeys(("SByte", "Int16", "Int32", "Int64"), "int"),
    **dict.fromkeys(("Byte", "UInt16", "UInt32", "UInt64"), "uint"),
    "Float": "float32",
    "Double": "float64",
    **dict.fromkeys(("String", "LocalizedText", "DateTime", "ByteString", "Guid"), "string"),
}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.:\[\]-]+")
NAME_MAX = 128


@dataclass
class Seen:
    """A node. `node` is its id with the namespace's URI, `short` with its index of today.

    `type_name`, `value`, `trouble`: of a variable whose value was read; `trouble` is why it has none.
    """

    name: str
    node: str
    short: str
    is_variable: bool
    depth: int = 0
    parent: Seen | None = None
    children: list[Seen] = field(default_factory=list)
    type_name: str = ""
    is_array: bool = False
    value: Any = None
    trouble: str = ""

    @property
    def path(self) -> str:
        """The names from below the root, with dots between."""
        names, seen = [], self
        while seen.parent is not None:
            names.append(seen.name)
            seen = seen.parent
        return ".".join(reversed(names))

    @property
    def tag_type(self) -> str | None:
        """The type of a tag of this variable; None where it cannot be one."""
        return None if self.is_array or self.trouble else TAG_TYPES.get(self.type_name)


def walked(root: Seen) -> Iterator[Seen]:
    """The node and everything below, each before its children."""
    yield root
    for child in root.children:
        yield from walked(child)


def chosen(root: Seen, pattern: str | None) -> list[Seen]:
    """The nodes below the root whose name or path fits: all of the pattern with * and ?, a part of the name without."""
    below = [seen for seen in walked(root) if seen is not root]
    if pattern is None:
        return below
    wanted = pattern.lower()
    if "*" not in wanted and "?" not in wanted:
        return [seen for seen in below if wanted in seen.name.lower()]
    return [seen for seen in below if fnmatchcase(seen.name.lower(), wanted) or fnmatchcase(seen.path.lower(), wanted)]


def with_ancestors(nodes: Sequence[Seen]) -> set[int]:
    """The `id`s of these nodes and of all above them."""
    found: set[int] = set()
    for seen in nodes:
        above: Seen | None = seen
        while above is not None and id(above) not in found:
            found.add(id(above))
            above = above.parent
    return found


def node_text(namespace: str | None, identifier: object, kind: str) -> str:
    """A node id as text (OPC 10000-6, 5.3.1.10); `namespace` None: the standard's own."""
    if namespace is None:
        return f"{kind}={identifier}"
    escaped = namespace.replace("%", "%25").replace(";", "%3B")
    return f"nsu={escaped};{kind}={identifier}"


def as_tags(nodes: Sequence[Seen], taken: frozenset[str]) -> tuple[list[dict[str, Plain]], list[Seen]]:
    """The variables among the nodes as tags, and those that cannot be any. `taken`: names that are used already."""
    tags: list[dict[str, Plain]] = []
    unfit: list[Seen] = []
    used = set(taken)
    for seen in nodes:
        if not seen.is_variable:
            continue
        if seen.tag_type is None:
            unfit.append(seen)
            continue
        name = _free(_NOT_IN_NAMES.sub("_", seen.path).lstrip("_.:[]-")[-NAME_MAX:] or "tag", used)
        used.add(name)
        tags.append({"name": name, "node": seen.node, "type": seen.tag_type})
    return tags, unfit


def _free(name: str, used: set[str]) -> str:
    """The name, or with a number behind it where it is taken."""
    name = name.lstrip("_.:[]-") or "tag"
    number, found = 2, name
    while found in used:
        ending = f"_{number}"
        found, number = name[: NAME_MAX - len(ending)] + ending, number + 1
    return found

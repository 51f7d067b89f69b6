"""Changes to a settings file's text that leave everything else in it as it was: comments, order, quotes, blank lines.

The parser says where each list, mapping and word stands; only the text of what changes is replaced. Lists are edited by
whole items. With an item goes what belongs to it alone: comments directly above it, without a blank line between, and
comments below its last line that are indented deeper than its dash.

Pure: text in, text out. Whether the result is valid is for whoever writes the file to check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from agent.toolbox.written import Plain, block_item, flow

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")


class CannotEdit(ValueError):
    """The file is written in a way that is not edited here. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Edit:
    """The characters from `start` up to, not including, `end` become `text`."""

    start: int
    end: int
    text: str


def applied(text: str, edits: Iterable[Edit]) -> str:
    """The text with all of them made. What is removed twice is removed once; what is added within it stays."""
    changes = _joined([edit for edit in edits if edit.end > edit.start])
    inserts = [_outside(edit, changes) for edit in edits if edit.end == edit.start]
    order = {id(edit): number for number, edit in enumerate(inserts)}  # several at one place keep their order
    for edit in sorted([*changes, *inserts], key=lambda one: (one.start, one.end, order.get(id(one), 0)), reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _joined(edits: list[Edit]) -> list[Edit]:
    """Removals that overlap as one."""
    found: list[Edit] = []
    for edit in sorted(edits, key=lambda one: (one.start, one.end)):
        if found and edit.start < found[-1].end and not (edit.text or found[-1].text):
            found[-1] = Edit(found[-1].start, max(found[-1].end, edit.end), "")
        else:
            found.append(edit)
    return found


def _outside(insert: Edit, changes: Sequence[Edit]) -> Edit:
    """The insert behind the removal that it lies in."""
    end = next((one.end for one in changes if one.start < insert.start < one.end), insert.start)
    return Edit(end, end, insert.text)


class Listing:
    """One list of a settings file, by its path: `("devices", 0, "groups", 0, "tags")`."""

    def __init__(self, text: str, path: Sequence[str | int]) -> None:
        """Raises CannotEdit where there is no such list."""
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"
        node = yaml.compose(text, Loader=_LOADER)
        for part in path:
            node = _child(node, part)
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
            raise CannotEdit(f"{where} is no list with entries; write the first one by hand")
        self._node = node
        self._is_flow = bool(node.flow_style)

    def append(self, items: Sequence[Mapping[str, Plain]]) -> list[Edit]:
        """New items behind the last."""
        if not items:
            return []
        last = self._node.value[-1]
        if self._is_flow:
            at = _end(last)
            return [Edit(at, at, "".join(f", {flow(item)}" for item in items))]
        at = self._line_end(_end(last))
        lines = [line for item in items for line in self._lines(item)]
        text = self._newline.join(lines) + self._newline
        if at and self._text[at - 1] not in "\r\n":
            text = self._newline + text.removesuffix(self._newline)
        return [Edit(at, at, text)]

    def replace(self, index: int, item: Mapping[str, Plain]) -> Edit:
        """Another item in the place of one. A comment behind its last line goes with it."""
        node = self._node.value[index]
        if self._is_flow:
            return Edit(node.start_mark.index, _end(node), flow(item))
        start, end = self._dash(node), self._line_end(_end(node))
        margin = self._line_start(start)
        if self._text[margin:start].strip():
            raise CannotEdit("a list begins on the line of another; give each its own line")
        text = self._newline.join(self._lines(item))
        return Edit(margin, end, text + (self._newline if self._text[end - 1] in "\r\n" else ""))

    def remove(self, index: int, *, others_come: bool = False) -> Edit:
        """Without the item. `others_come`: new ones are appended, too; without them the list must not become empty.

        Raises CannotEdit.
        """
        nodes = self._node.value
        if len(nodes) == 1 and (self._is_flow or not others_come):
            raise CannotEdit("it is the only one, and there has to be one")
        node = nodes[index]
        if self._is_flow:
            if index + 1 < len(nodes):
                return Edit(node.start_mark.index, nodes[index + 1].start_mark.index, "")
            return Edit(_end(nodes[index - 1]), _end(node), "")
        dash = self._dash(node)
        start = self._line_start(dash)
        if self._text[start:dash].strip():
            raise CannotEdit("a list begins on the line of another; give each its own line")
        return Edit(self._comments_above(start), self._comments_below(self._line_end(_end(node)), dash - start), "")

    def _lines(self, item: Mapping[str, Plain]) -> list[str]:
        """In the style of the items that are there."""
        first = self._node.value[0]
        dash = self._dash(first)
        column = dash - self._line_start(dash)
        if isinstance(first, yaml.MappingNode) and first.flow_style:
            return [f"{' ' * column}- {flow(item)}"]
        return block_item(item, column)

    def _dash(self, node: yaml.Node) -> int:
        return self._text.rindex("-", 0, node.start_mark.index)

    def _line_start(self, at: int) -> int:
        return max(self._text.rfind("\n", 0, at), self._text.rfind("\r", 0, at)) + 1

    def _line_end(self, at: int) -> int:
        """Behind the line break of the line that `at` is in; where `at` begins a line, that is `at`."""
        if at and self._text[at - 1] == "\n":  # a text in several lines ends behind its own
            return at
        found = _LINE.match(self._text, at)
        return at if found is None else found.end()

    def _comments_above(self, start: int) -> int:
        while start > 0:
            above = self._line_start(start - 1)
            if self._text[above : above + 2] == "\r\n" or not self._text[above:start].lstrip(" ").startswith("#"):
                return start
            start = above
        return start

    def _comments_below(self, end: int, column: int) -> int:
        """Behind the comments that are indented deeper than `column`, and blank lines between them."""
        at = end
        while at < len(self._text) and (found := _LINE.match(self._text, at)) and found.end() > at:
            line = found.group()
            if line.strip():
                if not line.lstrip(" ").startswith("#") or len(line) - len(line.lstrip(" ")) <= column:
                    return end
                end = found.end()
            at = found.end()
        return end


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        found: yaml.Node = node.value[part]
        return found
    return None


def _end(node: yaml.Node) -> int:
    """Where it really ends: a collection in block style says only where the next thing begins."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return end

"""A settings file as plain values that remember where they stood: YAML, read strictly. Pure.

Read from the parser's events, not from its finished values, because only events still show anchors, tags and quotes.
What is left of YAML is what a newcomer would guess: keys with values, lists, texts, numbers, true and false. Anchors,
aliases, merge keys, tags, several documents and duplicate keys are problems. Keys are always texts, as written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from protocols.program.problem import Path, Problem, SettingsError, dotted, is_secret
from protocols.program.scalar import Ambiguous, Scalar, resolve

DEPTH_MAX = 20
SIZE_MAX_BYTES = 5_000_000

Position = tuple[int, int]
"""Line and column, both from 1; columns in characters."""

# Ten times as fast where PyYAML was built with libyaml, as its wheels are; the positions are the same.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE_END = re.compile(r"\r\n|\r|\n")

# What the two YAML parsers say, and what it nearly always means. The first that is contained in the message applies.
_SYNTAX = (
    ("found a tab", "a tab stands where spaces belong; indent with spaces"),
    ("mapping values are not allowed", "a second key begins here; start a new line, or put quotes around the text"),
    ("cannot start any token", "no text may begin with this character; put quotes around the text"),
    ("unexpected end of stream", "a quote that was opened is never closed; close it"),
    ("unknown escape", "this escape is unknown; use single quotes for a text with backslashes"),
    ("expected ','", "a list or mapping that was opened is not closed; add a comma or the closing bracket"),
    ("expected '-' indicator", "an entry of a list is expected; begin it with a dash, or check the indentation"),
    ("expected <block end>", "this fits neither as a key nor as an entry; check indentation and quotes"),
    ("did not find expected key", "this fits neither as a key nor as an entry; check indentation and quotes"),
    ("could not find expected ':'", "a key without its colon; write `key: value`"),
)


@dataclass(frozen=True, slots=True)
class Document:
    """Plain values (dict, list, str, int, float, bool, None), and the place of each by its path.

    `keys` has the position of every key, `values` of every value; a mapping's is that of its first key.
    `problems` is what was refused and `refused` where: such a value stands as None, and nothing should be said about
    it again.
    """

    filename: str
    value: Any
    keys: Mapping[Path, Position]
    values: Mapping[Path, Position]
    problems: tuple[Problem, ...] = ()
    refused: frozenset[Path] = frozenset()


def parse(text: str, filename: str) -> Document:
    """Read a settings file's text. Single values that were refused are in the document's `problems`.

    Raises SettingsError, with everything found so far, when the text cannot be read to its end: wrong syntax, a
    second document, nesting deeper than DEPTH_MAX, more than SIZE_MAX_BYTES characters.
    """
    if problems := list(_unreadable(text, filename)):
        raise SettingsError(problems)
    builder = _Builder(filename)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise SettingsError([*builder.problems, _syntax_problem(error, text, filename)]) from error
    return builder.document()


def _unreadable(text: str, filename: str) -> Iterator[Problem]:
    if len(text) > SIZE_MAX_BYTES:
        yield too_large(filename)
    elif found := _CONTROL.search(text):
        line, column = position(text, found.start())
        name = f"U+{ord(found.group()):04X}"
        yield Problem(filename, line, column, "", f"the invisible character {name} is not allowed; delete it")


def too_large(filename: str) -> Problem:
    """The problem of a file beyond SIZE_MAX_BYTES."""
    limit = f"{SIZE_MAX_BYTES // 1_000_000} MB"
    return Problem(filename, None, None, "", f"the file is larger than {limit}; check that it is the right one")


def position(text: str, offset: int) -> Position:
    """Line and column of a character's offset in a text."""
    lines = _LINE_END.split(text[:offset])
    return len(lines), len(lines[-1]) + 1


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, filename: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    said = error.problem or "not readable"
    message = next((ours for theirs, ours in _SYNTAX if theirs in said), f"this is not YAML ({said}); check it")
    if mark is None:
        return Problem(filename, None, None, "", message)
    if "unexpected end of stream" in said and error.context_mark:
        mark = error.context_mark  # the end of the file helps nobody
    elif _character(text, mark.line, mark.column) == "\t":
        message = _SYNTAX[0][1]
    return Problem(filename, mark.line + 1, mark.column + 1, "", message)


def _character(text: str, line: int, column: int) -> str:
    lines = _LINE_END.split(text)
    return lines[line][column : column + 1] if line < len(lines) else ""


class _Open:
    """A mapping or list whose end has not come yet. `lost`: beneath a duplicate key, so it is read and dropped."""

    __slots__ = ("into", "key", "key_lost", "lost", "path")

    def __init__(self, path: Path, into: dict[str, Any] | list[Any], lost: bool) -> None:
        self.path = path
        self.into = into
        self.lost = lost
        self.key: str | None = None
        self.key_lost = False


class _Builder:
    """Takes the parser's events one by one and builds the document."""

    def __init__(self, filename: str) -> None:
        self.problems: list[Problem] = []
        self._filename = filename
        self._value: Any = None
        self._keys: dict[Path, Position] = {}
        self._values: dict[Path, Position] = {}
        self._refused: set[Path] = set()
        self._open: list[_Open] = []
        self._documents = 0

    def document(self) -> Document:
        """What was built, once every event was taken."""
        return Document(
            self._filename, self._value, self._keys, self._values, tuple(self.problems), frozenset(self._refused)
        )

    def take(self, event: yaml.Event) -> None:
        """Take the next event. Raises SettingsError where nothing that follows could be placed."""
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._begin(event, {})
            case yaml.SequenceStartEvent():
                self._begin(event, [])
            case yaml.CollectionEndEvent():
                self._open.pop()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._stop(event, "a second document begins here; one file holds one, so remove this line")
            case _:
                pass  # the beginning and the end of the stream, the end of the document

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.into, dict) and top.key is None:
            self._key(top, event)
            return
        path = self._path()
        self._report_marks(path, event)
        plain = not event.style and event.implicit[0]
        value: Scalar = event.value
        if plain:
            try:
                value = resolve(event.value)
            except Ambiguous as ambiguous:
                self._refuse(path, event, str(Ambiguous() if is_secret(path) else ambiguous))
                value = None
        self._place(path, value, event)

    def _key(self, top: _Open, event: yaml.ScalarEvent) -> None:
        name: str = event.value
        path = (*top.path, name)
        top.key = name
        top.key_lost = top.lost
        self._report_marks(path, event)
        if name in top.into:
            first = self._keys[path][0]
            self._report(path, event, f"the key is here a second time, first on line {first}; keep one of the two")
            top.key_lost = True
        elif name == "" or (name == "<<" and not event.style):
            what = "merge keys are not used here; write the keys out" if name else "the key is empty; write a name"
            self._report(path, event, what)
            top.key_lost = True
        elif not top.lost:
            self._keys[path] = _position(event)

    def _begin(self, event: yaml.CollectionStartEvent, into: dict[str, Any] | list[Any]) -> None:
        path = self._path()
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.into, dict) and top.key is None:
            self._stop(event, "a key must be a single word or text; put quotes around it")
        if len(self._open) == DEPTH_MAX:
            self._stop(event, f"nested more than {DEPTH_MAX} deep; is a bracket or an indentation wrong?")
        self._report_marks(path, event)
        lost = top is not None and (top.lost or top.key_lost)
        self._place(path, into, event)
        self._open.append(_Open(path, into, lost))

    def _alias(self, event: yaml.AliasEvent) -> None:
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.into, dict) and top.key is None:
            self._stop(event, f"*{event.anchor} stands as a key; write the key out, or put quotes around it")
        path = self._path()
        self._refuse(path, event, f"*{event.anchor} refers to another place; write the value out, or quote the text")
        self._place(path, None, event)

    def _path(self) -> Path:
        """Where the next value goes."""
        if not self._open:
            return ()
        top = self._open[-1]
        if isinstance(top.into, list):
            return (*top.path, len(top.into))
        return top.path if top.key is None else (*top.path, top.key)

    def _place(self, path: Path, value: Any, event: yaml.Event) -> None:
        if not self._open:
            self._value = value
            self._values[path] = _position(event)
            return
        top = self._open[-1]
        if isinstance(top.into, list):
            top.into.append(value)
        elif top.key is not None and not top.key_lost:
            top.into[top.key] = value
        if not (top.lost or top.key_lost):
            self._values[path] = _position(event)
        top.key, top.key_lost = None, False

    def _report_marks(self, path: Path, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor is not None:
            self._report(path, event, f"&{event.anchor} names this place; remove it, and write values out where needed")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._report(path, event, f"the tag {tag} is not used here; remove it, or put quotes around the text")

    def _report(self, path: Path, event: yaml.Event, message: str) -> None:
        self.problems.append(Problem(self._filename, *_position(event), dotted(path), message))

    def _refuse(self, path: Path, event: yaml.Event, message: str) -> None:
        self._report(path, event, message)
        self._refused.add(path)

    def _stop(self, event: yaml.Event, message: str) -> NoReturn:
        self._report(self._path(), event, message)
        raise SettingsError(self.problems)


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)

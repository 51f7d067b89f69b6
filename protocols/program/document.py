"""A settings file as plain values that remember where they stood: YAML, read strictly. Pure.

Read from the parser's events, not from its finished values, because only events still show anchors, tags and quotes.
What is left of YAML is what a newcomer would guess: keys with values, lists, texts, numbers, true and false. Anchors,
aliases, merge keys, tags, several documents and duplicate keys are problems. Keys are always texts, as written.

Where each value stood is only wanted where something is wrong with one, and takes three times the memory of the values:
it is found by reading the text once more.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import yaml

from protocols.program.problem import Path, Problem, SettingsError, dotted, is_secret
from protocols.program.scalar import Ambiguous, Scalar, resolve

DEPTH_MAX = 20
SIZE_MAX_BYTES = 5_000_000

Position = tuple[int, int]
"""Line and column, both from 1; columns in characters."""

# Ten times as fast where PyYAML was built with libyaml, as its wheels are; the positions are the same.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What YAML does not allow, line separators and surrogates. Named one by one: the opposite takes ten times as long to
# compile.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
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


class Places(NamedTuple):
    """Where everything stands, by its path: keys, and values; a mapping's position is that of its first key."""

    keys: dict[Path, Position]
    values: dict[Path, Position]


@dataclass(frozen=True)
class Document:
    """Plain values (dict, list, str, int, float, bool, None), and the place of each by its path.

    `problems` is what was refused and `refused` where: such a value stands as None, and nothing should be said about
    it again.
    """

    filename: str
    value: Any
    problems: tuple[Problem, ...]
    refused: frozenset[Path]
    _text: str = field(repr=False)
    _loader: Any = field(repr=False)

    @property
    def keys(self) -> Mapping[Path, Position]:
        """The position of every key."""
        return self._places.keys

    @property
    def values(self) -> Mapping[Path, Position]:
        """The position of every value."""
        return self._places.values

    @cached_property
    def _places(self) -> Places:
        places = Places({}, {})
        _Builder(self.filename, places).read(self._text, self._loader)
        return places


def parse(text: str, filename: str) -> Document:
    """Read a settings file's text. Single values that were refused are in the document's `problems`.

    Raises SettingsError, with everything found so far, when the text cannot be read to its end: wrong syntax, a
    second document, nesting deeper than DEPTH_MAX, more than SIZE_MAX_BYTES characters.
    """
    if problems := list(_unreadable(text, filename)):
        raise SettingsError(problems)
    builder = _Builder(filename, None)
    try:
        builder.read(text, _LOADER)
    except yaml.MarkedYAMLError as error:
        raise SettingsError([*builder.problems, _syntax_problem(error, text, filename)]) from error
    return Document(filename, builder.value, tuple(builder.problems), frozenset(builder.refused), text, _LOADER)


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
    """A mapping or list whose end has not come yet. `lost`: beneath a duplicate key, so it is read and dropped.

    `lines`: key → the line on which it stands. Empty in a list.
    """

    __slots__ = ("into", "key", "key_lost", "lines", "lost", "path")

    def __init__(self, path: Path, into: dict[str, Any] | list[Any], lost: bool) -> None:
        self.path = path
        self.into = into
        self.lost = lost
        self.key: str | None = None
        self.key_lost = False
        self.lines: dict[str, int] = {}

    @property
    def awaits_key(self) -> bool:
        return self.key is None and isinstance(self.into, dict)


class _Builder:
    """Takes the parser's events one by one and builds the values; with `places`, notes where everything stands."""

    def __init__(self, filename: str, places: Places | None) -> None:
        self.problems: list[Problem] = []
        self.refused: set[Path] = set()
        self.value: Any = None
        self._filename = filename
        self._places = places
        self._open: list[_Open] = []
        self._documents = 0

    def read(self, text: str, loader: Any) -> None:
        """Take all of a text's events. Raises SettingsError where nothing that follows could be placed."""
        for event in yaml.parse(text, Loader=loader):
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
        if top is not None and top.awaits_key:
            self._key(top, event)
            return
        self._report_marks(event)
        value: Scalar = event.value
        if not event.style and event.implicit[0]:  # an unquoted word
            try:
                value = resolve(event.value)
            except Ambiguous as ambiguous:
                self._refuse(event, str(Ambiguous() if is_secret(self._path()) else ambiguous))
                value = None
        self._place(value, event)

    def _key(self, top: _Open, event: yaml.ScalarEvent) -> None:
        name = top.key = sys.intern(event.value)  # the same few in each of ten thousand tags
        top.key_lost = top.lost
        self._report_marks(event)
        if first := top.lines.get(name):
            self._report(event, f"the key is here a second time, first on line {first}; keep one of the two")
            top.key_lost = True
        elif name == "" or (name == "<<" and not event.style):
            what = "merge keys are not used here; write the keys out" if name else "the key is empty; write a name"
            self._report(event, what)
            top.key_lost = True
        elif not top.lost:
            position = _position(event)
            top.lines[name] = position[0]
            if self._places is not None:
                self._places.keys[self._path()] = position

    def _begin(self, event: yaml.CollectionStartEvent, into: dict[str, Any] | list[Any]) -> None:
        path = self._path()
        top = self._open[-1] if self._open else None
        if top is not None and top.awaits_key:
            self._stop(event, "a key must be a single word or text; put quotes around it")
        if len(self._open) == DEPTH_MAX:
            self._stop(event, f"nested more than {DEPTH_MAX} deep; is a bracket or an indentation wrong?")
        self._report_marks(event)
        lost = top is not None and (top.lost or top.key_lost)
        self._place(into, event)
        self._open.append(_Open(path, into, lost))

    def _alias(self, event: yaml.AliasEvent) -> None:
        if self._open and self._open[-1].awaits_key:
            self._stop(event, f"*{event.anchor} stands as a key; write the key out, or put quotes around it")
        self._refuse(event, f"*{event.anchor} refers to another place; write the value out, or quote the text")
        self._place(None, event)

    def _path(self) -> Path:
        """Of the key that was read last, or else where the next value goes."""
        if not self._open:
            return ()
        top = self._open[-1]
        if isinstance(top.into, list):
            return (*top.path, len(top.into))
        return top.path if top.key is None else (*top.path, top.key)

    def _place(self, value: Any, event: yaml.Event) -> None:
        top = self._open[-1] if self._open else None
        if self._places is not None and not (top is not None and (top.lost or top.key_lost)):
            self._places.values[self._path()] = _position(event)
        if top is None:
            self.value = value
            return
        if isinstance(top.into, list):
            top.into.append(value)
        elif top.key is not None and not top.key_lost:
            top.into[top.key] = value
        top.key, top.key_lost = None, False

    def _report_marks(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor is not None:
            self._report(event, f"&{event.anchor} names this place; remove it, and write values out where needed")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._report(event, f"the tag {tag} is not used here; remove it, or put quotes around the text")

    def _report(self, event: yaml.Event, message: str) -> None:
        self.problems.append(Problem(self._filename, *_position(event), dotted(self._path()), message))

    def _refuse(self, event: yaml.Event, message: str) -> None:
        self._report(event, message)
        self.refused.add(self._path())

    def _stop(self, event: yaml.Event, message: str) -> NoReturn:
        self._report(event, message)
        raise SettingsError(self.problems)


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)

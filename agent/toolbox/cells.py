"""Values in the cells of a table, and back, exactly. Pure.

A text column holds its text. Any other holds a word as the configuration has it: 40001, 0.1, true, "0123". What a
spreadsheet would take for a formula begins with an apostrophe here, which is taken away again when it is read.
"""

from __future__ import annotations

import json
import re

from agent.toolbox.written import Plain, flow
from protocols.program.document import parse
from protocols.program.problem import SettingsError

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[-+]?[0-9]+([.,][0-9]+)?([eE][-+]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+([eE][-+]?[0-9]+)?")


def written_cell(value: Plain, is_text: bool) -> str:
    """The cell of a value."""
    if isinstance(value, str):
        bare = _read(value, is_text)
        text = value if value and bare == value and isinstance(bare, str) else json.dumps(value, ensure_ascii=False)
    else:
        text = flow(value)
    return neutral(text)


def read_cell(cell: str, is_text: bool) -> Plain:
    """The value of a cell that is not empty."""
    return _read(_bare(cell), is_text)


def neutral(text: str) -> str:
    """The text so that no spreadsheet runs it as a formula. Numbers are none."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _bare(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def with_decimal_point(cell: str) -> str:
    """A number as a spreadsheet of half of Europe writes it, 0,5, as the other half does."""
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell


def _read(text: str, is_text: bool) -> Plain:
    if is_text:
        return _quoted(text)
    try:
        document = parse(f"[{text}]", "cell")
    except SettingsError:
        return text
    if document.problems or not isinstance(document.value, list) or len(document.value) != 1:
        return text
    found: Plain = document.value[0]
    return text if found is None else found


def _quoted(text: str) -> str:
    """A text in a text column; in quotes where it is empty, or begins with a quote itself."""
    if not text.startswith('"'):
        return text
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, str) else text

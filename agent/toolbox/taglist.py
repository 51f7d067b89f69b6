"""A list of tags as a table: our own form, and what is common to those of other programs. Pure.

Our form has a line of headings: `group`, `period_s`, and the keys of the protocol's tags. An empty cell is a key that
is not given. What stands in the cells: see `cells`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from agent.toolbox.cells import read_cell, with_decimal_point, written_cell
from agent.toolbox.sheets import Rows, column_name
from agent.toolbox.written import Plain
from protocols.field.contract import DriverModule
from protocols.program.explain import explain

GROUP, PERIOD = "group", "period_s"
DEFAULT_GROUP = "main"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and in which cell (C7); in a row (7) where no single cell is to blame."""

    cell: str
    message: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.message}"


@dataclass
class Row:
    """A tag of a list, and the cell of each of its keys. `at`: the row's number, from 1, as spreadsheets count."""

    at: int
    tag: dict[str, Plain]
    cells: dict[str, str]
    group: str | None = None
    period_s: float | None = None


@dataclass
class Listed:
    """What was read from a table. `form`: whose table it is; `remarks`: what a person should know of the change."""

    form: str
    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def text_keys(model: type[BaseModel]) -> frozenset[str]:
    """The keys that hold nothing but text, whose cells are taken as they are."""
    properties = model.model_json_schema()["properties"]
    return frozenset(key for key, schema in properties.items() if _is_text(schema))


def _is_text(schema: Mapping[str, Any]) -> bool:
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return all(one.get("type") == "string" or "$ref" in one for one in kinds)


def own_rows(rows: Rows, model: type[BaseModel]) -> Listed:
    """A table in our own form. Faults of the headings and of single cells are in the result."""
    listed = Listed("holdfast")
    titles = [title.strip() for title in rows[0]]
    known = {GROUP, PERIOD, *model.model_fields}
    for index, title in enumerate(titles):
        if title and title not in known:
            listed.faults.append(Fault(f"{column_name(index)}1", f"there is no key {title!r} for such a tag"))
        if title and titles.index(title) != index:
            listed.faults.append(Fault(f"{column_name(index)}1", f"the heading {title} stands twice"))
    texts = text_keys(model)
    for at, row in enumerate(rows[1:], 2):
        if any(cell.strip() for cell in row):
            listed.rows.append(_own_row(at, titles, row, texts, known))
    return listed


def _own_row(at: int, titles: Sequence[str], row: Sequence[str], texts: frozenset[str], known: set[str]) -> Row:
    found = Row(at, {}, {})
    for index, (title, cell) in enumerate(zip(titles, row, strict=False)):
        if cell == "" or title not in known:
            continue
        name = f"{column_name(index)}{at}"
        if title == GROUP:
            found.group = str(read_cell(cell, is_text=True))
        elif title == PERIOD:
            period_s = read_cell(with_decimal_point(cell), is_text=False)
            found.period_s = float(period_s) if isinstance(period_s, int | float) else -1.0
        else:
            is_text = title in texts
            found.tag[title] = read_cell(cell if is_text else with_decimal_point(cell), is_text)
        found.cells[title] = name
    return found


def table(groups: Sequence[tuple[str, float, Sequence[Mapping[str, Plain]]]], model: type[BaseModel]) -> Rows:
    """Our own form of (group, period, tags). Only keys that some tag has get a column."""
    used = {key for _, _, tags in groups for tag in tags for key in tag}
    keys = [key for key in model.model_fields if key in used]
    texts = text_keys(model)
    rows: Rows = [[GROUP, PERIOD, *keys]]
    for name, period_s, tags in groups:
        head = [written_cell(name, True), written_cell(period_s, False)]
        rows += [[*head, *(written_cell(tag[key], key in texts) if key in tag else "" for key in keys)] for tag in tags]
    return rows


def checked(listed: Listed, module: DriverModule) -> list[Fault]:
    """Everything that is wrong with the tags themselves, each at its cell."""
    faults = list(listed.faults)
    seen: dict[str, int] = {}
    for row in listed.rows:
        faults += _faults(row, module)
        name = str(row.tag.get("name"))
        if seen.setdefault(name, row.at) != row.at:
            faults.append(Fault(row.cells.get("name", str(row.at)), f"a tag {name} stands in row {seen[name]} already"))
    return faults


def _faults(row: Row, module: DriverModule) -> Iterator[Fault]:
    if row.period_s is not None and not 0.05 <= row.period_s <= 86_400:
        yield Fault(row.cells.get(PERIOD, str(row.at)), "a period is a number of seconds, 0.05 to 86400")
    try:
        settings = module.TagSettings.model_validate(row.tag)
        module.tag(settings)
    except ValidationError as error:
        for found in explain(error, module.TagSettings, row.tag, ()):
            key = str(found.path[0]) if found.path else ""
            what = found.message if key in row.cells else f"{key}: {found.message}"
            yield Fault(row.cells.get(key, f"row {row.at}"), what)
    except ValueError as error:
        yield Fault(f"row {row.at}", str(error))

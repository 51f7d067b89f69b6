"""What `holdfast scan` shows, as lines and as plain values. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.commands.findings import wrapped
from agent.commands.scan import Findings, ignores_unit_ids
from agent.toolbox.scanning import TableFound, UnitFound, listed
from protocols.field.modbus_address import place
from protocols.field.modbus_request import READ_FUNCTION
from protocols.program.terminal import table_lines

if TYPE_CHECKING:
    from agent.commands.probe_target import Target

RANGES_SHOWN_MAX = 30


def lines(who: Target, found: Findings, cells: int | None) -> Iterator[str]:
    """A sentence on the units, a table of what they have."""
    where = who.endpoint
    if found.serial is not None:
        where += f" at {found.serial.baudrate} baud, parity {found.serial.parity}"
    if found.ended:
        yield from wrapped(f"not complete: {found.ended}", cells, "! ", "  ")
    if not found.units:
        return
    ids = [unit.unit_id for unit in found.units]
    answer = f"unit {ids[0]} answers" if len(ids) == 1 else f"units {listed(ids)} answer"
    asked = f"asked for {listed(found.asked_units)}, with {found.requests:,} requests"
    yield from wrapped(f"{where}: {answer} ({asked})", cells)
    if ignores_unit_ids(found):
        yield from wrapped(
            "all of them answer alike: it seems to ignore the unit id, so any will do", cells, "! ", "  "
        )
    yield ""
    yield from table_lines(["unit", "function", "readable"], list(_rows(found)), cells)
    if found.stride > 1 and any(one.ranges for unit in found.units for one in unit.tables):
        text = f"Islands of fewer than {found.stride} addresses among refused ones may be missed; --fine finds them."
        yield from wrapped(text, cells)
    unseen = [unit.unit_id for unit in found.units if not unit.tables]
    if unseen:
        those, them = ("unit", "it") if len(unseen) == 1 else ("units", "them")
        yield f"! not looked into: {those} {listed(unseen)}; name {them} with --units"


def _rows(found: Findings) -> Iterator[list[Any]]:
    shown = found.units[:1] if ignores_unit_ids(found) else found.units
    for unit in shown:
        for table in unit.tables:
            function = f"{READ_FUNCTION[table.table]} ({table.table})"
            if not table.is_served:
                what = "not served" if table.code == 1 else "refused"
                yield [unit.unit_id, function, f"{what} (exception {table.code})"]
            elif not table.is_searched:
                yield [unit.unit_id, function, "not looked through to the end" if table.ranges else "not looked into"]
            elif not table.ranges:
                yield [unit.unit_id, function, f"nothing from 0 to {found.window[-1]}"]
            for part in table.ranges[:RANGES_SHOWN_MAX]:
                yield [unit.unit_id, function, place(table.table, part.start, len(part))]
            if len(table.ranges) > RANGES_SHOWN_MAX:
                yield [unit.unit_id, function, f"… and {len(table.ranges) - RANGES_SHOWN_MAX} more ranges (--json)"]


def as_plain(who: Target, found: Findings) -> dict[str, Any]:
    """The same as plain values. Ranges are [first, last], counted from 0."""
    return {
        "where": who.endpoint,
        "serial": None if found.serial is None else asdict(found.serial),
        "complete": not found.ended,
        "ended": found.ended,
        "requests": found.requests,
        "asked_units": list(found.asked_units),
        "ignores_unit_ids": ignores_unit_ids(found),
        "units": [_unit(unit) for unit in found.units],
    }


def _unit(unit: UnitFound) -> dict[str, Any]:
    return {"unit_id": unit.unit_id, "tables": [_table(table) for table in unit.tables]}


def _table(found: TableFound) -> dict[str, Any]:
    return {
        "table": found.table.value,
        "function": READ_FUNCTION[found.table],
        "served": found.is_served,
        "searched": found.is_searched,
        "ranges": [[part.start, part[-1]] for part in found.ranges],
        "largest_request": found.largest,
    }

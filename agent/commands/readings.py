"""Readings of a device as lines of text: a table per group, and below it why tags have no good value. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from agent.commands.doubt import doubts
from agent.commands.findings import wrapped
from agent.commands.polling import Latest, shown, why, word, written
from protocols.program.terminal import ago, shorten, table_lines, width

if TYPE_CHECKING:
    from agent.settings import Configuration, Device

VALUE_CELLS_MAX = 32
NAMES_SHOWN_MAX = 3
_COLUMNS = ("tag", ">value", "unit", "quality", ">age")


class Table:
    """How one device's readings are shown. `cells`: width of the terminal, None where there is none."""

    def __init__(self, configuration: Configuration, device: Device) -> None:
        self._written = written(configuration, device.name)
        self._order: str | None = getattr(device.settings, "order", None)
        self._address_key = device.address_key
        self._value_cells = 0  # only grows, so that columns stand still while values change

    def block(self, latest: Latest, now_us: int, cells: int | None, waiting: str) -> list[str]:
        """The table of one group, its heading first. `waiting`: what to say of tags that nothing has come of."""
        return [*self._table(latest, now_us, cells), *self._below(latest, cells, waiting)]

    def _table(self, latest: Latest, now_us: int, cells: int | None) -> list[str]:
        rows = list(self._rows(latest, now_us))
        title, origins = self._origins(latest)
        if origins:
            with_origin = [[*row, origin] for row, origin in zip(rows, origins, strict=True)]
            lines = table_lines([*_COLUMNS, title], with_origin)
            if cells is None or max(map(width, lines)) <= cells:
                return lines
        return table_lines(_COLUMNS, rows, cells)

    def _origins(self, latest: Latest) -> tuple[str, list[str]]:
        """Where the tags come from, as it is written, with a title; nothing where the driver has no addresses."""
        every = [self._written[tag.name] for tag in latest.group.tags]
        if all(keys.keys() & {"expression", "rate_of"} for keys in every):
            return "made of", [keys.get("expression") or f"rate of {keys.get('rate_of')}" for keys in every]
        key = self._address_key
        return ("", []) if key is None else (key, [str(keys[key]) for keys in every])

    def _rows(self, latest: Latest, now_us: int) -> Iterator[list[str]]:
        for tag, reading in zip(latest.group.tags, latest.readings, strict=True):
            value = "-" if reading is None else shorten(shown(reading.value, tag.value_type), VALUE_CELLS_MAX)
            self._value_cells = max(self._value_cells, width(value))
            age = "-" if reading is None else ago((now_us - reading.time_us) / 1e6)
            yield [tag.name, value.rjust(self._value_cells), tag.unit, word(reading), age]

    def _below(self, latest: Latest, cells: int | None, waiting: str) -> Iterator[str]:
        """Each reason once, with the tags that it is true of, and the values that are hardly true."""
        failing: dict[str, list[str]] = {}
        signs: dict[str, str] = {}
        for at, (tag, reading) in enumerate(zip(latest.group.tags, latest.readings, strict=True)):
            if reason := why(latest, at, waiting):
                failing.setdefault(reason, []).append(tag.name)
                signs.setdefault(reason, "✗" if word(reading) == "bad" else "!")
        for reason, names in failing.items():
            concerned = "all tags" if len(names) == len(latest.readings) > 1 else _names(names)
            yield from wrapped(f"{concerned}: {reason}", cells, f"{signs[reason]} ", "  ")
        for doubt in doubts(self._written, self._order, latest):
            yield from wrapped(doubt, cells, "! ", "  ")


def _names(names: Sequence[str]) -> str:
    shown_names = ", ".join(names[:NAMES_SHOWN_MAX])
    return shown_names if len(names) <= NAMES_SHOWN_MAX else f"{shown_names} and {len(names) - NAMES_SHOWN_MAX} more"

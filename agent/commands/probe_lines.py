"""What `holdfast probe` shows, as lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from agent.commands.findings import wrapped
from agent.toolbox.interpret import ORDERS, TYPES, Expected, Fit, fits, orders, text, view
from agent.toolbox.probing import Answered, both, classic, tag_keys
from agent.toolbox.written import tag_line
from protocols.field.contract import Value
from protocols.field.modbus_address import Table
from protocols.program.terminal import table_lines

CELL_MAX = 15
"""Cells of a value in the table, so that four orders fit into 80."""

MARK = "◀"


def lines(found: Answered, wanted: Expected | None, name: str, cells: int | None) -> Iterator[str]:
    """All that is shown, for a terminal of so many cells."""
    asked = found.question
    yield from table_lines(*_registers(found), cells)
    if found.refusal:
        yield from wrapped(found.refusal, cells, "! ", "  ")
    if asked.table.holds_bits:
        return
    fitting = [] if wanted is None else fits(found.words, wanted, min(asked.starts))
    for start, meaning in asked.starts.items():
        if start in found.words:
            yield ""
            yield f"from {both(asked.table, start)} on{f', which is {meaning}' if meaning else ''}"
            yield from table_lines(["type", *(f">{order}" for order in ORDERS)], _values(found, start, fitting), cells)
    if wanted is not None:
        yield ""
        yield from _fitting(asked.table, fitting, wanted, name, cells)


def _registers(found: Answered) -> tuple[list[str], list[list[str]]]:
    """The table of single registers: both notations, and what is in it."""
    asked = found.question
    titles = [">value"] if asked.table.holds_bits else ["hex", "bits 15…0", "text"]
    rows = []
    for at in asked.shown:
        word = found.words.get(at)
        content = ["-"] * len(titles)
        if word is not None and asked.table.holds_bits:
            content = [str(word)]
        elif word is not None:
            bits = f"{word:016b}"
            fours = " ".join(bits[first : first + 4] for first in range(0, 16, 4))
            content = [f"{word:04X}", fours, text(found.words, at, 1, "ABCD") or ""]
        rows.append([f"{asked.table}:{at}", classic(asked.table, at), *content])
    return ["from 0", "from 1", *titles], rows


def _values(found: Answered, start: int, fitting: list[Fit]) -> list[list[str]]:
    """A row per type, a column per order; what fits is marked."""
    marked = {(fit.view.start, fit.view.type, fit.view.order) for fit in fitting}
    rows = []
    for kind in TYPES:
        row: list[str] = [kind]
        for order in ORDERS:
            seen = view(found.words, start, kind, order) if order in orders(kind) else None
            is_marked = (start, kind, order) in marked
            row.append(("" if seen is None else shown(seen.value)) + (f" {MARK}" if is_marked else ""))
        if any(row[1:]):
            rows.append(row)
    last = next(
        (at for at in range(start, found.question.shown.stop) if at not in found.words), found.question.shown.stop
    )
    texts = [text(found.words, start, last - start, order) if order in orders("string") else "" for order in ORDERS]
    return [*rows, ["string", *(_cut(one or "") for one in texts)]]


def shown(value: Value) -> str:
    """A value in at most CELL_MAX cells; what is cut of its digits shows in an exponent."""
    if value is None:
        return "no number"
    if isinstance(value, float):
        return f"{value:.8g}" if value == 0 or 1e-6 <= abs(value) < 1e12 else f"{value:.4g}"
    whole = str(value)
    if len(whole) > CELL_MAX and isinstance(value, int):
        return f"{value:.6e}"
    return _cut(whole)


def _cut(one: str) -> str:
    return one if len(one) <= CELL_MAX else one[: CELL_MAX - 1] + "…"


def _fitting(table: Table, fitting: list[Fit], wanted: Expected, name: str, cells: int | None) -> Iterator[str]:
    """What fits, and the best as a line to paste."""
    if not fitting:
        yield f"✗ nothing here reads as {wanted.value:g}, whatever the type, order or scaling"
        hint = "try more registers (--count 40), input: instead of holding:, another unit id; or it has changed"
        yield from wrapped(hint, cells, "  → ", "    ")
        return
    exact = fitting[0].is_exact
    yield f"{len(fitting)} way{'' if len(fitting) == 1 else 's'} to read {wanted.value:g}" + (
        ":" if exact else f", all of them only near it (within {wanted.tolerance:.3g}):"
    )
    rows = [
        [both(table, fit.view.start), fit.view.type, fit.view.order, _scaling(fit), f"{fit.value:.10g}"]
        for fit in fitting
    ]
    yield from table_lines(["address", "type", "order", "scaling", ">value"], rows, cells)
    yield ""
    yield "The first as a tag, to paste below `tags:`"
    yield f"  {tag_line(tag_keys(table, fitting[0], name))}"


def _scaling(fit: Fit) -> str:
    parts = [] if fit.scale == 1 else [f"× {fit.scale:g}"]
    if fit.offset:
        parts.append(f"{'-' if fit.offset < 0 else '+'} {abs(fit.offset):g}")
    return " ".join(parts) or "none"

"""The view's lines, from what the agent shows. Pure: a line is pieces of text, each with a style of the terminal.

Colour never says anything alone: what is wrong has its ✗, ! or word beside it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.screen.sparks import bars
from protocols.program.terminal import ago, clean, shorten, width

Piece = tuple[str, str]
Line = list[Piece]
View = Mapping[str, Any]
Points = Mapping[tuple[str, str], Sequence[float | None]]

DEVICES_SHOWN_MAX = 4
REASON_LINES_MAX = 4
VALUE_CELLS = 14
UNIT_CELLS = 7
QUALITY_CELLS = 9
AGE_CELLS = 6
SPARK_CELLS_MIN, SPARK_CELLS_MAX = 10, 40
TAG_CELLS_MAX = 48

_SIGNS = {"ok": ("✓", "green"), "bad": ("✗", "red"), "note": ("!", "yellow"), None: ("○", "dim")}
_QUALITY = {"good": "", "uncertain": "yellow", "bad": "red", "none": "dim"}


def heading(view: View, clock: str, note: str, cells: int) -> Line:
    """Who it is, and when. `note`: why it may not be live, or empty."""
    agent = view["agent"]
    how = "polled from here, nothing is stored" if agent["is_direct"] else f"up {ago(agent['uptime_s'])}"
    right = note or clock
    left = shorten(f"{agent['thing']} · {agent['plant']} · {how}", cells - width(right) - 2)
    blanks = " " * max(1, cells - width(left) - width(right))
    return [(left, "bold"), (blanks, ""), (right, "bold red" if note else "")]


def stations(view: View, cells: int) -> list[Line]:
    """The line from the PLC to the receiver: the stations, and a few words on each below."""
    line = view["line"]
    room = cells // len(line)
    names: Line = []
    words: Line = []
    for at, station in enumerate(line):
        sign, style = _SIGNS[station["mark"]]
        name = f" {station['name']} "
        rest = room - width(sign + name)
        names += [(sign, style), (name, "bold"), (("─" * (rest - 1) + " ") if at < len(line) - 1 else "", "dim")]
        words.append((_left(shorten(station["text"], room - 1), room), style if station["mark"] != "ok" else ""))
    return [names, words]


def reasons(view: View, cells: int, lines_max: int = REASON_LINES_MAX) -> list[Line]:
    """Whatever is wrong, and what to do, in at most so many lines."""
    found = [reason for station in view["line"] for reason in station["reasons"]]
    drawn: list[Line] = []
    for at, reason in enumerate(found):
        lines = list(_reason(reason, cells))
        if len(drawn) + len(lines) > lines_max - (at < len(found) - 1):
            left = len(found) - at
            if at == 0:
                drawn = lines[: lines_max - (left > 1)]
                left -= 1
            if left:
                drawn.append([(f"… and {left} more: e shows them all", "dim")])
            break
        drawn += lines
    return drawn


def _reason(reason: Mapping[str, str], cells: int) -> Iterator[Line]:
    sign, style = _SIGNS[reason["mark"]]
    fix = f" → {reason['fix']}" if reason["fix"] else ""
    text = clean(f"{reason['subject']}: {reason['text']}{fix}")
    for at, line in enumerate(textwrap.wrap(text, max(20, cells - 2), break_on_hyphens=False)):
        yield [(f"{sign} " if at == 0 else "  ", style), (line, "")]


def devices(view: View, cells: int, lines_max: int = DEVICES_SHOWN_MAX) -> list[Line]:
    """A heading and a line for each device, the worst first."""
    found, count = view["devices"], view["device_count"]
    whole = count <= lines_max
    shown = found[:lines_max] if whole else found[: lines_max - 1]
    room = min(28, max([8, *(width(one["name"]) for one in shown)]))
    where = max(12, cells - room - 44)
    head = f"  {'device':{room}}  {'endpoint':{where}} {'state':8} {'requests/s':>10} {'values/s':>9} {'wrong':>7}"
    lines: list[Line] = [[(shorten(head, cells), "dim")]]
    for one in shown:
        sign, style = _SIGNS[one["mark"]]
        rest = f" {_rate(one['requests_per_s'], 1):>10} {_rate(one['readings_per_s'], 0):>9} {one['wrong'] or '-':>7}"
        name = _left(one["name"], room)
        lines.append(
            [(f"{sign} ", style), (f"{name}  ", ""), (f"{_left(one['endpoint'], where)} ", "dim"),
             (f"{one['state']:8}", style if one["mark"] != "ok" else ""), (rest, "")]
        )  # fmt: skip
    if not whole:
        lines.append([(f"  … and {count - len(shown)} more: d shows them all", "dim")])
    return lines


def _rate(rate: float | None, digits: int) -> str:
    return "…" if rate is None else f"{rate:,.{digits}f}"


def columns(view: View, cells: int) -> tuple[int, int]:
    """How many cells tags and charts have."""
    tags = max([12, *(width(_tag(view, row)) for row in view["values"]["rows"])])
    others = 2 + VALUE_CELLS + UNIT_CELLS + QUALITY_CELLS + AGE_CELLS + 5
    room = cells - others
    tag_cells = min(tags, TAG_CELLS_MAX, max(12, room - SPARK_CELLS_MIN))
    return tag_cells, max(0, min(SPARK_CELLS_MAX, room - tag_cells))


def values_head(view: View, cells: int) -> Line:
    """The heading of the values."""
    tag_cells, _ = columns(view, cells)
    head = f"  {'tag':{tag_cells}} {'value':>{VALUE_CELLS}} {'unit':{UNIT_CELLS}} {'quality':{QUALITY_CELLS}}"
    return [(f"{head} {'age':>{AGE_CELLS}}", "dim")]


def value(view: View, row: Mapping[str, Any], points: Sequence[float | None], cells: int) -> Line:
    """A tag's line."""
    tag_cells, spark_cells = columns(view, cells)
    sign, style = _SIGNS["ok" if row["quality"] == "good" else "bad" if row["quality"] == "bad" else "note"]
    age = "-" if row["time_us"] is None else ago((view["now_us"] - row["time_us"]) / 1e6)
    return [
        ("  ", "") if row["quality"] == "good" else (f"{sign} ", style),
        (f"{_left(_tag(view, row), tag_cells)} ", ""),
        (f"{_right(row['shown'], VALUE_CELLS)} ", "bold"),
        (f"{_left(row['unit'], UNIT_CELLS)} ", ""),
        (f"{row['quality']:{QUALITY_CELLS}} ", _QUALITY[row["quality"]]),
        (f"{_right(age, AGE_CELLS)} ", ""),
        (bars(points, spark_cells - 1), "cyan"),
    ]


def details(row: Mapping[str, Any] | None, points: Sequence[float | None], cells: int) -> list[Line]:
    """Two lines on the tag under the cursor."""
    if row is None:
        return [[], []]
    where = f"{row['device']} · group {row['group']}" + (f" · address {row['address']}" if row["address"] else "")
    known = [point for point in points if point is not None]
    if row["reason"]:
        sign = ("✗ ", "red") if row["quality"] == "bad" else ("! ", "yellow")
        second: Line = [sign, (shorten(_bare(row["reason"], row["device"]), cells - 2), "")]
    elif known:
        span = f"since watched: lowest {min(known):.7g}, highest {max(known):.7g}"
        second = [(shorten(span, cells), "dim")]
    else:
        second = []
    name = shorten(row["tag"], cells // 2)
    return [[(name, "bold"), (shorten(f" · {where}", cells - width(name)), "dim")], second]


def _bare(reason: str, device: str) -> str:
    """A reason without the device and its endpoint, which stand beside it."""
    said = reason.removeprefix(f"{device} ")
    _, _, rest = said.partition("): ")
    return rest if said.startswith("(") and rest else said


def counted(view: View, wanted: str, is_wrong_only: bool, top: int, height: int) -> str:
    """What part of the tags is shown."""
    values = view["values"]
    found, every = values["found"], values["tags"]
    what = "without a good value" if is_wrong_only else "tags"
    if wanted:
        what += f" with “{wanted}”"
    span = f"{top + 1:,}–{min(found, top + height):,} of " if found > height else ""
    return f"{span}{found:,} {what}" + (f" (of {every:,})" if found != every else "")


def plain(lines: Sequence[Line]) -> str:
    """The lines without styles."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def _tag(view: View, row: Mapping[str, Any]) -> str:
    return str(row["tag"]) if view["device_count"] == 1 else f"{row['device']}/{row['tag']}"


def _left(text: str, cells: int) -> str:
    kept = shorten(text, cells)
    return kept + " " * (cells - width(kept))


def _right(text: str, cells: int) -> str:
    kept = shorten(text, cells)
    return " " * (cells - width(kept)) + kept

"""The whole screen: which lines it has, in the room that there is. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent.screen import draw
from agent.screen.draw import Line, View
from agent.screen.sparks import Sparks
from agent.screen.state import DEVICES, HELP, REASONS, VALUES, State
from protocols.program.terminal import shorten, width

CELLS_MIN, LINES_MIN = 60, 12
CURSOR = "cursor"
"""The style of a line under the cursor, in place of colours."""

KEYS = (
    ("↑ ↓ PgUp PgDn Home End", "move, also j and k"),
    ("/", "filter by words in DEVICE/TAG; Esc shows all"),
    ("b", "only tags without a good value"),
    ("e", "everything that is wrong, and what to do"),
    ("d", "all devices"),
    ("Space", "hold the screen still, and go on"),
    ("?", "these keys"),
    ("q", "leave; the agent goes on"),
)
_MARKS = "✓ well   ✗ fails   ! worth knowing   ○ cannot be told"
_FOOTS = {
    VALUES: "/ filter  b bad  d devices  e errors  ? help  q quit",
    DEVICES: "d back to the values  ↑↓ move  ? help  q quit",
    REASONS: "e back to the values  ↑↓ move  ? help  q quit",
    HELP: "? back to the values  q quit",
}


def page(view: View, state: State, sparks: Sparks, now: tuple[str, str, str], cells: int, height: int) -> list[Line]:
    """Exactly `height` lines. Tells `state` how many rows there are and how many fit.

    `now`: the time of the view, why it may not be live in a few words, and what is wrong with the connection.
    """
    clock, note, trouble = now
    if cells < CELLS_MIN or height < LINES_MIN:
        text = f"The window is too small: {CELLS_MIN} by {LINES_MIN} at least. q quits."
        return _filled([[(shorten(text, cells), "")]], height)
    head = [draw.heading(view, clock, note, cells), *draw.stations(view, cells), [("─" * cells, "dim")]]
    if trouble:
        head.append([("✗ ", "red"), (f"the agent does not answer: {trouble}; trying again", "")])
    foot = _foot(view, state, cells)
    room = height - len(head) - 1
    match state.part:
        case "devices":
            every = draw.devices(view, cells, sys.maxsize)
            main = [every[0], *_scrolled(every[1:], state, room - 1)]
        case "reasons":
            main = _scrolled(draw.reasons(view, cells, sys.maxsize) or [[("Nothing is wrong.", "")]], state, room)
        case "help":
            main = _scrolled(_help(), state, room)
        case _:
            main = _values(view, state, sparks, cells, room)
    return [_clipped(line, cells) for line in (*head, *_filled(main, room), foot)]


def _values(view: View, state: State, sparks: Sparks, cells: int, room: int) -> list[Line]:
    wrong = draw.reasons(view, cells)
    above = [*draw.devices(view, cells), [("─" * cells, "dim")]] if room > 12 + len(wrong) else []
    above = [*wrong, *([[("─" * cells, "dim")]] if wrong else []), *above, draw.values_head(view, cells)]
    values = view["values"]
    state.fits(values["found"], room - len(above) - 2)
    rows = values["rows"]
    lines = []
    for at in range(state.top, min(state.top + state.height, values["found"])):
        index = at - values["offset"]
        if 0 <= index < len(rows):
            row = rows[index]
            line = draw.value(view, row, sparks.of(row["device"], row["tag"]), cells)
            lines.append(_marked(line, cells) if at == state.cursor else line)
        else:
            lines.append([("  …", "dim")])
    if not lines:
        lines = [[("  no tag has these words; Esc shows all again" if state.filter else "  none", "dim")]]
    index = state.cursor - values["offset"]
    chosen = rows[index] if 0 <= index < len(rows) else None
    points = () if chosen is None else sparks.of(chosen["device"], chosen["tag"])
    return [*above, *_filled(lines, state.height), *draw.details(chosen, points, cells)]


def _scrolled(lines: Sequence[Line], state: State, room: int) -> list[Line]:
    """A list that fills the screen: it moves by whole lines."""
    state.fits(max(1, len(lines) - room + 1), 1)
    return list(lines[state.cursor : state.cursor + room])


def _help() -> list[Line]:
    room = max(width(key) for key, _ in KEYS) + 3
    lines: list[Line] = [[(f"  {key:{room}}", "bold"), (what, "")] for key, what in KEYS]
    return [*lines, [], [(f"  {_MARKS}", "dim")], [("  Charts begin when the view was opened.", "dim")]]


def _foot(view: View, state: State, cells: int) -> Line:
    if state.is_typing:
        left, right = f"Filter: {state.filter}▏", "Enter keeps it, Esc shows all"
        left = left if width(left) < cells - width(right) else f"…{left[-(cells - width(right) - 3) :]}"
        return [(left, "bold"), (" " * (cells - width(left) - width(right)), ""), (right, "dim")]
    counted = draw.counted(view, state.filter, state.wrong, state.top, state.height) if state.part == VALUES else ""
    keys = _FOOTS[state.part]
    room = cells - width(keys) - 2
    if room < width(counted):
        keys = "? help  q quit"
    left = shorten(counted, cells - width(keys) - 2)
    return [(left, "bold"), (" " * (cells - width(left) - width(keys)), ""), (keys, "dim")]


def _marked(line: Line, cells: int) -> Line:
    used = sum(width(text) for text, _ in line)
    kept = [(text, f"bold {CURSOR}" if style == "bold" else CURSOR) for text, style in line]
    return [*kept, (" " * max(0, cells - used), CURSOR)]


def _clipped(line: Line, cells: int) -> Line:
    """The line in at most that many cells: a narrow window cuts off what stands to the right."""
    clipped: Line = []
    for text, style in line:
        kept = shorten(text, cells)
        clipped.append((kept, style))
        cells -= width(kept)
        if cells <= 0:
            break
    return clipped


def _filled(lines: Sequence[Line], height: int) -> list[Line]:
    return [*lines[:height], *([[]] * max(0, height - len(lines)))]

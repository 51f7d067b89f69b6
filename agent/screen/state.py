"""Where the person at the keyboard is: the part of the view, the row, the filter. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.live.query import Query

VALUES, DEVICES, REASONS, HELP = "values", "devices", "reasons", "help"
LOADED = 300
"""So many rows are asked for around those that are shown, so that moving needs no new question each time."""

_STEP = 100


@dataclass(slots=True)
class State:
    """`cursor` and `top` count rows: of the tags found, or of the list that fills the screen. `height`: rows shown."""

    filter: str = ""
    wrong: bool = False
    part: str = VALUES
    top: int = 0
    cursor: int = 0
    count: int = 0
    height: int = 1
    is_paused: bool = False
    is_typing: bool = False

    def query(self) -> Query:
        """What to ask for so that the rows on the screen can be drawn."""
        offset = max(0, self.top // _STEP * _STEP - _STEP // 2) if self.part == VALUES else 0
        return Query(filter=self.filter, wrong=self.wrong, offset=offset, limit=LOADED)

    def fits(self, count: int, height: int) -> None:
        """There are so many rows now, and room for so many."""
        self.count, self.height = count, max(1, height)
        self.move(0)

    def move(self, rows: int) -> None:
        """Move the cursor, and what is shown with it."""
        self.cursor = max(0, min(self.cursor + rows, self.count - 1))
        self.top = max(0, min(self.top, self.count - self.height, self.cursor))
        self.top = max(self.top, self.cursor - self.height + 1)

    def go(self, part: str) -> None:
        """To another part; to the values if it is shown already."""
        self.part = VALUES if self.part == part else part
        self.top = self.cursor = 0

    def ask_for(self, wanted: str) -> None:
        """Another filter."""
        self.filter = wanted[:200]
        self.part, self.top, self.cursor = VALUES, 0, 0

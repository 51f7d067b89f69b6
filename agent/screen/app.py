"""The full-screen view: a textual app that asks its source once in a while and draws what it is told."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.events import Key, Resize
from textual.widgets import Static

from agent.live.client import Asked, FeedAway
from agent.live.query import Query
from agent.screen.draw import Line
from agent.screen.page import CURSOR, page
from agent.screen.sparks import Sparks
from agent.screen.state import DEVICES, HELP, REASONS, State

WAITING = "waiting for the agent's first word …"


class WatchApp(App[None]):
    """`until` runs it. Colours are the terminal's own."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #page { height: 1fr; width: 1fr; }
    """
    BINDINGS: ClassVar = [
        Binding("q", "quit"),
        Binding("ctrl+c", "leave", priority=True),
        Binding("up,k", "move(-1)"),
        Binding("down,j", "move(1)"),
        Binding("pageup", "page(-1)"),
        Binding("pagedown", "page(1)"),
        Binding("home,g", "move(-1000000)"),
        Binding("end,G", "move(1000000)"),
        Binding("slash", "filter"),
        Binding("escape", "all"),
        Binding("b", "wrong"),
        Binding("d", f"part('{DEVICES}')"),
        Binding("e", f"part('{REASONS}')"),
        Binding("question_mark", f"part('{HELP}')"),
        Binding("space", "hold"),
    ]

    def __init__(self, source: Asked, query: Query, interval_s: float) -> None:
        super().__init__(ansi_color=True)
        self._source = source
        self._interval_s = interval_s
        self._state = State(filter=query.filter, wrong=query.wrong)
        self._sparks = Sparks()
        self._view: dict[str, Any] | None = None
        self._seen = ""
        self._trouble = ""
        self._charted_s = 0.0
        self._asked = asyncio.Event()

    async def until(self, stopping: asyncio.Event) -> None:
        """Run until it was left, or until `stopping`."""
        ending = asyncio.create_task(self._leave(stopping), name="leave")
        try:
            await self.run_async()
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _leave(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self.exit()

    def compose(self) -> ComposeResult:
        """One page, drawn whole."""
        yield Static(id="page", markup=False)

    def on_mount(self) -> None:
        """Begin."""
        self._draw()
        self.run_worker(self._follow(), name="follow", exit_on_error=True)

    async def _follow(self) -> None:
        """Ask every so often, and at once when a key wants other rows."""
        while True:
            await self._ask()
            self._draw()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._asked.wait()
            self._asked.clear()

    async def _ask(self) -> None:
        try:
            view = await self._source.ask(self._state.query())
        except FeedAway as error:
            self._trouble = str(error)
            return
        self._trouble = ""
        if self._state.is_paused and self._view is not None:
            return
        self._view, self._seen = view, time.strftime("%H:%M:%S")
        now_s = time.monotonic()
        if now_s - self._charted_s > self._interval_s / 2:
            self._charted_s = now_s
            self._sparks.take(view["values"]["rows"])

    def _draw(self) -> None:
        found = self.query_one("#page", Static)
        if self._view is None:
            found.update(Text(f"✗ {self._trouble}; trying again. q quits." if self._trouble else WAITING))
            return
        lines = page(self._view, self._state, self._sparks, (self._seen, self._note(), self._trouble), *found.size)
        found.update(_text(lines, is_old=bool(self._trouble)))

    def _note(self) -> str:
        if self._trouble:
            return f"not live since {self._seen}"
        return f"held at {self._seen}" if self._state.is_paused else ""

    def _again(self) -> None:
        self._draw()
        self._asked.set()

    # --- keys ---

    def on_resize(self, _: Resize) -> None:
        """Another size of the window."""
        self.call_after_refresh(self._draw)

    def action_leave(self) -> None:
        """Leave, whatever is going on."""
        self.exit()

    def action_move(self, rows: int) -> None:
        """Move by rows."""
        self._state.move(rows)
        self._again()

    def action_page(self, pages: int) -> None:
        """Move by screens."""
        self._state.move(pages * max(1, self._state.height - 1))
        self._again()

    def action_part(self, part: str) -> None:
        """Show another part."""
        self._state.go(part)
        self._again()

    def action_wrong(self) -> None:
        """Only what has no good value, or everything."""
        self._state.wrong = not self._state.wrong
        self._state.ask_for(self._state.filter)
        self._again()

    def action_hold(self) -> None:
        """Hold the screen still, or go on."""
        self._state.is_paused = not self._state.is_paused
        self._again()

    def action_filter(self) -> None:
        """Type a filter: until Enter, every key is a letter of it."""
        self._state.is_typing = True
        self._draw()

    def action_all(self) -> None:
        """Take the filter away, and show the values."""
        self._state.ask_for("")
        self._again()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a filter is typed, keys have no other meaning; but Ctrl-C still leaves."""
        del parameters
        return not self._state.is_typing or action == "leave"

    def on_key(self, event: Key) -> None:
        """Each letter narrows it down."""
        if not self._state.is_typing:
            return
        match event.key:
            case "enter":
                self._state.is_typing = False
            case "escape":
                self._state.is_typing = False
                self._state.ask_for("")
            case "backspace":
                self._state.ask_for(self._state.filter[:-1])
            case _ if event.is_printable and event.character is not None:
                self._state.ask_for(self._state.filter + event.character)
        event.stop()
        self._again()


def _text(lines: list[Line], *, is_old: bool) -> Text:
    """For the terminal; what is not live is dim."""
    text = Text(no_wrap=True, overflow="crop", end="")
    for at, line in enumerate(lines):
        if at:
            text.append("\n")
        for piece, style in line:
            words = style.replace(CURSOR, "reverse")
            text.append(piece, f"{words} dim" if is_old and at else words)
    return text

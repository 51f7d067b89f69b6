"""`holdfast read --watch`: readings as they come. In place on a terminal, block after block into a file or a pipe."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from agent.commands.polling import Latest, as_plain
from agent.commands.readings import Table
from protocols.program.terminal import shorten

if TYPE_CHECKING:
    from agent.settings import Configuration, Device
    from protocols.field.contract import Group, Scan

AGES_S = 1.0
"""How often the ages are counted on where nothing new comes."""

CALM_S = 0.05
"""What comes within this time is shown at once."""

WAITING = "nothing has come yet"


class Watch:
    """`take` gets every scan. `run` shows them, until `stopping`, or until `polling` has died, which is raised."""

    def __init__(self, configuration: Configuration, device: Device, groups: Sequence[Group], as_json: bool) -> None:
        self._device = device
        self._table = Table(configuration, device)
        self._latest = {group.name: Latest(group) for group in groups}
        self._fresh: list[Scan] = []
        self._as_json = as_json
        self._in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not as_json
        self._drawn = 0
        self._size = get_terminal_size()
        self._news = asyncio.Event()

    def take(self, scan: Scan) -> None:
        """Something was read, or could not be."""
        self._latest[scan.group.name].take(scan)
        self._fresh.append(scan)
        self._news.set()

    async def run(self, stopping: asyncio.Event, polling: asyncio.Task[None]) -> None:
        """Raises BrokenPipeError where nobody reads any more."""
        stop = asyncio.create_task(stopping.wait(), name="stop")
        try:
            while not stop.done() and not polling.done():
                self._show()
                news = asyncio.create_task(self._news.wait(), name="news")
                patience_s = AGES_S if self._in_place else None
                await asyncio.wait({stop, polling, news}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                await asyncio.sleep(CALM_S)
                self._news.clear()
        finally:
            stop.cancel()
        if self._in_place:
            sys.stdout.write("\n")  # below the terminal's own ^C

    def _show(self) -> None:
        fresh, self._fresh = self._fresh, []
        if self._as_json:
            self._write_json(fresh)
        elif self._in_place:
            self._draw()
        else:
            self._write_blocks(list(dict.fromkeys(scan.group.name for scan in fresh)))
        sys.stdout.flush()

    def _write_json(self, fresh: Sequence[Scan]) -> None:
        """A line per scan, with the tags that it holds."""
        for scan in fresh:
            alone = Latest(scan.group)
            alone.take(scan)
            poll = as_plain(self._device, [alone])
            poll["tags"] = [tag for tag in poll["tags"] if tag["quality"] != "none"]
            sys.stdout.write(json.dumps(poll, ensure_ascii=False) + "\n")

    def _write_blocks(self, names: Sequence[str]) -> None:
        for name in names:
            lines = [self._heading(name), *self._block(name, None), ""]
            sys.stdout.write("\n".join(lines) + "\n")

    def _draw(self) -> None:
        """Over what was drawn before. What does not fit below each other is cut off."""
        size = get_terminal_size()
        lines = [line for name in self._latest for line in (self._heading(name), *self._block(name, size.columns), "")]
        lines += ["Ctrl-C ends."]
        if len(lines) >= size.lines:
            lines = [*lines[: size.lines - 2], "… the window has no room for the rest; choose a --group. Ctrl-C ends."]
        if size != self._size:
            self._size, self._drawn = size, 0
            sys.stdout.write("\x1b[2J\x1b[H")
        back = f"\x1b[{self._drawn}F" if self._drawn else ""
        sys.stdout.write(back + "".join(f"{shorten(line, size.columns)}\x1b[K\n" for line in lines) + "\x1b[J")
        self._drawn = len(lines)

    def _heading(self, name: str) -> str:
        period_s = self._latest[name].group.period_s
        return f"{self._device.name} {name}, every {period_s:g} s, {time.strftime('%H:%M:%S')}"

    def _block(self, name: str, cells: int | None) -> list[str]:
        return self._table.block(self._latest[name], time.time_ns() // 1000, cells, WAITING)

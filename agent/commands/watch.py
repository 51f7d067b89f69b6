"""`holdfast watch`: the running agent, live. It asks the agent, and never opens a second connection to a device."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import TEMPORARY, UNAVAILABLE, USAGE, Failure

if TYPE_CHECKING:
    from agent.live.client import Asked
    from agent.live.query import Query
    from agent.settings import Configuration
    from protocols.program.tasks import Tasks

FIRST_LOOK_S = 1.5
"""Before anything is printed: rates need two looks, and devices that are polled from here some time to answer."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How it shall be shown, and of what."""

    query: Query
    interval_s: float
    direct: bool
    once: bool
    as_json: bool


def watch(
    wanted: Annotated[
        str, typer.Argument(metavar="FILTER", help="Only tags whose DEVICE/TAG has these words.", show_default=False)
    ] = "",
    wrong: Annotated[bool, typer.Option("--wrong", help="Only tags without a good value.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print it once, as text or JSON, and end.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.2, max=3600, metavar="SECONDS", help="How often it is drawn.")
    ] = 1.0,
    direct: Annotated[
        bool, typer.Option("--direct", help="Where no agent runs: poll the devices from here, storing nothing.")
    ] = False,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Watch the running agent: devices, tags, outbox, link. With --json a line each time, for programs."""
    from agent.live.query import Query
    from protocols.program import logs
    from protocols.program.tasks import run_until_signal

    logs.configure(level="error")
    configuration = read_configuration(config, assignments)
    if not (once or as_json):
        _check_terminal()
    _check_life(configuration, direct)
    wish = Wish(Query(filter=wanted[:200], wrong=wrong), interval_s, direct, once, as_json)
    run_until_signal(lambda stopping: _watch(stopping, configuration, wish))


def _check_terminal() -> None:
    streams = (sys.stdin, sys.stdout, sys.stderr)  # textual draws on stderr
    if not all(stream.isatty() for stream in streams) or os.environ.get("TERM") == "dumb":
        raise Failure("the full-screen view needs a terminal; add --once for text, or --json for programs", USAGE)
    try:
        import textual
    except ModuleNotFoundError:
        text = "the full-screen view needs textual; install it with: pip install 'holdfast[watch]', or add --once"
        raise Failure(text, UNAVAILABLE) from None
    del textual


def _check_life(configuration: Configuration, direct: bool) -> None:
    from agent import running

    data_dir = configuration.settings.data_dir
    try:
        agent = running.look(Path(data_dir), time.time())
    except PermissionError:
        raise Failure(f"{data_dir}: this user may not look into it; run it with sudo", UNAVAILABLE) from None
    if agent.is_alive and direct:
        raise Failure("the agent runs, and it alone holds the devices' connections; leave out --direct", USAGE)
    if not agent.is_alive and not direct:
        text = f"no agent runs with data_dir {data_dir}; start it (systemctl start holdfast, or: holdfast run), or "
        raise Failure(text + "poll the devices from here with: holdfast watch --direct", UNAVAILABLE)


async def _watch(stopping: asyncio.Event, configuration: Configuration, wish: Wish) -> None:
    from agent.live.direct import AgentAppeared
    from protocols.program.tasks import TaskDied, Tasks

    try:
        async with Tasks(stopping) as tasks:
            source = _source(tasks, configuration, wish.direct)
            tasks.spawn("view", _view(stopping, source, wish))
            await tasks.wait()
    except TaskDied as died:
        match died.__cause__:
            case Failure() | BrokenPipeError():
                raise died.__cause__ from None
            case AgentAppeared():
                raise Failure(
                    "an agent was started here, and the devices are left to it; watch it", TEMPORARY
                ) from None
        raise


def _source(tasks: Tasks, configuration: Configuration, direct: bool) -> Asked:
    from agent.live import address
    from agent.live.client import LiveClient
    from agent.live.direct import Direct

    if not direct:
        return LiveClient(Path(configuration.settings.data_dir) / address.NAME)
    polled = Direct(configuration)
    polled.start(tasks)
    return polled


async def _view(stopping: asyncio.Event, source: Asked, wish: Wish) -> None:
    """Show it until it was left, or until `stopping`, which is set in any case."""
    from agent.live.client import FeedAway

    try:
        if wish.once or wish.as_json:
            await _print(stopping, source, wish)
        else:
            from agent.screen.app import WatchApp

            await WatchApp(source, wish.query, wish.interval_s).until(stopping)
    except FeedAway as error:
        raise Failure(f"the agent cannot be watched: {error}; see: holdfast status", UNAVAILABLE) from error
    finally:
        stopping.set()


async def _print(stopping: asyncio.Event, source: Asked, wish: Wish) -> None:
    """Once, or again and again as lines of JSON."""
    from agent.live.client import everything

    await source.ask(wish.query)  # rates show from the second look on
    await _pass(stopping, FIRST_LOOK_S)
    while not stopping.is_set():
        view = await everything(source, wish.query)
        sys.stdout.write(_as_json(view, wish.once) if wish.as_json else _as_text(view, wish.query))
        sys.stdout.flush()
        if wish.once:
            return
        await _pass(stopping, wish.interval_s)


async def _pass(stopping: asyncio.Event, pause_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(pause_s):
            await stopping.wait()


def _as_json(view: dict[str, Any], is_alone: bool) -> str:
    return json.dumps(view, ensure_ascii=False, indent=2 if is_alone else None) + "\n"


def _as_text(view: dict[str, Any], query: Query) -> str:
    from agent.commands.findings import terminal_cells
    from agent.screen import draw

    cells = terminal_cells() or 120
    rows = view["values"]["rows"]
    lines = [
        draw.heading(view, time.strftime("%H:%M:%S"), "", cells),
        *draw.stations(view, cells),
        *draw.reasons(view, cells, sys.maxsize),
        [],
        *draw.devices(view, cells, sys.maxsize),
        [],
        draw.values_head(view, cells),
        *(draw.value(view, row, (), cells) for row in rows),
        [(draw.counted(view, query.filter, query.wrong, 0, len(rows)), "")],
    ]
    return draw.plain(lines) + "\n"

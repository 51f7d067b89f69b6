"""`holdfast read`: what a device says now, once or again and again."""

from __future__ import annotations

import asyncio
import difflib
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import print_json, progress

if TYPE_CHECKING:
    from agent.settings import Configuration, Device
    from protocols.field.contract import Group

INTERVAL_S_MIN = 0.1
NAMES_TOLD_MAX = 12


def read(
    device: Annotated[str, typer.Argument(help="Name of the device in the configuration.", show_default=False)],
    group: Annotated[
        str | None, typer.Option("--group", "-g", help="Only this poll group. Default: all.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Read again and again, until Ctrl-C.")] = False,
    interval_s: Annotated[
        float | None,
        typer.Option(
            "--interval",
            min=INTERVAL_S_MIN,
            max=86400,
            metavar="SECONDS",
            help="With --watch: how often. Default: each group's own period.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Read a device's tags and show them, with quality and age. Stores and sends nothing."""
    from protocols.program import logs

    logs.configure(level="error")  # what goes wrong stands below the table
    configuration = read_configuration(config, assignments)
    found = _device(configuration, device)
    groups = _groups(found, group)
    if not watch:
        _once(configuration, found, groups, as_json)
        return
    if interval_s is not None:
        groups = [replace(each, period_s=interval_s) for each in groups]
    _watch(configuration, found, groups, as_json)


def _device(configuration: Configuration, name: str) -> Device:
    found = configuration.device(name)
    if found is None:
        hint = _hint(name, [device.name for device in configuration.devices])
        raise Failure(f"there is no device {name} in the configuration; {hint}", USAGE)
    return found


def _groups(device: Device, name: str | None) -> list[Group]:
    groups = [group for group in device.groups if name in (None, group.name)]
    if not groups:
        hint = _hint(str(name), [group.name for group in device.groups])
        raise Failure(f"{device.name} has no poll group {name}; {hint}", USAGE)
    return groups


def _hint(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(known)}" if len(known) <= NAMES_TOLD_MAX else "look it up in the file"


def _once(configuration: Configuration, device: Device, groups: list[Group], as_json: bool) -> None:
    from agent.commands.findings import terminal_cells
    from agent.commands.polling import NOTHING, as_plain, derived, poll_once
    from agent.commands.readings import Table
    from protocols.field.contract import FieldError

    with progress(f"reading {device.name}"):
        try:
            latest = run_interruptible(poll_once(device, groups, configuration.settings.data_dir))
        except FieldError as error:
            raise Failure(str(error), UNAVAILABLE) from error
    latest += derived(device, latest)
    if as_json:
        print_json(as_plain(device, latest))
        return
    table, cells, now_us = Table(configuration, device), terminal_cells(), time.time_ns() // 1000
    blocks = ["\n".join(table.block(one, now_us, cells, NOTHING)) for one in latest]
    if len(blocks) > 1:
        blocks = [f"group {one.group.name}\n{block}" for one, block in zip(latest, blocks, strict=True)]
    sys.stdout.write("\n\n".join(blocks) + "\n")


def _watch(configuration: Configuration, device: Device, groups: list[Group], as_json: bool) -> None:
    """With the agent's own poller, so that it is what the agent would see: same grid, same pauses after a fault."""
    from agent import drivers
    from agent.commands.polling import derived_groups
    from agent.commands.read_watch import Watch
    from agent.poller import Poller
    from agent.shaping import shaping
    from protocols.program.tasks import Tasks, run_until_signal

    async def main(stopping: asyncio.Event) -> None:
        shown = Watch(configuration, device, [*groups, *derived_groups(device, groups)], as_json)
        driver = drivers.make(device, groups, configuration.settings.data_dir)
        shape = shaping(device, {}, driver, reports_all=True).of
        poller = Poller(device.name, driver, groups, shown.take, shape=shape)
        async with Tasks(stopping, grace_s=0) as tasks:
            polling = tasks.spawn(f"device {device.name}", poller.run())
            await shown.run(stopping, polling)

    run_until_signal(main)

"""`holdfast check`: is everything in order, and if not, what is to be done? Reads, and changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.findings import Finding, Mark, say, split
from agent.commands.options import Assignments, Config, Json, read_configuration, settings_path
from protocols.program.console import UNAVAILABLE
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import print_json, progress

if TYPE_CHECKING:
    from agent.commands.polling import Latest
    from agent.running import Sighting
    from agent.settings import Configuration, Device

AT_ONCE_MAX = 32
"""Devices that are asked at the same time."""

REASONS_SHOWN_MAX = 5
TAGS_SHOWN_MAX = 3


def check(
    config: Config = None,
    assignments: Assignments = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask neither devices nor broker.")] = False,
    as_json: Json = False,
) -> int:
    """Check the configuration, this machine, the broker and each device."""
    from protocols.program import logs

    logs.configure(level="error")  # what is wrong stands in the findings
    path = settings_path(config)
    configuration = read_configuration(path, assignments)
    with progress("checking") as shown:
        findings = run_interruptible(_findings(path, configuration, offline, shown.update))
    is_well = all(finding.mark is not Mark.BAD for finding in findings)
    if as_json:
        print_json({"ok": is_well, "findings": findings})
    else:
        say(findings)
    return 0 if is_well else UNAVAILABLE


async def _findings(
    path: Path, configuration: Configuration, offline: bool, update: Callable[[str], None]
) -> list[Finding]:
    from agent import running
    from agent.clock import synchronised
    from agent.commands import check_host

    settings = configuration.settings
    data_dir = Path(settings.data_dir)
    try:
        agent = running.look(data_dir, time.time())
    except PermissionError:  # the finding about the disk says so
        agent = running.Sighting(running.Life.NEVER)
    findings = [
        _configured(path, configuration),
        check_host.clock(settings.clock.synchronised, synchronised(settings.clock.synchronised)),
        check_host.disk(data_dir, settings.outbox, agent.is_alive),
    ]
    if settings.page is not None:
        findings.append(check_host.page(settings.page, agent.is_alive))
    if agent.is_alive:
        findings.append(Finding(Mark.OK, "agent", "running; it goes on meanwhile"))
    if not offline:
        findings += await _asked(configuration, agent, update)
    return findings


def _configured(path: Path, configuration: Configuration) -> Finding:
    devices = configuration.devices
    tags = sum(len(group.tags) for device in devices for group in device.published)
    derived = sum(len(group.tags) for device in devices for group in device.derived)
    text = f"{path}: {_count(len(devices), 'device')}, {_count(tags, 'tag')}"
    text += f", {derived} of them derived" if derived else ""
    return Finding(Mark.OK, "configuration", text)


async def _asked(configuration: Configuration, agent: Sighting, update: Callable[[str], None]) -> list[Finding]:
    """Broker and devices, at the same time; one connection to each."""
    gate = asyncio.Semaphore(AT_ONCE_MAX)
    answered = 0

    async def through(asked: Awaitable[Finding]) -> Finding:
        nonlocal answered
        async with gate:
            finding = await asked
        answered += 1
        update(f"{answered} of {len(configuration.devices) + 1} answered")
        return finding

    devices = [_device(configuration, device, agent.is_alive) for device in configuration.devices]
    return await asyncio.gather(*map(through, [_broker(configuration, agent), *devices]))


async def _broker(configuration: Configuration, agent: Sighting) -> Finding:
    """Connect once."""
    from agent.commands.greeting import client_id, greeted
    from protocols.uplink.link import LinkError

    settings = configuration.settings.broker
    said = tuple(_of_the_agent(agent))
    try:
        connected = await greeted(configuration.settings)
    except LinkError as error:
        sentence, fix = split(str(error).removeprefix("MQTT broker "), first=True)
        return Finding(Mark.BAD, "broker", sentence, fix, said)
    secured = "without TLS" if settings.tls is None else "TLS"
    who = client_id(configuration.settings)
    text = f"{settings.host}:{settings.port}: reached, and {who} is let in; {connected.protocol}, {secured}"
    if agent.status is not None and agent.is_alive:
        return Finding(Mark.NOTE if agent.status.trouble else Mark.OK, "broker", text, "", said)
    return Finding(
        Mark.OK, "broker", text, "", ("whether it takes telemetry shows when the agent runs: holdfast status",)
    )


def _of_the_agent(agent: Sighting) -> Iterator[str]:
    """What the running agent says of its own connection."""
    if agent.is_alive and agent.status is not None:
        yield f"the running agent says: {agent.status.trouble or agent.status.link}"


async def _device(configuration: Configuration, device: Device, agent_is_alive: bool) -> Finding:
    from agent.commands.doubt import doubts
    from agent.commands.polling import poll_once, written
    from protocols.field.contract import FieldError

    try:
        latest = await poll_once(device, device.groups, configuration.settings.data_dir)
    except FieldError as error:
        details: tuple[str, ...] = ()
        if agent_is_alive:
            details = ("the running agent holds a connection: a PLC that takes a single client refuses this one",)
        sentence, fix = split(str(error).removeprefix(f"{device.name} "))
        return Finding(Mark.BAD, device.name, sentence, fix, details)
    doubtful = [
        doubt
        for one in latest
        for doubt in doubts(written(configuration, device.name), getattr(device.settings, "order", None), one)
    ]
    return _tags(device, latest, doubtful)


def _tags(device: Device, latest: list[Latest], doubtful: list[str]) -> Finding:
    """How many tags have a value; the reasons of those that have none, each once."""
    from agent.commands.polling import derived, is_waiting, reason, word

    tags = [pair for one in latest for pair in zip(one.group.tags, one.readings, strict=True)]
    computed = (pair for one in derived(device, latest) for pair in zip(one.group.tags, one.readings, strict=True))
    tags += [(tag, reading) for tag, reading in computed if not is_waiting(reading)]
    words = [word(reading) for _, reading in tags]
    failing: dict[str, list[str]] = {}
    for tag, reading in tags:
        if why := reason(reading):
            failing.setdefault(why, []).append(tag.name)
    details = [f"{_names(names)}: {why}" for why, names in list(failing.items())[:REASONS_SHOWN_MAX]]
    if len(failing) > REASONS_SHOWN_MAX:
        details.append(f"… and {len(failing) - REASONS_SHOWN_MAX} more reasons")
    details += [f"! {doubt}" for doubt in doubtful[:REASONS_SHOWN_MAX]]
    all_of = _count(len(tags), "tag")
    is_bad = "bad" in words or "none" in words
    is_noted = bool(failing or doubtful)
    text = f"{words.count('good')} of {all_of} good" if failing else f"{all_of} good"
    fix = f"holdfast read {device.name}" if is_noted else ""
    return Finding(Mark.BAD if is_bad else Mark.NOTE if is_noted else Mark.OK, device.name, text, fix, tuple(details))


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:TAGS_SHOWN_MAX])
    return shown if len(names) <= TAGS_SHOWN_MAX else f"{shown} and {len(names) - TAGS_SHOWN_MAX} more"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

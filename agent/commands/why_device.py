"""The steps of `holdfast why` up to the value: by asking the device, or by what the running agent says of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.commands.findings import Finding, Mark, split
from agent.toolbox.walk import Step, concerns, counted, step_of_tag, step_when_away
from protocols.program.terminal import ago

if TYPE_CHECKING:
    from agent.commands.polling import Latest
    from agent.commands.why import Found
    from agent.running import Sighting
    from agent.settings import Configuration

_WAYS = {
    "modbus": (Step.TCP, Step.UNIT, Step.ADDRESS, Step.DECODE),
    "opcua": (Step.TCP, Step.SESSION, Step.ADDRESS, Step.DECODE),
}
"""The steps that a protocol has, in order; before them the host's name, told only where it is not known."""

_OTHERS = (Step.SESSION, Step.ADDRESS, Step.DECODE)
_PASSED = {
    Step.TCP: "connected",
    Step.SESSION: "the session is open",
    Step.UNIT: "the unit answers",
    Step.ADDRESS: "it is there, and may be read",
}


async def by_asking(configuration: Configuration, found: Found, agent: Sighting) -> list[Finding]:
    """Connect, read this one tag, close."""
    from agent.commands.polling import poll_once
    from protocols.field.contract import FieldError

    alone = replace(found.group, tags=(found.tag,))
    try:
        device = replace(found.device, groups=(alone,))
        latest, *_ = await poll_once(device, [alone], configuration.settings.data_dir)
    except FieldError as error:
        rival = "the running agent holds a connection: a device that takes one client only refuses this one"
        return list(_away(found, str(error), (rival,) if agent.is_alive else ()))
    return list(_read(configuration, found, latest))


def _way(found: Found) -> tuple[Step, ...]:
    return _WAYS.get(found.device.protocol, _OTHERS)


def _until(found: Found, failing: Step) -> Iterator[Finding]:
    """The steps before the one that fails."""
    for step in _way(found):
        if list(Step).index(step) >= list(Step).index(failing):
            return
        yield Finding(Mark.OK, step, _passed(found, step))


def _passed(found: Found, step: Step) -> str:
    settings: Any = found.device.settings
    if step is Step.TCP and hasattr(settings, "host"):
        return f"connected to {settings.host}:{settings.port}"
    if step is Step.UNIT:
        own = getattr(found.tag.address, "unit_id", None)
        return f"unit {settings.unit_id if own is None else own} answers"
    return _PASSED[step]


def _away(found: Found, said: str, details: tuple[str, ...]) -> Iterator[Finding]:
    """Nothing could be read, for the reason `said`."""
    step, order = step_when_away(said), list(Step)
    if step is not Step.HOST:  # a step that this protocol does not have stands for the next that it has
        step = next(one for one in _way(found) if order.index(one) >= order.index(step))
    yield from _until(found, step)
    sentence, fix = split(said.removeprefix(f"{found.device.name} "))
    yield Finding(Mark.BAD, step, sentence, fix, details)


def _read(configuration: Configuration, found: Found, latest: Latest) -> Iterator[Finding]:
    """The device answered."""
    from agent.commands.doubt import doubts
    from agent.commands.polling import reason, shown, word, written

    [reading] = latest.readings
    why, quality = reason(reading), word(reading)
    if reading is None or quality == "bad":
        step = step_of_tag(why)
        yield from _until(found, step)
        sentence, fix = split(why)
        yield Finding(Mark.BAD, step, sentence, fix)
        return
    yield from _until(found, Step.DECODE)
    value = f"{shown(reading.value, found.tag.value_type)} {found.tag.unit}".rstrip()
    order = getattr(found.device.settings, "order", None)
    doubtful = list(doubts(written(configuration, found.device.name), order, latest))
    if doubtful or quality != "good":
        text, fix = split(doubtful[0] if doubtful else f"{value}, and {quality}: {why}", first=True)
        yield Finding(Mark.NOTE, Step.DECODE, text, fix)
        return
    yield Finding(Mark.OK, Step.DECODE, f"{value}, {ago(max(0.0, time.time() - reading.time_us / 1e6))} old")


async def by_the_agent(configuration: Configuration, found: Found, agent: Sighting) -> list[Finding]:
    """Without a connection of our own: what the running agent says of this device and, where it can be asked, tag."""
    link = None if agent.status is None else agent.status.status.get("devices", {}).get(found.device.name)
    if not isinstance(link, dict):
        text = f"the running agent has not said anything of {found.device.name} yet"
        return [Finding(Mark.NOTE, "device", text, "systemctl reload holdfast, if the device is new in the file")]
    state, said, since_ms = str(link.get("state")), str(link.get("reason", "")), link.get("since", 0)
    if state == "away":
        since = ago(max(0.0, time.time() - since_ms / 1000))
        return list(_away(found, said, (f"so says the running agent, for {since}",)))
    row = await _asked(configuration, found)
    return list(_by_link(found, state, said, since_ms) if row is None else _by_row(found, row))


async def _asked(configuration: Configuration, found: Found) -> dict[str, Any] | None:
    """The tag's last reading as the agent shows it to viewers; None where it does not."""
    from agent.live.address import NAME
    from agent.live.client import FeedAway, LiveClient, everything
    from agent.live.query import Query

    client = LiveClient(Path(configuration.settings.data_dir) / NAME)
    device, tag = found.device.name, found.tag.name
    try:
        rows = (await everything(client, Query(filter=f"{device}/{tag}"[:200])))["values"]["rows"]
    except FeedAway:  # another user's, or an older agent: then its status has to do
        return None
    finally:
        await client.close()
    return next((row for row in rows if (row["device"], row["tag"]) == (device, tag) and row["time_us"]), None)


def _by_row(found: Found, row: dict[str, Any]) -> Iterator[Finding]:
    word = "by the running agent's word: "
    age = ago(max(0.0, time.time() - row["time_us"] / 1e6))
    value = f"{row['shown']} {found.tag.unit}".rstrip()
    if row["quality"] == "bad":
        step = step_of_tag(row["reason"])
        yield from _until(found, step)
        sentence, fix = split(row["reason"])
        yield Finding(Mark.BAD, step, f"{word}{sentence}", fix)
        return
    yield from _until(found, Step.DECODE)
    if row["quality"] == "good":
        yield Finding(Mark.OK, Step.DECODE, f"{word}{value}, {age} old")
    else:
        yield Finding(Mark.NOTE, Step.DECODE, f"{word}{value}, and {row['quality']}: {row['reason']}")


def _by_link(found: Found, state: str, said: str, since_ms: int) -> Iterator[Finding]:
    """By the agent's last status, which tells the first reason of a device."""
    ask = f"holdfast why {found.device.name}/{found.tag.name} --ask (opens a second connection)"
    since = ago(max(0.0, time.time() - since_ms / 1000))
    if state == "ok":
        text = f"by the running agent's word: {found.device.name} answers for {since}, all of its tags are good"
        yield Finding(Mark.OK, "device", text)
        return
    if state != "bad":
        yield Finding(Mark.NOTE, "device", "the running agent has not read it yet", ask)
        return
    is_only, first = counted(said)
    is_ours = concerns(first, found.tag.address, getattr(found.device.settings, "unit_id", None))
    if is_ours:
        step = step_of_tag(first)
        yield from _until(found, step)
        sentence, fix = split(first)
        yield Finding(Mark.BAD, step, f"by the running agent's word: {sentence}", fix)
    elif is_only and is_ours is False:
        text = f"by the running agent's word: {found.device.name} answers, and only another tag fails"
        yield Finding(Mark.OK, "device", text)
    else:
        text = f"by the running agent's word: {found.device.name} answers, and {said}; is this tag among them?"
        yield Finding(Mark.NOTE, "device", text, ask)

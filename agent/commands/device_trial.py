"""What `holdfast device test` finds out of one device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.findings import Finding, Mark, split

if TYPE_CHECKING:
    from agent.commands.polling import Latest
    from agent.settings import Configuration, Device

REASONS_SHOWN_MAX = 5
NAMES_SHOWN_MAX = 3


async def tried(configuration: Configuration, device: Device) -> list[Finding]:
    """The connection, then a finding for each poll group."""
    from agent.commands.polling import poll_once
    from protocols.field.contract import FieldError

    findings = []
    is_alive = agent_is_alive(configuration)
    if is_alive:
        text = "the running agent holds one, too; a device that takes one client only may refuse this one"
        findings.append(Finding(Mark.NOTE, "connection", text))
    begun_s = time.monotonic()
    try:
        latest = await poll_once(device, device.groups, configuration.settings.data_dir)
    except FieldError as error:
        sentence, fix = split(str(error).removeprefix(f"{device.name} "))
        return [*findings, Finding(Mark.BAD, device.name, sentence, fix)]
    took_ms = (time.monotonic() - begun_s) * 1000
    findings.append(Finding(Mark.OK, device.name, f"connected and read once, in {took_ms:.0f} ms"))
    return [*findings, *(_group(configuration, device, one) for one in latest)]


def agent_is_alive(configuration: Configuration) -> bool:
    """Whether it holds connections to the devices now."""
    from agent import running

    try:
        return running.look(Path(configuration.settings.data_dir), time.time()).is_alive
    except PermissionError:  # then it is another user's, and whether it runs is not known
        return False


def _group(configuration: Configuration, device: Device, latest: Latest) -> Finding:
    """How many of its tags are good, the reasons of the others, and what is hardly true."""
    from agent.commands.doubt import doubts
    from agent.commands.polling import reason, word, written

    failing: dict[str, list[str]] = {}
    for tag, reading in zip(latest.group.tags, latest.readings, strict=True):
        if why := reason(reading):
            failing.setdefault(why, []).append(tag.name)
    order = getattr(device.settings, "order", None)
    details = [f"{_names(names)}: {why}" for why, names in list(failing.items())[:REASONS_SHOWN_MAX]]
    details += [f"! {doubt}" for doubt in doubts(written(configuration, device.name), order, latest)]
    words = [word(reading) for reading in latest.readings]
    is_bad = "bad" in words or "none" in words
    mark = Mark.BAD if is_bad else Mark.NOTE if details else Mark.OK
    text = f"{words.count('good')} of {len(words)} tags good"
    return Finding(
        mark, f"group {latest.group.name}", text, f"holdfast read {device.name}" if details else "", tuple(details)
    )


def _names(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN_MAX
    return ", ".join(names[:NAMES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")

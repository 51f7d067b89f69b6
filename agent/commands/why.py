"""`holdfast why`: at which step a tag's value gets stuck, and what to do. Changes nothing."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.findings import Finding, Mark, say, terminal_cells, wrapped
from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import print_json, progress

if TYPE_CHECKING:
    from agent.running import Sighting
    from agent.settings import Configuration, Device
    from protocols.field.contract import Group, Tag

CANDIDATES_MAX = 6


@dataclass(frozen=True, slots=True)
class Found:
    """A tag and where it belongs."""

    device: Device
    group: Group
    tag: Tag


def why(
    tag: Annotated[
        str, typer.Argument(help="Name of the tag; as DEVICE/TAG where several have it.", show_default=False)
    ],
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask the device also while the agent is connected: a second connection.")
    ] = False,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> int:
    """Find the step at which a tag's value gets stuck."""
    from agent import running
    from agent.commands.why_agent import carried
    from agent.commands.why_device import by_asking, by_the_agent
    from protocols.program import logs

    logs.configure(level="error")
    configuration = read_configuration(config, assignments)
    found = known_tag(configuration, tag)
    data_dir = Path(configuration.settings.data_dir)
    try:
        agent = running.look(data_dir, time.time())
    except PermissionError:
        raise Failure(f"{data_dir}: this user may not look into it; run it with sudo", UNAVAILABLE) from None
    steps = [_named(configuration, found, agent)]
    if agent.is_alive and not ask:
        steps += run_interruptible(by_the_agent(configuration, found, agent))
    else:
        if agent.is_alive:
            text = "a second connection beside the running agent's; a device that takes one client only may refuse it"
            sys.stderr.write("\n".join(wrapped(text, terminal_cells(), "! ", "  ")) + "\n")
        with progress(f"asking {found.device.name}"):
            steps += run_interruptible(by_asking(configuration, found, agent))
    steps += carried(configuration, found.device.machine, agent)
    return _tell(found, steps, as_json)


def known_tag(configuration: Configuration, name: str) -> Found:
    """The tag of this name, or DEVICE/TAG. Raises Failure where there is none, or more than one."""
    every = [
        Found(device, group, tag) for device in configuration.devices for group in device.groups for tag in group.tags
    ]
    whose, slash, short = name.rpartition("/")
    found = [
        one
        for one in every
        if one.tag.name == (short if slash else name) and (not slash or whose in (one.device.name, one.device.machine))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = [f"{one.device.name}/{one.tag.name}" for one in found]
        shown = ", ".join(names[:CANDIDATES_MAX]) + (" …" if len(names) > CANDIDATES_MAX else "")
        raise Failure(f"{len(found)} tags are called {name}; name one of {shown}", USAGE)
    derived = {tag.name: tag for device in configuration.devices for group in device.derived for tag in group.tags}
    if name in derived:
        of = derived[name].address.names
        raise Failure(f"{name} is derived from {', '.join(of)}; look at that: holdfast why {of[0]}", USAGE)
    close = difflib.get_close_matches(short if slash else name, {one.tag.name for one in every}, 1)
    hint = f"did you mean {close[0]}?" if close else "holdfast read DEVICE lists a device's tags"
    raise Failure(f"there is no tag {name} in the configuration; {hint}", USAGE)


def _named(configuration: Configuration, found: Found, agent: Sighting) -> Finding:
    """Where the tag is configured; and whether the running agent knows it as it is written now."""
    from agent.commands.polling import written

    keys = written(configuration, found.device.name)[found.tag.name]
    key = found.device.address_key
    where = f", {key} {keys[key]}" if key is not None else ""
    text = f"{found.tag.name} of {found.device.name}, group {found.group.name}{where}; machine {found.device.machine}"
    running_hash = None if agent.status is None else agent.status.status.get("configHash")
    if agent.is_alive and running_hash not in (None, "", configuration.hash):
        fix = "systemctl reload holdfast, then look again"
        return Finding(Mark.NOTE, "name", f"{text}; the agent runs with another configuration than this one", fix)
    return Finding(Mark.OK, "name", text)


def _tell(found: Found, steps: Sequence[Finding], as_json: bool) -> int:
    failing = next((step for step in steps if step.mark is Mark.BAD), None)
    code = 0 if failing is None else UNAVAILABLE
    if as_json:
        print_json(_as_plain(found, steps, failing))
        return code
    say(steps)
    sys.stdout.write("\n")
    if failing is None:
        unsure = any(step.mark is Mark.NOTE for step in steps)
        sentence = "No step fails" + ("; what is marked ! could not be proved." if unsure else ": the value arrives.")
    else:
        sentence = f"It gets stuck at: {failing.subject}."
    sys.stdout.write("\n".join(wrapped(sentence, terminal_cells())) + "\n")
    return code


def _as_plain(found: Found, steps: Sequence[Finding], failing: Finding | None) -> dict[str, Any]:
    return {
        "tag": found.tag.name,
        "device": found.device.name,
        "machine": found.device.machine,
        "stuck_at": None if failing is None else failing.subject,
        "steps": [
            {"step": one.subject, "mark": one.mark, "text": one.text, "details": one.details, "fix": one.fix}
            for one in steps
        ],
    }

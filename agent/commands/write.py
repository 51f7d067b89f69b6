"""`holdfast write`: sets one tag of a device, when a person says so, and only one that is `writable`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.findings import terminal_cells, wrapped
from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import print_json, progress

if TYPE_CHECKING:
    from agent.commands.why import Found
    from agent.settings import Configuration
    from protocols.field.contract import Driver, Value


def write(
    tag: Annotated[str, typer.Argument(help="The tag; as DEVICE/TAG where several have it.", show_default=False)],
    value: Annotated[str, typer.Argument(help="As it would be read, scaled: 23.5, true.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Write a value to a device's tag, once, and read it back. Has it typed again before."""
    from agent.commands.polling import shown
    from agent.commands.why import known_tag
    from protocols.program import logs

    logs.configure(level="error")
    configuration = read_configuration(config, assignments)
    found = known_tag(configuration, tag)
    wanted = _value(value)
    _tell_of_the_agent(configuration)
    before, after = run_interruptible(_written(configuration, found, wanted, yes))
    if as_json:
        print_json({"tag": found.tag.name, "device": found.device.name, "before": before, "after": after})
        return
    kind, unit = found.tag.value_type, found.tag.unit
    typer.echo(f"{found.tag.name} of {found.device.name} was {shown(before, kind)} {unit}".rstrip() + ",")
    typer.echo(f"and is {shown(after, kind)} {unit} now, as the device says.".replace("  ", " "))


def _value(text: str) -> Value:
    from protocols.program.scalar import Ambiguous, resolve

    try:
        return resolve(text)
    except Ambiguous:
        return text


def _tell_of_the_agent(configuration: Configuration) -> None:
    from agent import running

    try:
        is_alive = running.look(Path(configuration.settings.data_dir), time.time()).is_alive
    except PermissionError:
        is_alive = True
    if is_alive:
        text = "a second connection beside the running agent's; a device that takes one client only may refuse it"
        sys.stderr.write("\n".join(wrapped(text, terminal_cells(), "! ", "  ")) + "\n")


async def _written(configuration: Configuration, found: Found, wanted: Value, yes: bool) -> tuple[Value, Value]:
    """The value before and after. Over one connection; what is asked of the person is asked in between."""
    from dataclasses import replace

    from agent import drivers
    from protocols.field.contract import FieldError, Writes

    alone = replace(found.group, tags=(found.tag,))
    driver = drivers.make(found.device, [alone], configuration.settings.data_dir)
    writer: Any = driver
    if not isinstance(writer, Writes):
        raise Failure(f"{found.device.name}: its driver ({found.device.protocol}) only reads", USAGE)
    try:
        with progress(f"reading {found.device.name}"):
            await driver.connect()
            before = await _read(driver, alone)
        _confirm(found, before, wanted, yes)
        return before, await writer.write(found.tag, wanted)
    except FieldError as error:
        raise Failure(str(error), UNAVAILABLE) from error
    finally:
        await driver.close()


async def _read(driver: Driver, alone: Any) -> Value:
    scans = await driver.read(alone)
    return scans[-1].values[0] if scans and scans[-1].values else None


def _confirm(found: Found, before: Value, wanted: Value, yes: bool) -> None:
    from agent.commands.polling import shown

    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure("nobody is here to agree; add --yes to write all the same", USAGE)
    kind = found.tag.value_type
    name, now, then = f"{found.tag.name} of {found.device.name}", shown(before, kind), shown(wanted, kind)
    if typer.prompt(f"{name} is {now}. Type {then} to write it", default="", show_default=False, err=True) != then:
        raise Failure("nothing was written", 1)

"""`holdfast device`: the devices in the configuration; adding and removing them, and trying one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import print_json, progress, table, tell

if TYPE_CHECKING:
    from agent.toolbox.written import Plain

device = typer.Typer(no_args_is_help=True, help="Add, list, remove and try devices of the configuration.")

REASONS_SHOWN_MAX = 5
NameArgument = Annotated[str, typer.Argument(help="Name of the device.", show_default=False)]


@device.command("list")
def list_devices(config: Config = None, assignments: Assignments = None, as_json: Json = False) -> None:
    """List the devices of the configuration."""
    configuration = read_configuration(config, assignments)
    rows = [
        {
            "name": one.name,
            "machine": one.machine,
            "protocol": one.protocol,
            "endpoint": one.endpoint,
            "groups": len(one.groups),
            "tags": sum(len(group.tags) for group in one.groups),
        }
        for one in configuration.devices
    ]
    if as_json:
        print_json({"devices": rows})
        return
    table(["name", "machine", "protocol", "endpoint", "groups", "tags"], [list(row.values()) for row in rows])


@device.command()
def add(
    name: NameArgument,
    settings: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE...", help="Its keys, as host=10.0.0.5 unit_id=2.", show_default=False),
    ],
    tag: Annotated[
        list[str],
        typer.Option(
            "--tag", "-t", metavar='"KEY=VALUE ..."', help='As "name=level address=40001 type=float32". At least one.'
        ),
    ],
    machine: Annotated[
        str | None, typer.Option("--machine", "-m", help="Default: the name.", show_default=False)
    ] = None,
    protocol: Annotated[str, typer.Option("--protocol", "-p", help="Name of the driver.")] = "modbus",
    period_s: Annotated[float, typer.Option("--period", metavar="SECONDS", min=0.05, max=86_400)] = 1.0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write a device into the configuration, leaving everything else in the file as it is."""
    tags = [_assigned(one.split(), "--tag") for one in tag]
    keys: dict[str, Plain] = {"name": name, "machine": machine or name, "protocol": protocol}
    keys |= _assigned(settings, "")
    keys["groups"] = [{"period_s": period_s, "tags": tags}]
    path = write_device(config, keys)
    if as_json:
        print_json({"path": path, "device": keys})
        return
    from agent.commands.device_file import TAKE_OVER

    tell(f"{name} stands in {path} now. Try it: holdfast device test {name}; take it over: {TAKE_OVER}")


def write_device(config: Any, keys: dict[str, Plain]) -> str:
    """Append a device to the file, if the result is valid. The file's path."""
    from agent.commands.device_file import ConfigurationFile

    file = ConfigurationFile(config)
    file.save(file.listing("devices").append([keys]))
    return str(file.shown)


def _assigned(words: Sequence[str], where: str) -> dict[str, Plain]:
    """KEY=VALUE words, read as the file's own words are."""
    from protocols.program.scalar import Ambiguous, resolve

    found: dict[str, Plain] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise Failure(f"{f'{where} ' if where else ''}{word!r} is no KEY=VALUE; write it as host=10.0.0.5", USAGE)
        try:
            found[key] = resolve(value)
        except Ambiguous:
            found[key] = value  # a text here, where no other value is possible
    return found


@device.command()
def remove(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Take a device, with its tags and its comments, out of the configuration."""
    from agent.commands.device_file import TAKE_OVER, ConfigurationFile
    from agent.toolbox.editing import CannotEdit

    file = ConfigurationFile(config)
    at = file.device_at(name)
    tags = sum(len(group.tags) for group in file.configuration.settings.devices[at].groups)
    if not yes:
        if not sys.stdin.isatty():
            raise Failure("nobody is here to agree; add --yes to remove it all the same", USAGE)
        if not typer.confirm(f"Remove {name} and its {tags} tags from {file.shown}?", default=False, err=True):
            raise Failure(f"{file.shown} was left as it is", 1)
    try:
        edit = file.listing("devices").remove(at)
    except CannotEdit as error:
        raise Failure(f"{name} cannot be removed: {error}", USAGE) from None
    file.save([edit])
    if as_json:
        print_json({"path": str(file.shown), "removed": name, "tags": tags})
        return
    tell(f"{name} and its {tags} tags are gone from {file.shown}. Take it over: {TAKE_OVER}")


@device.command("test")
def try_device(
    name: NameArgument, config: Config = None, assignments: Assignments = None, as_json: Json = False
) -> int:
    """Connect to a device, read every tag once, and say what is wrong. Stores and sends nothing."""
    from agent.commands.device_trial import tried
    from agent.commands.findings import Mark, say
    from agent.commands.plan import known_device
    from protocols.program import logs

    logs.configure(level="error")
    configuration = read_configuration(config, assignments)
    found = known_device(configuration, name)
    with progress(f"trying {name}"):
        findings = run_interruptible(tried(configuration, found))
    is_well = all(one.mark is not Mark.BAD for one in findings)
    if as_json:
        print_json({"ok": is_well, "findings": findings})
    else:
        say(findings)
    return 0 if is_well else UNAVAILABLE

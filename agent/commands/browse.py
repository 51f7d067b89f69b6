"""`holdfast browse`: what an OPC UA server offers, and its variables as tags. Reads, and changes nothing on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.options import Assignments, Config, Json, read_configuration, settings_path
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import clean, print_json, progress, shorten, tell, width

if TYPE_CHECKING:
    from agent.toolbox.nodes import Seen
    from agent.toolbox.written import Plain
    from protocols.field.opcua_settings import Settings

VALUE_CELLS_MAX = 24
UNFIT_SHOWN_MAX = 5


def browse(
    where: Annotated[
        str, typer.Argument(metavar="URL", help="opc.tcp://host:port/path, or a device's name.", show_default=False)
    ],
    pattern: Annotated[
        str | None,
        typer.Option("--filter", "-f", metavar="TEXT", help="Part of a name; or with * and ?.", show_default=False),
    ] = None,
    node: Annotated[str, typer.Option("--node", "-n", help="Where to begin.")] = "i=85",
    depth: Annotated[int, typer.Option("--depth", "-d", min=1, max=50, help="Levels below it.")] = 5,
    nodes_max: Annotated[int, typer.Option("--max", min=1, max=100_000, help="Most nodes to look at.")] = 2000,
    values: Annotated[bool, typer.Option("--values/--no-values", help="Read the variables' values.")] = True,
    username: Annotated[str | None, typer.Option("--username", help="User name.", show_default=False)] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with the password.", show_default=False)
    ] = None,
    as_tags: Annotated[bool, typer.Option("--tags", help="Print the variables as tags, to paste.")] = False,
    write: Annotated[
        str | None,
        typer.Option("--write", metavar="DEVICE", help="Write them into the configuration.", show_default=False),
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", "-g", help="Poll group for --write.", show_default=False)
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Show an OPC UA server's nodes, and take them as tags."""
    from agent.toolbox.nodes import chosen
    from protocols.program import logs

    logs.configure(level="error")
    server = _server(where, config, assignments, username, password_file)
    settings = server.settings
    reads = values or as_tags or write is not None
    root, namespaces, is_whole = _walked(server, node, depth, nodes_max, reads)
    nodes = chosen(root, pattern)
    if write is not None:
        _write(write, settings, nodes, group, config, as_json)
    elif as_tags:
        _print_tags(nodes, as_json)
    elif as_json:
        print_json({"namespaces": namespaces, "complete": is_whole, "nodes": [_plain(seen) for seen in nodes]})
    else:
        _print_tree(root, nodes, namespaces, is_whole, pattern)


@dataclass(frozen=True, slots=True)
class Server:
    """`directory`: where the agent keeps its certificates, if a configuration says so."""

    name: str
    settings: Settings
    directory: Path | None


def _server(
    where: str,
    config: Path | None,
    assignments: Sequence[str] | None,
    username: str | None,
    password_file: Path | None,
) -> Server:
    """By its address, or a device in the configuration."""
    from pydantic import ValidationError

    from agent.drivers import files
    from protocols.field.opcua_settings import Settings

    given = {"username": username, "password_file": password_file}
    more = {key: value for key, value in given.items() if value is not None}
    if "://" not in where:
        configuration = read_configuration(settings_path(config), assignments)
        device = configuration.device(where)
        if device is None or not isinstance(device.settings, Settings):
            why = f"{where} is neither an address nor an OPC UA device of the configuration; write opc.tcp://host:port"
            raise Failure(why, USAGE)
        directory = files(configuration.settings.data_dir, device.protocol)
        return Server(where, device.settings.model_copy(update=more), directory)
    try:
        return Server("server", Settings.model_validate({"url": where, **more}), None)
    except ValidationError as error:
        raise Failure(error.errors()[0]["msg"].removeprefix("Value error, "), USAGE) from None


def _walked(server: Server, node: str, depth: int, nodes_max: int, reads: bool) -> tuple[Seen, list[str], bool]:
    from protocols.field.contract import FieldError

    try:
        from agent.commands.browse_walk import Bounds, walk
    except ImportError:
        raise Failure("browsing needs the package asyncua; install holdfast[opcua]", UNAVAILABLE) from None
    settings, bounds = server.settings, Bounds(depth, nodes_max, reads)
    with progress(f"browsing {settings.endpoint}") as shown:
        try:
            return run_interruptible(walk(server.name, settings, server.directory, node, bounds, shown.update))
        except FieldError as error:
            raise Failure(str(error), UNAVAILABLE) from error
        except ValueError as error:
            raise Failure(str(error), USAGE) from None


def _print_tree(root: Seen, nodes: Sequence[Seen], namespaces: list[str], is_whole: bool, pattern: str | None) -> None:
    from agent.commands.findings import terminal_cells, wrapped
    from agent.toolbox.nodes import with_ancestors

    cells = terminal_cells()
    for index, uri in enumerate(namespaces[1:], 1):
        sys.stdout.write(f"ns={index}  {clean(uri)}\n")
    shown = with_ancestors(nodes)
    lines = list(_lines(root, shown, ""))
    room = max((width(head) for head, _, _ in lines), default=0)
    for head, value, node in lines:
        line = f"{head}{' ' * (min(room, 44) - width(head))}  {value}".rstrip() if value else head
        if cells is None or width(line) + 2 + width(node) <= cells:
            sys.stdout.write(f"{line}  {node}\n")
        else:
            sys.stdout.write(shorten(line, cells) + "\n")
    count = f"{len(nodes):,} node{'' if len(nodes) == 1 else 's'}" + (f" like {pattern}" if pattern else "")
    sys.stdout.write("\n" + "\n".join(wrapped(count, cells)) + "\n")
    if not is_whole:
        text = "There is more: raise --depth or --max, or begin deeper with --node."
        sys.stdout.write("\n".join(wrapped(text, cells, "! ", "  ")) + "\n")


def _lines(seen: Seen, shown: set[int], margin: str) -> Iterator[tuple[str, str, str]]:
    """(branch and name, value, node id) of everything below."""
    children = [child for child in seen.children if id(child) in shown]
    for child in children:
        is_last = child is children[-1]
        head = f"{margin}{'└─ ' if is_last else '├─ '}{clean(child.name)}"
        yield head, _value(child), clean(child.short)
        yield from _lines(child, shown, margin + ("   " if is_last else "│  "))


def _value(seen: Seen) -> str:
    if not seen.is_variable or not (seen.type_name or seen.trouble):
        return ""
    if seen.trouble:
        return "(no value)"
    kind = f"{seen.type_name}[]" if seen.is_array else seen.type_name
    return f"{shorten(clean(_shown(seen.value, seen.type_name)), VALUE_CELLS_MAX)}  {kind}"


def _shown(value: Any, type_name: str) -> str:
    """A value for people: a float without the digits that its type does not have."""
    from protocols.field.opcua_parts import as_json

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.7g}" if type_name == "Float" else f"{value:.12g}"
    return as_json(value) if isinstance(value, list | dict) else str(_simple(value))


def _simple(value: Any) -> Any:
    """As a tag has it: bytes hexadecimal, times as ISO 8601, arrays and structures as in their JSON."""
    from protocols.field.opcua_parts import as_json

    if isinstance(value, list | dict):
        return json.loads(as_json(value))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _plain(seen: Seen) -> dict[str, Any]:
    return {
        "path": seen.path,
        "node": seen.node,
        "variable": seen.is_variable,
        "type": seen.type_name,
        "array": seen.is_array,
        "value": _simple(seen.value),
        "trouble": seen.trouble,
    }


def _print_tags(nodes: Sequence[Seen], as_json: bool) -> None:
    from agent.toolbox.nodes import as_tags
    from agent.toolbox.written import tag_line

    tags, unfit = as_tags(nodes, frozenset())
    if as_json:
        print_json({"tags": tags, "unfit": [seen.path for seen in unfit]})
        return
    sys.stdout.write("".join(f"{tag_line(tag)}\n" for tag in tags))
    _tell_unfit(unfit)


def _tell_unfit(unfit: Sequence[Seen]) -> None:
    if unfit:
        names = ", ".join(seen.path for seen in unfit[:UNFIT_SHOWN_MAX])
        more = f" and {len(unfit) - UNFIT_SHOWN_MAX} more" if len(unfit) > UNFIT_SHOWN_MAX else ""
        text = (
            f"! no tags: {names}{more} (without a value, an array or a structure: of those take a part with "
            "part: [0] or part: NAME, or all of it as JSON with type: string)"
        )
        tell(text, sys.stderr)


def _write(
    name: str, settings: Settings, nodes: Sequence[Seen], group: str | None, config: Path | None, as_json: bool
) -> None:
    """Into a device of the configuration, or as a new one. A node that is a tag already is left alone."""
    from agent.commands.device_file import TAKE_OVER, ConfigurationFile
    from agent.toolbox.nodes import as_tags

    file = ConfigurationFile(config)
    devices = file.configuration.settings.devices
    device = next((one for one in devices if one.name == name), None)
    machine = name if device is None else device.machine
    held = [tag for one in devices if one.machine == machine for each in one.groups for tag in each.tags]
    there = {tag.get("node") for tag in held} if device is not None else set()
    tags, unfit = as_tags(
        [seen for seen in nodes if seen.node not in there], frozenset(str(tag["name"]) for tag in held)
    )
    if tags:
        file.save(_edits(file, name, settings, tags, group))
    _tell_unfit(unfit)
    if as_json:
        print_json({"path": str(file.shown), "device": name, "tags": tags, "unfit": [seen.path for seen in unfit]})
    elif tags:
        tell(f"{len(tags)} tags of {name} stand in {file.shown} now. Take it over: {TAKE_OVER}")
    else:
        tell(f"{file.shown} was left as it is: nothing new to write")


def _edits(file: Any, name: str, settings: Settings, tags: list[dict[str, Plain]], group: str | None) -> Any:
    from agent.toolbox.editing import CannotEdit
    from agent.toolbox.merging import HeldGroup, merged
    from agent.toolbox.taglist import DEFAULT_GROUP, Row

    names = [one.name for one in file.configuration.settings.devices]
    if name not in names:
        keys: dict[str, Plain] = {"name": name, "machine": name, "protocol": "opcua", "url": settings.url}
        if settings.username is not None:
            keys["username"] = settings.username
        if settings.password_file is not None:
            keys["password_file"] = str(settings.password_file)
        keys["groups"] = [{"name": group or DEFAULT_GROUP, "period_s": 1.0, "tags": tags}]
        return file.listing("devices").append([keys])
    at = names.index(name)
    held = [HeldGroup(one.name, one.tags) for one in file.configuration.settings.devices[at].groups]
    try:
        rows = [Row(number, tag, {}) for number, tag in enumerate(tags, 1)]
        return merged(file.text, at, held, rows, group, is_whole=False).edits
    except CannotEdit as error:
        raise Failure(f"{file.shown}: {error}", USAGE) from None

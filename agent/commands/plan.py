"""`holdfast plan`: what reading a device costs, before anything is sent to it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import USAGE, Failure
from protocols.program.terminal import print_json

if TYPE_CHECKING:
    from agent.settings import Configuration, Device
    from agent.toolbox.reckoning import Cycle
    from protocols.field.modbus import Settings


def plan(
    device: Annotated[str, typer.Argument(help="Name of the device in the configuration.", show_default=False)],
    answer_ms: Annotated[
        float,
        typer.Option("--answer", metavar="MS", min=0, max=60_000, help="How long the device may take for an answer."),
    ] = 10.0,
    baud: Annotated[
        int | None,
        typer.Option(
            min=300,
            max=4_000_000,
            metavar="BAUD",
            help="Speed of the serial line, also of one behind a gateway. Default: the configuration's, if any.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Show what reading a device costs. Sends nothing."""
    from agent.commands.plan_lines import modbus_lines, modbus_plain, opcua_lines, opcua_plain
    from protocols.field.modbus import Settings as ModbusSettings
    from protocols.field.opcua_settings import Settings as OpcuaSettings

    configuration = read_configuration(config, assignments)
    found = known_device(configuration, device)
    if isinstance(found.settings, ModbusSettings):
        cycles, gaps = _reckoned(found, found.settings, answer_ms / 1000, baud)
        _say(as_json, modbus_plain(found, cycles, gaps), modbus_lines(found, cycles, gaps, answer_ms))
    elif isinstance(found.settings, OpcuaSettings):
        _say(as_json, opcua_plain(found, found.settings), opcua_lines(found, found.settings))
    else:
        raise Failure(f"{device}: its driver ({found.protocol}) has no plan to show", USAGE)


def known_device(configuration: Configuration, name: str) -> Device:
    """Raises Failure where there is none of this name, with the likeliest one."""
    if (found := configuration.device(name)) is not None:
        return found
    known = [device.name for device in configuration.devices]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known[:12])}"
    raise Failure(f"there is no device {name} in the configuration; {hint}", USAGE)


def _reckoned(
    device: Device, settings: Settings, answer_s: float, baud: int | None
) -> tuple[list[Cycle], dict[int, tuple[int, int]]]:
    from agent.toolbox.reckoning import Way, by_gap, cycle
    from protocols.field.modbus_plan import Limits

    link = settings.link
    if baud is None and link.serial is not None:
        baud = link.serial.baudrate
    way = Way(answer_s + link.pause_s, baud, link.transport in ("rtu", "rtu_over_tcp"))
    limits = Limits(settings.max_registers, settings.max_bits, settings.max_gap)
    cycles = [cycle(group, settings.unit_id, limits, way) for group in device.groups]
    return cycles, by_gap(device.groups, settings.unit_id, limits, way)


def _say(as_json: bool, plain: dict[str, Any], lines: Sequence[str]) -> None:
    if as_json:
        print_json(plain)
    else:
        sys.stdout.write("\n".join(lines) + "\n")

"""`holdfast scan`: what a Modbus endpoint has. Only reads, over one connection, slowly."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.findings import terminal_cells, wrapped
from agent.commands.options import Assignments, Config, Json
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import ago, print_json, progress, tell

if TYPE_CHECKING:
    from agent.commands.probe_target import Target
    from agent.commands.scan_line import Asker
    from agent.toolbox.scanning import Estimate, UnitFound
    from protocols.field.modbus_line import Link, Serial

UNITS_LOOKED_INTO_MAX = 8
ALIKE_MIN = 4
"""So many units have to answer alike before a device is thought to ignore unit ids."""


@dataclass
class Findings:
    """What was found so far; complete unless `ended` says why it was not."""

    asked_units: Sequence[int]
    window: range
    stride: int
    units: list[UnitFound] = field(default_factory=list)
    serial: Serial | None = None
    requests: int = 0
    ended: str = ""


def scan(
    where: Annotated[
        str,
        typer.Argument(
            metavar="HOST[:PORT]", help="The device, a serial port, or a name in the configuration.", show_default=False
        ),
    ],
    units: Annotated[
        str | None,
        typer.Option("--units", "-u", metavar="IDS", help="As 1-16,255. Default: 0-16,255.", show_default=False),
    ] = None,
    to: Annotated[int, typer.Option("--to", min=0, max=65_535, help="Last address to look at, in each table.")] = 99,
    interval_ms: Annotated[
        float, typer.Option("--interval", metavar="MS", min=100, max=60_000, help="Pause before each request.")
    ] = 100.0,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.05, max=60, help="How long to wait for an answer.")
    ] = 0.5,
    fine: Annotated[
        bool, typer.Option("--fine", help="Ask for every single address where a range is refused.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Begin without asking.")] = False,
    write: Annotated[
        str | None,
        typer.Option(
            "--write",
            metavar="NAME",
            help="Write it into the configuration, as this device.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Find unit ids, functions and readable ranges of a Modbus device. Only reads, slowly."""
    from agent.commands.probe_target import target
    from agent.toolbox.scanning import STRIDE, estimate, serial_settings
    from protocols.program import logs

    logs.configure(level="error")
    who = target(where, config, assignments, None, None)
    is_serial = who.settings.link.serial is not None
    wanted = _units(units, is_serial)
    interval_s = interval_ms / 1000
    searched = len(serial_settings()) if is_serial else 1
    stride = 1 if fine else STRIDE
    _consent(who, estimate(len(wanted), to + 1, interval_s, timeout_s, searched, stride), interval_s, yes)
    found = Findings(wanted, range(to + 1), stride)
    try:
        _run(who, found, interval_s, timeout_s)
    except KeyboardInterrupt:
        found.ended = "interrupted"
        raise
    finally:
        if as_json or found.units or found.ended == "interrupted":
            _tell(who, found, as_json)
    if not found.units:
        raise Failure(f"{who.endpoint}: {found.ended or 'no unit answers'}", UNAVAILABLE)
    _offer(who, found, write, config, is_asking=not yes and not as_json)


def _units(text: str | None, is_serial: bool) -> Sequence[int]:
    from agent.toolbox.scanning import SERIAL_UNITS, UNITS, unit_ids

    try:
        return unit_ids(text) if text is not None else SERIAL_UNITS if is_serial else UNITS
    except ValueError as error:
        raise Failure(str(error), USAGE) from None


def _tell(who: Target, found: Findings, as_json: bool) -> None:
    from agent.commands.scan_lines import as_plain, lines

    if as_json:
        print_json(as_plain(who, found))
    else:
        sys.stdout.write("\n".join(lines(who, found, terminal_cells())) + "\n")


def ignores_unit_ids(found: Findings) -> bool:
    """Whether every unit that was asked for answers, and those looked into have the same."""
    looked_into = [unit for unit in found.units if unit.tables]
    alike = {tuple((one.table, one.code, tuple(one.ranges)) for one in unit.tables) for unit in looked_into}
    return len(found.asked_units) >= ALIKE_MIN and len(found.units) == len(found.asked_units) and len(alike) == 1


def _offer(who: Target, found: Findings, name: str | None, config: Path | None, is_asking: bool) -> None:
    """Write each unit that has something into the configuration, as a device of its own."""
    from agent.commands.device import write_device
    from agent.commands.device_file import TAKE_OVER
    from agent.toolbox.scanning import device_keys

    units = [unit for unit in found.units if any(table.ranges for table in unit.tables)]
    if not units:
        return
    if name is None and is_asking and sys.stdin.isatty():
        text = "Write it into the configuration? Name of the device (empty: no)"
        name = typer.prompt(text, default="", show_default=False, err=True).strip()
    if not name:
        return
    chosen = units[:1] if ignores_unit_ids(found) else units
    for unit in chosen:
        called = name if len(chosen) == 1 else f"{name}-{unit.unit_id}"
        path = write_device(config, device_keys(called, who.settings.link, found.serial, unit))
        tell(f"{called} stands in {path} now, with a tag for each range; give them their real names", sys.stderr)
    tell(f"Take it over: {TAKE_OVER}", sys.stderr)


def _consent(who: Target, cost: Estimate, interval_s: float, yes: bool) -> None:
    """Say what will be done to whom, and ask whether it may."""
    cells = terminal_cells()
    text = (
        f"{who.endpoint}: {cost.search:,} reads to find units, {_span(cost.search_s)}; then for each unit found "
        f"{cost.unit[0]:,} to {cost.unit[1]:,}, {_span(cost.unit_s)}. One every {interval_s * 1000:g} ms or slower, "
        "over one connection; nothing is written. Even reads have stopped a PLC before: better not while it controls "
        "anything."
    )
    notes = [text, *([f"! {who.note}"] if who.note else [])]
    sys.stderr.write("\n".join(line for note in notes for line in wrapped(note, cells)) + "\n")
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure("nobody is here to agree; add --yes to begin all the same", USAGE)
    if not typer.confirm("Begin?", default=False, err=True):
        raise Failure("nothing was sent", 1)


def _span(seconds: tuple[float, float]) -> str:
    return f"{ago(seconds[0] + 1)} to {ago(seconds[1] + 1)}"


def _run(who: Target, found: Findings, interval_s: float, timeout_s: float) -> None:
    from agent.commands.scan_line import Asker, ScanEnded, quick
    from protocols.field.modbus_address import Table
    from protocols.field.modbus_errors import no_connection

    link = quick(who.settings.link, timeout_s)
    with progress(f"scanning {link.host}") as shown:

        def on_ask(unit_id: int, table: Table, address: int) -> None:
            found.requests += 1
            shown.update(
                f"unit {unit_id}, {table} {address}; requests: {found.requests}, units found: {len(found.units)}"
            )

        async def whole() -> None:
            asker = Asker(link, interval_s, on_ask)
            try:
                if link.serial is None:
                    await asker.connect()
                    await look(asker, found)
                else:
                    await look_at_every_speed(asker, link, found)
            except ScanEnded as ended:
                found.ended = str(ended)
            except (OSError, UnicodeError) as error:
                found.ended = no_connection(error, link).removesuffix(".")
            finally:
                await asker.close()

        run_interruptible(whole())


async def look_at_every_speed(asker: Asker, link: Link, found: Findings) -> None:
    """Speeds and parities of a serial port, one after another, until a unit answers."""
    from agent.toolbox.scanning import serial_settings

    for setting in serial_settings():
        await asker.change(replace(link, serial=setting))
        try:
            await asker.connect()
        except OSError as error:
            if error.errno == errno.EINVAL:  # what this port cannot be set to, no device on it speaks
                continue
            raise
        found.serial = setting
        await look(asker, found)
        if found.units:
            return
    found.serial = None


async def look(asker: Asker, found: Findings) -> None:
    """Which units answer, and what they have."""
    from agent.toolbox.scanning import UnitFound, answers, ranges, tables

    for unit_id in found.asked_units:
        if await answers(asker.ask, unit_id):
            found.units.append(UnitFound(unit_id))
    for unit in found.units[:UNITS_LOOKED_INTO_MAX]:
        await tables(asker.ask, unit)
        for table in unit.tables:
            if table.is_served:
                await ranges(asker.ask, unit.unit_id, table, found.window, found.stride)

"""`holdfast probe`: what some registers of a Modbus device may mean. Reads once, and changes nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.options import Assignments, Config, Json
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import print_json, progress

if TYPE_CHECKING:
    from agent.commands.probe_target import Target
    from agent.toolbox.interpret import Expected
    from agent.toolbox.probing import Answered, Question

COUNT_MAX = 120


def probe(
    host: Annotated[
        str,
        typer.Argument(
            metavar="HOST[:PORT]", help="The device, a serial port, or a name in the configuration.", show_default=False
        ),
    ],
    address: Annotated[
        str,
        typer.Argument(
            help="As in a tag: 40001, holding:0, coil:0; or a bare number, whose two meanings are both shown.",
            show_default=False,
        ),
    ],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=COUNT_MAX, help="Registers or bits to show.")] = 4,
    expect: Annotated[
        str | None,
        typer.Option("--expect", "-e", metavar="VALUE", help="Mark what fits, for example 23.5.", show_default=False),
    ] = None,
    within: Annotated[
        float, typer.Option("--within", metavar="PERCENT", min=0, max=50, help="How far off a fit may be.")
    ] = 1.0,
    name: Annotated[str, typer.Option("--name", help="Name of the tag in the line to paste.")] = "value",
    unit_id: Annotated[
        int | None, typer.Option("--unit", "-u", min=0, max=255, help="Unit id. Default: 1.", show_default=False)
    ] = None,
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", min=0.05, max=60, metavar="SECONDS", help="Default: 1.", show_default=False),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Show what registers of a Modbus device may mean."""
    from agent.commands.probe_target import target
    from protocols.program import logs

    logs.configure(level="error")
    asked, wanted = _understood(address, count, expect, within)
    who = target(host, config, assignments, unit_id, timeout_s)
    answered = _ask(who, asked)
    if as_json:
        from agent.toolbox.probing import as_plain

        print_json(as_plain(answered, wanted, name))
        return
    _say(who, answered, wanted, name)


def _understood(address: str, count: int, expect: str | None, within: float) -> tuple[Question, Expected | None]:
    from agent.toolbox.interpret import expected
    from agent.toolbox.probing import question

    try:
        asked = question(address, count)
        if expect is not None and asked.table.holds_bits:
            raise ValueError(f"a {asked.table} is true or false; leave --expect out, or give a register's address")
        return asked, None if expect is None else expected(expect, within)
    except ValueError as error:
        raise Failure(str(error), USAGE) from None


def _ask(who: Target, asked: Question) -> Answered:
    """Through the driver itself, so that it is what the agent would read."""
    from agent.toolbox.probing import answered, group
    from protocols.field import modbus
    from protocols.field.contract import FieldError, Scan

    tags = group(asked, who.name)
    driver = modbus.driver(who.name, who.settings, [tags])

    async def once() -> Scan:
        try:
            await driver.connect()
            [scan] = await driver.read(tags)
            return scan
        finally:
            await driver.close()

    with progress(f"asking {who.name}"):
        try:
            found = answered(asked, run_interruptible(once()))
        except FieldError as error:
            raise Failure(_with_note(str(error), who), UNAVAILABLE) from error
    if not found.words:
        raise Failure(_with_note(f"{who.name}: {found.refusal}", who), UNAVAILABLE)
    return found


def _with_note(sentence: str, who: Target) -> str:
    return f"{sentence}\n{who.note}" if who.note else sentence


def _say(who: Target, found: Answered, wanted: Expected | None, name: str) -> None:
    from agent.commands.findings import terminal_cells, wrapped
    from agent.commands.probe_lines import lines

    cells = terminal_cells()
    if who.note:
        sys.stderr.write("\n".join(wrapped(f"! {who.note}", cells)) + "\n")
    sys.stdout.write("\n".join([who.where, "", *lines(found, wanted, name, cells)]) + "\n")

"""`holdfast-cloud machine write-off`: an operator says that batches are gone which nobody is left to declare."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cloud.commands.options import Assignments, Config, Json, MachineArgument, PlantArgument, name, opened, plant
from protocols.program.console import USAGE, Failure
from protocols.program.terminal import clean, print_json, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud.completeness import Statement
    from protocols.uplink.topics import MachineTopic

RANGES_SHOWN_MAX = 20
REASON_MAX = 200


def write_off(
    where: PlantArgument,
    machine: MachineArgument,
    epoch: Annotated[
        str | None, typer.Option("--epoch", metavar="EPOCH", help="This one only, as the ledger names it.")
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for those who read the ledger later.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Declare missing batches as dropped, where no gateway is left to do so.

    Only what is missing in epochs that their gateway's last status does not name any more. A gateway that comes back
    all the same lets go of what it hears was dropped. What arrives all the same is stored.
    """
    from cloud import write_off as rules
    from protocols.uplink.topics import MachineTopic

    topic = MachineTopic(plant(where), name(machine, "machine"))
    why = rules.reason(_checked(reason))
    with opened(config, assignments) as store:
        meant = rules.abandoned(machine, store.ledgers(topic), epoch)
        if not as_json:
            _show(topic, meant)
        if not yes:
            _ask(sum(one.missing for one in meant), as_json)
        done = [(one, store.write_off(topic, one.epoch, one.missing_ranges, why)) for one in meant]
    batches = sum(count for _, count in done)
    if as_json:
        epochs = [{"epoch": one.epoch, "batches": count, "ranges": one.missing_ranges} for one, count in done]
        print_json(
            {"plant": str(topic.plant), "machine": machine, "written_off": batches, "reason": why, "epochs": epochs}
        )
    else:
        tell(f"{_batches(batches)} of machine {machine} are written off; the ledger has them as dropped ({why}).")


def _checked(text: str) -> str:
    if len(text) > REASON_MAX or not text.isprintable():
        raise Failure(f"the reason must be one line of at most {REASON_MAX} characters", USAGE)
    return text.strip()


def _show(topic: MachineTopic, meant: Sequence[Statement]) -> None:
    from cloud.commands.ledger import shown_range

    tell(f"Machine {topic.machine} of plant {topic.plant} lacks batches for which no gateway answers any more:")
    for one in meant:
        typer.echo(clean(f"  epoch {one.epoch or '-'}: {_batches(one.missing)}"))
        for span in one.missing_ranges[:RANGES_SHOWN_MAX]:
            typer.echo(f"    {shown_range(*span)}")
        if len(one.missing_ranges) > RANGES_SHOWN_MAX:
            typer.echo(f"    … and {len(one.missing_ranges) - RANGES_SHOWN_MAX:,} more ranges")


def _ask(batches: int, as_json: bool) -> None:
    """Raises Failure, and nothing was changed."""
    if as_json or not sys.stdin.isatty():
        raise Failure(
            "nobody is here to agree, so nothing was changed; add --yes to write them off all the same", USAGE
        )
    tell("A gateway that has them still, and comes back, lets go of them unsent.", sys.stderr)
    if not typer.confirm(f"Write off {_batches(batches)}?", default=False, err=True):
        raise Failure("nothing was changed", 1)


def _batches(count: int) -> str:
    return f"{count:,} batch{'' if count == 1 else 'es'}"

"""`holdfast-cloud machine …`: what sends, how much of it is there, and an operator's approval."""

from __future__ import annotations

import typer

from cloud.commands.options import (
    Assignments,
    Config,
    Json,
    MachineArgument,
    PlantArgument,
    name,
    now_us,
    opened,
    plant,
)
from cloud.commands.write_off import write_off
from protocols.program.console import ago, table
from protocols.program.terminal import print_json

machines = typer.Typer(no_args_is_help=True, help="Machines: what owns readings, and a ledger of its numbers.")
machines.command("write-off")(write_off)


@machines.command("list")
def list_machines(config: Config = None, assignments: Assignments = None, as_json: Json = False) -> None:
    """List the machines, each with its ledger: what is stored, missing, or dropped by its gateway."""
    from cloud.completeness import account
    from protocols.uplink.topics import MachineTopic

    with opened(config, assignments) as store:
        found = [(row, account(store.ledgers(MachineTopic(row.plant, row.machine)))) for row in store.machines()]
    if as_json:
        print_json(
            {
                "machines": [
                    {
                        "plant": str(row.plant),
                        "machine": row.machine,
                        "state": row.state,
                        "gateway": row.gateway,
                        "last_event_us": row.last_event_us,
                        "batches": row.batches,
                        "tags": row.tags,
                        "ledger": ledger,
                    }
                    for row, ledger in found
                ]
            }
        )
        return
    if not found:
        typer.echo("No machine has sent anything yet; one appears with its first message from a known plant.")
        return
    now = now_us()
    table(
        ["machine", "plant", "state", "gateway", ">last message", ">batches", ">tags", "ledger"],
        [
            (
                *(row.machine, str(row.plant), row.state, row.gateway or "-"),
                "-" if row.last_event_us is None else f"{ago((now - row.last_event_us) / 1e6)} ago",
                *(row.batches, row.tags, "-" if ledger is None else str(ledger)),
            )
            for row, ledger in found
        ],
        fold=True,
    )


@machines.command("approve")
def approve(
    where: PlantArgument,
    machine: MachineArgument,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Approve a machine that appeared by itself."""
    from protocols.uplink.topics import MachineTopic

    topic = MachineTopic(plant(where), name(machine, "machine"))
    with opened(config, assignments) as store:
        store.approve_machine(topic)
    if as_json:
        print_json({"plant": str(topic.plant), "machine": machine, "state": "approved"})
    else:
        typer.echo(f"Machine {machine} of plant {topic.plant} is approved.")

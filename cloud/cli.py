"""The command line of the cloud receiver. Each command, or group of them, has a file of its own in `cloud/commands`."""

from __future__ import annotations

import sys

from cloud.commands.check import check
from cloud.commands.gateways import gateways
from cloud.commands.init import init
from cloud.commands.ledger import ledger
from cloud.commands.letters import letters
from cloud.commands.machines import machines
from cloud.commands.places import plants, tenants
from cloud.commands.run import run
from cloud.commands.schema import schema
from cloud.commands.status import status
from protocols.program import console
from protocols.program.commandline import command_line

app = command_line(
    "holdfast-cloud",
    "Holdfast's cloud receiver: stores every reading once, and tells each gateway what is stored.",
)
for command in (init, check, run, status, ledger, schema):
    app.command()(command)
for group, group_name in (
    (tenants, "tenant"),
    (plants, "plant"),
    (gateways, "gateway"),
    (machines, "machine"),
    (letters, "dlq"),
):
    app.add_typer(group, name=group_name)


def main() -> int:
    """The entry point `holdfast-cloud`."""
    return console.run(app, sys.argv[1:], prog="holdfast-cloud")


if __name__ == "__main__":
    sys.exit(main())

"""The command line of the gateway agent. Each command has a file of its own in `agent/commands`."""

from __future__ import annotations

import sys

from agent.commands.check import check
from agent.commands.init import init
from agent.commands.read import read
from agent.commands.run import run
from agent.commands.schema import schema
from agent.commands.status import status
from protocols.program import console
from protocols.program.commandline import command_line

app = command_line(
    "holdfast",
    "Holdfast's gateway agent: carries every reading from the plant floor to the cloud, and can prove it.",
)
for command in (init, check, read, run, status, schema):
    app.command()(command)


def main() -> int:
    """The entry point `holdfast`."""
    return console.run(app, sys.argv[1:], prog="holdfast")


if __name__ == "__main__":
    sys.exit(main())

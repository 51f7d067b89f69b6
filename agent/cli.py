"""The command line of the gateway agent. Each command has a file of its own in `agent/commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from protocols.program import console
from protocols.program.commandline import add_commands, command_line

PURPOSE = "Holdfast's gateway agent: carries every reading from the plant floor to the cloud, and can prove it."
COMMANDS = (
    "init",
    "check",
    "read",
    "run",
    "status",
    "watch",
    "why",
    "probe",
    "scan",
    "plan",
    "commission",
    "browse",
    "write",
    "schema",
    "device",
    "tags",
    "opcua",
    "capture",
    "replay",
    "simulate",
)
"""In the order in which --help lists them. Each is a module of `agent.commands`, with a function or group so named."""


def app(argv: Sequence[str] = ()) -> typer.Typer:
    """The command line, with what these arguments need of it."""
    return add_commands(command_line("holdfast", PURPOSE), "agent.commands", COMMANDS, argv)


def main() -> int:
    """The entry point `holdfast`."""
    argv = sys.argv[1:]
    return console.run(app(argv), argv, prog="holdfast")


if __name__ == "__main__":
    sys.exit(main())

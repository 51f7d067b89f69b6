"""The command line of the gateway agent. Each command has a file of its own in `agent/commands`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agent.commands.check import check
from agent.commands.init import init
from agent.commands.read import read
from agent.commands.run import run
from agent.commands.schema import schema
from agent.commands.status import status
from protocols.program import console

app = typer.Typer(
    name="holdfast",
    help="Holdfast's gateway agent: carries every reading from the plant floor to the cloud, and can prove it.",
    epilog="Exit codes: 0 all is well, 64 wrong usage, 69 something is unavailable, 75 temporary trouble, "
    "78 the configuration is wrong.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes long to import, and none of our output needs it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (init, check, read, run, status, schema):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from protocols.program.version import program_version

        typer.echo(f"holdfast {program_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Only --version, which its callback has answered."""


def main() -> int:
    """The entry point `holdfast`."""
    return console.run(app, sys.argv[1:], prog="holdfast")


if __name__ == "__main__":
    sys.exit(main())

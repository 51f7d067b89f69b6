"""The command line of the cloud receiver. Each command, or group of them, has a file of its own in `cloud/commands`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cloud.commands.check import check
from cloud.commands.gateways import gateways
from cloud.commands.init import init
from cloud.commands.letters import letters
from cloud.commands.machines import machines
from cloud.commands.places import plants, tenants
from cloud.commands.run import run
from cloud.commands.schema import schema
from cloud.commands.status import status
from protocols.program import console

app = typer.Typer(
    name="holdfast-cloud",
    help="Holdfast's cloud receiver: stores every reading once, and tells each gateway what is stored.",
    epilog="Exit codes: 0 all is well, 64 wrong usage, 69 something is unavailable, 75 temporary trouble, "
    "78 the configuration is wrong.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes long to import, and none of our output needs it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (init, check, run, status, schema):
    app.command()(command)
for group, group_name in (
    (tenants, "tenant"),
    (plants, "plant"),
    (gateways, "gateway"),
    (machines, "machine"),
    (letters, "dlq"),
):
    app.add_typer(group, name=group_name)


def _version(wanted: bool) -> None:
    if wanted:
        from protocols.program.version import program_version

        typer.echo(f"holdfast-cloud {program_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Only --version, which its callback has answered."""


def main() -> int:
    """The entry point `holdfast-cloud`."""
    return console.run(app, sys.argv[1:], prog="holdfast-cloud")


if __name__ == "__main__":
    sys.exit(main())

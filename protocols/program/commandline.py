"""The frame of a command line: what both programs say and accept before any command."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer


def command_line(program: str, purpose: str) -> typer.Typer:
    """A command line without commands yet, with --help and --version. `purpose` heads its help."""
    app = typer.Typer(
        name=program,
        help=purpose,
        epilog="Exit codes: 0 all is well, 64 wrong usage, 69 something is unavailable, 75 temporary trouble, "
        "78 the configuration is wrong.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # rich takes long to import, and none of our output needs it
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    return app


def add_commands(app: typer.Typer, package: str, names: Sequence[str], argv: Sequence[str]) -> typer.Typer:
    """Add the commands and groups of commands, each from the module in `package` that has its name; gives the app.

    Where `argv` begins with one of them, only that one: to import all takes longer than most commands run.
    """
    for name in argv[:1] if argv and argv[0] in names else names:
        found = getattr(import_module(f"{package}.{name}"), name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        from protocols.program.version import program_version

        typer.echo(f"{context.info_name} {program_version()}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Only --version, which its callback has answered."""

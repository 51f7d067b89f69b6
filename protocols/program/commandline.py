"""The frame of a command line: what both programs say and accept before any command."""

from __future__ import annotations

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

"""`holdfast init`: a commented example configuration to begin with."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from agent.commands.options import HERE, Json
from protocols.program.console import UNAVAILABLE, Failure
from protocols.program.example import write_example
from protocols.program.terminal import print_json


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", show_default=False, help=f"Default: ./{HERE}.")] = HERE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write an example configuration, with an explanation of each key."""
    _write(path, force)
    if as_json:
        print_json({"path": str(path)})
        return
    typer.echo(f"{path} is written, for you alone to read (mode 0600). Next:")
    typer.echo("  1. Enter your broker and your devices; every key is explained in it.")
    typer.echo(f"  2. holdfast check --config {path}")
    typer.echo(f"  3. holdfast run --config {path}")


def example() -> str:
    """The text of the example."""
    return files("agent").joinpath("example.yaml").read_text(encoding="utf-8")


def _write(path: Path, force: bool) -> None:
    try:
        write_example(path, example(), force=force, usual_name=HERE.name)
    except Failure as failure:
        if isinstance(failure.__cause__, FileNotFoundError):
            why = f"there is no directory {path.parent}; make it first: mkdir -p {path.parent}"
            raise Failure(why, UNAVAILABLE) from None
        raise

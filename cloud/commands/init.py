"""`holdfast-cloud init`: a commented example configuration to begin with."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from cloud.commands.options import HERE, Json
from protocols.program.example import write_example
from protocols.program.terminal import print_json


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", show_default=False, help=f"Default: ./{HERE}.")] = HERE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write an example configuration, with an explanation of each key."""
    write_example(path, example(), force=force, usual_name=HERE.name)
    if as_json:
        print_json({"path": str(path)})
        return
    typer.echo(f"{path} is written, for you alone to read (mode 0600). Next:")
    typer.echo("  1. Enter your broker; every key is explained in it.")
    typer.echo(f"  2. holdfast-cloud check --config {path}")
    typer.echo(f"  3. holdfast-cloud tenant add NAME --config {path}")
    typer.echo(f"     holdfast-cloud plant add TENANT PROVINCE PLANT --config {path}")
    typer.echo(f"  4. holdfast-cloud run --config {path}")


def example() -> str:
    """The text of the example."""
    return files("cloud").joinpath("example.yaml").read_text(encoding="utf-8")

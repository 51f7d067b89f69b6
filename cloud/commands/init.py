"""`holdfast-cloud init`: a commented example configuration to begin with."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from cloud.commands.options import HERE, Json
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.terminal import print_json

MODE = 0o600  # it may come to hold a password


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", show_default=False, help=f"Default: ./{HERE}.")] = HERE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write an example configuration, with an explanation of each key."""
    _write(path, example(), force)
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


def _write(path: Path, text: str, force: bool) -> None:
    """Never half a file, and never one that others could read meanwhile. Raises Failure."""
    if path.is_dir():
        raise Failure(f"{path} is a directory; name the file in it, as in {path / HERE.name}", USAGE)
    target = path.with_name(path.name + ".new") if force else path
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_TRUNC if force else os.O_EXCL)
        with os.fdopen(os.open(target, flags, MODE), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(text)
        if force:
            target.replace(path)
    except FileExistsError:
        raise Failure(f"{path} exists already and was left alone; choose another path, or add --force", USAGE) from None
    except OSError as error:
        raise Failure(
            f"{path} cannot be written ({error.strerror}); check the path and your rights", UNAVAILABLE
        ) from None

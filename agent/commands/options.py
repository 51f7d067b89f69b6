"""Options that several commands have in common, and the configuration that they lead to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocols.program.console import CONFIGURATION, Failure

if TYPE_CHECKING:
    from agent.settings import Configuration

VARIABLE = "HOLDFAST_CONFIG"
HERE = Path("agent.yaml")
INSTALLED = Path("/etc/holdfast/agent.yaml")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        show_default=False,
        help=f"The configuration. Default: ${VARIABLE}, ./{HERE} if there is one, {INSTALLED}.",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="Use another value than the file's, as in broker.host=10.0.0.1. May be given several times.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def settings_path(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The file to read. Raises Failure when nobody named one and none is where one is looked for."""
    if given is not None:
        return given
    if named := environ.get(VARIABLE):
        return Path(named)
    for path in (HERE, INSTALLED):
        if os.path.lexists(path):
            return path
    raise Failure(
        f"there is no configuration: neither ./{HERE} nor {INSTALLED} exists; "
        "name one with --config, or write an example with: holdfast init",
        CONFIGURATION,
    )


def read_configuration(config: Path | None, assignments: Sequence[str] | None) -> Configuration:
    """The checked configuration. Raises SettingsError with every problem, or Failure where there is no file."""
    from agent import settings
    from protocols.program.settings import flags

    return settings.read(settings_path(config), overrides=flags(assignments or []))

"""Options that the commands of both programs have in common, and where a program looks for its configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from protocols.program.console import CONFIGURATION, Failure
from protocols.program.logs import Level

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
LogJson = Annotated[bool, typer.Option("--log-json", help="Log lines as JSON.")]
LogLevel = Annotated[Level, typer.Option("--log-level", help="The least that is logged.")]


@dataclass(frozen=True, slots=True)
class Lookup:
    """Where `program` looks for its configuration: the file that `variable` names, `here`, `installed`."""

    program: str
    variable: str
    here: Path
    installed: Path

    def option(self) -> Any:
        """The option `--config`, for typer."""
        return typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            show_default=False,
            help=f"The configuration. Default: ${self.variable}, ./{self.here} if there is one, {self.installed}.",
        )

    def path(self, given: Path | None) -> Path:
        """The file to read. Raises Failure when nobody named one and none is where one is looked for."""
        if given is not None:
            return given
        if named := os.environ.get(self.variable):
            return Path(named)
        for path in (self.here, self.installed):
            if os.path.lexists(path):
                return path
        raise Failure(
            f"there is no configuration: neither ./{self.here} nor {self.installed} exists; "
            f"name one with --config, or write an example with: {self.program} init",
            CONFIGURATION,
        )

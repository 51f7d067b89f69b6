"""Options that several commands have in common, and the configuration that they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from protocols.program.options import Assignments as Assignments
from protocols.program.options import Json as Json
from protocols.program.options import Lookup

if TYPE_CHECKING:
    from agent.settings import Configuration

HERE = Path("agent.yaml")
_LOOKUP = Lookup("holdfast", "HOLDFAST_CONFIG", HERE, Path("/etc/holdfast/agent.yaml"))
settings_path = _LOOKUP.path

Config = Annotated[Path | None, _LOOKUP.option()]


def read_configuration(config: Path | None, assignments: Sequence[str] | None) -> Configuration:
    """The checked configuration. Raises SettingsError with every problem, or Failure where there is no file."""
    from agent import settings
    from protocols.program.settings import flags

    return settings.read(settings_path(config), overrides=flags(assignments or []))

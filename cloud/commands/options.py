"""Options that several commands have in common, and the configuration and the store that they lead to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocols.program.console import TEMPORARY, UNAVAILABLE, USAGE, Failure
from protocols.program.options import Assignments as Assignments
from protocols.program.options import Json as Json
from protocols.program.options import Lookup

if TYPE_CHECKING:
    from cloud.settings import Configuration
    from cloud.store.contract import Store
    from protocols.uplink.topics import Plant

HERE = Path("cloud.yaml")
_LOOKUP = Lookup("holdfast-cloud", "HOLDFAST_CLOUD_CONFIG", HERE, Path("/etc/holdfast/cloud.yaml"))
settings_path = _LOOKUP.path

Config = Annotated[Path | None, _LOOKUP.option()]
PlantArgument = Annotated[str, typer.Argument(metavar="TENANT/PROVINCE/PLANT", help="The plant, with its tenant.")]

MachineArgument = Annotated[str, typer.Argument(metavar="MACHINE", help="Name of the machine.")]


def read_configuration(config: Path | None, assignments: Sequence[str] | None) -> Configuration:
    """The checked configuration. Raises SettingsError with every problem, or Failure where there is no file."""
    from cloud import settings
    from protocols.program.settings import flags

    return settings.read(settings_path(config), overrides=flags(assignments or []))


@contextmanager
def opened(config: Path | None, assignments: Sequence[str] | None) -> Iterator[Store]:
    """The store of the configuration. Whatever it refuses, inside or at opening, is a Failure with its sentence."""
    from cloud.store.contract import StoreAway, StoreError
    from protocols.program import logs

    logs.configure(level="error")
    configuration = read_configuration(config, assignments)
    try:
        store = configuration.open_store()
    except StoreError as error:
        raise Failure(str(error), TEMPORARY if isinstance(error, StoreAway) else UNAVAILABLE) from error
    try:
        yield store
    except StoreError as error:
        raise Failure(str(error), TEMPORARY if isinstance(error, StoreAway) else USAGE) from error
    finally:
        store.close()


def name(text: str, what: str) -> str:
    """The text, if it may stand in a topic. Raises Failure."""
    from protocols.uplink.topics import is_name

    if not is_name(text):
        raise Failure(
            f"{text!r:.90} cannot be the name of a {what}; use 1 to 64 of a to z, 0 to 9, - and _,"
            " beginning with a letter or a digit",
            USAGE,
        )
    return text


def plant(text: str) -> Plant:
    """`acme/north/plant-1` as a value. Raises Failure."""
    from protocols.uplink.topics import Plant

    parts = text.split("/")
    if len(parts) != 3:
        raise Failure(f"{text!r:.200} is not a plant; write TENANT/PROVINCE/PLANT, as in acme/north/plant-1", USAGE)
    return Plant(name(parts[0], "tenant"), name(parts[1], "province"), name(parts[2], "plant"))


def clock(time_us: int) -> str:
    """A moment as people here read it, with the distance from UTC."""
    return datetime.fromtimestamp(time_us / 1e6).astimezone().isoformat(" ", "seconds")


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000

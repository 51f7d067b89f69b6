"""Options that several commands have in common, and the configuration and the store that they lead to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocols.program.console import CONFIGURATION, TEMPORARY, UNAVAILABLE, USAGE, Failure

if TYPE_CHECKING:
    from cloud.settings import Configuration
    from cloud.store.contract import Store
    from protocols.uplink.topics import Plant

VARIABLE = "HOLDFAST_CLOUD_CONFIG"
HERE = Path("cloud.yaml")
INSTALLED = Path("/etc/holdfast/cloud.yaml")

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
PlantArgument = Annotated[str, typer.Argument(metavar="TENANT/PROVINCE/PLANT", help="The plant, with its tenant.")]


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
        "name one with --config, or write an example with: holdfast-cloud init",
        CONFIGURATION,
    )


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


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000

"""`holdfast-cloud run`: the receiver itself, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud.commands.options import Assignments, Config, read_configuration, settings_path
from protocols.program.console import TEMPORARY, UNAVAILABLE, Failure
from protocols.program.logs import Level
from protocols.program.options import LogJson

if TYPE_CHECKING:
    from cloud.settings import Configuration

PROBLEMS_LOGGED_MAX = 20


def run(
    config: Config = None,
    assignments: Assignments = None,
    log_json: LogJson = False,
    log_level: Annotated[
        Level | None, typer.Option("--log-level", help="The least that is logged; default: log.level.")
    ] = None,
) -> None:
    """Run the receiver and the operators' page until SIGTERM or Ctrl-C. SIGHUP reads log level and retention anew."""
    path = settings_path(config)
    configuration = read_configuration(path, assignments)

    def set_level(found: Configuration) -> None:
        from protocols.program import logs

        logs.configure(level=log_level or found.settings.log.level, as_json=log_json)

    def load() -> Configuration | None:
        found = _reloaded(path, assignments)
        if found is not None:
            set_level(found)
        return found

    set_level(configuration)
    _serve(configuration, load)


def _serve(configuration: Configuration, load: Callable[[], Configuration | None]) -> None:
    # After the configuration is checked, so that a mistake in it is told at once.
    from cloud.main import serve
    from cloud.store.contract import StoreAway, StoreError
    from protocols.program.listening import PageError
    from protocols.program.tasks import TaskDied, run_until_signal

    reload = asyncio.Event()
    try:
        run_until_signal(lambda stopping: serve(configuration, stopping, reload, load), on_hangup=reload.set)
    except StoreError as error:
        raise Failure(str(error), TEMPORARY if isinstance(error, StoreAway) else UNAVAILABLE) from error
    except PageError as error:
        raise Failure(str(error), UNAVAILABLE) from error
    except TaskDied as died:
        if isinstance(died.__cause__, StoreError):
            raise Failure(str(died.__cause__), UNAVAILABLE) from died
        from protocols.program.logs import log_crash

        log_crash("a part of the receiver failed", died)
        raise


def _reloaded(path: Path, assignments: list[str] | None) -> Configuration | None:
    """The configuration as it is now; None, and the log says why, where it cannot be used."""
    from protocols.program.logs import get_logger
    from protocols.program.settings import SettingsError

    log = get_logger(part="cloud")
    try:
        return read_configuration(path, assignments)
    except SettingsError as error:
        problems = error.problems
    for problem in problems[:PROBLEMS_LOGGED_MAX]:
        log.error(str(problem))
    log.error("the changed configuration was not taken, the old one stays", problems=len(problems))
    return None

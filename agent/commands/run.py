"""`holdfast run`: the agent itself, until it is told to stop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.commands.options import Assignments, Config, read_configuration, settings_path
from protocols.program.console import TEMPORARY, Failure
from protocols.program.options import LogJson, LogLevel
from protocols.program.startup import loading

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agent.settings import Configuration

PROBLEMS_LOGGED_MAX = 20


def run(
    config: Config = None,
    assignments: Assignments = None,
    log_json: LogJson = False,
    log_level: LogLevel = "info",
) -> None:
    """Run the agent until SIGTERM or Ctrl-C. SIGHUP reads the configuration anew."""
    path = settings_path(config)
    with loading():
        configuration = read_configuration(path, assignments)
        # After the configuration is checked, so that a mistake in it is told at once.
        from agent.main import serve
        from protocols.program import logs

    logs.configure(level=log_level, as_json=log_json)
    reload = asyncio.Event()
    _run(lambda stopping: serve(configuration, stopping, reload, lambda: _reloaded(path, assignments)), reload)


def _run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], reload: asyncio.Event) -> None:
    from agent.outbox.contract import OutboxError
    from protocols.program.tasks import TaskDied, run_until_signal

    try:
        run_until_signal(main, on_hangup=reload.set)
    except OutboxError as error:
        raise Failure(str(error), TEMPORARY) from error
    except TaskDied as died:
        if isinstance(died.__cause__, OutboxError):
            raise Failure(str(died.__cause__), TEMPORARY) from died
        from protocols.program.logs import log_crash

        log_crash("a part of the agent failed", died)
        raise


def _reloaded(path: Path, assignments: list[str] | None) -> Configuration | None:
    """The configuration as it is now; None, and the log says why, where it cannot be used."""
    from protocols.program.logs import get_logger
    from protocols.program.settings import SettingsError

    log = get_logger()
    try:
        configuration = read_configuration(path, assignments)
    except SettingsError as error:
        problems = error.problems
    else:
        log.info("the configuration was read anew", path=str(path))
        return configuration
    for problem in problems[:PROBLEMS_LOGGED_MAX]:
        log.error(str(problem))
    log.error("the changed configuration was not taken, the old one stays", problems=len(problems))
    return None

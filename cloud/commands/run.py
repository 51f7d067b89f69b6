"""`holdfast-cloud run`: the receiver itself, until it is told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud.commands.options import Assignments, Config, read_configuration
from protocols.program.console import TEMPORARY, UNAVAILABLE, Failure
from protocols.program.options import LogJson, LogLevel

if TYPE_CHECKING:
    from cloud.settings import Configuration


def run(
    config: Config = None,
    assignments: Assignments = None,
    log_json: LogJson = False,
    log_level: LogLevel = "info",
) -> None:
    """Run the receiver and the operators' page until SIGTERM or Ctrl-C."""
    configuration = read_configuration(config, assignments)
    from protocols.program import logs

    logs.configure(level=log_level, as_json=log_json)
    _serve(configuration)


def _serve(configuration: Configuration) -> None:
    # After the configuration is checked, so that a mistake in it is told at once.
    from cloud.dashboard.listening import PageError
    from cloud.main import serve
    from cloud.store.contract import StoreAway, StoreError
    from protocols.program.tasks import TaskDied, run_until_signal

    try:
        run_until_signal(lambda stopping: serve(configuration, stopping))
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

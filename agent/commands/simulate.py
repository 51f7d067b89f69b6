"""`holdfast simulate`: serves the configuration's devices as a simulated plant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import USAGE, Failure

PORT = 5021
HOST = "127.0.0.1"


def simulate(
    device: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE...]", help="Only these. Default: all.", show_default=False)
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the first endpoint, the others follow; 0: any free ones.")
    ] = PORT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = HOST,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a configuration that reads it, too.", show_default=False),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Serve the configuration's devices on local ports, with values that move."""
    from agent.commands.plan import known_device
    from agent.commands.simulate_run import Rehearsal, simulated_until_stopped
    from protocols.program.tasks import run_until_signal

    configuration = read_configuration(config, assignments)
    devices = [known_device(configuration, name) for name in dict.fromkeys(device or [])]
    if write is not None and write.exists():
        raise Failure(f"{write} is there already; choose another name", USAGE)
    rehearsal = Rehearsal(configuration, devices or configuration.devices)
    run_until_signal(lambda stopping: simulated_until_stopped(rehearsal, (host, port), write, as_json, stopping))

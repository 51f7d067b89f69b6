"""`holdfast capture`: records what goes over the line to a device, byte by byte, for `holdfast replay`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.capture.ring import LIMIT_BYTES_MAX
from agent.commands.findings import terminal_cells, wrapped
from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.terminal import ago, print_json, size

if TYPE_CHECKING:
    from agent.commands.capture_run import Job, Outcome
    from agent.settings import Configuration

FILE_MB_MAX = LIMIT_BYTES_MAX // 1_000_000


def capture(
    device: Annotated[str, typer.Argument(help="Name of the device in the configuration.", show_default=False)],
    seconds: Annotated[
        float, typer.Option("--for", metavar="SECONDS", min=1, max=604_800, help="How long to record.")
    ] = 60.0,
    until_fault: Annotated[
        bool, typer.Option("--until-fault", help="End 10 s after the first silence or lost connection.")
    ] = False,
    file_mb: Annotated[
        float,
        typer.Option("--size", metavar="MB", min=0.1, max=FILE_MB_MAX, help="Size of the file; then the oldest go."),
    ] = 16.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where to. Default: see docs/capture.md.", show_default=False),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the running agent goes on.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End what the running agent records.")] = False,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Record the raw frames to and from a device, in a file of bounded size."""
    from agent.commands.capture_run import Job, by_agent, by_command, check_free, detached, stopped
    from agent.commands.plan import known_device
    from protocols.program import logs
    from protocols.program.tasks import run_until_signal

    logs.configure(level="error")
    configuration = read_configuration(config, assignments)
    found = known_device(configuration, device)
    _check(detach, out)
    job = Job(configuration, found, seconds, int(file_mb * 1_000_000), until_fault, out)
    is_alive = _agent_is_alive(configuration)
    if (stop or detach) and not is_alive:
        raise Failure("no agent runs with this data_dir, so it cannot record; leave out --detach and --stop", USAGE)
    if is_alive and not stop:
        check_free(job)
    if detach:
        path = detached(job)
        _say(as_json, {"path": str(path), "device": device}, [_background(job, path)])
        return
    if not stop:
        _announce(job, is_alive)
    work = stopped if stop else by_agent if is_alive else by_command
    _report(run_until_signal(lambda stopping: work(job, stopping)), as_json)


def _check(detach: bool, out: Path | None) -> None:
    if detach and out is not None:
        raise Failure("with --detach the agent chooses where to; leave out --out", USAGE)
    if out is not None and out.exists():
        raise Failure(f"{out} is there already; choose another name", USAGE)


def _agent_is_alive(configuration: Configuration) -> bool:
    from agent import running

    try:
        return running.look(Path(configuration.settings.data_dir), time.time()).is_alive
    except PermissionError:
        data_dir = configuration.settings.data_dir
        why = f"{data_dir} belongs to another user, so whether an agent runs cannot be seen; try again with sudo"
        raise Failure(why, UNAVAILABLE) from None


def _announce(job: Job, is_alive: bool) -> None:
    who = (
        "the running agent records it on its own connection" if is_alive else "no agent runs, so this command polls it"
    )
    end = "until 10 s after a fault, at most " if job.until_fault else ""
    limit = f"in a file of {size(job.limit_bytes)} at most"
    text = f"{job.device.name}: {who}, {end}{ago(job.seconds)}, {limit}. Ctrl-C ends it."
    sys.stderr.write("\n".join(wrapped(text, terminal_cells())) + "\n")


def _background(job: Job, path: Path) -> str:
    return (
        f"The agent records {job.device.name} for {ago(job.seconds)} into {path}. "
        f"End it earlier: holdfast capture {job.device.name} --stop"
    )


def _report(outcome: Outcome, as_json: bool) -> None:
    state, path = outcome.state, outcome.path
    if not outcome.size:
        raise Failure(state.trouble or f"nothing was recorded of {state.device}", UNAVAILABLE)
    plain = {**state.model_dump(exclude={"is_over", "name"}), "path": str(path), "size": outcome.size}
    text = (
        f"{_counted(state.records, 'event')} of {state.device}, {_counted(state.requests, 'request')} and "
        f"{_counted(state.faults, 'fault')} among them, are in {path} ({size(outcome.size)})."
    )
    lines = [text]
    if state.records:
        lines.append(f"Serve it as a device: holdfast replay {path}")
    _say(as_json, plain, [*lines, *([f"! {state.trouble}"] if state.trouble else [])])


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _say(as_json: bool, plain: dict[str, object], texts: list[str]) -> None:
    if as_json:
        print_json(plain)
        return
    cells = terminal_cells()
    sys.stdout.write("\n".join(line for text in texts for line in wrapped(text, cells)) + "\n")

"""`holdfast commission`: dry-run every tag, and write a report for people to sign. Reads, and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.options import Assignments, Config, Json, read_configuration, settings_path
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import bar, print_json, progress, table, tell

if TYPE_CHECKING:
    from agent.settings import Configuration, Device
    from agent.toolbox.report import DeviceSheet, Report

OPEN_SHOWN_MAX = 20


def commission(
    devices: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DEVICE]...", help="Only these devices. Default: all.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The report, as HTML. Default: commission-GATEWAY-TIME.html here; with --json, none.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who does it, for the report.")] = "",
    reads: Annotated[int, typer.Option("--reads", "-n", min=1, max=1000, help="How often each tag is read.")] = 5,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> int:
    """Read every tag as a trial, and write a report for sign-off."""
    from agent.commands.commission_report import RIVAL, gathered
    from agent.commands.device_trial import agent_is_alive
    from agent.toolbox.report import plain
    from agent.toolbox.report_page import page
    from protocols.program import logs

    logs.configure(level="error")  # what is wrong stands in the report
    path = settings_path(config)
    configuration = read_configuration(path, assignments)
    chosen = _chosen(configuration, devices or [])
    now = datetime.now().astimezone()
    target = _target(output, configuration, now, as_json)
    if agent_is_alive(configuration):
        tell(f"! {RIVAL}", sys.stderr)
    with progress("commissioning") as shown:
        done = _Done(len(chosen) * reads, shown.update)
        report = run_interruptible(gathered(path.absolute(), configuration, chosen, by, reads, now, done.step))
    if target is not None:
        _write(target, page(report))
    if as_json:
        print_json(plain(report))
    else:
        _say(report, target)
    return UNAVAILABLE if report.open else 0


class _Done:
    """How far it is, as a bar. `of`: how many reads there will be."""

    def __init__(self, of: int, update: Callable[[str], None]) -> None:
        self._done, self._of, self._update = 0, of, update

    def step(self) -> None:
        self._done += 1
        self._update(f"{bar(self._done, self._of)} {self._done} of {self._of} reads")


def _chosen(configuration: Configuration, names: Sequence[str]) -> list[Device]:
    from agent.commands.plan import known_device

    return [known_device(configuration, name) for name in dict.fromkeys(names)] or list(configuration.devices)


def _target(output: Path | None, configuration: Configuration, now: datetime, as_json: bool) -> Path | None:
    """Where the report goes. Raises Failure, before anything is asked, where it cannot go there."""
    if output is None and as_json:
        return None
    target = output or Path(f"commission-{configuration.settings.gateway.thing}-{now:%Y-%m-%d-%H%M%S}.html")
    if target.exists():
        raise Failure(f"{target} is there already, and may have been signed; choose another name with --output", USAGE)
    if not target.absolute().parent.is_dir():
        raise Failure(f"{target.parent} is no directory; make it first, or choose another with --output", USAGE)
    return target


def _write(target: Path, text: str) -> None:
    try:
        with target.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise Failure(f"{target}: {error.strerror}; choose another place with --output", UNAVAILABLE) from None


def _say(report: Report, target: Path | None) -> None:
    """A line for each device, what is open, and where the report is."""
    from agent.commands.findings import terminal_cells, wrapped

    cells = terminal_cells()
    table(
        ["device", ">tags", ">good", ">requests", ">min", ">median", ">max", "result"],
        [_row(device) for device in report.devices],
    )
    broker = report.broker
    lines = ["", *wrapped(f"{report.good} of {len(report.tags)} tags are good. Broker: {broker.result}.", cells)]
    for sign, told in (("✗", report.open), ("!", report.notes)):
        for one in told[:OPEN_SHOWN_MAX]:
            lines += wrapped(one, cells, f"{sign} ", "  ")
        if len(told) > OPEN_SHOWN_MAX:
            lines.append(f"{sign} … and {len(told) - OPEN_SHOWN_MAX} more, in the report")
    if target is not None:
        lines += ["", *wrapped(f"The report, to be printed and signed: {target}", cells)]
    sys.stdout.write("\n".join(lines) + "\n")


def _row(device: DeviceSheet) -> list[str | int]:
    from agent.toolbox.report import milliseconds

    latency = device.latency
    times = ("-", "-", "-") if latency is None else (latency.min_ms, latency.median_ms, latency.max_ms)
    return [
        device.name,
        len(device.tags),
        device.good,
        "-" if latency is None else latency.requests,
        *(milliseconds(one) for one in times),
        device.result,
    ]

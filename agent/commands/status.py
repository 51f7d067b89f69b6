"""`holdfast status`: how the agent on this machine is, by its own word."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.commands.findings import Finding, Mark, say
from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import UNAVAILABLE, Failure
from protocols.program.terminal import ago, print_json, table

if TYPE_CHECKING:
    from agent.running import Sighting
    from agent.settings import Configuration
    from protocols.uplink.status import Status


def status(config: Config = None, assignments: Assignments = None, as_json: Json = False) -> int:
    """Show how the agent is: its link, its buffer, its devices."""
    from protocols.program import logs

    logs.configure(level="error")
    from agent import running

    configuration = read_configuration(config, assignments)
    data_dir = Path(configuration.settings.data_dir)
    now_s = time.time()
    try:
        agent = running.look(data_dir, now_s)
    except PermissionError:
        raise Failure(f"{data_dir}: this user may not look into it; run it with sudo", UNAVAILABLE) from None
    said = agent.said
    findings = [*_about_agent(configuration, agent), *(() if said is None else _about_plant(agent, said, now_s))]
    is_well = all(finding.mark is not Mark.BAD for finding in findings)
    if as_json:
        print_json(_as_plain(agent, is_well, findings))
    else:
        say(findings)
        if said is not None and (said.machines or said.others):
            _print_machines(said)
    return 0 if is_well else UNAVAILABLE


def _about_agent(configuration: Configuration, agent: Sighting) -> Iterator[Finding]:
    from agent.running import Life

    gateway, data_dir = configuration.settings.gateway, configuration.settings.data_dir
    who = f"{gateway.thing} in {gateway.tenant}/{gateway.province}/{gateway.plant}"
    how_long = f"{ago(agent.age_s)} ago"
    match agent.life:
        case Life.RUNNING:
            yield Finding(Mark.OK, "agent", f"{who}: {_running_for(agent)}")
        case Life.SILENT:
            last = "has not written its status yet" if agent.status is None else f"last wrote its status {how_long}"
            text = f"{who}: it runs, but {last}"
            fix = f"see whether the disk of {data_dir} is full; then: journalctl -u holdfast"
            yield Finding(Mark.BAD, "agent", text, fix)
        case Life.STOPPED:
            yield Finding(Mark.BAD, "agent", f"{who}: stopped as planned {how_long}", "systemctl start holdfast")
        case Life.DEAD:
            text = f"{who}: not running, its last sign of life was {how_long}"
            yield Finding(Mark.BAD, "agent", text, "journalctl -u holdfast; systemctl start holdfast")
        case Life.NEVER:
            text = f"{who}: no agent has run with data_dir {data_dir}"
            yield Finding(Mark.BAD, "agent", text, "systemctl start holdfast, or: holdfast run")


def _running_for(agent: Sighting) -> str:
    said = agent.said
    if said is None or said.gateway is None:
        return "running, another version than this command"
    return f"running for {ago(said.gateway.uptime_sec)}, version {said.gateway.version}"


def _about_plant(agent: Sighting, said: Status, now_s: float) -> Iterator[Finding]:
    """By its last word. Of an agent that is gone only what it left behind counts."""
    from agent import health

    if agent.status is not None and agent.is_alive:
        yield health.link(agent.status.link, agent.status.trouble)
    if said.health is not None:
        yield health.buffer(said.health.buffer, is_alive=agent.is_alive)
    if (lost := health.lost(said)) is not None:
        yield lost
    if not agent.is_alive:
        return
    if said.certificate_days_left is not None:
        yield health.certificate(said.certificate_days_left)
    if (clock := health.clock(said)) is not None:
        yield clock
    for name, device in said.devices.items():
        yield health.device(name, device, now_s)


def _print_machines(said: Status) -> None:
    """Each machine's present numbers, and those of other priorities or earlier epochs that still matter."""
    lanes = [(name, "", numbers) for name, numbers in said.machines.items()]
    lanes += [(name, epoch[:8], one) for name, others in said.others.items() for epoch, one in others.items()]
    rows = [
        [name, epoch, one.last_seq, one.sent_seq, sum(last - first + 1 for first, last, _ in one.dropped)]
        for name, epoch, one in sorted(lanes, key=lambda lane: lane[:2])
    ]
    sys.stdout.write("\n")
    if any(epoch for _, epoch, _ in lanes):
        table(["machine", "other epoch", "last number", "sent up to", "given up"], rows)
    else:
        table(["machine", "last number", "sent up to", "given up"], [[name, *rest] for name, _, *rest in rows])


def _as_plain(agent: Sighting, is_well: bool, findings: list[Finding]) -> dict[str, Any]:
    said = agent.status
    return {
        "ok": is_well,
        "running": agent.is_alive,
        "life": agent.life.value,
        "age_s": None if said is None else round(agent.age_s, 1),
        "link": None if said is None else said.link,
        "trouble": None if said is None else said.trouble,
        "status": None if said is None else said.status,
        "findings": findings,
    }

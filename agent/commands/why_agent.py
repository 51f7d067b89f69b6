"""The steps of `holdfast why` behind the device: outbox, broker, receiver, by the running agent's own word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from agent import health
from agent.findings import Finding, Mark
from agent.toolbox.walk import Step

if TYPE_CHECKING:
    from agent.running import Sighting
    from agent.settings import Configuration
    from protocols.uplink.status import Status


def carried(configuration: Configuration, machine: str, agent: Sighting) -> Iterator[Finding]:
    """What becomes of the machine's values once they are read."""
    from agent.running import Life

    said = agent.said
    if not agent.is_alive:
        text = {
            Life.STOPPED: "the agent was stopped: nothing is read, stored or sent",
            Life.DEAD: "the agent is not running: nothing is read, stored or sent",
        }.get(agent.life, f"no agent has run with data_dir {configuration.settings.data_dir}: nothing is read or sent")
        yield Finding(Mark.BAD, Step.OUTBOX, text, "systemctl start holdfast, or: holdfast run")
        return
    if said is None or agent.status is None:
        yield Finding(Mark.NOTE, Step.OUTBOX, "the agent runs and has not told of itself yet", "look again in 10 s")
        return
    yield _outbox(said, machine)
    is_connected = agent.status.link.startswith("connected") and not agent.status.trouble
    broker = health.link(agent.status.link, agent.status.trouble)
    yield replace(broker, fix=broker.fix or "holdfast check") if broker.mark is Mark.BAD else broker
    if is_connected:
        yield _receiver(configuration, said, machine)


def _outbox(said: Status, machine: str) -> Finding:
    numbers = said.machines.get(machine)
    if numbers is None or numbers.last_seq == 0:
        text = f"no batch of machine {machine} has been stored in this epoch yet"
        return Finding(Mark.NOTE, Step.OUTBOX, text, "look again after batch.interval_s; then: journalctl -u holdfast")
    text = f"{_batches(numbers.last_seq)} of machine {machine} stored"
    if said.dropped_count:
        lost = f"{text}; {said.dropped_count:,} batches or readings were given up for want of room"
        return Finding(Mark.NOTE, Step.OUTBOX, lost, "holdfast status, then docs/operations.md: The outbox")
    return Finding(Mark.OK, Step.OUTBOX, text)


def _receiver(configuration: Configuration, said: Status, machine: str) -> Finding:
    if configuration.settings.delivery == "broker":
        return Finding(Mark.NOTE, Step.RECEIVER, health.NOT_TOLD)
    buffer = None if said.health is None else said.health.buffer
    numbers = said.machines.get(machine)
    if buffer is None or numbers is None:
        return Finding(Mark.NOTE, Step.RECEIVER, "the agent does not say what waits for a confirm", "holdfast status")
    if numbers.sent_seq == 0 < numbers.last_seq:
        text = f"the broker has taken none of {_batches(numbers.last_seq)} yet"
        return Finding(Mark.NOTE, Step.RECEIVER, text, "look again in 10 s")
    return health.confirmed(buffer, numbers)


def _batches(count: int) -> str:
    return f"{count:,} batch{'' if count == 1 else 'es'}"

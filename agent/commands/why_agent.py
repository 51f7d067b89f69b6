"""The steps of `holdfast why` behind the device: outbox, broker, receiver, by the running agent's own word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.commands.findings import Finding, Mark, split
from agent.toolbox.walk import Step
from protocols.program.terminal import ago, size

if TYPE_CHECKING:
    from agent.running import Sighting
    from agent.settings import Configuration
    from protocols.uplink.status import Buffer, Status

CONFIRM_LATE_S = 60
"""A batch that waits longer than this for its confirm, with the broker connected, is not merely on its way."""


def carried(configuration: Configuration, machine: str, agent: Sighting) -> Iterator[Finding]:
    """What becomes of the machine's values once they are read."""
    from agent.running import Life

    said = _said(agent)
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
    yield _broker(agent.status.link, agent.status.trouble)
    if is_connected:
        yield _receiver(configuration, said, machine)


def _said(agent: Sighting) -> Status | None:
    from pydantic import ValidationError

    from protocols.uplink.status import Status

    try:
        return None if agent.status is None else Status.model_validate(agent.status.status)
    except ValidationError:  # written by another version
        return None


def _outbox(said: Status, machine: str) -> Finding:
    numbers = said.machines.get(machine)
    if numbers is None or numbers.last_seq == 0:
        text = f"no batch of machine {machine} has been stored in this epoch yet"
        return Finding(Mark.NOTE, Step.OUTBOX, text, "look again after batch.interval_s; then: journalctl -u holdfast")
    text = f"{numbers.last_seq:,} batches of machine {machine} were stored"
    if said.dropped_count:
        lost = f"{text}; {said.dropped_count:,} batches or readings were given up for want of room"
        return Finding(Mark.NOTE, Step.OUTBOX, lost, "holdfast status, then docs/operations.md: The outbox")
    return Finding(Mark.OK, Step.OUTBOX, text)


def _broker(link: str, trouble: str) -> Finding:
    if trouble:
        sentence, fix = split(trouble.removeprefix("MQTT broker "), first=True)
        return Finding(Mark.BAD, Step.BROKER, f"{link}: {sentence}", fix)
    is_connected = link.startswith("connected")
    return Finding(Mark.OK if is_connected else Mark.BAD, Step.BROKER, link, "" if is_connected else "holdfast check")


def _receiver(configuration: Configuration, said: Status, machine: str) -> Finding:
    if configuration.settings.delivery == "broker":
        text = "delivery is broker: what stands behind it tells nobody whether it stored anything"
        return Finding(Mark.NOTE, Step.RECEIVER, text)
    buffer = None if said.health is None else said.health.buffer
    numbers = said.machines.get(machine)
    if buffer is None or numbers is None:
        return Finding(Mark.NOTE, Step.RECEIVER, "the agent does not say what waits for a confirm", "holdfast status")
    if numbers.sent_seq == 0 < numbers.last_seq:
        text = f"the broker has taken none of {numbers.last_seq:,} batches yet"
        return Finding(Mark.NOTE, Step.RECEIVER, text, "look again in 10 s")
    sent = f"sent up to number {numbers.sent_seq:,} of {numbers.last_seq:,}"
    if buffer.oldest_sec is None or buffer.oldest_sec < CONFIRM_LATE_S:
        return Finding(Mark.OK, Step.RECEIVER, f"{sent}; {_waiting(buffer)}")
    text = f"{sent}; {_waiting(buffer)}, and the oldest has had no confirm for {ago(buffer.oldest_sec)}"
    fix = "at the receiver: holdfast-cloud status, gateway list, dlq list (is this plant known there?)"
    return Finding(Mark.BAD, Step.RECEIVER, text, fix)


def _waiting(buffer: Buffer) -> str:
    if not buffer.queued_messages:
        return "everything is confirmed"
    return f"{buffer.queued_messages:,} batches ({size(buffer.bytes)}) wait for their confirm"

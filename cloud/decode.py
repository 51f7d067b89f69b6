"""A message as it arrived → an item for the store. Pure; whatever a stranger sends becomes an item, never an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloud.store.contract import Beat, Defined, Item, Telemetry, Undecodable
from protocols.uplink import definition, envelope, status
from protocols.uplink.definition import Definition
from protocols.uplink.link import Delivery
from protocols.uplink.topics import DefinitionTopic, GatewayTopic, MachineTopic, TopicError, parse

Find = Callable[[MachineTopic, bytes], Definition | None]
"""The definition that a machine's telemetry refers to; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Undefined:
    """Telemetry that refers to definitions which we lack. It is not stored: its gateway has it still, and is asked."""

    topic: MachineTopic
    refs: tuple[bytes, ...]


def nothing_known(_machine: MachineTopic, _ref: bytes) -> None:
    """For messages that are to be decoded alone."""


def item(topic: str, payload: bytes, retained: bool, received_us: int, find: Find = nothing_known) -> Item | Undefined:
    """Telemetry, a heartbeat, a definition, or a dead letter with the reason in one sentence."""
    try:
        match parse(topic):
            case MachineTopic() as machine:
                batch = envelope.decode(payload, lambda ref: find(machine, ref))
                return Telemetry(machine, batch, payload, envelope.digest(payload), received_us)
            case GatewayTopic() as gateway:
                return _beat(gateway, payload, retained, received_us)
            case DefinitionTopic() as group:
                return _defined(group, payload, received_us)
    except envelope.DefinitionMissing as missing:
        return Undefined(machine, missing.refs)
    except (TopicError, envelope.EnvelopeError, definition.DefinitionError, status.StatusError) as error:
        return Undecodable(topic, payload, str(error), received_us)


def _beat(gateway: GatewayTopic, payload: bytes, retained: bool, received_us: int) -> Beat:
    said = status.decode(payload)
    if said.gateway is not None and said.gateway.thing_name != gateway.thing:
        raise status.StatusError(f"the status of gateway {gateway.thing} names {said.gateway.thing_name} as its sender")
    return Beat(gateway, said, payload, retained, received_us)


def _defined(topic: DefinitionTopic, payload: bytes, received_us: int) -> Defined:
    found = definition.decode(payload)
    if (found.device, found.group) != (topic.device, topic.group):
        raise definition.DefinitionError(
            f"the definition of {topic.device}/{topic.group} names {found.device:.64}/{found.group:.64}"
        )
    return Defined(topic, definition.ref(payload), found, payload, received_us)


def items(
    deliveries: Sequence[Delivery],
    received_us: int,
    find: Find = nothing_known,
    learn: Callable[[Defined], object] = lambda _: None,
) -> list[Item | Undefined]:
    """One item for each delivery, in order. `learn` is told of each definition before the next message is decoded."""
    found = []
    for delivery in deliveries:
        one = item(delivery.topic, delivery.payload, delivery.retained, received_us, find)
        if isinstance(one, Defined):
            learn(one)
        found.append(one)
    return found

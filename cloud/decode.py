"""A message as it arrived → an item for the store. Pure; whatever a stranger sends becomes an item, never an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cloud.store.contract import Beat, Defined, Item, Number, Telemetry, Undecodable
from cloud.store.contract import Undefined as Undefined
from protocols.uplink import definition, envelope, frames, mark, status
from protocols.uplink.batch import SEQ_MAX
from protocols.uplink.definition import REF_BYTES, Definition
from protocols.uplink.link import Delivery
from protocols.uplink.topics import DefinitionTopic, GatewayTopic, MachineTopic, TopicError, parse

Find = Callable[[MachineTopic, bytes], Definition | None]
"""The definition that a machine's telemetry refers to; None where it is not known."""


def nothing_known(_machine: MachineTopic, _ref: bytes) -> None:
    """For messages that are to be decoded alone."""


def item(topic: str, payload: bytes, retained: bool, received_us: int, find: Find = nothing_known) -> Item:
    """Telemetry, a heartbeat, a definition, or a dead letter with the reason in one sentence."""
    try:
        match parse(topic):
            case MachineTopic() as machine:
                return _telemetry(machine, payload, received_us, find)
            case GatewayTopic() as gateway:
                return _beat(gateway, payload, retained, received_us)
            case DefinitionTopic() as group:
                return _defined(group, payload, received_us)
    except (TopicError, definition.DefinitionError, status.StatusError) as error:
        return Undecodable(topic, payload, str(error), received_us)


def _telemetry(machine: MachineTopic, payload: bytes, received_us: int, find: Find) -> Item:
    message, historical, clock = mark.read(payload)
    try:
        batch = envelope.decode(message, lambda ref: find(machine, ref))
    except envelope.DefinitionMissing as missing:
        return Undefined(machine, missing.refs, payload, received_us)
    except envelope.EnvelopeError as error:
        number = _number(machine, message, find)
        return Undecodable(machine.telemetry, payload, str(error), received_us, number)
    return Telemetry(machine, batch, payload, envelope.digest(message), received_us, historical, clock)


def _number(machine: MachineTopic, message: bytes, find: Find) -> Number | None:
    """Whose number a message carries that is refused all the same; None where even that cannot be told."""
    try:
        value = frames.unpack(message)
    except frames.FrameError:
        return None
    match value:
        case [1, str(gateway), bytes(epoch), seq, *_]:
            return _checked(machine, gateway, epoch.hex(), seq)
        case [2, seq, [[bytes(ref), *_], *_]] if len(ref) == REF_BYTES:
            said = find(machine, ref)
            return None if said is None else _checked(machine, said.gateway, said.epoch, seq)
        case {"seq": seq, **rest}:
            match rest.get("gateway", ""), rest.get("epoch", ""):
                case str(sender), str(name):
                    return _checked(machine, sender, name, seq)
    return None


def _checked(machine: MachineTopic, gateway: str, epoch: str, seq: Any) -> Number | None:
    return Number(machine, gateway, epoch, seq) if type(seq) is int and 0 < seq <= SEQ_MAX else None


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
) -> list[Item]:
    """One item for each delivery, in order. `learn` is told of each definition before the next message is decoded."""
    found = []
    for delivery in deliveries:
        one = item(delivery.topic, delivery.payload, delivery.retained, received_us, find)
        if isinstance(one, Defined):
            learn(one)
        found.append(one)
    return found

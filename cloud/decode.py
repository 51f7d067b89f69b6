"""A message as it arrived → an item for the store. Pure; whatever a stranger sends becomes an item, never an error."""

from __future__ import annotations

from cloud.store.contract import Beat, Item, Telemetry, Undecodable
from protocols.uplink import envelope, status
from protocols.uplink.link import Delivery
from protocols.uplink.topics import DefinitionTopic, GatewayTopic, MachineTopic, TopicError, parse


def item(topic: str, payload: bytes, retained: bool, received_us: int) -> Item:
    """Telemetry, a heartbeat, or a dead letter with the reason in one sentence."""
    try:
        match parse(topic):
            case MachineTopic() as machine:
                batch = envelope.decode(payload)
                return Telemetry(machine, batch, payload, envelope.digest(payload), received_us)
            case GatewayTopic() as gateway:
                return _beat(gateway, payload, retained, received_us)
            case DefinitionTopic():
                return Undecodable(topic, payload, "this receiver does not take definitions", received_us)
    except (TopicError, envelope.EnvelopeError, envelope.DefinitionMissing, status.StatusError) as error:
        return Undecodable(topic, payload, str(error), received_us)


def _beat(gateway: GatewayTopic, payload: bytes, retained: bool, received_us: int) -> Beat:
    said = status.decode(payload)
    if said.gateway is not None and said.gateway.thing_name != gateway.thing:
        raise status.StatusError(f"the status of gateway {gateway.thing} names {said.gateway.thing_name} as its sender")
    return Beat(gateway, said, payload, retained, received_us)


def items(deliveries: list[Delivery], received_us: int) -> list[Item]:
    """One item for each delivery, in order."""
    return [item(d.topic, d.payload, d.retained, received_us) for d in deliveries]

"""One connection to the broker for a person who wants to know whether it lets this gateway in."""

from __future__ import annotations

from agent.settings import AgentSettings
from protocols.uplink.link import Connected
from protocols.uplink.mqtt import MqttCloudLink


def client_id(settings: AgentSettings) -> str:
    """Not the agent's own: with that the broker would hang up on the running agent."""
    return f"{settings.broker.client_id or settings.gateway.thing}-check"


async def greeted(settings: AgentSettings) -> Connected:
    """Connect, and go. Raises LinkAway or LinkRefused.

    The receiver's end of a link is used, because it leaves no will and may subscribe to nothing. Over MQTT 5 the
    session ends with the connection; 3.1.1 has no such wish, and an empty session stays under this one id.
    """
    link = MqttCloudLink(settings.broker.model_copy(update={"session_expiry_s": 0}), client_id(settings))
    try:
        return await link.connect([])
    finally:
        await link.close()

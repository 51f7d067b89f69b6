"""The link contract: how messages get from the gateway to the receiver and back.

Rules:

1. Both ends are driven from one asyncio event loop. One connection each; a lost connection is reported, never
   repaired behind the caller's back: the caller waits (with jitter) and calls `connect` again.
2. The link queues nothing of its own beyond what is in flight. What was in flight when the connection went ends as
   Outcome.LOST; the outbox has it still.
3. An outcome says what the broker said and nothing more: ACCEPTED is flow control, not storage.
4. The receiver's deliveries come with their acknowledgement. It is given in the order of receipt; one that belongs to a
   connection that is gone does nothing, because its packet id may by now mean another message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Outcome(Enum):
    """What became of one published message."""

    ACCEPTED = "accepted by the broker"
    NO_SUBSCRIBERS = "accepted, but nobody is subscribed: the broker has thrown it away"
    DENIED = "denied by the broker's access rules"
    TOO_LARGE = "larger than the broker takes"
    QUOTA = "refused because the broker's quota is used up"
    REFUSED = "refused by the broker"
    LOST = "not acknowledged before the connection was lost"


class LinkError(Exception):
    """The link cannot be had or is gone. The message is one sentence: what failed, where, what to do."""


class LinkAway(LinkError):
    """Unreachable or lost: try again later."""


class LinkHungUp(LinkAway):
    """The broker closed a connection that was up, and gave no reason."""


class LinkTakenOver(LinkAway):
    """Another client has connected with our client id, and the broker says so."""


class LinkRefused(LinkError):
    """The broker answered no (credentials, certificate, client id): a person must change something."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send, or one that arrived. QoS is 1 throughout."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Connected:
    """`session_present`: the broker still has this client's session. `in_flight_max`: what it takes unacknowledged.

    `protocol`: for people, for example "MQTT 5". `certificate`: the broker's (DER); b"" without TLS.
    """

    session_present: bool
    in_flight_max: int
    protocol: str
    certificate: bytes = b""


class AgentLink(Protocol):
    """The gateway's end. One task publishes; `inbound` is read by one task."""

    async def connect(self, will: Message, subscribe: str) -> Connected:
        """Connect anew, leaving `will` with the broker, keeping the session, subscribed to topic `subscribe`.

        Raises LinkAway or LinkRefused. Leaves nothing of an earlier connection behind.
        """

    def publish(self, message: Message) -> asyncio.Future[Outcome]:
        """Hand over at once, in call order. The caller keeps no more than `in_flight_max` of these futures open."""

    async def inbound(self) -> Message:
        """The next message to this gateway. Raises LinkAway once the connection is lost."""

    async def close(self) -> None:
        """End the connection so that the broker does not send the will. Never raises; twice is fine."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it reached the receiver. `retained`: it is history, not a sign of life.

    `ack()`: call after the commit, in the order of receipt; harmless when the connection is gone.
    """

    topic: str
    payload: bytes
    retained: bool
    ack: Callable[[], None]


class CloudLink(Protocol):
    """The receiver's end. Deliveries are bounded by the broker's in-flight limit, because nothing is acked early."""

    async def connect(self, subscribe: Sequence[str]) -> Connected:
        """Connect anew with the session kept, subscribed to the topic filters. Raises LinkAway or LinkRefused."""

    async def deliveries(self, count_max: int) -> Sequence[Delivery]:
        """Wait for at least one, give what is there up to `count_max`. Raises LinkAway once the connection is lost."""

    def publish(self, message: Message) -> asyncio.Future[Outcome]:
        """As on the gateway's end."""

    async def close(self) -> None:
        """End the connection; the session stays. Never raises; twice is fine."""

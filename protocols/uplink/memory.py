"""The link in memory: a broker with sessions, retained messages and wills, and both ends. For tests and simulations.

No thread, no socket, no clock: what happens depends on the order of the calls alone. It behaves as brokers do where
that hurts: a full queue throws away the newest message and still says ACCEPTED, an unacknowledged delivery comes again
only at the next connect, a second client with the same id takes the session over.

Faults: `cut`, `stop` and `start`, `wipe`, `answer` (and `deny`), `refuse`, `hold`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from paho.mqtt.client import topic_matches_sub

from protocols.uplink.link import Connected, Delivery, LinkAway, LinkError, LinkTakenOver, Message, Outcome

WHERE = "memory broker"


@dataclass(eq=False)
class _Sent:
    """A message on its way to a client; `retained`: sent because it was kept, not because it was published now."""

    message: Message
    retained: bool
    done: bool = False


@dataclass(eq=False)
class _Session:
    """What the broker keeps for a client: filters, what waits, what was sent and is not acknowledged."""

    filters: tuple[str, ...] = ()
    waiting: deque[_Sent] = field(default_factory=deque)
    sent: deque[_Sent] = field(default_factory=deque)
    connection: _Connection | None = None

    def wants(self, topic: str) -> bool:
        return any(topic_matches_sub(pattern, topic) for pattern in self.filters)


class MemoryBroker:
    """The broker. `queue_max`: how many messages wait for one client; `dropped`: how many were thrown away beyond it.

    `window`: how many it sends to a client unacknowledged. `in_flight_max`: how many a client may have open.
    """

    def __init__(
        self, *, queue_max: int = 1000, window: int = 200, in_flight_max: int = 50, payload_bytes_max: int | None = None
    ) -> None:
        self.dropped = 0
        self.in_flight_max = in_flight_max
        self.payload_bytes_max = payload_bytes_max
        self._queue_max = queue_max
        self._window = window
        self._sessions: dict[str, _Session] = {}
        self._retained: dict[str, Message] = {}
        self._answers: dict[str, Outcome] = {}
        self._refusal: LinkError | None = None
        self._running = True
        self._holding: bool | None = None
        self._held: deque[tuple[asyncio.Future[Outcome], Outcome]] = deque()

    def agent_link(self, client_id: str) -> MemoryAgentLink:
        """A gateway's end, not yet connected."""
        return MemoryAgentLink(self, client_id)

    def cloud_link(self, client_id: str) -> MemoryCloudLink:
        """A receiver's end, not yet connected."""
        return MemoryCloudLink(self, client_id)

    # ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def cut(self, client_id: str) -> None:
        """The client's connection is lost, if it has one: its open publishes are, and its will goes out."""
        session = self._sessions.get(client_id)
        if session is not None and session.connection is not None:
            session.connection.end(LinkAway(f"{WHERE}: connection lost"), will=True)

    def stop(self) -> None:
        """The broker dies: every connection is lost, no will goes out, nobody can connect. What it stored stays."""
        self._running = False
        self._end_all()

    def start(self) -> None:
        """The broker is back after `stop`."""
        self._running = True

    def wipe(self) -> None:
        """The broker comes back with an empty disk: connections, sessions and retained messages are gone."""
        self._end_all()
        self._sessions.clear()
        self._retained.clear()

    def answer(self, pattern: str, outcome: Outcome | None) -> None:
        """Every publish to topics that match is answered so and thrown away; None: as usual again."""
        if outcome is None:
            self._answers.pop(pattern, None)
        else:
            self._answers[pattern] = outcome

    def deny(self, pattern: str) -> None:
        """Nobody may publish to topics that match."""
        self.answer(pattern, Outcome.DENIED)

    def refuse(self, error: LinkError | None) -> None:
        """Every connect raises this; None: as usual again. Connections that are up stay."""
        self._refusal = error

    def hold(self, *, stored: bool = True) -> None:
        """Answer no publish any more; `stored`: pass the messages on, or swallow them. Until `release`."""
        self._holding = stored

    def release(self) -> None:
        """Give the answers that `hold` kept back, in order."""
        self._holding = None
        while self._held:
            future, outcome = self._held.popleft()
            if not future.done():
                future.set_result(outcome)

    def _end_all(self) -> None:
        for session in self._sessions.values():
            if session.connection is not None:
                session.connection.end(LinkAway(f"{WHERE}: connection lost"), will=False)

    # ── for the links ───────────────────────────────────────────────────────────────────────────────────────────────

    def connect(self, client_id: str, will: Message | None, filters: Sequence[str]) -> tuple[_Connection, Connected]:
        """A new connection and what it found. Raises LinkAway or whatever `refuse` says."""
        if not self._running:
            raise LinkAway(f"{WHERE}: not running; start it")
        if self._refusal is not None:
            raise self._refusal
        present = client_id in self._sessions
        session = self._sessions.setdefault(client_id, _Session())
        if session.connection is not None:
            session.connection.end(
                LinkTakenOver(f"{WHERE}: another client took over the client id {client_id!r}"), will=True
            )
        connection = session.connection = _Connection(self, session, will)
        session.filters = tuple(filters)
        for message in self._retained.values():
            if session.wants(message.topic):
                self._offer(session, _Sent(message, retained=True))
        self.pump(session)
        return connection, Connected(present, self.in_flight_max, "memory")

    def take(self, message: Message, future: asyncio.Future[Outcome]) -> None:
        """A client publishes: route it, and answer now or when `release` says so."""
        swallowed = self._holding is False
        outcome = Outcome.ACCEPTED if swallowed else self._refused(message) or self.route(message)
        if self._holding is None:
            future.set_result(outcome)
        else:
            self._held.append((future, outcome))

    def _refused(self, message: Message) -> Outcome | None:
        matching = (outcome for pattern, outcome in self._answers.items() if topic_matches_sub(pattern, message.topic))
        return next(matching, None)

    def route(self, message: Message) -> Outcome:
        """Keep it if it is to be retained, and queue it for whoever subscribed, connected or not."""
        if message.retain and message.payload:
            self._retained[message.topic] = message
        elif message.retain:
            self._retained.pop(message.topic, None)
        wanted = [session for session in self._sessions.values() if session.wants(message.topic)]
        for session in wanted:
            self._offer(session, _Sent(message, retained=False))
            self.pump(session)
        return Outcome.ACCEPTED if wanted else Outcome.NO_SUBSCRIBERS

    def _offer(self, session: _Session, item: _Sent) -> None:
        if len(session.waiting) >= self._queue_max:
            self.dropped += 1
        else:
            session.waiting.append(item)

    def pump(self, session: _Session) -> None:
        """Send what waits for a connected client, as far as its window goes."""
        connection = session.connection
        while connection is not None and session.waiting and len(session.sent) < self._window:
            item = session.waiting.popleft()
            session.sent.append(item)
            connection.arrived(item)


class _Connection:
    """One client's connection; never used again once `gone`."""

    def __init__(self, broker: MemoryBroker, session: _Session, will: Message | None) -> None:
        self.gone: LinkAway | None = None
        self._broker = broker
        self._session = session
        self._will = will
        self._inbox: deque[_Sent] = deque()
        self._open: set[asyncio.Future[Outcome]] = set()
        self._news = asyncio.Event()

    def publish(self, message: Message) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        limit = self._broker.payload_bytes_max
        if self.gone is not None:
            future.set_result(Outcome.LOST)
        elif limit is not None and len(message.payload) > limit:
            future.set_result(Outcome.TOO_LARGE)
        else:
            self._open = {other for other in self._open if not other.done()}
            if len(self._open) >= self._broker.in_flight_max:
                raise RuntimeError(
                    f"{len(self._open)} publishes are open already, the limit is {self._broker.in_flight_max}"
                )
            self._open.add(future)
            self._broker.take(message, future)
        return future

    def arrived(self, item: _Sent) -> None:
        self._inbox.append(item)
        self._news.set()

    async def receive(self, count_max: int) -> list[_Sent]:
        while self.gone is None and not self._inbox:
            self._news.clear()
            await self._news.wait()
        if self.gone is not None:
            raise type(self.gone)(str(self.gone))
        return [self._inbox.popleft() for _ in range(min(count_max, len(self._inbox)))]

    def acknowledge(self, item: _Sent) -> None:
        if self.gone is not None:  # the item may be on its way again, over the next connection
            return
        item.done = True
        sent = self._session.sent
        while sent and sent[0].done:
            sent.popleft()
        self._broker.pump(self._session)

    def end(self, why: LinkAway, *, will: bool) -> None:
        if self.gone is not None:
            return
        self.gone = why
        for future in self._open:
            if not future.done():
                future.set_result(Outcome.LOST)
        session = self._session
        session.connection = None
        while session.sent:  # to be sent again, before all that waits
            item = session.sent.pop()
            item.done = False
            session.waiting.appendleft(item)
        self._news.set()
        if will and self._will is not None:
            self._broker.route(self._will)


class _MemoryLink:
    """What both ends share."""

    def __init__(self, broker: MemoryBroker, client_id: str) -> None:
        self._broker = broker
        self._client_id = client_id
        self._connection: _Connection | None = None

    async def _connect(self, will: Message | None, filters: Sequence[str]) -> Connected:
        await self.close()
        self._connection, connected = self._broker.connect(self._client_id, will, filters)
        return connected

    def _up(self) -> _Connection:
        if self._connection is None:
            raise LinkAway(f"{WHERE}: not connected")
        return self._connection

    def publish(self, message: Message) -> asyncio.Future[Outcome]:
        """See the contract. Raises RuntimeError when more than `in_flight_max` are open."""
        if self._connection is None:
            lost: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            lost.set_result(Outcome.LOST)
            return lost
        return self._connection.publish(message)

    async def close(self) -> None:
        """See the contract."""
        if self._connection is not None:
            self._connection.end(LinkAway(f"{WHERE}: closed"), will=False)


class MemoryAgentLink(_MemoryLink):
    """The gateway's end. A message to the gateway is acknowledged when `inbound` hands it out."""

    async def connect(self, will: Message, subscribe: str) -> Connected:
        """See the contract."""
        return await self._connect(will, [subscribe])

    async def inbound(self) -> Message:
        """See the contract."""
        connection = self._up()
        [item] = await connection.receive(1)
        connection.acknowledge(item)
        return Message(item.message.topic, item.message.payload, item.retained)


class MemoryCloudLink(_MemoryLink):
    """The receiver's end."""

    async def connect(self, subscribe: Sequence[str]) -> Connected:
        """See the contract."""
        return await self._connect(None, subscribe)

    async def deliveries(self, count_max: int) -> Sequence[Delivery]:
        """See the contract."""
        connection = self._up()
        return [
            Delivery(item.message.topic, item.message.payload, item.retained, partial(connection.acknowledge, item))
            for item in await connection.receive(count_max)
        ]

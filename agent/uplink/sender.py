"""Publishes telemetry, and the definitions that it refers to, over one connection after another.

Two flows share the connection. The live one publishes what was just appended, from memory, in the very call that tells
of it wherever nothing has to be asked first. The other reads the backlog from disk, marks it as historical
(protocols/uplink/mark.py), and goes as fast as the pace allows. Neither ever waits for the other.

Before a number is published for the first time the outbox is told (`offer`), and every definition that the batch
refers to has been published on this connection. The first definition of a connection is waited for, because the broker
may not take it; after that they go right before the batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from functools import partial

from agent.definitions import references
from agent.outbox.contract import GroupDefinition, Lane, Outbox, Stored
from agent.outbox.worker import OutboxWorker
from agent.uplink.fresh import Fresh, FreshBatches
from agent.uplink.pace import Pace
from agent.uplink.trouble import Kind, Troubles
from agent.uplink.window import Run, Window
from protocols.uplink.link import AgentLink, Message, Outcome
from protocols.uplink.mark import mark
from protocols.uplink.ranges import minus, of
from protocols.uplink.topics import GatewayTopic, MachineTopic

REFUSED_PAUSE_S = 5.0
READ_BYTES = 1 << 20
READ_COUNT_MAX = 256
OFFER_AHEAD = 256
LIVE_PLACES = 0.25
"""Of the messages in flight, so many places are never taken by backlog."""

_FOR_ALL = (Outcome.NO_SUBSCRIBERS, Outcome.QUOTA)
"""Outcomes that have nothing to do with whose telemetry it is."""

Definitions = dict[bytes, GroupDefinition | None]
"""By reference; None: has to be read from the outbox."""


class Sender:
    """`confirms`: whether a receiver confirms; otherwise the broker's word is the last, and `on_settled` is called.

    `on_aside`: of a lane whose messages the broker takes, it does not take one.
    """

    def __init__(
        self,
        link: AgentLink,
        outbox: OutboxWorker,
        gateway: GatewayTopic,
        machines: MutableMapping[str, MachineTopic],
        window: Window,
        pace: Pace,
        troubles: Troubles,
        *,
        confirms: bool,
        on_settled: Callable[[Lane], None],
        on_aside: Callable[[Lane], None],
    ) -> None:
        self.is_stopped = False
        """The receiver has told us to send no telemetry, or numbers are being given anew."""
        self._link = link
        self._outbox = outbox
        self._gateway = gateway
        self._machines = machines
        self._window = window
        self._pace = pace
        self._troubles = troubles
        self._confirms = confirms
        self._on_settled = on_settled
        self._on_aside = on_aside
        self._fresh = FreshBatches()
        self._offered: dict[Lane, int] = {}  # live numbers up to here
        self._told: set[tuple[str, bytes]] = set()  # definitions published on this connection
        self._telling: dict[tuple[str, bytes], asyncio.Future[Outcome]] = {}
        self._asked: dict[tuple[Lane, bytes], None] = {}  # by the receiver
        self._newest: dict[str, bytes] = {}  # topic → the definition that its batches refer to at present
        self._is_careful = True
        self._paused_until_s = 0.0
        self._open, self._places = 0, 1
        self._is_connected = False
        self._average = READ_BYTES // READ_COUNT_MAX
        self._live_news, self._backlog_news, self._place_news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    # --- a connection ---

    def connected(self, places: int) -> None:
        """A new connection takes so many messages unacknowledged."""
        self._open, self._places = 0, places
        self._pace.connected(time.monotonic(), places - max(1, int(places * LIVE_PLACES)))
        self._told.clear()
        self._telling.clear()
        self._asked.clear()
        self._fresh.clear()
        self._is_careful = self._is_connected = True
        self._paused_until_s = 0.0

    def disconnected(self) -> None:
        """Nothing can be published until the next connection."""
        self._is_connected = False
        self._fresh.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake(self) -> None:
        """Something has changed: there may be something to send now."""
        if self._window.has_live():
            self._live_news.set()
        if self._asked or self._window.has_backlog():
            self._backlog_news.set()
        self._place_news.set()

    def appended(self, batches: Iterable[Fresh]) -> None:
        """The outbox has taken these just now, and the window knows. What can go at once, goes."""
        if not self._is_connected:
            return
        for batch in batches:
            self._fresh.put(batch)
        if self._publish_ready() is not None:
            self._live_news.set()

    def ask(self, lane: Lane, ref: bytes) -> None:
        """The receiver lacks this definition."""
        self._told.discard((lane.machine, ref))
        self._asked[lane, ref] = None

    def forget_fresh(self) -> None:
        """Numbers have moved: what was kept in memory has another number by now."""
        self._fresh.clear()
        self._offered.clear()

    # --- the live flow ---

    async def feed_live(self) -> None:
        """Until cancelled."""
        while True:
            self._live_news.clear()
            while (waiting := self._publish_ready()) is not None:
                await self._prepare_and_publish(*waiting)
            self._wake_later()
            await self._live_news.wait()

    def _publish_ready(self) -> tuple[Lane, int] | None:
        """Publish whatever is ready to go. The number that needs something done first, None: nothing more can go."""
        while self._can_publish():
            following = self._window.next_live(time.monotonic())
            if following is None:
                return None
            lane, seq = following
            batch = self._fresh.get(lane, seq)
            if batch is None or seq > self._offered.get(lane, 0) or not self._are_told(batch):
                return following
            self._publish(lane, seq, batch.payload, history=False)
        return None

    def _are_told(self, batch: Fresh) -> bool:
        return all((batch.lane.machine, one.ref) in self._told for one in batch.definitions)

    async def _prepare_and_publish(self, lane: Lane, seq: int) -> None:
        batch = self._fresh.get(lane, seq)
        if batch is None or seq > self._offered.get(lane, 0):
            # Ahead only where the receiver has spoken: until then numbers may have to be given anew.
            offered = seq + OFFER_AHEAD if self._window.is_heard(lane) else seq
            found = await self._read(lane, seq, seq, offered)
            if not found:
                return
            batch = Fresh(lane, seq, found[0].payload, () if batch is None else batch.definitions)
            self._offered[lane] = max(offered, self._offered.get(lane, 0))
        definitions: Definitions = {one.ref: one for one in batch.definitions}
        is_ready = await self._define(lane, definitions or dict.fromkeys(references(batch.payload)), is_live=True)
        if is_ready and self._can_publish() and self._window.waits(lane, seq):
            self._publish(lane, seq, batch.payload, history=False)

    # --- the backlog ---

    async def feed_backlog(self) -> None:
        """Until cancelled."""
        while True:
            self._backlog_news.clear()
            run = None
            if self._can_publish():
                await self._define_asked()
                run = self._window.next_run(self._run_count(), time.monotonic())
            if run is not None:
                await self._send(run)
            else:
                self._wake_later()
                await self._backlog_news.wait()

    def _run_count(self) -> int:
        return max(1, min(READ_COUNT_MAX, READ_BYTES // max(1, self._average)))

    async def _send(self, run: Run) -> None:
        """Until the run is sent, or its lane may not go on, or the window is full."""
        found = await self._read(run.lane, run.first, run.last, run.last)
        if not found:
            return
        self._average = sum(len(batch.payload) for batch in found) // len(found)
        for batch in found:
            if not self._window.waits(run.lane, batch.seq):
                continue
            if not await self._define(run.lane, dict.fromkeys(references(batch.payload)), is_live=False):
                return
            payload = mark(batch.payload)
            if not await self._turn(run.lane, batch.seq, len(payload)):
                return
            self._publish(run.lane, batch.seq, payload, history=True)

    async def _turn(self, lane: Lane, seq: int, size: int) -> bool:
        """Wait until this number of the backlog may go. False where something else has to be done before."""
        while True:
            self._backlog_news.clear()
            now_s = time.monotonic()
            if self._asked or not self._window.may_go(lane, seq, now_s):
                return False
            unconfirmed = self._window.backlog_bytes if self._confirms else 0
            if self._can_publish() and self._window.takes_backlog() and self._pace.may(size, unconfirmed, now_s):
                return True
            self._wake_later()
            await self._backlog_news.wait()

    # --- what both need ---

    def _can_publish(self) -> bool:
        return (
            self._is_connected
            and not self.is_stopped
            and self._open < self._places
            and time.monotonic() >= self._paused_until_s
        )

    async def _read(self, lane: Lane, first: int, last: int, offered: int) -> Sequence[Stored]:
        """What the outbox holds of these, once it knows that they are going to be published, and all up to `offered`.

        In this order: what was offered is never thinned out. The window learns of what is not there (any more).
        """

        def offer_and_read(outbox: Outbox) -> Sequence[Stored]:
            outbox.offer(lane, first, offered)
            return outbox.pending(lane, first, last, last - first + 1)

        found = await self._outbox.run(offer_and_read)
        if len(found) <= last - first:
            self._window.gone(lane, minus(((first, last),), of(batch.seq for batch in found)))
        return found

    def _publish(self, lane: Lane, seq: int, payload: bytes, *, history: bool) -> None:
        now_s, size = time.monotonic(), len(payload)
        self._window.published(lane, seq, size, now_s, history=history)
        if history:
            self._pace.published(size)
        self._fresh.pop(lane, seq)
        self._open += 1
        done = self._link.publish(Message(self._topic(lane.machine).telemetry, payload))
        done.add_done_callback(partial(self._ended, lane, seq, size, now_s, history))

    def _ended(
        self, lane: Lane, seq: int, size: int, sent_s: float, history: bool, done: asyncio.Future[Outcome]
    ) -> None:
        self._open -= 1
        outcome, now_s = Outcome.LOST if done.cancelled() else done.result(), time.monotonic()
        if outcome is Outcome.LOST:  # the next connection sees to it
            return
        self._pace.answered(size, now_s - sent_s, now_s, history=history)
        if outcome is Outcome.ACCEPTED:
            self._accepted(lane, seq)
        elif outcome is Outcome.TOO_LARGE:
            self._window.too_large(lane, seq, now_s)
            self._wake_later()
            self._troubles.say(Kind.REFUSED, _refusal(f"telemetry of machine {lane.machine}", outcome))
        elif outcome in _FOR_ALL:
            self._window.refused(lane, seq, now_s)
            self._pause(f"telemetry of machine {lane.machine}", outcome)
        else:
            self._window.refused(lane, seq, now_s, REFUSED_PAUSE_S)
            self._troubles.say(Kind.REFUSED, _refusal(f"telemetry of machine {lane.machine}", outcome))
        self.wake()

    def _accepted(self, lane: Lane, seq: int) -> None:
        self._window.accepted(lane, seq)
        self._troubles.over(Kind.REFUSED)
        if not self._confirms:
            self._window.settled(lane, seq)
            self._on_settled(lane)
        if self._window.aside(lane):
            self._on_aside(lane)

    def _pause(self, what: str, outcome: Outcome) -> None:
        self._paused_until_s = time.monotonic() + REFUSED_PAUSE_S
        self._troubles.say(Kind.REFUSED, _refusal(what, outcome))

    def _wake_later(self) -> None:
        """When time alone will allow something."""
        now_s = time.monotonic()
        waits_s = [self._paused_until_s - now_s] if self._paused_until_s > now_s else []
        rests_until_s = self._window.rests_until_s()
        if rests_until_s is not None:
            waits_s.append(rests_until_s - now_s)
        if self._window.has_backlog():
            waits_s += [wait_s for wait_s in [self._pace.wait_s(now_s)] if wait_s]
        if not waits_s:
            return
        loop, wait_s = asyncio.get_running_loop(), max(0.001, min(waits_s))
        if self._timer is not None:
            if self._timer.when() <= loop.time() + wait_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(wait_s, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        self._live_news.set()
        self._backlog_news.set()

    def _topic(self, machine: str) -> MachineTopic:
        """Also of a machine that is no longer configured: its batches still belong to the plant."""
        return self._machines.setdefault(machine, MachineTopic(self._gateway.plant, machine))

    # --- definitions ---

    async def _define(self, lane: Lane, definitions: Definitions, *, is_live: bool) -> bool:
        """Publish those that this connection has not seen. Whether all are on their way."""
        for ref, definition in definitions.items():
            if (lane.machine, ref) not in self._told and not await self._tell(lane, ref, definition, is_live):
                return False
        return True

    async def _define_asked(self) -> None:
        while self._asked:
            (lane, ref), _ = self._asked.popitem()
            if (lane.machine, ref) not in self._told and not await self._tell(lane, ref, None, is_live=False):
                return

    async def _tell(self, lane: Lane, ref: bytes, definition: GroupDefinition | None, is_live: bool) -> bool:
        """Publish a definition. Whether it is on its way, or cannot be had: then the receiver has to ask."""
        key = lane.machine, ref
        if definition is None:
            definition = await self._outbox.call(Outbox.definition, lane, ref)
        if definition is None:  # nothing of this lane refers to it any more; another lane's batches may
            return True
        while key not in self._told and key not in self._telling:
            if self._can_publish():
                self._publish_definition(lane, definition, is_live)
            elif self._open < self._places:  # stopped, or paused
                return False
            else:
                self._place_news.clear()
                await self._place_news.wait()
        if key not in self._told:
            await asyncio.wait([self._telling[key]])
            await asyncio.sleep(0)  # for the callback
        return key in self._told

    def _publish_definition(self, lane: Lane, definition: GroupDefinition, is_live: bool) -> None:
        topic, key = self._topic(lane.machine).definition(definition.device, definition.group), _key(lane, definition)
        if is_live:
            self._newest[topic] = definition.ref
        # The broker keeps the one that new batches refer to, not what only the backlog needs.
        retain = self._newest.get(topic, definition.ref) == definition.ref
        self._open += 1
        self._telling[key] = done = self._link.publish(Message(topic, definition.message, retain=retain))
        if not self._is_careful:
            self._told.add(key)
        done.add_done_callback(partial(self._defined, lane, definition, retain))

    def _defined(self, lane: Lane, one: GroupDefinition, retained: bool, done: asyncio.Future[Outcome]) -> None:
        self._open -= 1
        outcome, key = Outcome.LOST if done.cancelled() else done.result(), _key(lane, one)
        if self._telling.get(key) is done:
            del self._telling[key]
        if outcome is Outcome.ACCEPTED or (outcome is Outcome.NO_SUBSCRIBERS and retained):
            self._is_careful = False
            self._told.add(key)
        elif outcome is not Outcome.LOST:
            self._is_careful = True
            self._told.discard(key)
            self._pause(f"the definition of {one.device} of machine {lane.machine}", outcome)
        self.wake()


def _key(lane: Lane, definition: GroupDefinition) -> tuple[str, bytes]:
    return lane.machine, definition.ref


def _refusal(what: str, outcome: Outcome) -> str:
    remedy = {
        Outcome.NO_SUBSCRIBERS: "start the receiver; the data waits here on disk",
        Outcome.DENIED: "allow this gateway to publish there in the broker's access rules; the data waits here on disk",
        Outcome.TOO_LARGE: "raise the broker's message size limit above 128 KB; the data waits here on disk",
        Outcome.QUOTA: "look at the broker's quotas; the data waits here on disk",
    }.get(outcome, "look at the broker's log; the data waits here on disk")
    return f"{what}: {outcome.value}; {remedy}"

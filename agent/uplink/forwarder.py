"""Sends what the outbox holds, and lets go of it when the receiver confirms.

One session after another: connect with the will, say online, publish what the window allows, take confirms, send
heartbeats; when the connection goes, wait with growing, jittered pauses and begin again. The outbox is the only queue:
no more is in flight than the broker takes unacknowledged, and all of it is still on disk.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from agent.outbox.contract import Outbox, OutboxError
from agent.outbox.worker import OutboxWorker
from agent.uplink.window import Run, Window
from protocols.program.logs import get_logger
from protocols.uplink.confirm import ConfirmError, decode
from protocols.uplink.link import AgentLink, LinkAway, LinkError, LinkRefused, Message, Outcome
from protocols.uplink.status import HEARTBEAT_S, REASON_SHUTDOWN, Status, will
from protocols.uplink.topics import GatewayTopic, MachineTopic

RETRY_S_FIRST = 1.0
RETRY_S_MAX = 30.0
REFUSED_PAUSE_S = 5.0
GOODBYE_S = 5.0
GONE = "confirmed before, and no longer held by the gateway"

_log = get_logger(part="uplink")

Delivery = Literal["confirmed", "broker"]


@dataclass(slots=True)
class LinkState:
    """What is known of the link, for heartbeats and people. `trouble`: one sentence, empty while all is well."""

    connected: bool = False
    since_us: int = 0
    protocol: str = ""
    trouble: str = ""
    session: int = 0


class Forwarder:
    """`status(session)` makes the heartbeat. `machines`: name → topic of each machine that this gateway speaks for."""

    def __init__(
        self,
        link: AgentLink,
        outbox: OutboxWorker,
        gateway: GatewayTopic,
        machines: dict[str, MachineTopic],
        status: Callable[[int], Awaitable[Status]],
        epoch: str,
        delivery: Delivery = "confirmed",
        window: Window | None = None,
    ) -> None:
        self.state = LinkState(since_us=_now_us())
        self.window = window or Window()
        self._link = link
        self._outbox = outbox
        self._gateway = gateway
        self._machines = machines
        self._status = status
        self.epoch = epoch
        self._delivery = delivery
        self._wake = asyncio.Event()
        self._stale = True  # the outbox may hold more than the window knows of
        self._beat = asyncio.Event()
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        self._released: dict[str, int] = {}
        self._told: set[tuple[str, bytes]] = set()  # definitions published on this connection
        self._paused_until_s = 0.0
        self._said = ""
        self._open = 0
        self._in_flight_max = 1

    def wake(self) -> None:
        """There may be something new to send."""
        self._stale = True
        self._wake.set()

    def beat_now(self) -> None:
        """Health has changed: do not wait for the next heartbeat."""
        self._beat.set()

    async def run(self) -> None:
        """Until `stop`. Says goodbye if connected then, so that nobody takes the silence for a fault."""
        pause_s = RETRY_S_FIRST
        while not self._stopping.is_set():
            try:
                await self._connect()
                pause_s = RETRY_S_FIRST
                await self._session()
                await self._say_goodbye()
            except (LinkError, OutboxError) as error:
                self._lost(error)
            finally:
                await self._link.close()
            try:
                async with asyncio.timeout(pause_s * random.uniform(0.5, 1.5)):
                    await self._stopping.wait()
            except TimeoutError:
                pause_s = min(2 * pause_s, RETRY_S_MAX)
        self.state.connected = False

    async def drained(self) -> None:
        """Wait until everything that the outbox holds now is confirmed."""
        held = await self._outbox.call(Outbox.held)
        wanted = {machine: numbers.last for machine, numbers in held.items() if numbers.first <= numbers.last}
        self._wake.set()
        while any(self._released.get(machine, 0) < last for machine, last in wanted.items()):
            self._settled.clear()
            await self._settled.wait()

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()

    # --- a session ---

    def _will(self, session: int) -> Message:
        payload = will(session, _now_us() // 1000, self.epoch).encode()
        return Message(self._gateway.status, payload, retain=True)

    async def _connect(self) -> None:
        session = await self._outbox.call(Outbox.next_session)
        connected = await self._link.connect(self._will(session), self._gateway.confirm)
        self.window.connected(connected.session_present)
        if connected.in_flight_max < 2:
            raise LinkRefused("the broker allows only one message in flight; it must allow two or more")
        self._open, self._in_flight_max = 0, connected.in_flight_max - 1  # one place is the heartbeat's
        self._paused_until_s = 0.0
        self._told.clear()
        self._stale = True
        was_trouble = self.state.trouble
        self.state = LinkState(True, _now_us(), connected.protocol, "", session)
        self._said = ""
        _log.info(
            "connected", protocol=connected.protocol, session_present=connected.session_present, after=was_trouble
        )

    async def _session(self) -> None:
        """Run the loops until the link is lost, which raises, or `stop` is called."""
        tasks = [
            asyncio.create_task(self._heartbeats(), name="heartbeats"),
            asyncio.create_task(self._feed(), name="feed"),
            asyncio.create_task(self._confirms(), name="confirms"),
            asyncio.create_task(self._stopping.wait(), name="stopping"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _say_goodbye(self) -> None:
        status = await self._status(self.state.session)
        status = status.model_copy(update={"state": "offline", "reason": REASON_SHUTDOWN})
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._link.publish(Message(self._gateway.status, status.encode(), retain=True))
        except TimeoutError:
            raise LinkAway("the broker did not take the goodbye in time; it will send the will instead") from None

    def _lost(self, error: LinkError | OutboxError) -> None:
        trouble = str(error)
        if self.state.connected or self.state.trouble != trouble:
            _log.warning(trouble)
        if self.state.connected:
            self.state = LinkState(False, _now_us(), "", trouble, self.state.session)
        else:
            self.state.trouble = trouble

    async def _heartbeats(self) -> None:
        while True:
            self._beat.clear()
            status = await self._status(self.state.session)
            outcome = await self._link.publish(Message(self._gateway.status, status.encode(), retain=True))
            if outcome is Outcome.LOST:
                raise LinkAway("the connection to the broker was lost while sending a heartbeat")
            if outcome not in (Outcome.ACCEPTED, Outcome.NO_SUBSCRIBERS):
                self._trouble(
                    f"the broker does not take this gateway's status: {outcome.value}; check its access rules"
                )
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._beat.wait()
            except TimeoutError:
                pass

    async def _feed(self) -> None:
        while True:
            self._wake.clear()
            if self._stale or self._delivery == "broker":
                self._stale = False
                await self._refresh()
            while (run := self._next_run()) is not None:
                await self._publish(run)
            pause_s = max(0.05, self._paused_until_s - time.monotonic()) if self._paused_until_s else None
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                self._paused_until_s = 0.0
                self._stale = True  # a definition may have been refused

    async def _refresh(self) -> None:
        for machine, held in (await self._outbox.call(Outbox.held)).items():
            for ref in held.refs:
                if (machine, ref) not in self._told and time.monotonic() >= self._paused_until_s:
                    await self._define(machine, ref)
            self.window.appended(machine, held.first, held.last)
            if self._delivery == "broker":  # a receiver that is not ours: the broker's word has to do
                await self._release(machine, self.window.sent_seq(machine), [])

    async def _define(self, machine: str, ref: bytes) -> None:
        """Publish a definition, before any batch that refers to it."""
        definition = await self._outbox.call(Outbox.definition, machine, ref)
        if definition is None:  # nothing refers to it any more
            return
        topic = self._topic(machine).definition(definition.device, definition.group)
        while self._open >= self._in_flight_max:
            self._wake.clear()
            await self._wake.wait()
        self._open += 1
        try:
            outcome = await self._link.publish(Message(topic, definition.message, retain=True))
        finally:
            self._open -= 1
        if outcome is Outcome.LOST:
            raise LinkAway("the connection to the broker was lost while sending a definition")
        if outcome in (Outcome.ACCEPTED, Outcome.NO_SUBSCRIBERS):
            self._told.add((machine, ref))
        else:
            self._paused_until_s = time.monotonic() + REFUSED_PAUSE_S
            self._trouble(_refusal(f"the definition of {definition.device} of machine {machine}", outcome))

    def _topic(self, machine: str) -> MachineTopic:
        """Also of a machine that is no longer configured: its batches still belong to the plant."""
        return self._machines.setdefault(machine, MachineTopic(self._gateway.plant, machine))

    def _next_run(self) -> Run | None:
        if self._paused_until_s > time.monotonic():
            return None
        return self.window.take(self._in_flight_max - self._open)

    async def _publish(self, run: Run) -> None:
        found = await self._outbox.call(Outbox.pending, run.machine, run.first - 1, run.count)
        batches = [batch for batch in found if batch.seq < run.first + run.count]
        topic = self._topic(run.machine)
        for batch in batches:
            self.window.published(run.machine, batch.seq, len(batch.payload), time.monotonic())
            self._open += 1
            outcome = self._link.publish(Message(topic.telemetry, batch.payload))
            outcome.add_done_callback(partial(self._ended, run.machine, batch.seq))
        if len(batches) < run.count:  # let go of meanwhile, to make room
            await self._refresh()

    def _ended(self, machine: str, seq: int, done: asyncio.Future[Outcome]) -> None:
        self._open -= 1
        outcome = Outcome.LOST if done.cancelled() else done.result()
        if outcome is Outcome.ACCEPTED:
            self.window.accepted(machine, seq)
            if self._said:
                self._said = self.state.trouble = ""
        elif outcome is not Outcome.LOST:
            self.window.refused(machine, seq)
            self._paused_until_s = time.monotonic() + REFUSED_PAUSE_S
            self._trouble(_refusal(f"telemetry of machine {machine}", outcome))
        self._wake.set()

    def _trouble(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = self.state.trouble = sentence
            _log.warning(sentence)

    async def _confirms(self) -> None:
        while True:
            message = await self._link.inbound()
            try:
                confirm = decode(message.payload)
            except ConfirmError as error:
                _log.warning("a confirm could not be read and is ignored", reason=str(error))
                continue
            for machine, word in confirm.machines.items():
                if word.epoch == self.epoch:
                    if word.definitions:
                        self._told -= {(machine, bytes.fromhex(ref)) for ref in word.definitions}
                        self._stale = True
                    if word.missing:
                        await self._declare_gone(machine, word.missing)
                    await self._release(machine, word.through, word.missing)

    async def _declare_gone(self, machine: str, missing: list[tuple[int, int]]) -> None:
        """What the receiver misses and we no longer have (its database is new, or restored) must not be waited for."""
        held = (await self._outbox.call(Outbox.held)).get(machine)
        if held is None:
            return
        for first, last in missing:
            last = min(last, held.first - 1)
            if first <= last and not any(one.first <= first and last <= one.last for one in held.dropped):
                _log.warning(
                    "the receiver misses batches that are no longer here", machine=machine, first=first, last=last
                )
                await self._outbox.call(Outbox.declare_dropped, machine, first, last, GONE)
                self._beat.set()

    async def _release(self, machine: str, through: int, missing: list[tuple[int, int]]) -> None:
        through = self.window.confirmed(machine, through, missing, time.monotonic())
        if through > self._released.get(machine, 0):
            await self._outbox.call(Outbox.release, machine, through)
            self._released[machine] = through
            self._settled.set()
        self._wake.set()


def _refusal(what: str, outcome: Outcome) -> str:
    remedy = {
        Outcome.NO_SUBSCRIBERS: "start the receiver; the data waits here on disk",
        Outcome.DENIED: "allow this gateway to publish there in the broker's access rules; the data waits here on disk",
        Outcome.TOO_LARGE: "raise the broker's message size limit above 128 KB; the data waits here on disk",
        Outcome.QUOTA: "look at the broker's quotas; the data waits here on disk",
    }.get(outcome, "look at the broker's log; the data waits here on disk")
    return f"{what}: {outcome.value}; {remedy}"


def _now_us() -> int:
    return time.time_ns() // 1000

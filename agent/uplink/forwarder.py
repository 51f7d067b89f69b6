"""Sends what the outbox holds, and lets go of it when the receiver confirms.

One session after another: connect with the will, say online, publish what the window allows, take confirms, send
heartbeats; when the connection goes, wait with growing, jittered pauses and begin again. The outbox is the only queue:
no more is in flight than the broker takes unacknowledged, and all of it is still on disk.

Of this package: window.py and track.py know which numbers are on their way, load.py how much may be, pace.py how fast
the backlog may go, sender.py publishes, confirms.py takes the receiver's word, contest.py notices a second client
with our id, trouble.py holds the sentences for people.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from agent.outbox.contract import Lane, Outbox, OutboxError
from agent.outbox.worker import OutboxWorker
from agent.uplink.confirms import Confirms
from agent.uplink.contest import Contest
from agent.uplink.fresh import Fresh
from agent.uplink.pace import BACKLOG_BYTES_PER_S, Pace
from agent.uplink.sender import Sender
from agent.uplink.trouble import Kind, Troubles
from agent.uplink.window import Window
from protocols.program.logs import get_logger
from protocols.uplink.link import AgentLink, LinkAway, LinkError, LinkRefused, Message, Outcome
from protocols.uplink.status import HEARTBEAT_S, REASON_SHUTDOWN, Status, will
from protocols.uplink.topics import GatewayTopic, MachineTopic

RETRY_S_FIRST = 1.0
RETRY_S_MAX = 30.0
CONTESTED_S = (30.0, 60.0)
SUSPECTED_S_MAX = 5.0  # a bad line is more likely than a rival, and is good again at any moment
GOODBYE_S = 5.0
LOST_S = 1.0
HOLD_S = 10.0
UNCONFIRMED_MIN = 5
SILENT_S = 60.0
"""A receiver that runs sends a confirm after each heartbeat."""


_log = get_logger(part="uplink")

_OF_A_CONNECTION = tuple(kind for kind in Kind if kind not in (Kind.FENCED, Kind.TWINNED))

Delivery = Literal["confirmed", "broker"]


@dataclass(slots=True)
class LinkState:
    """What is known of the link, for heartbeats and people."""

    connected: bool = False
    since_us: int = 0
    protocol: str = ""
    session: int = 0


class Forwarder:
    """`status(session)` makes the heartbeat. `machines`: name → topic of each machine that this gateway speaks for.

    `epoch()`, `instance()`: the outbox's present ones. `backlog_bytes_per_s`: 0 for no bound.
    """

    def __init__(
        self,
        link: AgentLink,
        outbox: OutboxWorker,
        gateway: GatewayTopic,
        machines: dict[str, MachineTopic],
        status: Callable[[int], Awaitable[Status]],
        epoch: Callable[[], str],
        delivery: Delivery = "confirmed",
        *,
        instance: Callable[[], str] = str,
        client_id: str = "",
        backlog_bytes_per_s: float = BACKLOG_BYTES_PER_S,
        window: Window | None = None,
    ) -> None:
        self.state = LinkState(since_us=_now_us())
        self.window = window or Window()
        self.epoch = epoch
        self._link = link
        self._outbox = outbox
        self._gateway = gateway
        self._status = status
        self._delivery = delivery
        self._troubles = Troubles()
        self._contest = Contest(client_id or gateway.thing)
        pace = Pace(backlog_bytes_per_s)
        self._sender = Sender(
            link, outbox, gateway, machines, self.window, pace, self._troubles,
            confirms=delivery == "confirmed",
            on_settled=self._on_settled,
            on_aside=lambda lane: self._confirms.aside(lane),
        )  # fmt: skip
        self._confirms = Confirms(
            outbox, self.window, pace, self._sender, self._troubles, epoch, instance, self.beat_now
        )
        self._beat = asyncio.Event()
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        self._had_session = False
        self._connected_s = 0.0
        self._unhold: asyncio.TimerHandle | None = None

    @property
    def trouble(self) -> str:
        """One sentence, empty while all is well."""
        return self._troubles.sentence

    @property
    def troubles(self) -> Mapping[Kind, str]:
        """What is wrong, by what it is about."""
        return self._troubles.sentences

    def appended(self, batches: Iterable[Fresh]) -> None:
        """The outbox has just taken these, and given them their numbers."""
        now_s, news = time.monotonic(), []
        for batch in batches:
            if self._confirms.is_retired(batch.lane):
                continue
            if not self.window.appended(batch.lane, batch.seq, batch.priority, now_s):
                self._confirms.appended(batch.lane, batch.seq)
            news.append(batch)
        self._sender.appended(news)

    def unanswered(self, formers: Mapping[Lane, int]) -> dict[Lane, int]:
        """Those of the outbox's former lanes that the receiver is to be told of, because it may lack some of them."""
        return self._confirms.unanswered(formers) if self._delivery == "confirmed" else {}

    def beat_now(self) -> None:
        """Health has changed: do not wait for the next heartbeat."""
        self._beat.set()

    async def learn(self) -> None:
        """Ask the outbox what it holds. To be called before anything is appended in this run, too."""
        self.window.hold(await self._outbox.call(Outbox.held))
        if self._delivery == "confirmed":
            self.window.hold_back()

    async def run(self) -> None:
        """Until `stop`. Says goodbye if connected then, so that nobody takes the silence for a fault."""
        pause_s = RETRY_S_FIRST
        while not self._stopping.is_set():
            try:
                await self._connect()
                if not self._contest.sentence:
                    pause_s = RETRY_S_FIRST
                await self._session()
                await self._say_goodbye()
            except (LinkError, OutboxError) as error:
                self._lost(error)
            finally:
                self._end_session()
                await self._link.close()
            await self._write()
            if not self._stopping.is_set():
                wait_s = (
                    random.uniform(*CONTESTED_S) if self._contest.is_certain else pause_s * random.uniform(0.5, 1.5)
                )
                if await _happens(self._stopping, wait_s):
                    break
                pause_s = min(2 * pause_s, SUSPECTED_S_MAX if self._contest.sentence else RETRY_S_MAX)
        self.state.connected = False

    async def drained(self) -> None:
        """Wait until everything that the outbox holds now is confirmed, and the outbox knows."""
        held = await self._outbox.call(Outbox.held)
        self.window.hold(held)
        self._sender.wake()
        wanted = {lane: one.last for lane, one in held.items()}
        while any(self.window.settled_through(lane) < last for lane, last in wanted.items()):
            self._settled.clear()
            await self._settled.wait()
        await self._write()

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()

    # --- a session ---

    def _will(self, session: int) -> Message:
        payload = will(session, _now_us() // 1000, self.epoch()).encode()
        return Message(self._gateway.status, payload, retain=True)

    async def _connect(self) -> None:
        session = await self._outbox.call(Outbox.next_session)
        try:
            connected = await self._link.connect(self._will(session), self._gateway.confirm)
        except LinkError:
            self._contest.connect_failed()
            raise
        if connected.in_flight_max < 2:
            raise LinkRefused("the broker allows only one message in flight; it must allow two or more")
        self._connected_s, self._had_session = time.monotonic(), connected.session_present
        await self.learn()
        await self._confirms.settle_suspects()
        if session == 1:  # whoever never connected before cannot be known to anybody
            self.window.let_go()
        self.window.connected(connected.session_present, time.monotonic())
        self._sender.connected(connected.in_flight_max - 1)  # one place is the heartbeat's
        self._unhold = asyncio.get_running_loop().call_later(HOLD_S, self._hold_no_longer)
        was_trouble = self.trouble
        self._troubles.over(*_OF_A_CONNECTION)
        if self._contest.sentence:
            self._troubles.say(Kind.CONTESTED, self._contest.sentence)
        self.state = LinkState(True, _now_us(), connected.protocol, session)
        _log.info(
            "connected", protocol=connected.protocol, session_present=connected.session_present, after=was_trouble
        )

    def _hold_no_longer(self) -> None:
        self.window.let_go()
        self._sender.wake()

    async def _session(self) -> None:
        """Run the loops until the link is lost, which raises, or `stop` is called."""
        loops = {
            "heartbeats": self._heartbeats(),
            "live": self._sender.feed_live(),
            "backlog": self._sender.feed_backlog(),
            "confirms": self._take_confirms(),
            "chores": self._confirms.run(),
        }
        tasks = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]
        stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for ended in (*tasks, stopping):
                ended.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)

    def _end_session(self) -> None:
        self.window.disconnected()
        self._sender.disconnected()
        if self._unhold is not None:
            self._unhold.cancel()
            self._unhold = None

    async def _say_goodbye(self) -> None:
        status = await self._status(self.state.session)
        status = status.model_copy(update={"state": "offline", "reason": REASON_SHUTDOWN})
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._link.publish(Message(self._gateway.status, status.encode(), retain=True))
        except TimeoutError:
            raise LinkAway("the broker did not take the goodbye in time; it will send the will instead") from None

    def _lost(self, error: LinkError | OutboxError) -> None:
        if self.state.connected:
            now_s = time.monotonic()
            if isinstance(error, LinkError):
                self._contest.lost(error, now_s - self._connected_s, now_s, had_session=self._had_session)
            self.state = LinkState(False, _now_us(), "", self.state.session)
            self._troubles.over(*_OF_A_CONNECTION)
        self._troubles.say(Kind.LINK, str(error))
        if self._contest.sentence:
            self._troubles.say(Kind.CONTESTED, self._contest.sentence)

    async def _write(self) -> None:
        """A failing disk must not end the uplink; it is told by whoever stores."""
        try:
            await self._confirms.write()
        except OutboxError as error:
            _log.debug("what is confirmed could not be written down", reason=str(error))

    async def _heartbeats(self) -> None:
        while True:
            self._beat.clear()
            self._look()
            self.window.look(await self._outbox.call(Outbox.held))
            self._sender.wake()
            status = await self._status(self.state.session)
            outcome = await self._link.publish(Message(self._gateway.status, status.encode(), retain=True))
            if outcome is Outcome.LOST:
                await asyncio.sleep(LOST_S)  # whoever waits for confirms is told why, and ends the session
                raise LinkAway("the connection to the broker was lost while sending a heartbeat")
            if outcome in (Outcome.ACCEPTED, Outcome.NO_SUBSCRIBERS):
                self._troubles.over(Kind.STATUS)
            else:
                self._troubles.say(
                    Kind.STATUS,
                    f"the broker does not take this gateway's status: {outcome.value}; check its access rules",
                )
            await _happens(self._beat, HEARTBEAT_S)

    def _look(self) -> None:
        """Is the connection ours alone, and does the receiver confirm?"""
        now_s = time.monotonic()
        self._contest.goes_on(now_s - self._connected_s)
        if not self._contest.sentence:
            self._troubles.over(Kind.CONTESTED)
        oldest = self.window.oldest_unconfirmed()
        minutes = 0 if oldest is None else int((now_s - max(oldest[2], self._connected_s)) / 60)
        if oldest is None or self._delivery == "broker" or minutes < UNCONFIRMED_MIN:
            self._troubles.over(Kind.UNCONFIRMED)
            return
        lane, seq, _ = oldest
        if now_s - max(self._confirms.heard_s, self._connected_s) >= SILENT_S:
            sentence = (
                f"the broker takes our messages but the receiver has confirmed nothing for {minutes} min; check that "
                "it runs, that it knows this plant, and that this gateway may read its confirm topic"
            )
        else:
            sentence = (
                f"the receiver confirms, but not number {seq} of machine {lane.machine}, sent {minutes} min ago; look "
                "at its dead letters"
            )
        self._troubles.say(Kind.UNCONFIRMED, sentence, again=False)

    async def _take_confirms(self) -> None:
        while True:
            message = await self._link.inbound()
            await self._confirms.take(message.payload)
            self._settled.set()

    def _on_settled(self, lane: Lane) -> None:
        self._confirms.settled(lane)
        self._settled.set()


async def _happens(event: asyncio.Event, within_s: float) -> bool:
    """Whether it does, in that time."""
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False


def _now_us() -> int:
    return time.time_ns() // 1000

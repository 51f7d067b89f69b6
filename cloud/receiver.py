"""Takes what the broker delivers: decode, commit a group in one transaction, acknowledge, confirm.

Acknowledgements follow the commit, in the order of receipt. While the store is away nothing is acknowledged, so the
broker keeps the rest; the same group is committed again until it succeeds. What is the message's own fault became a
dead letter in that commit, and is acknowledged like everything else.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cloud import decode
from cloud.confirmer import Confirmer
from cloud.definitions import Definitions
from cloud.store.contract import Beat, Committed, Defined, Item, Store, StoreAway, Telemetry, Undecodable, Undefined
from cloud.worker import StoreWorker
from protocols.program.logs import get_logger
from protocols.uplink.link import CloudLink, Delivery, LinkError
from protocols.uplink.topics import DEFINITION_FILTER, STATUS_FILTER, TELEMETRY_FILTER

GROUP_MAX = 200
ROUND_S_MAX = 5.0
RETRY_S_FIRST = 1.0
RETRY_S_MAX = 30.0
STORE_RETRY_S_MAX = 5.0
TEND_SHARE = 3
"""Throwing away old data takes at most a quarter of the store's time."""

T = TypeVar("T")

FILTERS = (DEFINITION_FILTER, TELEMETRY_FILTER, STATUS_FILTER)
_log = get_logger(part="receiver")


@dataclass(slots=True)
class ReceiverState:
    """For people and metrics. `listening_since_us`: of this connection; None while there is none.

    `trouble`: why there is no connection; `store_trouble`: why nothing can be stored. Sentences, or empty.
    `committed_us`: of the last commit; `outcomes`: messages by what became of them; `readings`: new ones stored.
    """

    started_us: int
    listening_since_us: int | None = None
    protocol: str = ""
    trouble: str = ""
    store_trouble: str = ""
    committed_us: int | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    readings: int = 0


class Receiver:
    """`on_commit(items)` is called after each commit; `on_round` after each round, the watchdog's sign of life."""

    def __init__(
        self,
        link: CloudLink,
        store: StoreWorker,
        on_commit: Callable[[Sequence[Item]], object] = lambda _: None,
        on_round: Callable[[], object] = lambda: None,
    ) -> None:
        self.state = ReceiverState(_now_us())
        self._link = link
        self._store = store
        self._on_commit = on_commit
        self._on_round = on_round
        self._confirmer = Confirmer(link, store)
        self._definitions = Definitions()
        self._beat_s = -math.inf

    async def run(self) -> None:
        """Until cancelled. Raises StoreError where the store fails in a way that waiting does not mend."""
        pause_s = RETRY_S_FIRST
        while True:
            try:
                connected = await self._patiently(self._link.connect(FILTERS))
                pause_s = RETRY_S_FIRST
                self.state.listening_since_us, self.state.protocol = _now_us(), connected.protocol
                self.state.trouble = ""
                self._beat_s = -math.inf  # the news must not wait
                _log.info("connected", protocol=connected.protocol, session_present=connected.session_present)
                await self._take()
            except LinkError as error:
                if self.state.listening_since_us is not None or self.state.trouble != str(error):
                    _log.warning(str(error))
                self.state.listening_since_us, self.state.trouble = None, str(error)
                self._beat_s = -math.inf
            finally:
                await self._link.close()
            await self._patiently(asyncio.sleep(pause_s * random.uniform(0.5, 1.5)))
            pause_s = min(2 * pause_s, RETRY_S_MAX)

    async def tend(self) -> None:
        """Let the store throw away what is over its retention: step by step, with room for commits between them.

        Until cancelled, beside `run`.
        """
        while True:
            began_s = time.monotonic()
            try:
                more = await self._store.call(lambda store: store.tend(_now_us()))
            except StoreAway:
                more = False  # the next commit or round says it aloud
            await asyncio.sleep(TEND_SHARE * (time.monotonic() - began_s) if more else ROUND_S_MAX)

    async def _patiently(self, step: Coroutine[Any, Any, T]) -> T:
        """Await the step, with a round every ROUND_S_MAX."""
        task = asyncio.create_task(step, name="step")
        try:
            while not task.done():
                await self._round()
                await asyncio.wait([task], timeout=ROUND_S_MAX)
            return task.result()
        finally:
            await _ended(task)

    async def _take(self) -> None:
        """Group after group, until the link is lost."""
        await self._round()
        confirming = asyncio.create_task(self._confirmer.run(), name="confirms")
        waiting: asyncio.Task[Sequence[Delivery]] | None = None
        try:
            while True:
                waiting = waiting or asyncio.create_task(self._link.deliveries(GROUP_MAX), name="deliveries")
                await asyncio.wait([waiting, confirming], timeout=ROUND_S_MAX, return_when=asyncio.FIRST_COMPLETED)
                if confirming.done():
                    confirming.result()
                if waiting.done():
                    group, waiting = waiting.result(), None
                    await self._commit(list(group))
                await self._round()
        finally:
            await _ended(*[task for task in (waiting, confirming) if task is not None])

    async def _commit(self, group: list[Delivery]) -> None:
        items, outcomes = await self._insist(group, _now_us())
        for delivery in group:
            delivery.ack()
        self._note(items, outcomes)

    def _take_in(self, store: Store, group: list[Delivery], received_us: int) -> tuple[list[Item], Sequence[Committed]]:
        """Decode and commit, in the store's thread."""
        known = self._definitions
        items = decode.items(
            group,
            received_us,
            lambda machine, ref: known.find(store, machine, ref),
            lambda one: known.learn(one.topic.machine, one.ref, one.definition),
        )
        return items, store.commit(items)

    async def _insist(self, group: list[Delivery], received_us: int) -> tuple[list[Item], Sequence[Committed]]:
        """Take in this group, however long the store is away."""
        pause_s = RETRY_S_FIRST
        while True:
            try:
                outcomes = await self._store.call(lambda store: self._take_in(store, group, received_us))
            except StoreAway as error:
                self._store_is_away(error)
                self._on_round()
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, STORE_RETRY_S_MAX)
            else:
                self._store_is_back()
                return outcomes

    def _note(self, items: Sequence[Item], outcomes: Sequence[Committed]) -> None:
        self.state.committed_us = _now_us()
        for item, outcome in zip(items, outcomes, strict=True):
            self.state.outcomes[outcome.name.lower()] += 1
            match item:
                case Telemetry() if outcome in (Committed.NEW, Committed.DUPLICATE):
                    self._stored(item, outcome)
                case Beat(topic, status) if outcome is Committed.BEAT:
                    if not item.retained:
                        self._confirmer.heard(topic, status)
                case Defined() if outcome is Committed.DEFINED:
                    pass
                case Undefined(topic, refs) if outcome is Committed.ASKED:
                    if self._confirmer.want(topic, refs):
                        _log.info("telemetry refers to an unknown definition; asking for it", topic=topic.telemetry)
                case _:
                    _log.warning("a message became a dead letter", topic=_topic(item), outcome=outcome.value)
                    if isinstance(item, Undecodable) and (number := item.number) is not None:
                        self._confirmer.stored(
                            number.machine, number.epoch, number.gateway, len(item.payload), urgent=True
                        )
        self._on_commit(items)

    def _stored(self, item: Telemetry, outcome: Committed) -> None:
        if outcome is Committed.NEW:
            self.state.readings += item.batch.readings()
        urgent = item.historical or outcome is Committed.DUPLICATE
        batch = item.batch
        self._confirmer.stored(item.topic, batch.epoch, batch.gateway, len(item.payload), urgent=urgent)

    async def _round(self) -> None:
        """Say that we are alive: to the watchdog, and now and then to programs that look at the database beside us."""
        self._on_round()
        if time.monotonic() - self._beat_s < ROUND_S_MAX:
            return
        self._beat_s = time.monotonic()
        now_us = _now_us()
        since_us = self.state.listening_since_us or now_us
        try:
            await self._store.call(lambda store: store.receiver_beat(since_us, now_us))
        except StoreAway as error:
            self._store_is_away(error)
        else:
            self._store_is_back()

    def _store_is_away(self, error: StoreAway) -> None:
        if self.state.store_trouble != str(error):
            _log.error(str(error))
            self.state.store_trouble = str(error)

    def _store_is_back(self) -> None:
        if self.state.store_trouble:
            _log.info("the store takes data again", after=self.state.store_trouble)
            self.state.store_trouble = ""


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _topic(item: Item) -> str:
    match item:
        case Telemetry() | Undefined():
            return item.topic.telemetry
        case Beat():
            return item.topic.status
        case Defined():
            return item.topic.definition
    return item.topic[:200]


def _now_us() -> int:
    return time.time_ns() // 1000

"""Tells each gateway what is stored: after the commit, at most once every CONFIRM_S per gateway.

| what happened | when the gateway hears of it |
|---|---|
| it has connected (an online status of another session) | at once, and even if nothing is known of it |
| it has sent a heartbeat, as it does every 10 s and when it is about to stop | CONFIRM_S after the last confirm |
| something of a backlog was stored, or what came again | FULL_S after the last confirm: its pace goes by that |
| something was stored while it has a gap | CONFIRM_S after the last confirm |
| STORED_MANY batches were stored of one machine since | likewise, before its share of the gateway's window is full |
| FULL_BATCHES or FULL_BYTES in all | FULL_S after the last confirm, before the whole window is full |
| anything else was committed | CALM_S after the last confirm |
While more gateways than FEW are owed a word, each waits longer for its next one, up to CONFIRM_S: after an outage of
the broker all of them have a backlog, and to store it comes first.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from cloud.sequence import said
from cloud.store.contract import StoreAway, Told
from cloud.worker import StoreWorker
from protocols.program.logs import get_logger
from protocols.uplink.confirm import DEFINITIONS_MAX, Confirm, MachineConfirm
from protocols.uplink.link import CloudLink, LinkAway, Message, Outcome
from protocols.uplink.status import Status
from protocols.uplink.topics import GatewayTopic, MachineTopic, is_name

CONFIRM_S = 1.0
CALM_S = 10.0
FULL_S = 0.1
STORED_MANY = 12  # a machine's share of the window is at least 16 (docs/wire.md, section 9)
FEW = 10
FULL_BATCHES = 100
FULL_BYTES = 4 * 1024 * 1024

LANES_MAX = 100
CONFIRM_BYTES_MAX = 90_000
"""A confirm has at most so many lanes and about so many bytes, so that it fits any broker; more make more confirms."""

TICK_S = 0.02
"""Between two rounds over all that are owed something, so that many gateways cost no more than few."""

GATEWAYS_MAX = 100_000
SENDERS_MAX = 200_000
WANTED_MACHINES_MAX = 1000
_log = get_logger(part="receiver")


@dataclass(slots=True)
class _Debt:
    """What is owed to one gateway. Times of the monotonic clock; `session`: the last that it said it is in.

    `pending`: it waits for a word; `urgent`: so that it can send on.
    """

    at_once: bool = False
    told_s: float = -math.inf
    pending: bool = True
    urgent: bool = False
    session: int | None = None
    batches: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    def due_s(self, owed: int) -> float:
        """When it is to be told, one of so many that are owed something."""
        if self.urgent or self.batches.total() >= FULL_BATCHES or self.bytes >= FULL_BYTES:
            return self.told_s + min(CONFIRM_S, FULL_S * max(1.0, owed / FEW))
        if self.at_once or self.pending or max(self.batches.values(), default=0) >= STORED_MANY:
            return self.told_s + CONFIRM_S
        return self.told_s + CALM_S


class Confirmer:
    """`stored` and `heard` after a commit; `run` pays while there is a connection."""

    def __init__(self, link: CloudLink, store: StoreWorker) -> None:
        self._link = link
        self._store = store
        self._debts: dict[GatewayTopic, _Debt] = {}
        self._owed: dict[GatewayTopic, _Debt] = {}
        self._next_s = math.inf
        self._senders: dict[tuple[MachineTopic, str], GatewayTopic] = {}
        self._wanted: dict[MachineTopic, dict[bytes, None]] = {}
        self._wake = asyncio.Event()
        self._run_id = secrets.token_hex(8)

    def stored(self, machine: MachineTopic, epoch: str, gateway: str, size: int, *, urgent: bool = False) -> None:
        """A batch of so many bytes was stored, or was there already. `urgent`: it is of a backlog, or came again.

        Told are the gateway that it names, and the one whose status names its epoch: it may have another name by now.
        """
        sender = self._senders.get((machine, epoch))
        hearers = {sender} if sender is not None else set()
        if is_name(gateway):  # a stranger's text must not become part of a topic
            hearers.add(GatewayTopic(machine.plant, gateway))
        for one in hearers:
            debt = self._debt(one)
            debt.batches[machine.machine] += 1
            debt.bytes += size
            debt.urgent |= urgent
            self._owe(one, debt)

    def heard(self, gateway: GatewayTopic, status: Status) -> None:
        """A live status was committed."""
        debt = self._debt(gateway)
        if status.state == "online" and status.session != debt.session:
            debt.at_once, debt.session = True, status.session
        debt.pending |= status.state == "online"
        for name, epoch, _ in said(status):
            self._senders[MachineTopic(gateway.plant, name), epoch] = gateway
        while len(self._senders) > SENDERS_MAX:  # a stranger can invent epochs; the oldest make room
            del self._senders[next(iter(self._senders))]
        self._owe(gateway, debt)

    def want(self, machine: MachineTopic, refs: Sequence[bytes]) -> bool:
        """Definitions to ask for with the next confirm to the machine's gateway, which its next heartbeat brings.

        Whether that is news.
        """
        if machine not in self._wanted and len(self._wanted) >= WANTED_MACHINES_MAX:
            del self._wanted[next(iter(self._wanted))]  # a stranger can invent machines; the oldest make room
        wanted = self._wanted.setdefault(machine, {})
        new = [ref for ref in refs if ref not in wanted][: DEFINITIONS_MAX - len(wanted)]
        wanted |= dict.fromkeys(new)
        return bool(new)

    async def run(self) -> None:
        """Until cancelled, or the link is lost (LinkAway). One is in flight at a time."""
        while True:
            now_s = time.monotonic()
            for gateway in [gateway for gateway, debt in self._owed.items() if debt.due_s(len(self._owed)) <= now_s]:
                await self._tell(gateway)
            self._wake.clear()
            self._next_s = min((debt.due_s(len(self._owed)) for debt in self._owed.values()), default=math.inf)
            if self._next_s > time.monotonic():
                await self._sleep(self._next_s - time.monotonic())
            await asyncio.sleep(TICK_S)

    async def _sleep(self, duration_s: float) -> None:
        """Until then, or until something is due earlier."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if duration_s == math.inf else duration_s):
                await self._wake.wait()

    def _debt(self, gateway: GatewayTopic) -> _Debt:
        debt = self._debts.get(gateway)
        if debt is None:
            if len(self._debts) >= GATEWAYS_MAX:  # a stranger can invent gateways; the oldest make room
                oldest = next(iter(self._debts))
                del self._debts[oldest]
                self._owed.pop(oldest, None)
            debt = self._debts[gateway] = _Debt()
        return debt

    def _owe(self, gateway: GatewayTopic, debt: _Debt) -> None:
        self._owed[gateway] = debt
        if debt.due_s(len(self._owed)) < self._next_s:
            self._wake.set()

    async def _tell(self, gateway: GatewayTopic) -> None:
        debt = self._owed.pop(gateway)
        debt.at_once, debt.urgent, debt.bytes, debt.told_s = False, False, 0, time.monotonic()
        debt.batches.clear()
        try:
            told = await self._store.call(lambda store: store.confirm(gateway))
        except StoreAway as error:
            _log.debug("confirming later", gateway=gateway.thing, error=str(error))  # the receiver says it aloud
            self._owed[gateway] = debt
            return
        debt.pending = told.pending
        wanted = {name: self._wanted.get(MachineTopic(gateway.plant, name), {}) for name in told.machines}
        asked = {name: [ref.hex() for ref in refs] for name, refs in wanted.items() if refs}
        for part in parts(told, asked, time.time_ns() // 1_000_000, self._run_id):
            self._check(gateway, debt, await self._link.publish(Message(gateway.confirm, part.encode())))
            for name in part.machines:
                self._wanted.pop(MachineTopic(gateway.plant, name), None)

    def _check(self, gateway: GatewayTopic, debt: _Debt, outcome: Outcome) -> None:
        if outcome is Outcome.LOST:
            debt.at_once = True
            self._owed[gateway] = debt
            raise LinkAway("the connection to the broker was lost while confirming")
        if outcome not in (Outcome.ACCEPTED, Outcome.NO_SUBSCRIBERS):
            _log.warning(
                f"the broker does not take the confirm for gateway {gateway.thing}: {outcome.value};"
                " allow the receiver to publish there in the broker's access rules"
            )


def parts(told: Told, asked: Mapping[str, list[str]], timestamp_ms: int, receiver: str) -> Iterator[Confirm]:
    """The confirm, as several where it is long; one without machines where there is nothing to tell.

    `asked`: the definitions to ask for by machine; each lane of the machine is asked, because any may be theirs.
    `receiver`: which run of the receiver speaks.
    """
    machines: dict[str, MachineConfirm] = {}
    others: dict[str, list[MachineConfirm]] = {}
    size = lanes = 0

    def part() -> Confirm:
        return Confirm(
            timestamp=timestamp_ms,
            machines=machines,
            others=others,
            fenced=told.fenced,
            fenced_instance=told.fenced_instance,
            receiver=receiver,
        )

    for name, first in told.machines.items():
        definitions = asked.get(name, [])
        for at, lane in enumerate((first, *told.others.get(name, ()))):
            entry = lane.model_copy(update={"definitions": definitions}) if definitions else lane
            entry_size = len(entry.model_dump_json(by_alias=True)) + len(name) + 8
            if lanes and (size + entry_size > CONFIRM_BYTES_MAX or lanes >= LANES_MAX):
                yield part()
                machines, others, size, lanes = {}, {}, 0, 0
            if at:
                others.setdefault(name, []).append(entry)
            else:
                machines[name] = entry
            size, lanes = size + entry_size, lanes + 1
    if lanes or not told.machines:
        yield part()

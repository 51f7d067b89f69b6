"""Tells each gateway what is stored: soon after a commit, at most once every CONFIRM_S per gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import islice

from cloud.store.contract import StoreAway
from cloud.worker import StoreWorker
from protocols.program.logs import get_logger
from protocols.uplink.confirm import DEFINITIONS_MAX, Confirm
from protocols.uplink.link import CloudLink, LinkAway, Message, Outcome
from protocols.uplink.topics import GatewayTopic, MachineTopic

CONFIRM_S = 1.0
MACHINES_MAX = 100
"""A confirm tells of at most this many machines, so that it fits any broker; more machines make more confirms."""

WANTED_MACHINES_MAX = 1000
_log = get_logger(part="receiver")


class Confirmer:
    """`owe(gateway)` after a commit; `run` pays while there is a connection."""

    def __init__(self, link: CloudLink, store: StoreWorker) -> None:
        self._link = link
        self._store = store
        self._owed: dict[GatewayTopic, None] = {}
        self._told_s: dict[GatewayTopic, float] = {}  # of the last CONFIRM_S only
        self._wanted: dict[MachineTopic, dict[bytes, None]] = {}
        self._wake = asyncio.Event()

    def owe(self, gateway: GatewayTopic) -> None:
        """Something of this gateway was committed."""
        self._owed[gateway] = None
        self._wake.set()

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
            await self._wake.wait()
            self._wake.clear()
            due_s = min((self._told_s.get(g, -CONFIRM_S) + CONFIRM_S for g in self._owed), default=0.0)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            now_s = time.monotonic()
            self._told_s = {gateway: told_s for gateway, told_s in self._told_s.items() if now_s - told_s < CONFIRM_S}
            for gateway in [gateway for gateway in self._owed if gateway not in self._told_s]:
                await self._tell(gateway)
            if self._owed:
                self._wake.set()

    async def _tell(self, gateway: GatewayTopic) -> None:
        del self._owed[gateway]
        self._told_s[gateway] = time.monotonic()
        try:
            machines = await self._store.call(lambda store: store.confirm(gateway))
        except StoreAway as error:
            _log.debug("confirming later", gateway=gateway.thing, error=str(error))  # the receiver says it aloud
            self._owed[gateway] = None
            return
        for name, machine in machines.items():
            wanted = self._wanted.get(MachineTopic(gateway.plant, name), {})
            machines[name] = machine.model_copy(update={"definitions": [ref.hex() for ref in wanted]})
        left = iter(machines.items())
        while part := dict(islice(left, MACHINES_MAX)):
            message = Message(gateway.confirm, Confirm(timestamp=time.time_ns() // 1_000_000, machines=part).encode())
            self._check(gateway, await self._link.publish(message))
            for name in part:
                self._wanted.pop(MachineTopic(gateway.plant, name), None)

    def _check(self, gateway: GatewayTopic, outcome: Outcome) -> None:
        if outcome is Outcome.LOST:
            self._owed[gateway] = None
            raise LinkAway("the connection to the broker was lost while confirming")
        if outcome not in (Outcome.ACCEPTED, Outcome.NO_SUBSCRIBERS):
            _log.warning(
                f"the broker does not take the confirm for gateway {gateway.thing}: {outcome.value};"
                " allow the receiver to publish there in the broker's access rules"
            )

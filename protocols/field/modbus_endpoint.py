"""One connection and one queue for everything that is asked of one endpoint, however many devices are configured there.

Many PLCs and gateways take a single client, and a serial line has one master. Devices whose settings name the same
endpoint share its `Endpoint`: it is found by its address, and forgotten when the last device that uses it is gone. One
series of requests is asked at a time, in order of arrival.

A connection that we gave up ourselves, after a time-out or a cancelled question, is opened again by the next question.
One that the other end closed is an error for whoever asks next: the device is away, for all who share it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

from protocols.field.contract import Happening, Tap
from protocols.field.modbus_errors import no_connection
from protocols.field.modbus_line import Line, Link, open_line
from protocols.field.modbus_request import Request


class User(Protocol):
    """A device that asks through the endpoint. `requests` counts what was sent for it."""

    name: str
    requests: int


class NoConnection(ConnectionError):
    """The connection could not be opened again. `cause`: what connecting raised."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Endpoint:
    """Found with `endpoint`, which see."""

    def __init__(self) -> None:
        self._users: dict[int, tuple[User, Link]] = {}
        self._line: Line | None = None
        self._given_up = False  # the line was closed by us
        self._lock = asyncio.Lock()
        self._tap: Tap | None = None
        self._sent = random.randrange(65_536)  # over all connections, from a random beginning

    @property
    def fault(self) -> str:
        """Why the connection was lost without our doing; "" while it was not."""
        if self._line is None:
            return "the connection was lost"
        return "" if self._given_up else self._line.fault

    def listen(self, tap: Tap | None) -> None:
        """See `Tapped`."""
        self._tap = tap
        if self._line is not None:
            self._line.tap = tap
            if tap is not None and not self._line.fault:
                tap(Happening.OPENED, b"already open")

    async def connect(self, user: User, link: Link) -> None:
        """Opens a connection for `user`, or lets it share the one that others have there.

        Raises OSError, TimeoutError included; ValueError with a phrase where others use other settings.
        """
        async with self._lock:
            self._users.pop(id(user), None)
            for other, theirs in self._users.values():
                if theirs != link:
                    raise ValueError(
                        f"{other.name} uses the same endpoint with other settings ({link.difference(theirs)})"
                    )
            is_shared = bool(self._users) and self._line is not None and not self._line.fault
            self._users[id(user)] = user, link  # already now: another's leaving must not close what is being opened
            is_open = is_shared
            try:
                if not is_shared:
                    await self._open(link)
                is_open = True
            finally:
                if not is_open:
                    await self.leave(user)

    async def ask(self, user: User, requests: Sequence[Request]) -> list[bytes | int]:
        """See `Line.ask`; raises what it raises, and NoConnection."""
        async with self._lock:
            if fault := self.fault:
                raise ConnectionError(fault)
            if self._given_up:
                await self._reopen(self._users[id(user)][1])
            line = self._line
            assert line is not None, "without one there is a fault"  # noqa: S101  # for the type checker
            before = line.sent
            try:
                return await line.ask(requests)
            except (TimeoutError, asyncio.CancelledError):
                self._given_up = True
                raise
            finally:
                user.requests += line.sent - before
                self._sent += line.sent - before

    async def leave(self, user: User) -> None:
        """The last one closes the connection."""
        if self._users.pop(id(user), None) is not None and not self._users:
            await self._close()

    async def _reopen(self, link: Link) -> None:
        await self._close()
        if link.transport in ("rtu", "rtu_over_tcp"):
            # RTU numbers nothing: what comes late must come now, when nobody takes it for an answer.
            await asyncio.sleep(link.timeout_s)
        try:
            await self._open(link)
        except OSError as error:
            raise NoConnection(error) from error

    async def _open(self, link: Link) -> None:
        await self._close()
        try:
            self._line = await open_line(link, self._sent, self._tap)
        except (OSError, UnicodeError) as error:
            if self._tap is not None:
                self._tap(Happening.NOT_OPENED, no_connection(error, link).encode())
            raise
        self._given_up = False
        if link.connect_pause_s:
            await asyncio.sleep(link.connect_pause_s)

    async def _close(self) -> None:
        line, self._line = self._line, None
        self._given_up = False
        if line is not None:
            line.close()
            await asyncio.sleep(0)  # the loop closes the socket in its next turn


_endpoints: WeakValueDictionary[tuple[str, str, int], Endpoint] = WeakValueDictionary()


def endpoint(link: Link) -> Endpoint:
    """The endpoint at this link's address: the one that there is, or a new one."""
    key = ("serial" if link.transport == "rtu" else "network", link.host.lower(), link.port)
    found = _endpoints.get(key)
    if found is None:
        found = _endpoints[key] = Endpoint()
    return found

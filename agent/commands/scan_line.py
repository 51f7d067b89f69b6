"""How `holdfast scan` asks: one connection at a time, a pause before every request, an end where it might do harm."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from agent.toolbox.scanning import Answer
from protocols.field.modbus_address import Table
from protocols.field.modbus_errors import no_connection
from protocols.field.modbus_line import Line, Link, open_line
from protocols.field.modbus_request import read_request

INTERVAL_S_MIN = 0.1
CONNECT_ATTEMPTS = 3
CONNECT_PAUSE_S = 1.0
HANG_UPS_MAX = 3


class ScanEnded(Exception):
    """The scan has to stop here. The message is one sentence."""


class Asker:
    """Asks one question after another. `asked` counts them; `on_ask` is told before each.

    A question without an answer costs the connection, which is made anew: an answer that comes late must not answer
    the next question.
    """

    def __init__(
        self,
        link: Link,
        interval_s: float,
        on_ask: Callable[[int, Table, int], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.asked = 0
        self._link = link
        self._interval_s = max(interval_s, INTERVAL_S_MIN)
        self._on_ask = on_ask
        self._sleep = sleep
        self._line: Line | None = None
        self._first_transaction = random.randrange(60_000)
        self._hang_ups = 0

    async def connect(self) -> None:
        """Raises OSError (TimeoutError is one) or UnicodeError."""
        if self._line is None:
            self._line = await open_line(self._link, (self._first_transaction + self.asked) % 60_000)

    async def close(self) -> None:
        """May be called at any time, twice too."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
            await asyncio.sleep(0)

    async def change(self, link: Link) -> None:
        """Go on with other settings."""
        await self.close()
        self._link = link

    async def ask(self, unit_id: int, table: Table, address: int, count: int) -> Answer:
        """See scanning.Ask. Raises ScanEnded where the device hangs up again and again, or takes nobody any more."""
        await self._sleep(self._interval_s)
        await self._connected()
        if self._line is None:
            return None
        self.asked += 1
        self._on_ask(unit_id, table, address)
        try:
            [answer] = await self._line.ask([read_request(unit_id, table, address, count)])
        except TimeoutError:
            await self.close()
            return None
        except OSError as error:
            await self.close()
            self._hang_ups += 1
            if self._hang_ups == HANG_UPS_MAX and self._link.serial is None:
                raise ScanEnded(f"{error}, {HANG_UPS_MAX} times in a row; it was left in peace") from error
            return None
        self._hang_ups = 0
        return answer

    async def _connected(self) -> None:
        for attempt in range(CONNECT_ATTEMPTS):
            try:
                await self.connect()
                return
            except (OSError, UnicodeError) as error:
                if attempt == CONNECT_ATTEMPTS - 1:
                    raise ScanEnded(no_connection(error, self._link).removesuffix(".")) from error
            await self._sleep(CONNECT_PAUSE_S)


def quick(link: Link, timeout_s: float) -> Link:
    """The link with the lean client and this patience."""
    return replace(link, client="lean", timeout_s=timeout_s, in_flight_max=1)

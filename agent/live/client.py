"""A viewer's end of the running agent's feed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Protocol

from agent.live.address import reachable
from agent.live.query import ROWS_MAX, Query

ANSWER_S = 5.0
ANSWER_BYTES_MAX = 4 << 20


class FeedAway(Exception):
    """The agent does not answer. The message is one phrase."""


class Asked(Protocol):
    """Whatever shows an agent. `ask` raises FeedAway."""

    async def ask(self, query: Query) -> dict[str, Any]: ...


class LiveClient:
    """Connects when it is asked, and again after it was lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, query: Query) -> dict[str, Any]:
        """What the agent shows, see Live.look. Raises FeedAway."""
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._asked(query)
        except TimeoutError:
            await self.close()
            raise FeedAway(f"it gives no answer within {ANSWER_S:g} s") from None
        except (FileNotFoundError, ConnectionRefusedError):
            await self.close()
            raise FeedAway(f"nobody answers at {self._path}") from None
        except PermissionError:
            await self.close()
            raise FeedAway(f"this user may not connect to {self._path}; run it as the agent's user") from None
        except (OSError, ValueError) as error:
            await self.close()
            raise FeedAway(getattr(error, "strerror", None) or str(error)) from error
        if "error" in answer:
            await self.close()
            raise FeedAway(str(answer["error"]))
        return answer

    async def close(self) -> None:
        """May be asked again afterwards."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].transport.abort()

    async def _asked(self, query: Query) -> dict[str, Any]:
        if self._streams is None:
            with reachable(self._path) as address:
                self._streams = await asyncio.open_unix_connection(address, limit=ANSWER_BYTES_MAX)
        reader, writer = self._streams
        writer.write(query.model_dump_json().encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ValueError("it hung up")
        answer: dict[str, Any] = json.loads(line)
        return answer


async def everything(source: Asked, query: Query) -> dict[str, Any]:
    """As `ask`, with all rows that match, in as many questions as it takes."""
    answer = await source.ask(query.model_copy(update={"offset": 0, "limit": ROWS_MAX}))
    rows = answer["values"]["rows"]
    while len(rows) < answer["values"]["found"]:
        more = await source.ask(query.model_copy(update={"offset": len(rows), "limit": ROWS_MAX}))
        if not more["values"]["rows"]:
            break
        rows += more["values"]["rows"]
    return answer

"""Answers viewers on this machine over a Unix socket: a line of JSON asks, a line of JSON answers.

Nobody is told anything unasked, so nothing is queued for anybody: a viewer that reads slowly asks less often, and one
that takes nothing is let go. What goes wrong here is said once and never stops the agent.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.live.address import reachable
from agent.live.query import Query
from protocols.program.logs import get_logger
from protocols.uplink.status import first_fault

CLIENTS_MAX = 16
QUESTION_BYTES_MAX = 4096
PATIENCE_S = 60.0
"""A viewer asks every second; one that says nothing, or takes nothing, for so long is let go."""

RETRY_S = 30.0

_log = get_logger(part="live")


class LiveServer:
    """`look` makes an answer. The socket's path must be ours alone: whatever lies there is replaced."""

    def __init__(self, path: Path, look: Callable[[Query], dict[str, Any]]) -> None:
        self._path = path
        self._look = look
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def clients(self) -> int:
        """How many viewers are connected."""
        return len(self._clients)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._serve()
            except OSError as error:
                _log.warning(
                    "nobody can watch the agent; it goes on", path=str(self._path), reason=error.strerror or str(error)
                )
            await asyncio.sleep(RETRY_S)

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._met, sock=_listening(self._path), limit=QUESTION_BYTES_MAX)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            self._path.unlink(missing_ok=True)
            for client in self._clients:
                client.cancel()
            if self._clients:
                await asyncio.wait(self._clients)

    def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= CLIENTS_MAX:
            writer.write(_line({"error": f"{CLIENTS_MAX} viewers look already; close one"}))
            writer.close()
            return
        client = asyncio.create_task(self._answer(reader, writer), name="viewer")
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while question := await self._question(reader):
                writer.write(_line(self._answered(question)))
                async with asyncio.timeout(PATIENCE_S):
                    await writer.drain()
        except (OSError, TimeoutError, ValueError):  # gone, or takes nothing; ValueError: a line without an end
            pass
        finally:
            writer.transport.abort()

    async def _question(self, reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await reader.readline()

    def _answered(self, question: bytes) -> dict[str, Any]:
        try:
            return self._look(Query.model_validate_json(question))
        except ValidationError as error:
            return {"error": first_fault(error)}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"


def _listening(path: Path) -> socket.socket:
    """A socket that only this user can connect to. Raises OSError."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        with reachable(path) as address:
            listening.bind(address)
        path.chmod(0o600)
        listening.listen(CLIENTS_MAX)
    except OSError:
        listening.close()
        raise
    return listening

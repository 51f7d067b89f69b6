"""The two real programs in processes of their own, and a Modbus device that counts how often it was asked."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HOST = "127.0.0.1"
PATIENCE_S = 60.0


class Program:
    """`holdfast run` or `holdfast-cloud run` with a configuration file; its log goes beside it.

    `environ`: what it has besides this process's own.
    """

    def __init__(self, module: str, config: Path, environ: Mapping[str, str] | None = None) -> None:
        self.config = config
        self.environ = dict(environ or {})
        self.log = config.with_suffix(".log")
        self._command = [sys.executable, "-m", module, "run", "--config", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            environ = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environ | self.environ)

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(PATIENCE_S)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None


@asynccontextmanager
async def programs(*all_of: Program, devices: Sequence[CountingDevice] = ()) -> AsyncIterator[None]:
    """Ends whatever of them still runs."""
    try:
        yield
    finally:
        for program in all_of:
            program.kill()
        for device in devices:
            await device.stop()


def write_yaml(path: Path, value: Any) -> Path:
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


async def until(what: str, condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait for something to come true; the test fails if it does not."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, f"waited {patience_s:.0f} s in vain: {what}"
        await asyncio.sleep(0.05)


@dataclass
class CountingDevice:
    """A Modbus TCP device: holding registers 0–1 are the number of this read, big-endian; every read counts on.

    `served`: the counts whose answers were written to the line, which is the record that nobody else can falsify;
    `served_at_s`: when, in seconds since 1970.
    """

    port: int = 0
    served: list[int] = field(default_factory=list)
    served_at_s: list[float] = field(default_factory=list)
    requests: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                transaction, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                request = await reader.readexactly(length - 1)
                function, _, count = struct.unpack(">BHH", request)
                self.requests += 1
                registers = struct.pack(">I", self.requests).ljust(2 * count, b"\0")[: 2 * count]
                body = struct.pack(">BBB", unit, function, len(registers)) + registers
                writer.write(struct.pack(">HHH", transaction, 0, len(body)) + body)
                self.served.append(self.requests)
                self.served_at_s.append(time.time())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


def counter_settings(device: CountingDevice, name: str, machine: str, period_s: float) -> dict[str, Any]:
    """The agent's settings for a counting device."""
    tags: Sequence[dict[str, Any]] = [{"name": f"{name}.count", "address": "holding:0", "type": "uint32"}]
    return {
        "name": name,
        "machine": machine,
        "protocol": "modbus",
        "host": HOST,
        "port": device.port,
        "groups": [{"period_s": period_s, "tags": list(tags)}],
    }

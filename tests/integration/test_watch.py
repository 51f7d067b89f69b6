"""`holdfast watch` against real agents: it reads from the agent, and never opens a connection to a device of its own.

A wait here has a limit only so that a failure says where it waited; no time is asserted.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.live import server as live_server
from agent.live.address import NAME, PATH_BYTES_MAX
from agent.live.client import FeedAway, LiveClient, everything
from agent.live.query import Query
from agent.live.server import CLIENTS_MAX, QUESTION_BYTES_MAX, LiveServer
from tests.support.brokers import free_port, mosquitto
from tests.support.modbus_servers import Unit, plc
from tests.support.programs import CountingDevice, Program, counter_settings, programs, until
from tests.support.toolbox import SYNCHRONISED, Toolbox, configuration, modbus_device, toolbox, write

PATIENCE_S = 30.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.live.direct", "agent.live.live", "agent.screen.draw") as prepared:
        yield prepared


@asynccontextmanager
async def running(folder: Path, *devices: dict[str, Any], broker_port: int | None = None) -> AsyncIterator[Program]:
    """An agent with these devices that has begun to answer viewers."""
    own = {"data_dir": str(folder / "data"), "shutdown_drain_s": 0}
    write(folder, configuration(*devices, broker_port=broker_port or free_port()) | SYNCHRONISED | own)
    agent = Program("agent.cli", folder / "agent.yaml")
    async with programs(agent):
        agent.start()
        await until("the agent can be watched", lambda: (folder / "data" / NAME).exists())
        yield agent


async def view_until(folder: Path, wanted: Any, query: Query | None = None) -> dict[str, Any]:
    """What the agent shows, once it is as wanted."""
    client = LiveClient(folder / "data" / NAME)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not wanted(view := await client.ask(query or Query())):  # noqa: ASYNC110  # it answers when asked
                await asyncio.sleep(0.05)
        return view
    finally:
        await client.close()


def is_rated(view: dict[str, Any]) -> bool:
    return (view["devices"][0]["requests_per_s"] or 0) > 1


def marks(view: dict[str, Any]) -> list[str | None]:
    return [station["mark"] for station in view["line"]]


# ── the feed of a real agent ────────────────────────────────────────────────────────────────────────────────────────


async def test_values_line_and_rates_come_from_the_agent_over_its_one_connection(
    holdfast: Toolbox, tmp_path: Path
) -> None:
    device = CountingDevice()
    await device.start()
    async with programs(devices=[device]), mosquitto(tmp_path / "mq") as broker:
        settings = counter_settings(device, "press", "press-1", 0.1)
        async with running(tmp_path, settings, broker_port=broker.port) as agent:
            view = await view_until(tmp_path, lambda found: marks(found) == ["ok"] * 5 and is_rated(found))
            [row] = view["values"]["rows"]
            assert [row[key] for key in ("tag", "quality", "address")] == ["press.count", "good", "holding:0"]
            assert row["value"] in device.served
            said = await holdfast.run(tmp_path, "watch", "--once", "--json")
            assert said.code == 0, said.err
            assert said.json["values"]["rows"][0]["value"] > row["value"]
            text = await holdfast.run(tmp_path, "watch", "--once")
            assert "press.count" in text.out
            assert "✓ PLC" in text.out
            assert max(map(len, text.out.splitlines())) <= 80
            assert len(device._writers) == 1  # the agent's connection, and no other
            assert agent.stop() == 0
            assert not (tmp_path / "data" / NAME).exists()  # a planned stop takes the socket away


async def test_what_breaks_is_told_with_its_reason(tmp_path: Path) -> None:
    unit = Unit()
    unit.put("holding", 0, struct.pack(">h", 7))
    tags = [{"name": "there", "address": 40001}, {"name": "hole", "address": 40200}]
    async with (
        plc({1: unit}) as server,
        mosquitto(tmp_path / "mq") as broker,
        running(tmp_path, modbus_device("press", server.port, *tags), broker_port=broker.port),
    ):
        well = ["ok", "bad", "ok", "ok"]
        view = await view_until(tmp_path, lambda found: marks(found)[:4] == well, Query(wrong=True))
        assert [row["tag"] for row in view["values"]["rows"]] == ["hole"]
        [reason] = view["line"][1]["reasons"]
        assert "exception 2, illegal data address" in reason["text"]
        assert reason["fix"].startswith("check the address")
        await broker.stop()
        await server.cut()
        view = await view_until(tmp_path, lambda found: marks(found) == ["bad", None, "ok", "bad", None])
        assert view["line"][3]["reasons"][0]["text"].startswith("not connected: ")
        view = await view_until(tmp_path, lambda found: found["outbox"]["queued_messages"] > 0)


async def test_a_viewer_that_takes_nothing_costs_the_agent_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_server, "PATIENCE_S", 1.0)
    large = {"rows": ["x" * 1000] * 1000}
    answered = 0

    def look(_: Query) -> dict[str, Any]:
        nonlocal answered
        answered += 1
        return large

    feed = LiveServer(tmp_path / NAME, look)
    serving = asyncio.create_task(feed.run(), name="feed")
    await until("it listens", (tmp_path / NAME).exists)
    reader, writer = await asyncio.open_unix_connection(tmp_path / NAME)
    writer.write(b"{}\n" * 300)  # and never a look at the answers
    await until("the first question is answered", lambda: answered > 0)
    other = LiveClient(tmp_path / NAME)
    assert await other.ask(Query()) == large
    await other.close()
    await until("the slow one is let go", lambda: feed.clients == 0)
    assert answered < 20  # what its socket could hold, and no more
    writer.transport.abort()
    reader.feed_eof()
    serving.cancel()
    await asyncio.wait([serving])
    assert feed.clients == 0


@asynccontextmanager
async def feeding(path: Path, answer: dict[str, Any]) -> AsyncIterator[LiveServer]:
    feed = LiveServer(path, lambda _: answer)
    serving = asyncio.create_task(feed.run(), name="feed")
    await until("it listens", path.exists)
    try:
        yield feed
    finally:
        serving.cancel()
        await asyncio.wait([serving])


async def asked(path: Path) -> None:
    """A viewer that gets its answer, and goes."""
    client = LiveClient(path)
    assert await client.ask(Query()) == {"ok": True}
    await client.close()


async def test_hostile_questions_get_a_sentence_or_nothing(tmp_path: Path) -> None:
    async with feeding(tmp_path / NAME, {"ok": True}) as feed:
        for question in (
            b"x\n",
            b'{"limit":1e9}\n',
            b'{"filter":"' + b"x" * 500 + b'"}\n',
            b"\xff\xfe\n",
            b"[" * 4000 + b"\n",
        ):
            reader, writer = await asyncio.open_unix_connection(tmp_path / NAME)
            writer.write(question)
            assert "error" in json.loads(await reader.readline())
            writer.close()
        reader, writer = await asyncio.open_unix_connection(tmp_path / NAME)
        writer.write(b"x" * (4 * QUESTION_BYTES_MAX))  # a line without an end
        assert await reader.read() == b""
        writer.close()
        await asked(tmp_path / NAME)
        await until("they have gone", lambda: feed.clients <= 1)


async def test_only_so_many_look_at_once_and_only_this_user_may(tmp_path: Path) -> None:
    async with feeding(tmp_path / NAME, {"ok": True}) as feed:
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
        clients = [LiveClient(tmp_path / NAME) for _ in range(CLIENTS_MAX + 1)]
        for client in clients[:-1]:
            await client.ask(Query())
        with pytest.raises(FeedAway, match="16 viewers look already"):
            await clients[-1].ask(Query())
        await clients[0].close()
        await until("there is room again", lambda: feed.clients < CLIENTS_MAX)
        await clients[-1].ask(Query())
        for client in clients:
            await client.close()


async def test_a_long_path_does_as_well(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    assert len(os.fsencode(deep / NAME)) > PATH_BYTES_MAX
    async with feeding(deep / NAME, {"ok": True}):
        await asked(deep / NAME)


async def test_a_folder_where_nothing_can_be_made_is_said_once(tmp_path: Path) -> None:
    feed = LiveServer(tmp_path / "missing" / NAME, lambda _: {})
    serving = asyncio.create_task(feed.run(), name="feed")
    await asyncio.sleep(0.1)
    assert not serving.done()  # the agent goes on, and tries again
    serving.cancel()
    await asyncio.wait([serving])


async def test_more_tags_than_one_answer_holds_are_asked_for_in_parts(tmp_path: Path) -> None:
    tags = [{"name": f"t{at:04}", "address": 40001 + at} for at in range(1201)]
    async with running(tmp_path, modbus_device("press", free_port(), *tags)):
        client = LiveClient(tmp_path / "data" / NAME)
        view = await everything(client, Query(filter="t"))
        assert [row["tag"] for row in view["values"]["rows"]] == [tag["name"] for tag in tags]
        await client.close()


# ── without an agent, or beside one ─────────────────────────────────────────────────────────────────────────────────


async def test_without_an_agent_it_says_what_to_do(holdfast: Toolbox, tmp_path: Path) -> None:
    write(tmp_path, configuration(modbus_device("press", free_port())))
    said = await holdfast.run(tmp_path, "watch", "--once")
    assert (said.code, said.out) == (69, "")
    assert "no agent runs with data_dir data; start it" in said.flat
    assert "holdfast watch --direct" in said.flat


async def test_direct_polls_the_devices_itself_and_stores_nothing(holdfast: Toolbox, tmp_path: Path) -> None:
    unit = Unit()
    unit.put("holding", 0, struct.pack(">h", 42))
    async with plc({1: unit}) as server:
        write(tmp_path, configuration(modbus_device("press", server.port)))
        said = await holdfast.run(tmp_path, "watch", "--direct", "--once", "--json")
    assert said.code == 0, said.err
    assert said.json["values"]["rows"][0]["value"] == 42
    assert said.json["agent"]["is_direct"] is True
    assert [station["mark"] for station in said.json["line"]] == ["ok", "ok", None, None, None]
    assert not (tmp_path / "data" / "outbox").exists()


def watched_into(path: Path) -> subprocess.Popen[bytes]:
    """`holdfast watch --direct`, whose views go into a file."""
    command = [sys.executable, "-m", "agent.cli", "watch", "--direct", "--json", "--interval", "0.5"]
    with path.open("wb") as views:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, cwd=path.parent, env=environ, stdout=views, stderr=views)


async def test_direct_is_refused_beside_an_agent_and_ends_when_one_starts(holdfast: Toolbox, tmp_path: Path) -> None:
    device = modbus_device("press", free_port())
    write(tmp_path, configuration(device) | {"data_dir": str(tmp_path / "data")})
    watching = watched_into(tmp_path / "views")
    await until("it watches", lambda: (tmp_path / "views").stat().st_size > 0)
    async with running(tmp_path, device):
        await until("it gives way", lambda: watching.poll() is not None)
        assert watching.returncode == 75
        assert "an agent was started here" in (tmp_path / "views").read_text().splitlines()[-3]
        said = await holdfast.run(tmp_path, "watch", "--direct", "--once")
        assert said.code == 64
        assert "leave out --direct" in said.flat


async def test_the_full_screen_needs_a_terminal(holdfast: Toolbox, tmp_path: Path) -> None:
    write(tmp_path, configuration(modbus_device("press", free_port())))
    said = await holdfast.run(tmp_path, "watch")
    assert said.code == 64
    assert "--once for text" in said.flat


# ── in a pseudo-terminal ────────────────────────────────────────────────────────────────────────────────────────────


class Terminal:
    """A command in a pseudo-terminal of 80 by 24."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.seen = b""
        self._primary, secondary = pty.openpty()
        size = struct.pack("HHHH", 24, 80, 0, 0)
        import fcntl
        import termios

        fcntl.ioctl(secondary, termios.TIOCSWINSZ, size)
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", *words],
            cwd=folder, env=environ, stdin=secondary, stdout=secondary, stderr=secondary, start_new_session=True,
        )  # fmt: skip
        os.close(secondary)
        os.set_blocking(self._primary, False)

    def type(self, keys: str) -> None:
        os.write(self._primary, keys.encode())

    def shows(self, text: str) -> bool:
        while True:
            try:
                more = os.read(self._primary, 65536)
            except (BlockingIOError, OSError):  # OSError: the command has ended
                return text.encode() in self.seen
            self.seen += more

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._primary)


async def test_it_draws_in_a_terminal_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    unit = Unit()
    unit.put("holding", 0, struct.pack(">h", 4711))
    async with plc({1: unit}) as server, running(tmp_path, modbus_device("press", server.port)) as agent:
        terminal = Terminal(tmp_path, "watch")
        try:
            await until("values show", lambda: terminal.shows("4711"))
            assert terminal.shows("PLC")
            assert "\x1b[31" not in terminal.seen.decode()  # NO_COLOR
            agent.stop()
            await until("it says that it is not live", lambda: terminal.shows("not live since"))
            agent.start()
            terminal.type("?")
            await until("the help shows", lambda: terminal.shows("these keys"))
            terminal.type("q")
            await until("it ends", lambda: terminal.shows("") and terminal.process.poll() is not None)
            assert terminal.process.returncode == 0
            assert terminal.shows("\x1b[?1049l")  # the screen that was there before
        finally:
            terminal.close()

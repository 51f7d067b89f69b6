"""The agent's own page: real agents with real devices and a real broker, asked over HTTP.

A wait here has a limit only so that a failure says where it waited; no time is asserted.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession

from agent import settings as agent_settings
from agent.commands import check_host
from agent.findings import Mark
from agent.live.live import Live
from agent.live.query import Query
from agent.page import server
from agent.page.server import CLIENTS_MAX, Page
from agent.page.service import PageService
from agent.page.traces import Traces
from agent.poller import DeviceState
from agent.settings import PageSettings
from protocols.program.listening import PageError
from tests.support import pages
from tests.support.brokers import free_port, mosquitto
from tests.support.modbus_servers import Unit, plc
from tests.support.programs import Program, programs, until
from tests.support.toolbox import SYNCHRONISED, configuration, modbus_device, write

PATIENCE_S = 30.0
ROOT = Path(__file__).parents[2]
PAGE = PageSettings(host="127.0.0.1", port=0, names=("gw.example.com",))
TAGS: list[dict[str, Any]] = [{"name": "level", "address": 40001, "unit": "m"}, {"name": "hole", "address": 40200}]


class Polling:
    """A device that nobody polls."""

    state = DeviceState("ok", 1)
    requests = 0


class Looked(Live):
    """Counts how often somebody looked."""

    looks = 0
    padding = ""

    def look(self, query: Query) -> dict[str, Any]:
        self.looks += 1
        return super().look(query) | {"padding": self.padding}


def looked(folder: Path) -> Looked:
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(configuration(modbus_device("press", 1, *TAGS))))
    return Looked(agent_settings.read(path, environ={}), {"press": Polling()})


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Page, Looked, ClientSession]]:
    live = looked(folder)
    async with Page(live, Traces(), PAGE) as page, ClientSession() as session:
        yield page, live, session


async def first_view(session: ClientSession, url: str, query: str = "") -> dict[str, Any]:
    """The first event of the live feed."""
    async with session.get(f"{url}events{query}") as answer:
        assert answer.content_type == "text/event-stream"
        lines = [(await answer.content.readline()).decode().strip() for _ in range(2)]
    assert lines[0] == "event: view"
    view: dict[str, Any] = json.loads(lines[1].removeprefix("data: "))
    return view


# ── the server ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_files_headers_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with serving(tmp_path) as (page, _, session):
        await pages.files_are_served(session, page.url, "agent.page")
        for at in ("", "page.js", "api/state", "api/plot", "events", "healthz", "nothing"):
            await pages.forbids_what_is_not_ours(session, page.url + at)
        async with session.post(page.url) as answer:
            assert answer.status == 405
    pages.need_nothing_else("agent.page")
    pages.only_make_text("agent.page")


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.1:8470", 200), ("localhost", 200), ("gw.example.com", 200), ("evil.example.com", 421), ("[::1]:1", 200)],
)
async def test_only_known_names_are_answered(tmp_path: Path, host: str, code: int) -> None:
    async with serving(tmp_path) as (page, _, session):
        for at in ("", "events", "api/state", "api/plot?device=press&tag=level"):
            async with session.get(page.url + at, headers={"Host": host}) as answer:
                assert answer.status == code
                if code == 421:
                    assert "page.names" in await answer.text()


async def test_questions_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (page, _, session):
        for at in (
            "events?limit=501", "api/state?offset=-1", "api/state?filter=" + "x" * 201, "api/state?other=1", "api/plot",
            "api/plot?device=press&tag=nothing", "api/plot?device=press&tag=level&after=x",
            "api/plot?device=press&tag=level&after=" + "9" * 30,
        ):  # fmt: skip
            async with session.get(page.url + at) as answer:
                assert answer.status == 400, at
                assert "error" in await answer.json()


async def test_a_browser_that_takes_nothing_is_let_go_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PERIOD_S", 0.001)
    monkeypatch.setattr(server, "SEND_TIMEOUT_S", 1.0)
    async with serving(tmp_path) as (page, live, session):
        live.padding = "x" * 200_000
        slow = socket.create_connection(("127.0.0.1", int(page.url.split(":")[2].strip("/"))))
        slow.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until("it is served", lambda: page.clients == 1)
        await until("it is let go", lambda: page.clients == 0)
        assert live.looks < 200  # what its socket could hold, and no more
        live.padding = ""
        assert (await first_view(session, page.url))["agent"]["thing"] == "gw-1"
        slow.close()


async def test_only_so_many_browsers_look_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (page, _, session):
        async with asyncio.timeout(PATIENCE_S):
            answers = [await session.get(f"{page.url}events") for _ in range(CLIENTS_MAX)]
        async with session.get(f"{page.url}events") as answer:
            assert answer.status == 503
        for one in answers:
            one.close()
        await until("they have gone", lambda: page.clients == 0)


async def test_a_port_in_use_is_said_and_the_agent_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as (page, live, _):
        port = int(page.url.split(":")[2].strip("/"))
        taken = PageSettings(host="127.0.0.1", port=port)
        with pytest.raises(PageError, match=rf"the agent's page at 127.0.0.1:{port}: the port is in use.*page\.port"):
            await Page(live, Traces(), taken).__aenter__()
        trying = asyncio.create_task(PageService(live, taken).run(), name="page")
        await asyncio.sleep(0.1)
        assert not trying.done()
        trying.cancel()
        await asyncio.wait([trying])


async def test_check_says_whether_it_can_be_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as (page, _, _):
        taken = PageSettings(port=int(page.url.split(":")[2].strip("/")))
        found = check_host.page(taken, is_running=False)
        assert (found.mark, found.fix) == (Mark.BAD, "stop what listens there, or set page.port to another")
        assert check_host.page(taken, is_running=True).mark is Mark.OK
    assert check_host.page(taken, is_running=False).mark is Mark.OK
    assert check_host.page(PageSettings(host="0.0.0.0", port=0), is_running=False).mark is Mark.NOTE  # noqa: S104


# ── with a real agent ───────────────────────────────────────────────────────────────────────────────────────────────


def at_port(agent: Program) -> str | None:
    """The page's address, by the agent's log."""
    found = re.search(r"url=(http://\S+)", agent.log.read_text()) if agent.log.exists() else None
    return None if found is None else found[1]


async def view_until(session: ClientSession, url: str, marks: list[str | None]) -> dict[str, Any]:
    """What the agent shows, once its stations are as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with session.get(f"{url}api/state") as answer:
                view: dict[str, Any] = await answer.json()
            if [station["mark"] for station in view["line"]] == marks:
                return view
            await asyncio.sleep(0.1)


async def test_a_real_agent_shows_its_line_values_plot_and_reasons(tmp_path: Path) -> None:
    unit = Unit()
    unit.put("holding", 0, struct.pack(">h", 7))
    async with plc({1: unit}) as device, mosquitto(tmp_path / "mq") as broker, ClientSession() as session:
        document = configuration(modbus_device("press", device.port, *TAGS), broker_port=broker.port) | SYNCHRONISED
        write(tmp_path, document | {"data_dir": str(tmp_path / "data"), "page": {"port": 0}, "shutdown_drain_s": 0})
        agent = Program("agent.cli", tmp_path / "agent.yaml")
        async with programs(agent):
            agent.start()
            await until("it serves its page", lambda: at_port(agent) is not None)
            url = str(at_port(agent))
            view = await view_until(session, url, ["ok", "bad", "ok", "ok", "ok"])
            assert "illegal data address" in view["line"][1]["reasons"][0]["text"]
            view = await first_view(session, url, "?filter=level")
            assert [(row["tag"], row["value"], row["unit"]) for row in view["values"]["rows"]] == [("level", 7, "m")]
            await plotted(session, url)
            await broker.stop()
            await device.cut()
            view = await view_until(session, url, ["bad", None, "ok", "bad", None])
            assert all(reason["fix"] for station in view["line"] for reason in station["reasons"])
            async with session.get(f"{url}healthz") as answer:
                assert (await answer.json())["status"] == "ok"  # a restart would bring nothing back
            assert agent.stop() == 0


async def plotted(session: ClientSession, url: str) -> None:
    """Readings arrive in the plot of a tag that is looked at."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with session.get(f"{url}api/plot", params={"device": "press", "tag": "level"}) as answer:
                points = (await answer.json())["points"]
            if len(points) > 1:
                break
            await asyncio.sleep(0.2)
    assert [value for _, value in points] == [7.0] * len(points)
    assert points[0][0] < points[1][0]


def started(folder: Path, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "agent.cli", "run", "-c", "agent.yaml"]
        return subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)


async def test_without_the_extra_the_agent_says_so_and_goes_on(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "aiohttp.py").write_text("raise ModuleNotFoundError('not here', name='aiohttp')\n")
    document = configuration(modbus_device("press", free_port())) | {"data_dir": str(tmp_path / "data")}
    write(tmp_path, document | {"page": {"port": 0}, "shutdown_drain_s": 0})
    environ = {**os.environ, "PYTHONPATH": f"{hidden}:{ROOT}"}
    agent = started(tmp_path, environ)
    try:
        wanted = "install it with: pip install 'holdfast[page]'"
        await until("it says what is missing", lambda: wanted in (tmp_path / "log").read_text())
        await until("it tells of itself", lambda: (tmp_path / "data" / "status.json").exists())
        assert agent.poll() is None
    finally:
        agent.terminate()
        assert agent.wait(PATIENCE_S) == 0


def test_an_agent_without_a_page_imports_neither_aiohttp_nor_textual() -> None:
    program = "import sys, agent.main; print([m for m in ('aiohttp', 'textual', 'rich') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert said.stdout.strip() == "[]"

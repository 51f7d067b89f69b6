"""`holdfast capture`: through the running agent, and by itself where none runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.capture import control
from agent.capture.control import Request, State
from agent.capture.readings import decoded
from agent.capture.recorder import Recorder, RecorderFailed
from agent.capture.records import Capture, Header, joined
from agent.capture.ring import read_file
from agent.capture.service import CaptureService
from agent.commands import capture_run
from agent.commands.capture_run import Job
from agent.poller import Poller
from agent.settings import read
from protocols.field.contract import Happening, Tap
from protocols.field.memory import MemoryDriver
from protocols.program.console import Failure
from tests.support.modbus_servers import Exchange, scripted
from tests.support.programs import Program, programs
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write

HEADER = Header("tcp", "10.0.0.5:502", "holdfast 1", "now", {})


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.capture", "agent.commands.capture_run", "agent.commands.replay") as prepared:
        yield prepared


def sent(capture: Capture) -> list[bytes]:
    return [record.content for record in capture.records if record.happening is Happening.SENT]


def plant(port: int, **keys: Any) -> dict[str, Any]:
    """A configuration with one device that is read every 0.1 s."""
    device = modbus_device("plc", port, **keys)
    device["groups"][0]["period_s"] = 0.1
    return configuration(device)


class Asked:
    """A script that answers well and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self._enough = (asyncio.Event(), 0)

    async def __call__(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        await exchange.send(exchange.answer(bytes(exchange.size)))
        if len(self.requests) >= self._enough[1]:
            self._enough[0].set()

    async def more(self, count: int) -> None:
        """Until so many more requests have come."""
        self._enough = (asyncio.Event(), len(self.requests) + count)
        async with asyncio.timeout(30):
            await self._enough[0].wait()


async def test_the_command_polls_the_device_itself(holdfast: Toolbox, tmp_path: Path) -> None:
    asked = Asked()
    async with scripted(asked) as server:
        write(tmp_path, plant(server.port))
        said = await holdfast.run(tmp_path, "capture", "plc", "--for", "1", "--json", "--out", "here.hfcap")
        assert server.connections == 1
    assert said.code == 0
    assert "no agent runs" in said.flat
    capture = read_file(tmp_path / "here.hfcap")
    assert sent(capture) == asked.requests
    assert said.json["requests"] == len(asked.requests) > 2
    assert capture.header.transport == "tcp"
    assert capture.header.device["groups"][0]["tags"] == [{"name": "plc.t", "address": 40001}]
    again = await holdfast.run(tmp_path, "capture", "plc", "--out", "here.hfcap")
    assert again.code == 64
    assert "is there already" in again.flat


async def test_a_device_that_is_away_is_recorded_too(holdfast: Toolbox, tmp_path: Path, unused_tcp_port: int) -> None:
    write(tmp_path, plant(unused_tcp_port))
    said = await holdfast.run(tmp_path, "capture", "plc", "--for", "1", "--out", "away.hfcap")
    assert said.code == 0
    records = read_file(tmp_path / "away.hfcap").records
    assert {record.happening for record in records} == {Happening.NOT_OPENED}
    assert "refused" in records[0].text


async def test_the_running_agent_records_without_losing_a_poll(holdfast: Toolbox, tmp_path: Path) -> None:
    asked = Asked()
    async with scripted(asked) as server:
        whole = {**plant(server.port, client="lean"), "data_dir": str(tmp_path / "data"), "shutdown_drain_s": 0}
        agent = Program("agent.cli", write(tmp_path, whole))
        async with programs(agent):
            agent.start()
            await asked.more(5)
            said = await holdfast.run(tmp_path, "capture", "plc", "--for", "1", "--json")
            assert said.code == 0, said.flat
            assert "the running agent records it" in said.flat
            detached = await holdfast.run(tmp_path, "capture", "plc", "--for", "600", "--detach", "--json")
            busy = await holdfast.run(tmp_path, "capture", "plc")
            await asked.more(25)
            stopped = await holdfast.run(tmp_path, "capture", "plc", "--stop", "--json", "--out", "mine.hfcap")
            nothing = await holdfast.run(tmp_path, "capture", "plc", "--stop")
            agent.stop()
        assert server.connections == 1, "there is never a second connection"
    numbers = [int.from_bytes(request[:2], "big") for request in asked.requests]
    assert {(later - number) % 65_000 for number, later in pairwise(numbers)} == {1}
    assert Path(said.json["path"]).parent == tmp_path / "data" / "captures"
    for path in (said.json["path"], "mine.hfcap"):
        recorded = sent(read_file(tmp_path / path))
        at = asked.requests.index(recorded[0])
        assert recorded == asked.requests[at : at + len(recorded)], "each request, and nothing else"
        assert len(recorded) > 5
    assert (busy.code, stopped.code, nothing.code) == (64, 0, 64)
    assert "is being recorded until" in busy.flat
    assert "nothing of plc is being recorded" in nothing.flat
    assert Path(detached.json["path"]).name in {path.name for path in (tmp_path / "data" / "captures").iterdir()}
    assert control.load(control.request_path(tmp_path / "data"), Request) is None


async def test_of_other_protocols_the_readings_are_recorded(holdfast: Toolbox, tmp_path: Path) -> None:
    tags = [{"name": "a"}, {"name": "b", "signal": "text", "text": "é" * 200}]
    simulated = {"name": "sim", "machine": "m", "protocol": "simulated", "groups": [{"period_s": 0.2, "tags": tags}]}
    write(tmp_path, configuration(simulated))
    said = await holdfast.run(tmp_path, "capture", "sim", "--for", "1", "--out", "a.hfcap")
    assert said.code == 0
    records = joined(read_file(tmp_path / "a.hfcap").records)
    assert {record.happening for record in records} == {Happening.READ}
    readings = decoded(records[0].content)
    assert readings["b"] == ("é" * 200, 0)
    assert isinstance(readings["a"].value, float)
    served = await holdfast.run(tmp_path, "replay", "a.hfcap")
    assert (served.code, "can be listed (--list), not served" in served.flat) == (64, True)


async def test_what_cannot_be_recorded_is_said(holdfast: Toolbox, tmp_path: Path) -> None:
    write(tmp_path, configuration(modbus_device("plc", 1)))
    said = await holdfast.run(tmp_path, "capture", "plx")
    assert "did you mean plc?" in said.flat
    said = await holdfast.run(tmp_path, "capture", "plc", "--detach")
    assert "no agent runs" in said.flat


async def test_an_agent_that_dies_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_run, "ANSWER_S", 0.1)
    monkeypatch.setattr(Job, "file_name", lambda job: "x.hfcap")
    found = read(write(tmp_path, {**configuration(modbus_device("plc", 1)), "data_dir": str(tmp_path)}), environ={})
    job = Job(found, found.devices[0], 0.1, 100_000, False, None)
    with pytest.raises(Failure, match="does not begin to record"):
        await capture_run.by_agent(job, asyncio.Event())
    control.save(control.state_path(tmp_path), State(name="x.hfcap", device="plc", is_over=False, records=7))
    async with asyncio.timeout(30):
        outcome = await capture_run.by_agent(job, asyncio.Event())
    assert "does not answer any more" in outcome.state.trouble
    assert control.load(control.request_path(tmp_path), Request) is None, "it is not begun by the next one"


# --- the agent's side, without a process ---


class Line(MemoryDriver):
    """A driver whose line a test makes happen."""

    tap: Tap | None = None

    def listen(self, tap: Tap | None) -> None:
        self.tap = tap


@pytest.fixture
def service(tmp_path: Path) -> CaptureService:
    found = read(write(tmp_path, {**configuration(modbus_device("plc", 1)), "data_dir": str(tmp_path)}), environ={})
    line = Line("plc", [])
    return CaptureService(found, {"plc": line}, {"plc": Poller("plc", line, [], lambda scan: None)})


async def answer_to(service: CaptureService, data_dir: Path, request: Request) -> State | None:
    control.save(control.request_path(data_dir), request)
    running = asyncio.create_task(service.run())
    await asyncio.to_thread(_gone, control.request_path(data_dir))
    running.cancel()
    await asyncio.wait([running])
    return control.load(control.state_path(data_dir), State)


def _gone(path: Path) -> None:
    while path.exists():
        time.sleep(0.01)


async def test_the_agent_says_why_it_does_not_record(service: CaptureService, tmp_path: Path) -> None:
    state = await answer_to(service, tmp_path, Request(name="x.hfcap", device="other", until_s=9e9))
    assert state is not None
    assert state.is_over and "no device of this name" in state.trouble
    (tmp_path / "captures").write_text("in the way")
    state = await answer_to(service, tmp_path, Request(name="y.hfcap", device="plc", until_s=9e9))
    assert state is not None
    assert state.is_over and "cannot be written" in state.trouble


@pytest.fixture
def line(service: CaptureService) -> Line:
    line = service._devices["plc"][1]
    assert isinstance(line, Line)
    return line


async def running(service: CaptureService, line: Line) -> asyncio.Task[None]:
    """The service's task, once it listens."""
    task = asyncio.create_task(service.run())
    async with asyncio.timeout(30):
        while line.tap is None:  # noqa: ASYNC110  # a test's driver rings no bell
            await asyncio.sleep(0.01)
    return task


async def test_a_recording_goes_on_after_a_restart(service: CaptureService, line: Line, tmp_path: Path) -> None:
    control.save(control.request_path(tmp_path), Request(name="x.hfcap", device="plc", until_s=9e9))
    for content in (b"before", b"after"):
        task = await running(service, line)
        assert line.tap is not None
        line.tap(Happening.RECEIVED, content)
        task.cancel()
        await asyncio.wait([task])
        assert line.tap is None, "nothing listens any more"
    records = read_file(tmp_path / "captures" / "x.hfcap").records
    assert [record.content for record in records] == [b"before", b"after"]
    assert control.load(control.request_path(tmp_path), Request) is not None


async def test_a_fault_ends_the_recording_where_that_is_wanted(
    service: CaptureService, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.capture.service.AFTER_FAULT_S", 0.0)
    monkeypatch.setattr("agent.capture.service.LOOK_S", 0.01)
    request = Request(name="x.hfcap", device="plc", until_s=9e9, until_fault=True)
    control.save(control.request_path(tmp_path), request)
    task = await running(service, line)
    assert line.tap is not None
    line.tap(Happening.SENT, b"?")
    await asyncio.sleep(0.05)
    assert line.tap is not None, "a question is no fault"
    line.tap(Happening.TIMED_OUT, b"")
    await asyncio.to_thread(_gone, control.request_path(tmp_path))
    task.cancel()
    await asyncio.wait([task])
    state = control.load(control.state_path(tmp_path), State)
    assert state is not None
    assert (state.is_over, state.faults, state.requests) == (True, 1, 1)
    assert len(read_file(tmp_path / "captures" / "x.hfcap").records) == 2


async def test_the_agent_keeps_its_latest_recordings(service: CaptureService, line: Line, tmp_path: Path) -> None:
    del line  # it only has to be there
    for number in range(8):
        request = Request(name=f"x{number}.hfcap", device="plc", until_s=0)
        await answer_to(service, tmp_path, request)
    kept = sorted(path.name for path in (tmp_path / "captures").iterdir())
    assert kept == [f"x{number}.hfcap" for number in range(3, 8)]


@pytest.mark.parametrize("text", ["", "{}", "[" * 9999, '{"name": "../x.hfcap", "device": "plc", "until_s": 9e9}'])
def test_a_request_that_is_none_is_none(tmp_path: Path, text: str) -> None:
    path = control.request_path(tmp_path)
    path.write_text(text)
    assert control.load(path, Request) is None


async def test_a_disk_that_fails_ends_the_recording_and_nothing_else(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "x.hfcap", HEADER, 100_000)
    await recorder.open()
    assert recorder._ring is not None
    recorder._ring.write = _full  # type: ignore[method-assign]  # the disk is full from now on
    recorder.tap(Happening.SENT, b"x")
    async with asyncio.timeout(30):
        await recorder.run()
    assert "No space left on device" in recorder.trouble
    recorder.tap(Happening.SENT, b"x")
    with pytest.raises(RecorderFailed, match="cannot be written"):
        await Recorder(tmp_path / "x.hfcap" / "y", HEADER, 100_000).open()


def _full(blocks: object) -> None:
    del blocks
    raise OSError(28, "No space left on device")

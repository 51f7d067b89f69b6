"""`holdfast why`: each step fails in its turn, against real devices, a real agent and a real broker."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.settings import read
from agent.statusfile import write_status
from protocols.uplink.status import Buffer, DeviceLink, Health, MachineNumbers, Status
from tests.support.brokers import free_port
from tests.support.modbus_servers import Exchange, Unit, plc, scripted
from tests.support.programs import Program, programs
from tests.support.toolbox import Said, Toolbox, configuration, modbus_device, toolbox, write


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.why_agent", "agent.commands.why_device", "agent.commands.readings") as prepared:
        yield prepared


TAGS: list[dict[str, Any]] = [
    {"name": "level", "address": 40001, "type": "float32", "unit": "m"},
    {"name": "swapped", "address": 40003, "type": "float32"},
    {"name": "nan", "address": 40005, "type": "float32"},
    {"name": "hole", "address": 40200},
]


def tables() -> Unit:
    unit = Unit()
    low = struct.pack(">f", 71.25)
    unit.put("holding", 0, struct.pack(">f", 23.5) + low[2:] + low[:2] + struct.pack(">f", float("nan")))
    return unit


def marks(said: Said) -> list[tuple[str, str]]:
    return [(one["step"], one["mark"]) for one in said.json["steps"]]


def step(said: Said, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in said.json["steps"] if one["step"] == name)
    return found


async def test_each_step_of_a_device_is_named_when_it_fails(holdfast: Toolbox, tmp_path: Path) -> None:
    async def silent(_: Exchange) -> None:
        """Takes every question and answers none."""

    async def hangs_up(exchange: Exchange) -> None:
        exchange.writer.close()

    async with plc({1: tables()}) as server, scripted(silent) as mute, scripted(hangs_up) as rude:
        oven = {
            "name": "oven",
            "machine": "m-oven",
            "protocol": "opcua",
            "url": f"opc.tcp://127.0.0.1:{mute.port}",
            "timeout_s": 0.5,
            "groups": [{"tags": [{"name": "temp", "node": "ns=2;i=1", "type": "float64"}]}],
        }
        devices = [
            modbus_device("press-plc", server.port, *TAGS),
            modbus_device("gone", free_port()),
            modbus_device("nameless", 502, host="no-such-host.invalid"),
            modbus_device("mute", mute.port, timeout_s=0.3),
            modbus_device("rude", rude.port, timeout_s=0.3),
        ]
        write(tmp_path, configuration(*devices, oven))
        ok = ["name", "TCP", "unit", "address", "decode"]
        for tag, stuck, passed, sentence in (
            ("swapped", "outbox", ok[:4], "with order: CDAB it is 71.25"),
            ("nan", "decode", ok[:4], "the device sent NaN"),
            ("hole", "address", ok[:3], "exception 2, illegal data address"),
            ("mute.t", "unit", ok[:2], "no answer within 0.3 s"),
            ("rude.t", "session", ok[:2], "it closed the connection"),
            ("gone.t", "TCP", ok[:1], "the connection was refused"),
            ("nameless.t", "host", ok[:1], "this host name is not known"),
            ("temp", "session", ok[:2], "whoever listens there says nothing within 0.5 s"),
        ):
            said = await holdfast.run(tmp_path, "why", tag, "--json")
            # For Modbus a line that breaks shows when the unit is asked.
            expected = "unit" if tag == "rude.t" else stuck
            assert (said.code, said.json["stuck_at"]) == (69, expected), tag
            assert [name for name, mark in marks(said) if mark == "ok"] == passed, tag
            assert sentence in said.flat, tag
        said = await holdfast.run(tmp_path, "why", "level")
    assert "✓ decode   23.5 m, " in said.out
    assert "no agent has run with data_dir data" in said.flat
    assert said.out.splitlines()[-1] == "It gets stuck at: outbox."
    assert max(map(len, said.out.splitlines())) <= 80


async def test_tags_that_are_not_there_or_twice(holdfast: Toolbox, tmp_path: Path) -> None:
    twice = [modbus_device(name, 502, {"name": "level", "address": 40001}) for name in "ab"]
    write(tmp_path, configuration(*twice))
    for name, sentence in (
        ("lvel", "there is no tag lvel in the configuration; did you mean level?"),
        ("level", "2 tags are called level; name one of a/level, b/level"),
        ("c/level", "there is no tag c/level in the configuration; did you mean level?"),
    ):
        said = await holdfast.run(tmp_path, "why", name)
        assert (said.code, said.err) == (64, sentence + "\n")
    assert (await holdfast.run(tmp_path, "why", "m-b/level", "--json")).json["device"] == "b"


async def say(
    folder: Path,
    device: dict[str, Any],
    *,
    link: str = "connected, MQTT 5",
    trouble: str = "",
    buffer: Buffer | None = None,
) -> None:
    """What a running agent's status file says."""
    now_ms = time.time_ns() // 1_000_000
    status = Status(
        timestamp=now_ms,
        state="online",
        config_hash=read(folder / "agent.yaml").hash,
        health=Health(buffer=buffer or Buffer()),
        machines={"m-press-plc": MachineNumbers(last_seq=1204, sent_seq=1204)},
        devices={"press-plc": DeviceLink(machine="m-press-plc", since=now_ms - 180_000, **device)},
    )
    (folder / "data").mkdir(exist_ok=True)
    await write_status(folder / "data" / "status.json", status, link, trouble)


async def test_while_the_agent_runs_its_word_is_taken_and_nobody_is_asked(holdfast: Toolbox, tmp_path: Path) -> None:
    async with plc({1: tables()}) as server:
        write(tmp_path, configuration(modbus_device("press-plc", server.port, *TAGS)))
        await say(tmp_path, {"state": "ok"})
        well = await holdfast.run(tmp_path, "why", "level", "--json")
        assert (well.code, well.json["stuck_at"]) == (0, None)
        assert marks(well) == [(name, "ok") for name in ("name", "device", "outbox", "broker", "receiver")]
        hole = "holding 199 (40200): the PLC answered exception 2, illegal data address; check the address"
        await say(tmp_path, {"state": "bad", "reason": f"one tag fails: {hole}"})
        assert (await holdfast.run(tmp_path, "why", "hole", "--json")).json["stuck_at"] == "address"
        other = await holdfast.run(tmp_path, "why", "level", "--json")
        assert (other.code, step(other, "device")["mark"]) == (0, "ok")
        await say(tmp_path, {"state": "bad", "reason": f"2 tags fail, such as: {hole}"})
        unsure = await holdfast.run(tmp_path, "why", "level")
        assert unsure.code == 0
        assert "holdfast why press-plc/level --ask (opens a second connection)" in unsure.flat
        assert "No step fails; what is marked ! could not be proved." in unsure.out
        assert server.asked == []
        asked = await holdfast.run(tmp_path, "why", "level", "--ask")
        assert "a second connection beside the running agent's" in asked.err
        assert "✓ decode" in asked.out
        assert len(server.asked) == 1
    away = "press-plc (modbus 127.0.0.1:1, unit 1): the connection was refused; check the address and the port."
    await say(tmp_path, {"state": "away", "reason": away})
    gone = await holdfast.run(tmp_path, "why", "level", "--json")
    assert gone.json["stuck_at"] == "TCP"
    assert step(gone, "TCP")["details"] == ["so says the running agent, for 3 min"]


async def test_what_comes_behind_the_device(holdfast: Toolbox, tmp_path: Path) -> None:
    write(tmp_path, configuration(modbus_device("press-plc", 1, *TAGS)))
    await say(
        tmp_path, {"state": "ok"}, link="not connected", trouble="MQTT broker h:1: connection refused; check host"
    )
    broker = await holdfast.run(tmp_path, "why", "level", "--json")
    assert (broker.json["stuck_at"], step(broker, "broker")["fix"]) == ("broker", "check host")
    waiting = Buffer(queued_messages=17, bytes=20_000, oldest_sec=300)
    await say(tmp_path, {"state": "ok"}, buffer=waiting)
    receiver = await holdfast.run(tmp_path, "why", "level", "--json")
    assert receiver.json["stuck_at"] == "receiver"
    assert "has had no confirm for 5 min" in step(receiver, "receiver")["text"]
    await say(tmp_path, {"state": "ok"}, buffer=waiting.model_copy(update={"oldest_sec": 3}))
    assert (await holdfast.run(tmp_path, "why", "level")).code == 0
    content = json.loads((tmp_path / "data" / "status.json").read_text())
    content["status"]["configHash"] = "another"
    (tmp_path / "data" / "status.json").write_text(json.dumps(content))
    changed = await holdfast.run(tmp_path, "why", "level", "--json")
    assert step(changed, "name")["fix"] == "systemctl reload holdfast, then look again"


async def test_a_real_agent_that_reaches_no_broker(holdfast: Toolbox, tmp_path: Path) -> None:
    async with plc({1: tables()}) as server:
        document = configuration(modbus_device("press-plc", server.port, TAGS[0], TAGS[3]), broker_port=free_port())
        document |= {"data_dir": str(tmp_path / "data"), "shutdown_drain_s": 0, "batch": {"interval_s": 0}}
        agent = Program("agent.cli", write(tmp_path, document))
        async with programs(agent):
            agent.start()
            said = await eventually(holdfast, tmp_path, "level", "broker", "of machine m-press-plc stored")
            # The agent itself is asked for this very tag, though another one of the device fails.
            assert step(said, "unit")["mark"] == "ok"
            assert step(said, "decode")["text"].startswith("by the running agent's word: 2")
            assert "connection refused" in step(said, "broker")["text"]
            said = await eventually(holdfast, tmp_path, "hole", "address", "exception 2")
            assert step(said, "address")["text"].startswith("by the running agent's word: ")


async def eventually(holdfast: Toolbox, folder: Path, tag: str, stuck_at: str, sentence: str) -> Said:
    """Ask why until it says so: a real agent takes a moment to begin."""
    end_s = time.monotonic() + 30
    while True:
        said = await holdfast.run(folder, "why", tag, "--json")
        if said.json["stuck_at"] == stuck_at and sentence in said.flat:
            return said
        assert time.monotonic() < end_s, said.out
        await asyncio.sleep(0.2)

"""`holdfast write`: only what is writable, only when a person says so, and read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import free_port
from tests.support.modbus_servers import Exchange, scripted
from tests.support.terminal import in_terminal
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.write", "agent.commands.why", "agent.commands.polling") as made:
        yield made


TAGS: list[dict[str, Any]] = [
    {"name": "setpoint", "address": 40001, "type": "int16", "scale": 0.1, "unit": "°C", "writable": True,
     "write_min": 0.0, "write_max": 80.0},
    {"name": "fixed", "address": 40002},
]  # fmt: skip


class Registers:
    """A device whose holding registers can be written; it keeps the functions that it was asked for."""

    def __init__(self) -> None:
        self.held = [235, 7]
        self.functions: list[int] = []

    async def __call__(self, exchange: Exchange) -> None:
        function, address = exchange.request[7], int.from_bytes(exchange.request[8:10], "big")
        self.functions.append(function)
        if function == 3:
            words = self.held[address : address + exchange.size // 2]
            await exchange.send(exchange.answer(b"".join(word.to_bytes(2, "big") for word in words)))
            return
        if function == 6:
            self.held[address] = int.from_bytes(exchange.request[10:12], "big")
        else:
            self.held[address] = int.from_bytes(exchange.request[13:15], "big")
        await exchange.send(exchange.request[:4] + b"\0\6" + exchange.request[6:12])


async def test_a_writable_tag_is_written_once_and_read_back(holdfast: Toolbox, tmp_path: Path) -> None:
    device = Registers()
    async with scripted(device) as server:
        write(tmp_path, configuration(modbus_device("press-plc", server.port, *TAGS)))
        said = await holdfast.run(tmp_path, "write", "setpoint", "42.5", "--yes", "--json")
        assert (said.code, said.json["before"], said.json["after"]) == (0, 23.5, 42.5), said
        assert device.held == [425, 7]
        assert sorted(device.functions)[:2] == [3, 3]
        assert len([function for function in device.functions if function in (6, 16)]) == 1
        assert server.connections == 1
        text = await holdfast.run(tmp_path, "write", "press-plc/setpoint", "40", "-y")
        assert text.out == "setpoint of press-plc was 42.5 °C,\nand is 40 °C now, as the device says.\n"


async def test_the_value_is_typed_again_before(tmp_path: Path) -> None:
    device = Registers()
    async with scripted(device) as server:
        write(tmp_path, configuration(modbus_device("press-plc", server.port, *TAGS)))
        question = "setpoint of press-plc is 23.5. Type 42.5 to write it:"
        refused = await in_terminal(tmp_path, "write", "setpoint", "42.5", answers={question: "y"})
        assert (refused.code, device.held) == (1, [235, 7])
        assert "nothing was written" in refused.text
        agreed = await in_terminal(tmp_path, "write", "setpoint", "42.5", answers={question: "42.5"})
        assert (agreed.code, device.held) == (0, [425, 7]), agreed
        assert "and is 42.5 °C now, as the device says." in agreed.flat
        beyond = await in_terminal(tmp_path, "write", "setpoint", "99", "--yes")
        assert (beyond.code, beyond.widest <= 80) == (69, True), "a long sentence ends its lines between words"
        assert "not written, 99 is outside what may be written, 0 to 80" in beyond.flat


async def test_nothing_else_is_ever_written(holdfast: Toolbox, tmp_path: Path) -> None:
    device = Registers()
    async with scripted(device) as server:
        simulated = {"name": "sim", "machine": "m-sim", "protocol": "simulated", "groups": [{"tags": [{"name": "s"}]}]}
        gone = modbus_device("gone", free_port(), {**TAGS[0], "name": "g"})
        write(tmp_path, configuration(modbus_device("press-plc", server.port, *TAGS), simulated, gone))
        for arguments, code, sentence in (
            (("fixed", "1", "-y"), 69, "not writable; set `writable: true`"),
            (("setpoint", "99", "-y"), 69, "80"),
            (("setpoint", "warm", "-y"), 69, "setpoint"),
            (("setpoint", "42"), 64, "nobody is here to agree; add --yes"),
            (("s", "1", "-y"), 64, "sim: its driver (simulated) only reads"),
            (("g", "1", "-y"), 69, "the connection was refused"),
            (("setpiont", "1", "-y"), 64, "did you mean setpoint?"),
        ):
            said = await holdfast.run(tmp_path, "write", *arguments)
            assert (said.code, said.out) == (code, ""), said
            assert sentence in said.err
            assert len(said.err.splitlines()) == 1
    assert device.held == [235, 7]
    assert set(device.functions) <= {3}

"""`holdfast plan` foretells what the driver then sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.modbus_servers import Unit, plc
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.plan_lines") as prepared:
        yield prepared


TAGS: list[dict[str, Any]] = [
    {"name": "a", "address": 40001, "type": "float32"},
    {"name": "b", "address": 40010, "type": "int64"},
    {"name": "c", "address": 40100},
    {"name": "d", "address": "coil:3"},
    {"name": "e", "address": "input:0", "unit_id": 7},
]


async def test_the_plan_is_what_the_driver_sends(holdfast: Toolbox, tmp_path: Path) -> None:
    unit, other = Unit(), Unit()
    unit.put("holding", 0, bytes(2 * 120))
    unit.coil = dict.fromkeys(range(16), True)
    other.put("input", 0, b"\0\1")
    async with plc({1: unit, 7: other}) as server:
        write(tmp_path, configuration(modbus_device("press-plc", server.port, *TAGS)))
        planned = await holdfast.run(tmp_path, "plan", "press-plc", "--json")
        assert (planned.code, server.asked) == (0, [])
        read = await holdfast.run(tmp_path, "read", "press-plc", "--json")
        assert {tag["quality"] for tag in read.json["tags"]} == {"good"}
        asked = [(one.unit_id, one.function, one.address, one.count) for one in server.asked]
    function = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
    [group] = planned.json["groups"]
    foretold = [(one["unit_id"], function[one["table"]], one["address"], one["count"]) for one in group["requests"]]
    assert sorted(foretold) == sorted(asked)
    assert planned.json["can_be_kept"] is True
    assert [one["tags"] for one in group["requests"] if one["unit_id"] == 7] == [["e"]]


async def test_what_cannot_be_kept_is_said(holdfast: Toolbox, tmp_path: Path) -> None:
    device = modbus_device("press-plc", 502, *TAGS)
    device["groups"][0]["period_s"] = 0.2
    opcua: dict[str, Any] = {"name": "oven", "machine": "oven-1", "protocol": "opcua", "url": "opc.tcp://10.0.0.1"}
    nodes = [{"name": f"n{number}", "node": f"ns=2;i={number}", "type": "float64"} for number in range(201)]
    opcua["groups"] = [
        {"name": "main", "tags": nodes},
        {"name": "slow", "mode": "poll", "period_s": 10, "tags": [{"name": "x", "node": "ns=2;s=x", "type": "bool"}]},
    ]
    simulated = {"name": "sim", "machine": "sim-1", "protocol": "simulated", "groups": [{"tags": [{"name": "s"}]}]}
    write(tmp_path, configuration(device, opcua, simulated))
    said = await holdfast.run(tmp_path, "plan", "press-plc", "--answer", "5", "--baud", "1200")
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80
    assert "✗ cannot be kept: the connection would have to be busy for" in said.flat
    assert "Assumed: 5 ms from each question to its answer" in said.flat
    as_json = await holdfast.run(tmp_path, "plan", "press-plc", "--answer", "5", "--baud", "1200", "--json")
    assert as_json.json["can_be_kept"] is False
    easy = await holdfast.run(tmp_path, "plan", "press-plc", "--answer", "5")
    assert "✗" not in easy.out
    assert "holding 0–12 (40001–40013)" in easy.out
    nodes_plan = await holdfast.run(tmp_path, "plan", "oven", "--json")
    assert [(one["requests_at_connect"], one["requests_per_s"]) for one in nodes_plan.json["groups"]] == [
        (3, 1.0),
        (0, 0.1),
    ]
    wrong = await holdfast.run(tmp_path, "plan", "pres-plc")
    assert (wrong.code, wrong.err) == (
        64,
        "there is no device pres-plc in the configuration; did you mean press-plc?\n",
    )
    none = await holdfast.run(tmp_path, "plan", "sim")
    assert (none.code, none.err) == (64, "sim: its driver (simulated) has no plan to show\n")

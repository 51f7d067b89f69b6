"""The OPC UA driver against node-opcua, a server that is not written in Python.

It is installed by npm on the first run; without npm or its registry these tests are skipped, and say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from protocols.field import opcua, opcua_security
from protocols.field.contract import DeviceAway, DeviceRefused, Group, Quality, Value
from protocols.field.opcua_trust import approve
from tests.support.node_opcua import Missing, NodeOpcua, node_opcua

pytestmark = pytest.mark.timeout(180)  # no measurement: the first run installs the server

Latest = dict[str, tuple[Value, int, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[NodeOpcua]:
    try:
        with node_opcua() as running:
            yield running
    except Missing as error:
        pytest.skip(f"NOT TESTED AGAINST A SECOND OPC UA SERVER: node-opcua is not here: {error}")


def group(mode: str, tags: dict[str, dict[str, Any]]) -> Group:
    made = tuple(
        opcua.tag(
            opcua.TagSettings.model_validate({"name": name, **keys, "node": f"nsu=urn:plant:press;s={keys['node']}"})
        )
        for name, keys in tags.items()
    )
    return Group("press", "fast", 0.05, made, opcua.GroupSettings.model_validate({"mode": mode}))


def driver(url: str, of: Group, pki: Path | None = None, **more: object) -> opcua.OpcuaDriver:
    plc = opcua.driver("plc-1", opcua.Settings.model_validate({"url": url, "timeout_s": 20.0, **more}), [of])
    if pki is not None:
        plc.keep_in(pki)
    return plc


async def read_until(plc: opcua.OpcuaDriver, of: Group, enough: Callable[[Latest], bool] = lambda _: True) -> Latest:
    latest: Latest = {}
    while len(latest) < len(of.tags) or not enough(latest):
        for scan in await plc.read(of):
            indexes = range(len(scan)) if scan.indexes is None else scan.indexes
            for at, value, code in zip(indexes, scan.values, scan.quality or [0] * len(scan), strict=True):
                latest[of.tags[at].name] = value, code, scan.reasons.get(at, "")
        await asyncio.sleep(0.02)
    return latest


EXPECTED: dict[str, tuple[dict[str, Any], Value]] = {
    "level": ({"node": "Level", "type": "int"}, -7),
    "total": ({"node": "Total", "type": "uint"}, (1 << 32) + 2),
    "running": ({"node": "Running", "type": "bool"}, True),
    "recipe": ({"node": "Recipe", "type": "string"}, "Nougat"),
    "label": ({"node": "Label", "type": "string"}, "Presse"),
    "since": ({"node": "Since", "type": "string"}, "2026-03-01T12:00:00.250000Z"),
    "code": ({"node": "Code", "type": "string"}, "01ab"),
    "second": ({"node": "Curve", "part": "[1]", "type": "float64"}, 2.0),
    "state": ({"node": "State", "type": "string"}, "Running"),
    "state_number": ({"node": "State", "type": "int"}, 1),
    "name": ({"node": "Robot", "part": "name", "type": "string"}, "Anna"),
    "speed": ({"node": "Robot", "part": "axes[1].speed", "type": "float64"}, 2.5),
    "axis_state": ({"node": "Robot", "part": "axes[0].state", "type": "int"}, 1),
    "travel": ({"node": "Robot", "part": "axes[0].travel", "type": "float64"}, 9.0),
    "limit": ({"node": "Robot", "part": "limits[0]", "type": "int"}, -1),
}


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_values_of_every_kind(server: NodeOpcua, mode: str) -> None:
    of = group(mode, {name: keys for name, (keys, _) in EXPECTED.items()})
    plc = driver(server.url, of)
    await plc.connect()
    latest = await read_until(plc, of)
    assert {name: (value, code) for name, (value, code, _) in latest.items()} == {
        name: (value, Quality.GOOD) for name, (_, value) in EXPECTED.items()
    }
    # Another encoder's bytes are cut out as exactly: the Variant's type, its array bit, the value.
    seen = await plc.inspect(of)
    raw = {each.name: one.raw for each, one in zip(of.tags, seen.evidence, strict=True)}
    assert raw["running"] == b"\x01\x01"
    assert raw["recipe"] == b"\x0c\x06\0\0\0Nougat"
    assert (raw["second"][0], len(raw["second"])) == (0x80 | 0x0B, 1 + 4 + 2 * 8)
    assert raw["name"] == raw["speed"], "parts of one node come out of the same bytes"
    await plc.close()


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("Basic256Sha256", "Sign"),
        ("Basic256Sha256", "SignAndEncrypt"),
        ("Aes128_Sha256_RsaOaep", "SignAndEncrypt"),
        ("Aes256_Sha256_RsaPss", "SignAndEncrypt"),
    ],
)
async def test_every_policy_with_a_password(server: NodeOpcua, tmp_path: Path, policy: str, mode: str) -> None:
    of = group("subscribe", {"level": {"node": "Level", "type": "int"}})
    more = {"security_policy": policy, "security_mode": mode, "username": "operator"}
    plc = driver(server.url, of, tmp_path / "opcua", **more, password="se cret")
    with pytest.raises(DeviceRefused, match="nobody has approved the server's certificate yet"):
        await plc.connect()
    settings = opcua.Settings.model_validate({"url": server.url, **more, "timeout_s": 20.0})
    found = await opcua_security.endpoints(settings, "plc-1", lambda: None)
    der = opcua_security.certificate_shown(found, settings)
    assert der is not None
    approve(tmp_path / "opcua", settings.endpoint, der, "", datetime.now(UTC))
    await plc.connect()
    assert (await read_until(plc, of))["level"][0] == -7
    await plc.close()
    wrong = driver(server.url, of, tmp_path / "opcua", **more, password="secret")
    with pytest.raises(DeviceRefused, match="rejected user operator"):
        await wrong.connect()


async def test_deadbands_are_the_servers(server: NodeOpcua) -> None:
    tags: dict[str, dict[str, Any]] = {
        "absolute": {"node": "Temperature", "type": "float64", "deadband": 2.0},
        "percent": {"node": "Pressure", "type": "float64", "deadband_percent": 10.0},  # of 200
        "no_range": {"node": "Temperature", "type": "float64", "deadband_percent": 10.0},
        "every": {"node": "Temperature", "type": "float64"},
    }
    of = group("subscribe", tags)
    plc = driver(server.url, of)
    server.set("Temperature", 71.5)
    await plc.connect()
    first = await read_until(plc, of)
    assert (first["absolute"][0], first["percent"][0]) == (71.5, 50.0)
    assert first["no_range"][1] >> 31 == 1 and "no_range" in first
    assert "deadband" in first["no_range"][2]
    for step in (72.5, 73.0, 75.0):
        server.set("Pressure", 50.0 + (step - 71.5) * 9)
        server.set("Temperature", step)
        latest: Latest = {}
        while latest.get("every", (0,))[0] != step or (step == 75.0 and len(latest) < 3):
            for scan in await plc.read(of):
                for at, value in zip(scan.indexes or (), scan.values, strict=True):
                    latest[of.tags[at].name] = value, 0, ""
            await asyncio.sleep(0.02)
        small = {"every"} if step < 75.0 else {"every", "absolute", "percent"}
        assert set(latest) == small
    await plc.close()


async def test_a_killed_server_comes_back(server: NodeOpcua) -> None:
    of = group("subscribe", {"level": {"node": "Level", "type": "int"}})
    plc = driver(server.url, of)
    await plc.connect()
    await read_until(plc, of)
    await asyncio.to_thread(server.stop)
    with pytest.raises(DeviceAway):
        await read_until(plc, of, lambda _: False)
    await asyncio.to_thread(server.start)
    await plc.connect()
    assert (await read_until(plc, of))["level"] == (-7, Quality.GOOD, "")
    await plc.close()

"""`holdfast commission` against real devices and a real broker."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from protocols.field.opcua_trust import approve, fingerprint
from tests.support.brokers import mosquitto
from tests.support.modbus_servers import Plc, Unit, plc
from tests.support.opcua_server import OpcuaServer, opcua_server
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.commission_report", "agent.toolbox.report_page", "protocols.field.opcua") as prepared:
        yield prepared


@pytest.fixture
async def press() -> AsyncIterator[Plc]:
    unit, meter = Unit(), Unit()
    unit.put("holding", 0, struct.pack(">fhH", 23.5, 187, 7))
    meter.put("input", 0, struct.pack(">f", 231.0))
    async with plc({1: unit, 7: meter}) as server:
        yield server


TAGS: list[dict[str, Any]] = [
    {"name": "level", "address": 40001, "type": "float32", "unit": "mm"},
    {"name": "oil", "address": 40003, "type": "int16", "scale": 0.1, "unit": "°C"},
    {"name": "power", "address": "input:0", "type": "float32", "unit_id": 7},
]
LOST = {"name": "lost", "address": "holding:90"}


async def test_a_good_plant_is_signed_for(holdfast: Toolbox, tmp_path: Path, press: Plc) -> None:
    write(tmp_path, configuration(modbus_device("press-plc", press.port, *TAGS)))
    report = tmp_path / "report.html"
    said = await holdfast.run(
        tmp_path, "commission", "--by", "Anna Muster", "--reads", "3", "-o", "report.html", "--json"
    )
    found = said.json
    [device] = found["devices"]
    assert (device["trouble"], device["facts"]["units"]) == ("", "1, 7")
    assert {tag["name"]: (tag["raw"], tag["value"], tag["unit"], tag["quality"]) for tag in device["tags"]} == {
        "level": ("41bc0000", 23.5, "mm", "good"),
        "oil": ("00bb", 18.7, "°C", "good"),
        "power": ("43670000", 231.0, "", "good"),
    }
    assert device["tags"][0]["place"] == "holding 0–1 (40001–40002)"
    assert device["groups"][0]["plan"] == [
        "unit 1, holding 0–2 (40001–40003)",
        "unit 7, input 0–1 (30001–30002)",
    ]
    assert (device["latency"]["requests"], device["groups"][0]["requests"]) == (6, 2)
    assert 0 < device["latency"]["min_ms"] <= device["latency"]["median_ms"] <= device["latency"]["max_ms"]
    assert len(press.asked) == 6
    assert {one.function for one in press.asked} == {3, 4}, "it only reads"
    # Nobody listens where the broker should be: that is open, and the only thing but for this machine's clock.
    assert [line for line in found["summary"]["open"] if not line.startswith("clock: ")] == [
        "broker 127.0.0.1:1: connection refused; check host and port, and that the broker runs"
    ]
    assert said.code == 69
    text = report.read_text(encoding="utf-8")
    assert "Anna Muster" in text and "41 BC 00 00" in text
    again = await holdfast.run(tmp_path, "commission", "-o", "report.html")
    assert again.code == 64
    assert "report.html is there already, and may have been signed" in again.flat
    assert len(press.asked) == 6, "what cannot be written is not asked for"


async def test_what_is_open_is_said_on_80_columns(holdfast: Toolbox, tmp_path: Path, press: Plc) -> None:
    devices = [
        modbus_device("press-plc", press.port, *TAGS, LOST),
        modbus_device("away", 1, {"name": "a", "address": 40001}),
    ]
    write(tmp_path, configuration(*devices))
    said = await holdfast.run(tmp_path, "commission", "--reads", "2")
    assert said.code == 69
    assert max(map(len, said.out.splitlines())) <= 80
    assert "3 of 5 tags are good." in said.flat
    assert "✗ press-plc: lost: holding 90 (40091): the PLC answered exception 2, illegal data address" in said.flat
    assert "✗ away (modbus 127.0.0.1:1, unit 1): the connection was refused" in said.flat
    [report] = await asyncio.to_thread(lambda: list(tmp_path.glob("commission-gw-1-*.html")))
    assert report.name in said.flat
    only = await holdfast.run(tmp_path, "commission", "away", "--json")
    assert [one["name"] for one in only.json["devices"]] == ["away"]
    assert "1 of the configuration's 2 devices were left out" in only.json["summary"]["notes"]
    wrong = await holdfast.run(tmp_path, "commission", "awa")
    assert (wrong.code, wrong.err) == (64, "there is no device awa in the configuration; did you mean away?\n")
    nowhere = await holdfast.run(tmp_path, "commission", "-o", "no/such/report.html")
    assert (nowhere.code, "is no directory" in nowhere.err) == (64, True)


async def test_derived_tags_are_tried_too(holdfast: Toolbox, tmp_path: Path, press: Plc) -> None:
    """Whichever device of the machine they are made of, and whoever is read first."""
    first, second = (modbus_device(name, press.port, machine="m-1") for name in ("first", "second"))
    first["groups"][0] |= {
        "tags": [{"name": "oil", "address": 40003, "type": "int16", "scale": 0.1, "median_of": 3}],
        "derived": [{"name": "sum", "expression": "oil + word", "unit": "K"}, {"name": "growth", "rate_of": "oil"}],
    }
    second["groups"][0]["tags"] = [{"name": "word", "address": 40004}]
    write(tmp_path, configuration(first, second))
    said = await holdfast.run(tmp_path, "commission", "--reads", "2", "--json")
    tags = {tag["name"]: tag for device in said.json["devices"] for tag in device["tags"]}
    assert {name: (tag["value"], tag["quality"]) for name, tag in tags.items()} == {
        "oil": (18.7, "good"),
        "word": (7, "good"),
        "sum": (25.7, "good"),
        "growth": (0, "good"),
    }
    assert (tags["sum"]["place"], tags["sum"]["type"], tags["sum"]["raw"]) == ("oil + word", "derived", "")
    assert tags["oil"]["type"] == "int16, filtered"
    first["timeout_s"] = 2.0
    write(tmp_path, configuration(first, second))
    other = await holdfast.run(tmp_path, "commission", "--reads", "1", "--json")
    assert "uses the same endpoint with other settings (timeout_s)" in other.json["devices"][1]["trouble"], (
        "as the agent"
    )
    alone = await holdfast.run(tmp_path, "commission", "first", "--reads", "1", "--json")
    reasons = {tag["name"]: tag["reason"] for tag in alone.json["devices"][0]["tags"]}
    assert reasons["sum"] == "it is made of word, not read"
    assert reasons["growth"].startswith("a rate needs two readings")


@pytest.fixture
async def oven() -> AsyncIterator[OpcuaServer]:
    async with opcua_server() as server:
        await server.set("Temperature", 71.5, source=datetime.now(UTC))
        yield server


async def test_every_certificate_has_its_fingerprint(holdfast: Toolbox, tmp_path: Path, oven: OpcuaServer) -> None:
    authority = trustme.CA()
    issued, own = authority.issue_cert("127.0.0.1"), authority.issue_cert("gw-1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    own.private_key_pem.write_to_path(tmp_path / "own.key")
    own.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    lines = f"cafile {tmp_path}/ca.pem\ncertfile {tmp_path}/server.pem\nkeyfile {tmp_path}/server.key"
    approve(tmp_path / "data" / "opcua", oven.url, oven.certificate, "CN=press", datetime.now(UTC))
    tags = [
        {"name": "temperature", "node": "nsu=urn:plant:press;s=Temperature", "type": "float64", "unit": "°C"},
        {"name": "none", "node": "ns=2;s=NoSuchNode", "type": "float64"},
    ]
    device = {"name": "oven", "machine": "oven-1", "protocol": "opcua", "url": oven.url, "timeout_s": 5.0}
    device |= {"security_policy": "Basic256Sha256", "groups": [{"period_s": 0.5, "tags": tags}]}
    async with mosquitto(tmp_path / "broker", config=lines) as broker:
        document = configuration(device, broker_port=broker.port)
        files = {"ca_file": "ca.pem", "cert_file": "own.pem", "key_file": "own.key"}
        document["broker"]["tls"] = {key: str(tmp_path / name) for key, name in files.items()}
        write(tmp_path, document)
        said = await holdfast.run(tmp_path, "commission", "--json")
    found = said.json
    assert found["broker"]["trouble"] == ""
    assert found["broker"]["server_sha256"] == fingerprint(_der(tmp_path / "server.pem"))
    assert found["broker"]["client_sha256"] == fingerprint(_der(tmp_path / "own.pem"))
    [one] = found["devices"]
    assert one["facts"]["server certificate, SHA-256"] == fingerprint(oven.certificate)
    assert one["facts"]["client certificate, SHA-256"] == fingerprint(
        (tmp_path / "data" / "opcua" / "client.der").read_bytes()
    )
    good, bad = one["tags"]
    assert (good["raw"], good["value"], good["type"]) == ("0b" + struct.pack("<d", 71.5).hex(), 71.5, "Double")
    assert (bad["quality"], bad["status"]) == ("bad", "BadNodeIdUnknown")
    assert one["groups"][0]["plan"] == ["subscribed: the server reports changes"]
    assert json.dumps(found)


def _der(path: Path) -> bytes:
    from agent.certificate import first

    return first(path)

"""`holdfast browse` against asyncua's own server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.settings import read
from tests.support.brokers import free_port
from tests.support.opcua_server import opcua_server
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.browse_walk", "agent.commands.device_file", "agent.toolbox.merging") as made:
        yield made


async def test_the_tree_with_values_and_a_filter(holdfast: Toolbox, tmp_path: Path) -> None:
    async with opcua_server() as server:
        said = await holdfast.run(tmp_path, "browse", server.url, "--filter", "Te*")
        assert said.code == 0
        assert max(map(len, said.out.splitlines())) <= 80
        lines = [" ".join(line.split()) for line in said.out.splitlines()]
        assert "ns=2 urn:plant:press" in lines
        assert "└─ Temperature 71.5 Double ns=2;s=Temperature" in lines
        assert lines[-1] == "1 node like Te*"
        everything = await holdfast.run(tmp_path, "browse", server.url, "--json")
        nodes = {node["node"]: node for node in everything.json["nodes"]}
        assert everything.json["complete"] is True
        press = "nsu=urn:plant:press;s="
        assert (nodes[f"{press}Pressure"]["type"], nodes[f"{press}Pressure"]["value"]) == ("Float", 2.5)
        assert nodes[f"{press}Label"]["value"] == "Presse"
        assert nodes[f"{press}Curve"]["array"] is True
        # As a tag would have them.
        assert (nodes[f"{press}Code"]["value"], nodes[f"{press}Since"]["value"][-1]) == ("01ab", "Z")
        assert nodes[f"{press}Robot"]["value"]["Name"] == "Anna"
        assert "BadSensorFailure" in nodes[f"{press}Broken"]["trouble"]
        assert nodes["nsu=urn:plant:oven;s=Temperature"]["value"] == 900.0
        assert not [node for node in nodes if node.startswith("i=")]  # the standard's own
        assert max(server.read_sizes) <= 200
        few = await holdfast.run(tmp_path, "browse", server.url, "--max", "3")
        assert "! There is more: raise --depth or --max" in few.flat
        own = await holdfast.run(tmp_path, "browse", server.url, "--node", "i=2253", "--depth", "1", "--no-values")
        assert "ServerStatus" in own.out
        assert server.connections == 0  # each has said goodbye
        assert server.sessions == 0


async def test_chosen_variables_become_tags_that_can_be_read(holdfast: Toolbox, tmp_path: Path) -> None:
    path = write(tmp_path, configuration(modbus_device("press-plc", 502)))
    async with opcua_server() as server:
        listed = await holdfast.run(tmp_path, "browse", server.url, "--tags", "-f", "Item1*")
        assert listed.out.splitlines()[0] == '- {name: Item1, node: "nsu=urn:plant:press;s=Item1", type: int}'
        parts = await holdfast.run(tmp_path, "browse", server.url, "--tags", "-f", "Robot")
        assert "! no tags: Robot (without a value, an array or a structure: of those take a part with" in parts.flat
        written = await holdfast.run(tmp_path, "browse", server.url, "--write", "oven", "-f", "*e*", "--json")
        names = [tag["name"] for tag in written.json["tags"]]
        assert {"Temperature", "OvenTemperature", "Recipe", "Since"} <= set(names)
        assert {"Curve", "Broken"} <= set(written.json["unfit"])
        tried = await holdfast.run(tmp_path, "device", "test", "oven")
        assert f"{len(names)} of {len(names)} tags good" in tried.out
        # By the device's name now; what is a tag already is left alone.
        again = await holdfast.run(tmp_path, "browse", "oven", "--write", "oven", "-f", "*e*")
        assert "agent.yaml was left as it is: nothing new to write" in again.out
        more = await holdfast.run(tmp_path, "browse", "oven", "--write", "oven", "-f", "Count", "-g", "slow")
        assert "1 tags of oven stand in agent.yaml now" in more.out
    device = read(path).device("oven")
    assert device is not None
    assert [[tag.name for tag in group.tags] for group in device.groups] == [names, ["Count"]]


async def test_what_cannot_be_browsed_is_one_sentence(holdfast: Toolbox, tmp_path: Path) -> None:
    write(tmp_path, configuration(modbus_device("press-plc", 502)))
    async with opcua_server() as server:
        for arguments, code, sentence in (
            ((f"opc.tcp://127.0.0.1:{free_port()}",), 69, "the connection was refused; check the port"),
            (("http://x",), 64, "is no address of an OPC UA server; write opc.tcp://host:port/path"),
            (("press-plc",), 64, "press-plc is neither an address nor an OPC UA device of the configuration"),
            ((server.url, "--node", "ns=9;i=1"), 64, "the server has only 4 namespaces"),
            ((server.url, "--node", "x"), 64, "'x' is no node id"),
            ((server.url, "--username", "u", "--password-file", "no.file"), 69, "no.file cannot be read"),
        ):
            said = await holdfast.run(tmp_path, "browse", *arguments)
            assert (said.code, said.out) == (code, ""), said
            assert sentence in said.err
            assert len(said.err.splitlines()) == 1

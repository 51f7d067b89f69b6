"""Node-RED with node-red-contrib-modbus, from npm, in a directory of its own.

Its flow is what a careful person draws: per device twelve read nodes of 125 registers each, a function node that
decodes a block's buffer by hand, and an MQTT node (QoS 1) that publishes the values as JSON, one message per block. It
has no storage: what the broker does not take is gone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench import scenario
from bench.peers import ENVIRONMENTS, Arrival
from bench.peers.thingsboard import disk_bytes
from bench.processes import HOST, Process, RunFailed, carry_out, free_ports
from bench.scenario import Load
from bench.subscriber import Message, Role

# The newest of each that runs on Node.js 20 and comes whole from the npm registry: later versions of the Modbus nodes
# take a dependency from somewhere else.
PACKAGES = ("node-red@4", "node-red-contrib-modbus@5.23.3")
_HOME = ENVIRONMENTS / "node-red"
_RED = _HOME / "node_modules" / "node-red" / "red.js"
_TOPIC = "bench"

_DECODE = """
const b = msg.responseBuffer.buffer, plan = %s, values = {};
for (const [name, at, kind] of plan) {
    values[name] = kind === 'f' ? b.readFloatBE(at) : kind === 'i' ? b.readInt16BE(at)
        : kind === 'q' ? Number(b.readBigUInt64BE(at)) : b.readUInt32BE(at);
}
return {topic: '%s', payload: JSON.stringify({timestamp: Date.now(), values})};
"""


class NodeRed:
    name = "Node-RED (no storage)"
    role: Role = "record"
    acl: tuple[str, ...] = ()
    fastest_s = 0.05

    def missing(self) -> str:
        if shutil.which("node") is None or shutil.which("npm") is None:
            return "Node.js and npm are not installed here"
        return "" if (_HOME / "installed").exists() else "Node-RED is not installed; run without --quick"

    def install(self) -> None:
        if shutil.which("npm") is None:
            raise RunFailed("Node-RED cannot be installed: there is no npm")
        _HOME.mkdir(parents=True, exist_ok=True)
        (_HOME / "package.json").write_text('{"name": "bench", "private": true}\n')
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *PACKAGES]
        carry_out("the installation of Node-RED from npm", command, cwd=_HOME)
        (_HOME / "installed").touch()

    def versions(self) -> dict[str, str]:
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        found = {"node.js": node.removeprefix("v")}
        for name in ("node-red", "node-red-contrib-modbus"):
            package = json.loads((_HOME / "node_modules" / name / "package.json").read_text())
            found[name] = str(package["version"])
        return found

    def installed_bytes(self) -> tuple[int, int]:
        lock = json.loads((_HOME / "node_modules" / ".package-lock.json").read_text())
        return disk_bytes(_HOME / "node_modules"), len(lock["packages"])

    def start(self, directory: Path, load: Load, ports: list[int], broker_port: int) -> Process:
        home = directory / "user"
        home.mkdir(parents=True, exist_ok=True)
        flow = [
            {"id": "tab", "type": "tab", "label": "bench"},
            {"id": "broker", "type": "mqtt-broker", "broker": HOST, "port": str(broker_port), "clientid": "nodered"}
            | {"protocolVersion": "4", "keepalive": "60", "cleansession": True, "autoConnect": True},
            {"id": "out", "z": "tab", "type": "mqtt out", "broker": "broker", "topic": "", "qos": "1", "wires": []},
        ]
        for at, port in enumerate(ports):
            flow += _device(at, port, load)
        (home / "flows.json").write_text(json.dumps(flow))
        modules = home / "node_modules"
        if not modules.exists():
            modules.symlink_to(_HOME / "node_modules")
        (home / "settings.js").write_text(
            f"module.exports = {{flowFile: 'flows.json', uiHost: '{HOST}', uiPort: {free_ports(1)[0]}, "
            "httpAdminRoot: false, httpNodeRoot: false, logging: {console: {level: 'warn'}}};\n"
        )
        command = ["node", str(_RED), "--userDir", str(home)]
        return Process(self.name, command, directory / "node-red.log", cwd=home)

    def samples(self, messages: Iterable[Message]) -> int:
        return sum(len(values) for _, values in _values(messages))

    def has_samples(self, message: Message) -> bool:
        return message.topic == _TOPIC

    def arrivals(self, messages: Iterable[Message]) -> list[Arrival]:
        return [
            Arrival(int(values["polls"]), int(values["stamp_us"]), arrived_us)
            for arrived_us, values in _values(messages)
            if "polls" in values
        ]

    def disk_bytes(self, directory: Path) -> int:
        raise RunFailed(f"{self.name} buffers nothing on disk ({directory})")


def _values(messages: Iterable[Message]) -> Iterator[tuple[int, dict[str, Any]]]:
    for message in messages:
        if message.topic == _TOPIC:
            yield message.arrived_us, json.loads(message.payload)["values"]


def _device(at: int, port: int, load: Load) -> list[dict[str, Any]]:
    client = f"client{at}"
    nodes: list[dict[str, Any]] = [
        {
            "id": client,
            "type": "modbus-client",
            "name": f"plc-{at}",
            "clienttype": "tcp",
            "bufferCommands": True,
            "stateLogEnabled": False,
            "queueLogEnabled": False,
            "tcpHost": HOST,
            "tcpPort": str(port),
            "tcpType": "DEFAULT",
            "unit_id": "1",
            "commandDelay": "1",
            "clientTimeout": "1000",
            "reconnectOnTimeout": True,
            "reconnectTimeout": "2000",
            "parallelUnitIdsAllowed": True,
        }
    ]
    tags = scenario.mixed()
    blocks = [(start, scenario.BLOCK) for start in range(0, scenario.REGISTERS, scenario.BLOCK)]
    if load.info:
        tags += scenario.info()
        blocks.append((scenario.INFO_AT, scenario.INFO_REGISTERS))
    kinds = {"float32": "f", "int16": "i", "uint64": "q", "uint32": "u"}
    for number, (start, count) in enumerate(blocks):
        plan = [
            (tag.name, 2 * (tag.address - start), kinds[tag.type])
            for tag in tags
            if start <= tag.address < start + count
        ]
        nodes += _block(f"{at}_{number}", client, start, count, load.period_s, _DECODE % (json.dumps(plan), _TOPIC))
    return nodes


def _block(place: str, client: str, start: int, count: int, period_s: float, code: str) -> list[dict[str, Any]]:
    read = {
        "id": f"read{place}",
        "z": "tab",
        "type": "modbus-read",
        "name": "",
        "topic": "",
        "showStatusActivities": False,
        "logIOActivities": False,
        "showErrors": True,
        "unitid": "1",
        "dataType": "HoldingRegister",
        "adr": str(start),
        "quantity": str(count),
        "rate": str(round(1000 * period_s)),
        "rateUnit": "ms",
        "delayOnStart": False,
        "server": client,
        "useIOFile": False,
        "ioFile": "",
        "useIOForPayload": False,
        "emptyMsgOnFail": False,
        "wires": [[f"decode{place}"], []],
    }
    decode = {
        "id": f"decode{place}",
        "z": "tab",
        "type": "function",
        "name": "",
        "func": code,
        "outputs": 1,
        "wires": [["out"]],
    }
    return [read, decode]

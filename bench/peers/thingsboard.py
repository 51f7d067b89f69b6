"""thingsboard-gateway, from PyPI, in a virtual environment of its own.

Its widest reads are address ranges of one type: 124 registers for floats, 125 for integers, so it reads the registers'
split layout in thirteen requests. Its rate limits are off; apart from that and the storage's kind it is as it comes.
The "ThingsBoard" it talks to is mosquitto and the subscriber, which answers `getSessionLimits`. The broker must not let
it read what it publishes, because it subscribes to the topic of its own requests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from bench import scenario
from bench.peers import ENVIRONMENTS, Arrival
from bench.processes import HOST, Process, carry_out
from bench.scenario import Load
from bench.subscriber import Message, Role

PYMODBUS = "pymodbus==3.9.2"  # what it would install by itself at its first start
TOKEN = "bench"  # noqa: S105  # of a private broker that takes anybody
_TELEMETRY = "v1/gateway/telemetry"
_HOME = ENVIRONMENTS / "thingsboard"
_PYTHON = _HOME / "bin" / "python"


class ThingsBoard:
    """`storage`: of its own kinds."""

    role: Role = "thingsboard"
    fastest_s = 1.0  # one device reaches 4 polls per second; many devices together three times as much
    acl: tuple[str, ...] = (
        "topic readwrite #",  # for the subscriber, who comes without a name
        f"user {TOKEN}",
        "topic write v1/devices/me/telemetry",
        "topic write v1/devices/me/attributes",
        "topic write v1/devices/me/rpc/request/#",
        "topic read v1/devices/me/rpc/response/#",
        "topic write v1/gateway/#",
    )

    def __init__(self, storage: Literal["memory", "sqlite"]) -> None:
        self.name = f"ThingsBoard ({storage})"
        self._storage = storage

    def missing(self) -> str:
        return "" if (_HOME / "installed").exists() else "thingsboard-gateway is not installed; run without --quick"

    def install(self) -> None:
        pip = [str(_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        make = [sys.executable, "-m", "venv", str(_HOME)]
        carry_out("the installation of thingsboard-gateway from PyPI", make, [*pip, PYMODBUS, "thingsboard-gateway"])
        (_HOME / "installed").touch()

    def versions(self) -> dict[str, str]:
        packages = ("thingsboard-gateway", "pymodbus")
        code = f"import importlib.metadata as m; print(*(m.version(p) for p in {packages!r}))"
        said = subprocess.run([str(_PYTHON), "-c", code], capture_output=True, text=True, check=True).stdout
        return dict(zip(("thingsboard-gateway", "its pymodbus"), said.split(), strict=True))

    def installed_bytes(self) -> tuple[int, int]:
        packages = _HOME / "lib"
        count = sum(1 for _ in packages.rglob("*.dist-info"))
        return disk_bytes(_HOME), count

    def start(self, directory: Path, load: Load, ports: list[int], broker_port: int) -> Process:
        config = directory / "config"
        (directory / "logs").mkdir(parents=True, exist_ok=True)
        config.mkdir(exist_ok=True)
        slaves = [_slave(at, port, load) for at, port in enumerate(ports)]
        _write(config / "tb_gateway.json", self._gateway(broker_port, directory))
        _write(config / "modbus.json", {"master": {"slaves": slaves}, "logLevel": "WARNING"})
        _write(config / "logs.json", _logs())
        command = [str(_PYTHON), "-c", "from thingsboard_gateway.tb_gateway import main; main()"]
        return Process(
            self.name, command, directory / "gateway.log", cwd=directory, env={"TB_GW_CONFIG_DIR": str(config) + "/"}
        )

    def _gateway(self, broker_port: int, directory: Path) -> dict[str, Any]:
        unlimited = ("rateLimits", "dpRateLimits", "messagesRateLimits", "deviceMessagesRateLimits", "deviceRateLimits")
        thingsboard = {
            "host": HOST,
            "port": broker_port,
            "remoteShell": False,
            "remoteConfiguration": False,
            "statistics": {"enable": False},
            "maxPayloadSizeBytes": 65536,
            "minPackSendDelayMS": 50,
            "minPackSizeToSend": 500,
            "checkConnectorsConfigurationInSeconds": 60,
            "security": {"type": "accessToken", "accessToken": TOKEN},
            "qos": 1,
            "reportStrategy": {"type": "ON_RECEIVED"},
            **dict.fromkeys((*unlimited, "deviceDpRateLimits"), "0:0,"),
        }
        storage: dict[str, Any] = {"type": self._storage}
        if self._storage == "memory":
            storage |= {"read_records_count": 100, "max_records_count": 100_000}
        else:
            storage |= {"data_file_path": f"{directory / 'storage'}/", "max_read_records_count": 1000}
        connectors = [{"type": "modbus", "name": "plant", "configuration": "modbus.json"}]
        return {"thingsboard": thingsboard, "storage": storage, "grpc": {"enabled": False}, "connectors": connectors}

    def samples(self, messages: Iterable[Message]) -> int:
        return sum(len(values) for _, values in _rows(messages))

    def has_samples(self, message: Message) -> bool:
        return self.samples([message]) > 0

    def arrivals(self, messages: Iterable[Message]) -> list[Arrival]:
        return [
            Arrival(int(values["polls"]), int(values["stamp_us"]), arrived_us)
            for arrived_us, values in _rows(messages)
            if "stamp_us" in values and "polls" in values
        ]

    def disk_bytes(self, directory: Path) -> int:
        return disk_bytes(directory / "storage")


def disk_bytes(directory: Path) -> int:
    """As du counts."""
    return sum(512 * path.lstat().st_blocks for path in directory.rglob("*") if not path.is_dir())


def _rows(messages: Iterable[Message]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(arrival, values) of each set of values of one moment of one device."""
    for message in messages:
        if message.topic == _TELEMETRY:
            for rows in json.loads(message.payload).values():
                for row in rows:
                    yield message.arrived_us, row["values"]


def _slave(at: int, port: int, load: Load) -> dict[str, Any]:
    floats_at, integers_at = scenario.SPLIT_AT, scenario.SPLIT_AT + 2 * scenario.FLOATS
    timeseries: list[dict[str, Any]] = [
        _range("f_${address}", "32float", floats_at, 2 * scenario.FLOATS, 2, 124),
        _range("i_${address}", "16int", integers_at, scenario.INTEGERS, 1, 125),
    ]
    if load.info:
        for tag, registers in zip(scenario.info(), (scenario.STAMP_REGISTERS, scenario.COUNT_REGISTERS), strict=True):
            kind = f"{16 * registers}uint"
            timeseries.append(
                {"tag": tag.name, "type": kind, "address": tag.address, "objectsCount": registers, "functionCode": 3}
            )
    return {
        "host": HOST,
        "port": port,
        "type": "tcp",
        "method": "socket",
        "unitId": 1,
        "deviceName": f"plc-{at}",
        "deviceType": "default",
        "timeout": 5,
        "byteOrder": "BIG",
        "wordOrder": "BIG",
        "retries": 1,
        "pollPeriod": round(1000 * load.period_s),
        "connectAttemptTimeMs": 500,
        "connectAttemptCount": 5,
        "waitAfterFailedAttemptsMs": 30000,
        "timeseries": timeseries,
        "attributes": [],
        "attributeUpdates": [],
        "rpc": [],
    }


def _range(tag: str, kind: str, address: int, registers: int, each: int, per_request: int) -> dict[str, Any]:
    return {
        "tag": tag,
        "type": kind,
        "functionCode": 3,
        "address": f"{address}-{address + registers - 1}",
        "objectsCount": each,
        "maxRegistersPerRequest": per_request,
    }


def _logs() -> dict[str, Any]:
    handler = {"class": "logging.StreamHandler", "level": "WARNING", "stream": "ext://sys.stdout"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": handler},
        "root": {"level": "WARNING", "handlers": ["console"]},
        "loggers": {
            name: {"handlers": ["console"], "level": "WARNING", "propagate": False}
            for name in ("service", "connector", "converter", "tb_connection", "storage", "extension", "database")
        },
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1))

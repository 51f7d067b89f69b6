"""The technician's commands for tests: run while a device is served by the same test."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.cli import ROOT, Prepared, prepared

MODULES = (
    "agent.cli",
    "protocols.program.logs",
    "agent.settings",
    "agent.running",
    "agent.commands.probe_lines",
    "protocols.field.modbus_line",
)


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def flat(self) -> str:
        """Everything it said as one line, however it was wrapped."""
        return " ".join((self.out + self.err).split())


class Toolbox:
    """`holdfast`, in a folder of the test's."""

    def __init__(self, program: Prepared) -> None:
        self._program = program

    async def run(self, folder: Path, *arguments: str, **more: str) -> Said:
        """One command to its end, in a process of its own. No answer may be a traceback or a crash."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "NOTIFY_"))}
        environ = {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **more}
        ended = await asyncio.to_thread(self._program.run, arguments, cwd=folder, environ=environ)
        assert "Traceback" not in ended.out + ended.err
        assert ended.code != 70, ended.err
        return Said(ended.code, ended.out, ended.err)


@contextmanager
def toolbox(*more: str) -> Iterator[Toolbox]:
    """`more`: further modules worth importing once."""
    with prepared(*MODULES, *more) as program:
        yield Toolbox(program)


def configuration(*devices: dict[str, Any], broker_port: int = 1) -> dict[str, Any]:
    """A configuration of these devices, with `data` as its data_dir."""
    return {
        "gateway": {"thing": "gw-1", "tenant": "acme", "province": "bolzano", "plant": "plant-1"},
        "broker": {"host": "127.0.0.1", "port": broker_port},
        "data_dir": "data",
        "devices": list(devices),
    }


SYNCHRONISED: dict[str, Any] = {"clock": {"synchronised": "always"}}
"""For a configuration: the clock is as good as any, whatever this machine says of it."""


def modbus_device(name: str, port: int, *tags: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A Modbus device of machine `m-{name}` with one group of these tags."""
    group = {"name": "main", "period_s": 1.0, "tags": list(tags) or [{"name": f"{name}.t", "address": 40001}]}
    return {
        "name": name,
        "machine": f"m-{name}",
        "protocol": "modbus",
        "host": "127.0.0.1",
        "port": port,
        **keys,
        "groups": [group],
    }


def write(folder: Path, document: dict[str, Any]) -> Path:
    """As agent.yaml."""
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path

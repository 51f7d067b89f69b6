"""What `holdfast simulate` does until it is stopped."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from agent.commands.findings import terminal_cells, wrapped
from agent.commands.replay_run import listen, write_new
from agent.plant.registers import Units
from agent.settings import Configuration, Device
from agent.toolbox.rehearsal import document, modbus_at, opcua_at
from protocols.field.contract import Group
from protocols.field.modbus_line import Link
from protocols.field.modbus_server import Asked, ModbusServer, Piece, Reply, ServedTransport, framed
from protocols.field.modbus_settings import Settings as ModbusSettings
from protocols.field.opcua_settings import Settings as OpcuaSettings
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import Tasks
from protocols.program.terminal import print_json, progress, table

LOOK_S = 0.2
NAMES_SHOWN_MAX = 6

Endpoint = tuple[str, str, int]


@dataclass(slots=True)
class Row:
    """A device, and where it is served; `at` is "" where it is not."""

    device: str
    protocol: str
    at: str
    tags: int
    note: str = ""


class Rehearsal:
    """The devices, made ready. Raises Failure where none of them can be served."""

    def __init__(self, configuration: Configuration, devices: Sequence[Device]) -> None:
        self.configuration = configuration
        self.devices = devices
        self.rows: list[Row] = []
        self.units: list[Units] = []
        self._written = {
            one.name: one.model_dump(mode="json", exclude_defaults=True) for one in configuration.settings.devices
        }
        self.endpoints: dict[Endpoint, list[Device]] = {}
        for device in devices:
            if isinstance(device.settings, ModbusSettings):
                self.endpoints.setdefault(_endpoint(device.settings.link), []).append(device)
        if not any(isinstance(device.settings, ModbusSettings | OpcuaSettings) for device in devices):
            raise Failure("none of these devices speaks Modbus or OPC UA; there is nothing to serve", USAGE)

    @property
    def asked(self) -> int:
        """Requests over Modbus so far."""
        return sum(one.asked for one in self.units)

    async def start(self, host: str, port: int, stack: AsyncExitStack, tasks: Tasks) -> None:
        """Serves each endpoint, from this port on."""
        for devices in self.endpoints.values():
            port = await self._modbus(devices, host, port, stack)
        for device in self.devices:
            if isinstance(device.settings, OpcuaSettings):
                port = await self._opcua(device, host, port, stack, tasks)
            elif not isinstance(device.settings, ModbusSettings):
                note = "not served; the configuration keeps it as it is"
                self.rows.append(Row(device.name, device.protocol, "", _tags(device.groups), note))

    async def _modbus(self, devices: Sequence[Device], host: str, port: int, stack: AsyncExitStack) -> int:
        """All devices of one endpoint. The next port."""
        units = Units([(_modbus_settings(one), one.groups) for one in devices], _now_us)
        transport = _served(_modbus_settings(devices[0]).link)
        server = ModbusServer(transport, lambda asked: _reply(transport, units, asked))
        await listen(server, (host, port))
        stack.push_async_callback(server.stop)
        self.units.append(units)
        for one in devices:
            self._written[one.name] = modbus_at(self._written[one.name], transport, host, server.port)
            self.rows.append(Row(one.name, one.protocol, f"{host}:{server.port}", _tags(one.groups)))
        return port and port + 1

    async def _opcua(self, device: Device, host: str, port: int, stack: AsyncExitStack, tasks: Tasks) -> int:
        """The next port."""
        # The library takes long to import: in a thread, so that the PLCs answer meanwhile.
        await asyncio.to_thread(importlib.import_module, "asyncua")
        from agent.plant.opcua import OpcuaPlant

        plant = OpcuaPlant(device.groups)
        stack.push_async_callback(plant.stop)
        try:
            taken = await plant.start(host, port)
        except OSError as error:
            why = f"port {port} of {host} cannot be listened on ({error.strerror}); give another one with --port, or 0"
            raise Failure(why, UNAVAILABLE) from error
        tasks.spawn(f"values of {device.name}", plant.run())
        url = f"opc.tcp://{host}:{taken}/"
        self._written[device.name] = opcua_at(self._written[device.name], url)
        names = ", ".join(plant.left_out[:NAMES_SHOWN_MAX]) + (" …" if len(plant.left_out) > NAMES_SHOWN_MAX else "")
        note = f"without {names}: members of structures have no simulation" if plant.left_out else ""
        self.rows.append(Row(device.name, device.protocol, url, _tags(device.groups), note))
        return port and port + 1

    def document(self) -> str:
        """The configuration that reads it."""
        gateway = self.configuration.settings.gateway.model_dump(mode="json")
        devices = [self._written[device.name] for device in self.devices]
        return document(devices, gateway, "Reads what holdfast simulate serves.")


async def simulated_until_stopped(
    rehearsal: Rehearsal, where: tuple[str, int], write: Path | None, as_json: bool, stopping: asyncio.Event
) -> None:
    """Listens, says where, and ends when `stopping`."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it logs each client that goes away while we send
    async with AsyncExitStack() as stack, Tasks(stopping, grace_s=0) as tasks:
        with progress("making the plant"):
            await rehearsal.start(*where, stack, tasks)
        if write is not None:
            write_new(write, rehearsal.document())
        _tell(rehearsal, write, as_json)
        showing = tasks.spawn("progress", _show(rehearsal, stopping))
        await tasks.wait()
        showing.cancel()


def _tell(rehearsal: Rehearsal, write: Path | None, as_json: bool) -> None:
    if as_json:
        print_json({"devices": rehearsal.rows, "configuration": None if write is None else str(write)})
    else:
        rows = [[row.device, row.protocol, row.at or "-", row.tags] for row in rehearsal.rows]
        table(["device", "protocol", "served at", "tags"], rows)
        notes = [f"! {row.device}: {row.note}" for row in rehearsal.rows if row.note]
        if write is not None:
            notes.append(f"Run the agent with it: holdfast run --config {write}")
        notes.append("The values are made up. Ctrl-C ends it.")
        cells = terminal_cells()
        sys.stdout.write("\n".join(line for note in notes for line in wrapped(note, cells)) + "\n")
    sys.stdout.flush()


async def _show(rehearsal: Rehearsal, stopping: asyncio.Event) -> None:
    with progress("serving") as shown:
        while not stopping.is_set():
            shown.update(f"{len(rehearsal.rows)} devices, {rehearsal.asked:,} Modbus requests")
            await asyncio.sleep(LOOK_S)


def _endpoint(link: Link) -> Endpoint:
    """What is one connection to the driver is one endpoint here."""
    return _served(link), link.host.lower(), link.port


def _served(link: Link) -> ServedTransport:
    return "rtu_over_tcp" if link.transport == "rtu" else link.transport


def _modbus_settings(device: Device) -> ModbusSettings:
    if not isinstance(device.settings, ModbusSettings):
        raise TypeError(f"{device.name} is no Modbus device")
    return device.settings


def _reply(transport: ServedTransport, units: Units, asked: Asked) -> Reply:
    return Reply([Piece(0.0, framed(transport, asked, units.answer(asked)))])


def _tags(groups: Sequence[Group]) -> int:
    return sum(len(group.tags) for group in groups)


def _now_us() -> int:
    return time.time_ns() // 1000

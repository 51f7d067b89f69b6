"""Which Modbus device a technician means: one of the configuration by its name, or any host; and who else is there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import read_configuration, settings_path
from protocols.program.console import USAGE, Failure

if TYPE_CHECKING:
    from agent.settings import Configuration
    from protocols.field.modbus import Settings

MODBUS_PORT = 502


@dataclass(frozen=True, slots=True)
class Target:
    """`name`: what messages call it. `note`: a sentence on who else holds a connection to it, or empty."""

    name: str
    settings: Settings
    note: str

    @property
    def where(self) -> str:
        """The endpoint and the unit, for people."""
        return f"{self.endpoint}, unit {self.settings.unit_id}"

    @property
    def endpoint(self) -> str:
        """Host and port, or the path of a serial port."""
        link = self.settings.link
        host = f"[{link.host}]" if ":" in link.host else link.host
        return f"{host}:{link.port}" if link.port else host


def target(
    who: str, config: Path | None, assignments: Sequence[str] | None, unit_id: int | None, timeout_s: float | None
) -> Target:
    """`who`: a device's name, HOST, HOST:PORT or the path of a serial port.

    What is given goes before what the configuration says.
    """
    from protocols.field.modbus import Settings

    configuration = _configuration(config, assignments)
    device = None if configuration is None else configuration.device(who)
    settings = _given(who) if device is None else device.settings
    if not isinstance(settings, Settings):
        raise Failure(f"{who} does not speak Modbus, as this command does; name a Modbus device", USAGE)
    changed = {"unit_id": unit_id, "timeout_s": timeout_s}
    settings = settings.model_copy(update={key: value for key, value in changed.items() if value is not None})
    return Target("device" if device is None else who, settings, _note(configuration, settings))


def _configuration(config: Path | None, assignments: Sequence[str] | None) -> Configuration | None:
    """None where there is none, or none that can be used, and nobody asked for one: a host can be asked without."""
    from protocols.program.settings import SettingsError

    try:
        return read_configuration(settings_path(config), assignments)
    except (Failure, SettingsError):
        if config is not None or assignments:
            raise
        return None


def _given(who: str) -> Settings:
    from pydantic import ValidationError

    from agent.toolbox.endpoint import host_and_port
    from protocols.field.modbus import Settings

    try:
        if who.startswith("/"):
            return Settings.model_validate({"transport": "rtu", "serial_port": who})
        host, port = host_and_port(who, MODBUS_PORT)
        return Settings.model_validate({"host": host, "port": port})
    except ValidationError:
        raise Failure(f"{who!r} is no address of a device; write 10.0.0.5, or 10.0.0.5:1502", USAGE) from None
    except ValueError as error:
        raise Failure(str(error), USAGE) from None


def _note(configuration: Configuration | None, settings: Settings) -> str:
    """Whether the running agent holds a connection to the same endpoint."""
    from agent import running
    from protocols.field.modbus import Settings

    if configuration is None:
        return ""
    there = (settings.link.host, settings.link.port)
    same = [
        device.name
        for device in configuration.devices
        if isinstance(device.settings, Settings) and (device.settings.link.host, device.settings.link.port) == there
    ]
    if not same:
        return ""
    try:
        is_alive = running.look(Path(configuration.settings.data_dir), time.time()).is_alive
    except PermissionError:
        return f"{same[0]} is in the configuration; if the agent runs, this is a second connection to it"
    if not is_alive:
        return ""
    return f"the running agent is connected to it as {same[0]}; a device that takes one client only may refuse this"

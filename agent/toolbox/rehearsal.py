"""A configuration for trying out: the same devices, served on this computer, and nothing of it reaches the real cloud.

The gateway gets another name, its own data_dir beside the file, and a broker on this computer: what is made up must
never be taken for a plant's readings. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.toolbox.written import block

_LINE_KEYS = ("transport", "host", "port", "serial_port", "baudrate", "parity", "stop_bits")
_ACCESS_KEYS = (
    *("url", "security_policy", "security_mode", "username", "password", "password_file"),
    *("user_certificate", "user_key"),
)
_DESK = {"thing": "desk", "tenant": "desk", "province": "desk", "plant": "desk"}


def modbus_at(device: Mapping[str, Any], transport: str, host: str, port: int) -> dict[str, Any]:
    """The device as it is served there."""
    where: dict[str, Any] = {"host": host, "port": port}
    if transport != "tcp":
        where = {"transport": transport, **where}
    return _with(device, _LINE_KEYS, where)


def opcua_at(device: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The device as it is served there: without security, and for anybody."""
    return _with(device, _ACCESS_KEYS, {"url": url})


def _with(device: Mapping[str, Any], without: Sequence[str], where: Mapping[str, Any]) -> dict[str, Any]:
    head = {key: device[key] for key in ("name", "machine", "protocol") if key in device}
    rest = {key: value for key, value in device.items() if key not in (*head, *without, "groups")}
    return {**head, **where, **rest, "groups": device.get("groups", [])}


def document(devices: Sequence[Mapping[str, Any]], gateway: Mapping[str, Any] | None, why: str) -> str:
    """The file's text. `gateway`: the real one's names, of which tenant and plant stay; `why`: a comment's sentence."""
    named = {**_DESK, **{key: value for key, value in (gateway or {}).items() if key in _DESK}}
    if gateway is not None:
        named["thing"] = f"{named['thing'][:50]}-rehearsal"
    whole: dict[str, Any] = {
        "gateway": named,
        "broker": {"host": "127.0.0.1", "port": 1883},
        "data_dir": "rehearsal-data",
        "devices": list(devices),
    }
    return (
        f"# {why}\n# Another gateway name, a broker on this computer and a data_dir of its own: not for the plant.\n"
        + ("\n".join(block(whole, 0)) + "\n")
    )

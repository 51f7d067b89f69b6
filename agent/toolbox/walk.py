"""The way of a value from the device to the receiver, and at which of its steps a fault sits. Pure.

    name → host → TCP → session → unit → address → decode → outbox → broker → receiver

Drivers raise sentences for people. At which step a fault sits is known from these sentences; a sentence of a third
party's driver that says nothing known belongs to the first step that can have failed.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

from protocols.field.modbus_address import Table
from protocols.field.modbus_settings import Point
from protocols.field.opcua_settings import Address


class Step(StrEnum):
    """In the order in which a value passes them, but for the host's name, which is first looked up."""

    NAME = "name"
    HOST = "host"
    TCP = "TCP"
    SESSION = "session"
    UNIT = "unit"
    ADDRESS = "address"
    DECODE = "decode"
    OUTBOX = "outbox"
    BROKER = "broker"
    RECEIVER = "receiver"


_AWAY: tuple[tuple[str, Step], ...] = (
    ("host name is not known", Step.HOST),
    ("the connection was refused", Step.TCP),
    ("no connection", Step.TCP),
    ("nobody answers within", Step.TCP),
    ("cannot be reached", Step.TCP),
    ("check the unit id, and that the PLC is in RUN", Step.UNIT),
    ("it answered as unit", Step.UNIT),
)
"""What a sentence about a device that is away contains, and the step; any other is about the session."""

_DECODE = ("the device sent", "the server sends", "after scaling")
_UNIT = ("check the unit id, and that the PLC is in RUN", "because other units here do not answer")
_GATEWAY = re.compile(r"the PLC answered exception (10|11),")
_PLACE = re.compile(
    r"(?:unit (?P<unit>\d+), )?(?P<table>coil|discrete|input|holding) (?P<first>\d+)(?:–(?P<last>\d+))? \("
)
_COUNTED = re.compile(r"(?P<count>one|\d+) tags? fails?(?:, such as)?: (?P<reason>.*)", re.DOTALL)


def step_when_away(sentence: str) -> Step:
    """Where it failed, when nothing of the device could be read."""
    return next((step for text, step in _AWAY if text in sentence), Step.SESSION)


def step_of_tag(reason: str) -> Step:
    """Where it failed, when the device answered and this tag has no good value."""
    if _GATEWAY.search(reason) or any(text in reason for text in _UNIT):
        return Step.UNIT
    return Step.DECODE if any(text in reason for text in _DECODE) else Step.ADDRESS


def counted(state_reason: str) -> tuple[bool, str]:
    """What an agent says of a device whose tags fail: whether it is only one tag, and the first reason."""
    found = _COUNTED.fullmatch(state_reason)
    return (False, state_reason) if found is None else (found["count"] == "one", found["reason"])


def concerns(reason: str, address: Any, device_unit_id: int | None) -> bool | None:
    """Whether a reason is about the tag with this address; None where that cannot be told."""
    if isinstance(address, Address):
        return f"node {address.node.text}" in reason
    found = _PLACE.search(reason)
    if not isinstance(address, Point) or found is None:
        return None
    unit_id = int(found["unit"]) if found["unit"] else device_unit_id
    own_unit = device_unit_id if address.unit_id is None else address.unit_id
    first = int(found["first"])
    last = int(found["last"] or first)
    overlaps = first < address.address + address.size and address.address <= last
    return Table(found["table"]) is address.table and unit_id == own_unit and overlaps

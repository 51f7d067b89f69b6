"""What goes wrong with a Modbus device, in words for a person. Pure."""

from __future__ import annotations

import math
import os
import socket
from functools import lru_cache

from protocols.field.contract import Quality
from protocols.field.modbus_address import place
from protocols.field.modbus_codec import Encoding
from protocols.field.modbus_line import Link
from protocols.field.modbus_plan import Block
from protocols.field.modbus_settings import Point

_EXCEPTIONS = {
    1: (Quality.BAD_NOT_SUPPORTED, "illegal function", "this PLC does not serve this table; use another one"),
    2: (
        Quality.BAD_OUT_OF_RANGE,
        "illegal data address",
        "check the address and whether this PLC counts from 0 or 1",
    ),
    3: (Quality.BAD_OUT_OF_RANGE, "illegal data value", "check the address, and try a smaller max_registers"),
    4: (Quality.BAD_DEVICE_FAILURE, "server device failure", "look at the PLC's own diagnostics"),
    5: (Quality.BAD_COMMUNICATION, "acknowledge", "it is still busy with this request; read less often"),
    6: (Quality.BAD_COMMUNICATION, "server device busy", "it had no time to answer; read less often"),
    8: (Quality.BAD_DEVICE_FAILURE, "memory parity error", "look at the PLC's own diagnostics"),
    10: (Quality.BAD_COMMUNICATION, "gateway path unavailable", "check how the gateway is set up for this unit id"),
    11: (
        Quality.BAD_TIMEOUT,
        "gateway target device failed to respond",
        "check the unit id, and that the device behind the gateway is switched on",
    ),
}
"""Exception code → quality, the standard's name (Application Protocol V1.1b3, 7), what to do."""


def exception(code: int) -> tuple[int, str]:
    """Quality of a tag that the device refused with this exception, and the phrase that says so."""
    quality, name, advice = _EXCEPTIONS.get(
        code, (Quality.BAD_COMMUNICATION, "which the standard does not know", "look it up in the PLC's manual")
    )
    return quality, f"the PLC answered exception {code}, {name}; {advice}"


@lru_cache(maxsize=4096)  # what is refused mostly is so in every read
def verdict(block: Block, code: int, unit_id: int) -> tuple[int, str]:
    """Quality and reason of the tags of a block that was refused. `unit_id`: the device's own, which goes unsaid."""
    quality, phrase = exception(code)
    where = place(block.table, block.address, block.count)
    if block.unit_id != unit_id:
        where = f"unit {block.unit_id}, {where}"
    return quality, f"{where}: {phrase}"


def absent(point: Point, encoding: Encoding, sent: float | str) -> str:
    """Why what a device sent is no value: NaN, infinity, or a phrase on what it sent."""
    if isinstance(sent, str):
        return f"{place(point.table, point.address, point.size)}: the device sent {sent}"
    what = "NaN (not a number)" if math.isnan(sent) else "infinity"
    return (
        f"{place(point.table, point.address, point.size)}: the device sent {what} as {encoding.type} "
        f"{encoding.order}; it has no value now, or the type or the byte order is another"
    )


def no_connection(error: OSError | UnicodeError, link: Link) -> str:
    """Why there is no connection, and what to do."""
    if link.transport == "rtu":
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        return f"the serial port cannot be used ({reason}); check its path and rights, and that nobody else uses it."
    match error:
        case TimeoutError():
            return (
                f"no connection within {link.timeout_s:g} s; check that it is switched on, its address and the cabling."
            )
        case ConnectionRefusedError():
            return "the connection was refused; check the address and the port, and that Modbus TCP is enabled."
        case socket.gaierror() | UnicodeError():
            return "this host name is not known; check `host`, or write the IP address."
    # Without a number the name had several addresses, each with an error of its own.
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return f"no connection ({reason}); check the address and the network."

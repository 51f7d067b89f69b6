"""Modbus: reads, and where allowed writes, the four tables of one device. The protocol's face. See docs/modbus.md.

| file                                | what it holds                                                         |
|-------------------------------------|-----------------------------------------------------------------------|
| `modbus_settings`                   | what can be written about a device and its tags                       |
| `modbus_presets.yaml`               | what is known of families of devices                                  |
| `modbus_address`                    | addresses in both notations                                           |
| `modbus_codec`, `_times`, `_encode` | bytes → values, and back                                              |
| `modbus_meaning`                    | states, flags, limits, counters                                       |
| `modbus_plan`                       | which requests read all tags; dividing what a device refuses          |
| `modbus_search`, `modbus_learned`   | what that teaches, and the plan that comes of it                      |
| `modbus_request`, `modbus_frame`    | a request, and how it travels; what its answer must look like         |
| `modbus_line`, `_lean`, `_pymodbus` | an open connection: the interface, and the clients behind it          |
| `modbus_serial`                     | a serial port for the lean client                                     |
| `modbus_endpoint`, `modbus_units`   | one connection for all who use it; silent units behind it             |
| `modbus_take`                       | one read as it fills; and the same with the bytes that were sent      |
| `modbus_driver`, `modbus_errors`    | the driver that ties these together; its faults in words              |
"""

from __future__ import annotations

from collections.abc import Sequence

from protocols.field.contract import Group, StrictModel
from protocols.field.modbus_driver import ModbusDriver
from protocols.field.modbus_settings import Settings as Settings
from protocols.field.modbus_settings import TagSettings as TagSettings
from protocols.field.modbus_settings import tag as tag

GroupSettings = StrictModel


def driver(name: str, settings: Settings, groups: Sequence[Group]) -> ModbusDriver:
    """The driver of one device. Raises ValueError with a sentence when a tag does not fit into one request."""
    return ModbusDriver(name, settings, groups)

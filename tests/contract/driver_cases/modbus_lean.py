"""The same device as in `modbus`, read with the lean client."""

from __future__ import annotations

from functools import partial

from tests.contract.driver_cases import modbus

case = partial(modbus.case, "lean")

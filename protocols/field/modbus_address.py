"""Modbus addresses, in the two notations that people use, and back into words.

| table    | read with | classic reference, from 1 | PDU address, from 0 |
|----------|-----------|---------------------------|---------------------|
| coil     | 0x01      | "00001" or "000001"       | coil:0              |
| discrete | 0x02      | 10001 or 100001           | discrete:0          |
| input    | 0x04      | 30001 or 300001           | input:0             |
| holding  | 0x03      | 40001 or 400001           | holding:0           |

The classic reference has the table in its first digit and counts from 1, with four digits (to 9999) or five
(to 65536); what travels in the request is the PDU address, from 0 (MODBUS Application Protocol V1.1b3, 4.4).
Messages show both, because half of all wrong addresses are one notation taken for the other.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Table(StrEnum):
    """The four tables of a Modbus device. Coils and discrete inputs hold bits, the others 16-bit registers."""

    COIL = "coil"
    DISCRETE = "discrete"
    INPUT = "input"
    HOLDING = "holding"

    holds_bits: bool  # true for coils and discrete inputs; asked a dozen times for each tag, so kept

    def __init__(self, name: str) -> None:
        self.holds_bits = name in ("coil", "discrete")


_BY_DIGIT = {"0": Table.COIL, "1": Table.DISCRETE, "3": Table.INPUT, "4": Table.HOLDING}
_DIGIT = {table: digit for digit, table in _BY_DIGIT.items()}

LAST_ADDRESS = 65535

NOTATIONS = (
    "write the classic reference, which has the table in its first digit and counts from 1 (40001 or 400001 is the "
    'first holding register, 30001 input register, 10001 discrete input, "00001" coil), or the table and the PDU '
    "address, which counts from 0 (holding:0, input:0, discrete:0, coil:0)"
)


def parse(address: int | str) -> tuple[Table, int]:
    """The table and the PDU address (0–65535) that `address` means; raises ValueError with a sentence."""
    text = str(address)
    if found := re.fullmatch(r"(coil|discrete|input|holding):([0-9]{1,5})", text):
        table, number = Table(found[1]), int(found[2])
        if number > LAST_ADDRESS:
            raise ValueError(f"address {text} is beyond the last one, {table}:{LAST_ADDRESS}; {NOTATIONS}")
        return table, number
    if not re.fullmatch(r"[0-9]{5,6}", text) or text[0] not in _BY_DIGIT:
        raise ValueError(f"address {text!r} does not say which table it means; {NOTATIONS}")
    table, number = _BY_DIGIT[text[0]], int(text[1:])
    if number == 0:
        raise ValueError(f"address {text} does not exist, classic references count from 1; {NOTATIONS}")
    if number > LAST_ADDRESS + 1:
        last = f"{text[0]}{LAST_ADDRESS + 1}"
        raise ValueError(f"address {text} is beyond the last one, {last}; {NOTATIONS}")
    return table, number - 1


def place(table: Table, address: int, count: int) -> str:
    """Registers or bits in both notations, as `holding 10–14 (40011–40015)` or `coil 3 (00004)`."""
    last = address + count - 1
    digits = 4 if last < 9999 else 5
    first_reference = f"{_DIGIT[table]}{address + 1:0{digits}d}"
    if count == 1:
        return f"{table} {address} ({first_reference})"
    return f"{table} {address}–{last} ({first_reference}–{_DIGIT[table]}{last + 1:0{digits}d})"

"""Lists of tags as other programs export them, as tags of ours. Pure.

| program | recognised by | addresses | to |
|---|---|---|---|
| KEPServerEX | `Tag Name`, `Address`, `Data Type` | 400001, 40001.3 (a bit), 40001.20H (a text) | modbus |
| Neuron | `name`, `address`, `attribute`, `type` | 1!400001, .3 (a bit), #BB (an order), .20H (a text) | modbus |
| TIA Portal | `Name`, `Data Type`, `Logical Address` | the S7's own, as %MW10; its OPC UA node is named | opcua |

What cannot be carried over is a fault at its cell, never a guess. Sources: the products' documentation of their
exports; Neuron's table of orders (docs.emqx.com, Modbus TCP): #LL 1,2,3,4; #LB 2,1,4,3; #BB 3,4,1,2; #BL 4,3,2,1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.toolbox.sheets import Rows, column_name
from agent.toolbox.taglist import Fault, Listed, Row
from agent.toolbox.written import Plain

SIEMENS_NAMESPACE = "http://www.siemens.com/simatic-s7-opcua"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:\[\]-]{0,127}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.:\[\]-]+")

_KEPWARE_TYPES = {
    "boolean": "bool", "short": "int16", "word": "uint16", "long": "int32", "dword": "uint32", "float": "float32",
    "double": "float64", "llong": "int64", "qword": "uint64", "string": "string", "default": "", "": "",
}  # fmt: skip
_KEPWARE_ADDRESS = re.compile(
    r"(?P<at>[0134][0-9]{4,5})(?:\.(?P<bit>[0-9]{1,2})|\.(?P<length>[0-9]{1,3})(?P<half>[HL]))?"
)
_NEURON_TYPES = {
    "bit": "bool", "bool": "bool", "int16": "int16", "uint16": "uint16", "int32": "int32", "uint32": "uint32",
    "int64": "int64", "uint64": "uint64", "float": "float32", "double": "float64", "string": "string",
}  # fmt: skip
_NEURON_ADDRESS = re.compile(
    r"(?P<unit>[0-9]{1,3})!(?P<at>[0134][0-9]{4,5})"
    r"(?:\.(?P<length>[0-9]{1,3})(?P<half>[HL])|(?:\.(?P<bit>[0-9]{1,2}))?(?:#(?P<order>[LB]{1,2}))?)"
)
_NEURON_ORDERS = {"L": "ABCD", "B": "BADC", "LL": "ABCD", "LB": "BADC", "BB": "CDAB", "BL": "DCBA"}
_TIA_TYPES = {
    "bool": "bool", "byte": "uint", "word": "uint", "dword": "uint", "lword": "uint", "usint": "uint", "uint": "uint",
    "udint": "uint", "ulint": "uint", "sint": "int", "int": "int", "dint": "int", "lint": "int", "real": "float32",
    "lreal": "float64", "string": "string", "wstring": "string", "char": "string", "wchar": "string",
}  # fmt: skip


class _Unfit(ValueError):
    """A cell that cannot be carried over: its title, and why."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title = title


@dataclass(frozen=True, slots=True)
class Form:
    """A program's table. `titles`: headings that tell it from others; `make`: a tag of ours from one of its rows."""

    program: str
    protocol: str
    titles: frozenset[str]
    make: Callable[[Mapping[str, str], Row], None]
    keys: Mapping[str, str]  # our key → the heading whose cell it comes from
    remark: str


def foreign(rows: Rows) -> Form | None:
    """Whose table this is; None: not one of these."""
    titles = {title.strip().lower() for title in rows[0]} if rows else set()
    return next((form for form in FORMS if form.titles <= titles), None)


def foreign_rows(rows: Rows, form: Form) -> Listed:
    """The tags of another program's table. Cells that cannot be carried over are faults."""
    listed = Listed(form.program, remarks=[form.remark])
    titles = [title.strip().lower() for title in rows[0]]
    renamed = 0
    for at, cells in enumerate(rows[1:], 2):
        given = {title: cell.strip() for title, cell in zip(titles, cells, strict=False) if title}
        if not any(given.values()):
            continue
        where = {title: f"{column_name(index)}{at}" for index, title in enumerate(titles)}
        row = Row(at, {}, {key: where[title] for key, title in form.keys.items() if title in where})
        try:
            form.make(given, row)
        except _Unfit as unfit:
            listed.faults.append(Fault(where.get(unfit.title, f"row {at}"), str(unfit)))
            continue
        given_name = given.get(form.keys["name"], "")
        renamed += row.tag["name"] != given_name
        listed.rows.append(row)
    if renamed:
        listed.remarks.append(f"{renamed} names were changed: ours have letters, digits and _ . : [ ] - only")
    return listed


def _name(given: str, title: str) -> str:
    name = _NOT_IN_NAMES.sub("_", given).lstrip("_.:[]-")[:128]
    if not _NAME.fullmatch(name):
        raise _Unfit(title, f"{given!r} leaves no name for a tag; give it letters or digits")
    return name


def _classic(text: str) -> Plain:
    """The reference as the configuration has it: a number, but for coils, whose zero would be lost."""
    return text if text.startswith("0") else int(text)


def _kind(given: Mapping[str, str], title: str, known: Mapping[str, str]) -> str:
    kind = given.get(title, "")
    if kind.lower() not in known:
        raise _Unfit(
            title, f"the type {kind!r} has no counterpart here; choose one of {', '.join(filter(None, known))}"
        )
    return known[kind.lower()]


def _place(row: Row, found: re.Match[str], kind: str, title: str) -> None:
    """Address, type, bit and length, as every Modbus list has them."""
    row.tag["address"] = _classic(found["at"])
    holds_bits = found["at"][0] in "01"
    if found["bit"] is not None:
        if int(found["bit"]) > 15:
            raise _Unfit(title, f"a register has the bits 0 to 15, not {found['bit']}")
        row.tag["bit"] = int(found["bit"])
    elif found["length"] is not None:
        row.tag |= {"type": "string", "length": int(found["length"])}
        if found["half"] == "L":
            row.tag["order"] = "BADC"
    elif kind == "string":
        raise _Unfit(title, "a text needs its length, as in 40001.20H")
    elif kind and not holds_bits:
        row.tag["type"] = kind


def _kepware(given: Mapping[str, str], row: Row) -> None:
    row.tag["name"] = _name(given["tag name"], "tag name")
    found = _KEPWARE_ADDRESS.fullmatch(given["address"].upper())
    if found is None:
        raise _Unfit(
            "address", f"{given['address']!r} is no Modbus address of one value; write 400001, or 400001.3 for a bit"
        )
    _place(row, found, _kind(given, "data type", _KEPWARE_TYPES), "address")
    scaling = given.get("scaling", "").lower()
    if scaling == "linear":
        row.tag |= _linear(given)
    elif scaling not in ("", "none"):
        raise _Unfit("scaling", f"the scaling {given['scaling']!r} has no counterpart here; only linear ones have")
    if given.get("eng units"):
        row.tag["unit"] = given["eng units"][:32]
    if given.get("description"):
        row.tag["description"] = given["description"][:256]
    rate = given.get("scan rate", "")
    if rate.isdecimal() and int(rate) >= 50:
        row.period_s = int(rate) / 1000


def _linear(given: Mapping[str, str]) -> dict[str, Plain]:
    """value = raw × scale + offset, through the two given points; exactly, as decimal numbers."""
    names = ("raw low", "raw high", "scaled low", "scaled high")
    points: list[Fraction] = []
    for name in names:
        try:
            points.append(Fraction(given.get(name, "").replace(",", ".")))
        except (ValueError, ZeroDivisionError):
            raise _Unfit(name, f"{given.get(name, '')!r} is no number") from None
    raw_low, raw_high, low, high = points
    if raw_low == raw_high or low == high:
        raise _Unfit("raw high", "both ends of the scaling are the same; give two different points")
    scale = (high - low) / (raw_high - raw_low)
    offset = low - raw_low * scale
    return {"scale": float(scale), **({"offset": float(offset)} if offset else {})}


def _neuron(given: Mapping[str, str], row: Row) -> None:
    row.tag["name"] = _name(given["name"], "name")
    found = _NEURON_ADDRESS.fullmatch(given["address"].upper())
    if found is None:
        raise _Unfit("address", f"{given['address']!r} is no Modbus address; write 1!400001, 1!400001.3 or 1!400001#BB")
    _place(row, found, _kind(given, "type", _NEURON_TYPES), "address")
    row.tag["unit_id"] = int(found["unit"])
    if found["order"]:
        row.tag["order"] = _NEURON_ORDERS[found["order"]]
    if given.get("group"):
        row.group = _NOT_IN_NAMES.sub("-", given["group"]).lower().strip("-.:[]_") or None
    decimal = given.get("decimal", "").replace(",", ".")
    if decimal not in ("", "0"):
        try:
            factor = float(decimal)
        except ValueError:
            raise _Unfit("decimal", f"{decimal!r} is no number") from None
        if factor != 1:
            row.tag["scale"] = factor
    if given.get("description"):
        row.tag["description"] = given["description"][:256]


def _tia(given: Mapping[str, str], row: Row) -> None:
    row.tag["name"] = _name(given["name"], "name")
    kind = given["data type"].strip('"')
    row.tag["node"] = f'nsu={SIEMENS_NAMESPACE};s="{given["name"]}"'
    row.tag["type"] = _kind({"data type": re.sub(r"\[[0-9]+\]$", "", kind)}, "data type", _TIA_TYPES)
    if given.get("comment"):
        row.tag["description"] = given["comment"][:256]


FORMS = (
    Form(
        "KEPServerEX", "modbus", frozenset({"tag name", "address", "data type"}), _kepware,
        {"name": "tag name", "address": "address", "type": "data type", "scale": "scaling", "unit": "eng units"},
        "its Modbus driver puts the first word low unless that was changed: if numbers look wrong, set order: CDAB",
    ),
    Form(
        "Neuron", "modbus", frozenset({"name", "address", "attribute", "type"}), _neuron,
        {"name": "name", "address": "address", "type": "type", "scale": "decimal", "unit_id": "address"},
        "each tag keeps its station number as unit_id, and its order where it had one; #LL is taken for ABCD",
    ),
    Form(
        "TIA Portal", "opcua", frozenset({"name", "data type", "logical address"}), _tia,
        {"name": "name", "type": "data type", "node": "name", "description": "comment"},
        "the nodes are those of the S7-1500's own OPC UA server, which must be switched on for these tags",
    ),
)  # fmt: skip

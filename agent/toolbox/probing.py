"""From an address that a person typed to what is asked of the device, and what came back. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.toolbox.interpret import Expected, Fit, Words, fits, views
from protocols.field.contract import Group, Scan
from protocols.field.modbus import TagSettings, tag
from protocols.field.modbus_address import LAST_ADDRESS, Table, parse, place


@dataclass(frozen=True, slots=True)
class Question:
    """`starts`: where the value may begin, with what to say of each; two where a bare number can mean two.

    `shown`: the addresses asked for; `read`: these, and of registers one before and one behind.
    """

    table: Table
    starts: Mapping[int, str]
    shown: range
    read: range


@dataclass(frozen=True, slots=True)
class Answered:
    """`words`: what could be read, bits as 0 and 1. `refusal`: why the first of the others could not."""

    question: Question
    words: Words
    refusal: str


def question(address: str, count: int) -> Question:
    """`count`: registers, or bits, from each start on. Raises ValueError with a sentence."""
    if _is_bare(address):
        number = int(address)
        starts = {number: f"{address} counted from 0"}
        if number > 0:
            starts = {number - 1: f"{address} counted from 1", **starts}
        found = Table.HOLDING
    else:
        found, number = parse(address)
        starts = {number: ""}
    shown = range(min(starts), min(max(starts) + count, LAST_ADDRESS + 1))
    beside = 0 if found.holds_bits else 1
    read = range(max(0, shown.start - beside), min(shown.stop + beside, LAST_ADDRESS + 1))
    return Question(found, starts, shown, read)


def _is_bare(address: str) -> bool:
    """A number that is no classic reference: of less than five digits, or with a first one that names no table."""
    return bool(re.fullmatch(r"[0-9]{1,4}|[25-9][0-9]{4}", address)) and int(address) <= LAST_ADDRESS


def group(asked: Question, device: str) -> Group:
    """The registers as tags of one group."""
    kind = {} if asked.table.holds_bits else {"type": "uint16"}
    tags = tuple(
        tag(TagSettings.model_validate({"name": f"r{at}", "address": f"{asked.table}:{at}", **kind}))
        for at in asked.read
    )
    return Group(device, "probe", 1.0, tags)


def answered(asked: Question, scan: Scan) -> Answered:
    """What the driver said, by address."""
    words: dict[int, int] = {
        at: int(value)
        for at, value in zip(asked.read, scan.values, strict=True)
        if isinstance(value, int)  # True and False are, too
    }
    refusals = (scan.reasons[index] for index in sorted(scan.reasons) if asked.read[index] in asked.shown)
    return Answered(asked, words, next(refusals, ""))


def tag_keys(table: Table, fit: Fit, name: str) -> dict[str, str | int | float]:
    """The keys of the tag's settings."""
    keys: dict[str, str | int | float] = {"name": name, "address": f"{table}:{fit.view.start}", "type": fit.view.type}
    if fit.view.order != "ABCD":
        keys["order"] = fit.view.order
    if fit.scale != 1:
        keys["scale"] = fit.scale
    if fit.offset:
        keys["offset"] = fit.offset
    return keys


def both(table: Table, at: int) -> str:
    """An address in both notations: holding:0 = 40001."""
    return f"{table}:{at} = {classic(table, at)}"


def classic(table: Table, at: int) -> str:
    """The classic reference, as `place` writes it."""
    return place(table, at, 1).rpartition("(")[2].removesuffix(")")


def as_plain(found: Answered, wanted: Expected | None, name: str) -> dict[str, Any]:
    """Everything as plain values, numbers whole."""
    asked = found.question
    fitting = [] if wanted is None or asked.table.holds_bits else fits(found.words, wanted, min(asked.starts))
    return {
        "table": asked.table.value,
        "registers": [
            {"address": f"{asked.table}:{at}", "reference": classic(asked.table, at), "raw": found.words.get(at)}
            for at in asked.shown
        ],
        "refusal": found.refusal,
        "readings": []
        if asked.table.holds_bits
        else [
            {
                "address": f"{asked.table}:{start}",
                "type": one.type,
                "order": one.order,
                "value": None if isinstance(one.value, float) and not math.isfinite(one.value) else one.value,
            }
            for start in asked.starts
            for one in views(found.words, start)
        ],
        "fits": [
            {"value": fit.value, "exact": fit.is_exact, "tag": tag_keys(asked.table, fit, name)} for fit in fitting
        ],
    }

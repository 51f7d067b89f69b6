"""Finding out what a Modbus device has: which units answer, which tables they serve, which addresses can be read.

Only reads are asked, one after another. What travels and how fast is the caller's: here is only what to ask next, so
nothing in here knows of sockets or clocks.

A range is found by asking for as much as one request may hold. What is refused is halved, and in a refused part of at
most SINGLY addresses every STRIDE-th is asked for alone; what was found is then followed to both sides, address by
address. So only islands of less than STRIDE addresses can be missed, and with a stride of 1 none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import ceil

from agent.toolbox.written import Plain
from protocols.field.modbus_address import Table, place
from protocols.field.modbus_line import GATEWAY_AWAY, Link, Serial
from protocols.field.modbus_request import READ_FUNCTION

SINGLY = 16
STRIDE = 4
REGISTERS_MAX = 100
"""Below the standard's 125, for the devices that take fewer."""

DIVISIBLE = (2, 3)
UNITS = (1, 255, 0, *range(2, 17))
"""Asked for without further wish: those of PLCs with their own port first, then those of a small serial line."""

SERIAL_UNITS = tuple(range(1, 11))
TAGS_WRITTEN_MAX = 100
SPEEDS = (19_200, 9_600, 38_400, 57_600, 115_200, 4_800, 2_400, 1_200)
PARITIES = ("even", "none", "odd")

Answer = bytes | int | None
"""The content, an exception's code, or None: nothing came."""

Ask = Callable[[int, Table, int, int], Awaitable[Answer]]
"""(unit id, table, address, count) → what came back."""


@dataclass
class TableFound:
    """A table of a unit. `code`: the exception of its first address, 0 where that could be read.

    `ranges`: what can be read; `largest`: addresses in the largest request that was answered. `is_searched`: whether
    that is all.
    """

    table: Table
    code: int
    ranges: list[range] = field(default_factory=list)
    largest: int = 0
    is_searched: bool = False

    @property
    def is_served(self) -> bool:
        """Whether there can be something to read: it answers, or says no only to the address."""
        return self.code == 0 or self.code in DIVISIBLE


@dataclass
class UnitFound:
    """A unit that answers."""

    unit_id: int
    tables: list[TableFound] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Requests to find the units, and for how long, from at once to never answered; then those for each unit found."""

    search: int
    search_s: tuple[float, float]
    unit: tuple[int, int]
    unit_s: tuple[float, float]


async def answers(ask: Ask, unit_id: int) -> bool:
    """Whether somebody answers as this unit; an exception is an answer, unless it is a gateway's regret."""
    answer = await ask(unit_id, Table.HOLDING, 0, 1)
    return answer is not None and answer not in GATEWAY_AWAY


async def tables(ask: Ask, unit: UnitFound) -> None:
    """Which tables the unit serves: each is asked for its first address. Goes into `unit` one by one."""
    for table in sorted(Table, key=READ_FUNCTION.__getitem__):
        answer = await ask(unit.unit_id, table, 0, 1)
        if answer is not None:
            unit.tables.append(TableFound(table, answer if isinstance(answer, int) else 0))


async def ranges(ask: Ask, unit_id: int, found: TableFound, window: range, stride: int = STRIDE) -> None:
    """What of the window can be read. Goes into `found` as it is found, so that it is not lost when this ends early."""
    size = REGISTERS_MAX * (16 if found.table.holds_bits else 1)
    starts = reversed(range(window.start, window.stop, size))
    todo = [range(start, min(start + size, window.stop)) for start in starts]
    refused: set[int] = set()  # single addresses

    async def is_there(at: int) -> bool:
        if any(at in part for part in found.ranges):
            return True
        if at in refused or at not in window:
            return False
        if isinstance(await ask(unit_id, found.table, at, 1), bytes):
            _take(found, range(at, at + 1))
            return True
        refused.add(at)
        return False

    async def whole(part: range) -> None:
        """To both sides, as far as it can be read."""
        for at, step in ((part.start - 1, -1), (part.stop, 1)):
            while await is_there(at):
                at += step

    while todo:
        part = todo.pop()
        answer = await ask(unit_id, found.table, part.start, len(part))
        if isinstance(answer, bytes):
            _take(found, part)
        elif answer in DIVISIBLE and len(part) > SINGLY:
            middle = part.start + len(part) // 2
            todo += [range(middle, part.stop), range(part.start, middle)]
        elif answer in DIVISIBLE and len(part) > 1:
            for at in range(part.start, part.stop, stride):
                await is_there(at)
        elif answer in DIVISIBLE:
            refused.add(part.start)
    for part in list(found.ranges):
        await whole(part)
    found.is_searched = True


def _take(found: TableFound, part: range) -> None:
    found.largest = max(found.largest, len(part))
    found.ranges = merged([*found.ranges, part])


def merged(parts: Iterable[range]) -> list[range]:
    """In order, and those that touch as one."""
    found: list[range] = []
    for part in sorted(parts, key=lambda one: one.start):
        if found and part.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, part.stop))
        else:
            found.append(part)
    return found


def serial_settings() -> list[Serial]:
    """Speeds and parities, the usual ones first. Without parity two stop bits are the standard, and one is the rule."""
    return [Serial(speed, parity, 1) for parity, speed in product(PARITIES, SPEEDS)]  # type: ignore[arg-type]  # literals


def estimate(
    units: int, window: int, interval_s: float, timeout_s: float, settings: int = 1, stride: int = STRIDE
) -> Estimate:
    """`units`: asked for; `window`: addresses of each table; `settings`: of a serial port, each of which is tried."""
    least = len(Table) + 2 * ceil(window / REGISTERS_MAX)
    # Refused as a whole: halved down to parts of more than SINGLY / 2 addresses, and those looked into.
    halved = 2 * ceil(2 * window / SINGLY)
    most = len(Table) * (1 + halved + ceil(window / stride) + ceil(2 * window / SINGLY))
    return Estimate(
        search=units * settings,
        search_s=(units * interval_s, units * settings * (interval_s + timeout_s)),
        unit=(least, most),
        unit_s=(least * interval_s, most * interval_s),
    )


def unit_ids(text: str) -> tuple[int, ...]:
    """From what a person typed: 1-16,255. Raises ValueError with a sentence."""
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{part.strip()!r} is no unit id; write them as 1-16,255")
        low, high = int(first), int(last or first)
        if not low <= high <= 255:
            raise ValueError(f"{part.strip()}: unit ids are 0 to 255, the smaller one first")
        found.update(dict.fromkeys(range(low, high + 1)))
    return tuple(found)


def listed(numbers: Sequence[int]) -> str:
    """As people write them: 1–3, 7."""
    parts = merged(range(number, number + 1) for number in numbers)
    return ", ".join(str(one.start) if len(one) == 1 else f"{one.start}–{one[-1]}" for one in parts)


def device_keys(name: str, link: Link, serial: Serial | None, unit: UnitFound) -> dict[str, Plain]:
    """The unit as a device of the configuration, with a tag for the first address of each range."""
    keys: dict[str, Plain] = {"name": name, "machine": name, "protocol": "modbus"}
    if link.transport != "tcp":
        keys["transport"] = link.transport
    if serial is None:
        keys |= {"host": link.host, "port": link.port}
    else:
        keys |= {"serial_port": link.host, "baudrate": serial.baudrate, "parity": serial.parity}
    keys["unit_id"] = unit.unit_id
    starts = [(table.table, part) for table in unit.tables for part in table.ranges][:TAGS_WRITTEN_MAX]
    keys["groups"] = [{"period_s": 1.0, "tags": [_tag(name, table, part) for table, part in starts]}]
    return keys


def _tag(name: str, table: Table, part: range) -> dict[str, Plain]:
    text = f"found by a scan: {place(table, part.start, len(part))} can be read"
    return {"name": f"{name}.{table}_{part.start}", "address": f"{table}:{part.start}", "description": text}

"""What registers may mean: a run of them under every type and every byte order, and what of it fits an expected value.

Nobody can tell from the registers alone how a manufacturer stored a value. A person who sees the value elsewhere, on
the machine's own display, can: of all readings only few come near it. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import get_args

from protocols.field.contract import Value
from protocols.field.modbus_codec import Encoding, Order, RegisterDecoder, Type

ORDERS: tuple[Order, ...] = get_args(Order)
TYPES: tuple[Type, ...] = tuple(
    sorted((one for one in get_args(Type) if one not in ("bool", "string")), key=lambda one: Encoding(one).registers)
)
"""Those of numbers, the shortest first."""

KELVIN = -273.15
SCALINGS: tuple[tuple[float, float], ...] = (
    *((scale, 0.0) for scale in (1.0, 0.1, 0.01, 0.001, 10.0, 100.0, 1000.0)),
    *((scale, KELVIN) for scale in (0.1, 1.0, 0.01)),
)
"""(scale, offset) as manufacturers use them, the most usual first; and from kelvin to °C."""

FITS_MAX = 12

Words = Mapping[int, int]
"""Address from 0 → content of the register, 0 to 65535. What could not be read is not in it."""


@dataclass(frozen=True, slots=True)
class View:
    """One way to read the registers from `start` on. `value` is None where it is no finite number."""

    start: int
    type: Type
    order: Order
    value: Value


@dataclass(frozen=True, slots=True)
class Expected:
    """A value that somebody sees elsewhere. `rounding`: half of its last digit; `tolerance`: how far off it may be."""

    value: float
    rounding: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A view that comes near. `value` is scaled; `is_exact`: as near as the expected value's digits can tell."""

    view: View
    scale: float
    offset: float
    value: float
    is_exact: bool


def expected(text: str, within_percent: float) -> Expected:
    """From what a person typed: 23.5, -4, 1e3, also 23,5. Raises ValueError with a sentence."""
    try:
        number = Decimal(text.strip().replace(",", "."))
    except InvalidOperation:
        raise ValueError(f"{text!r} is no number; write it as 23.5") from None
    if not number.is_finite() or number == 0 or abs(number.adjusted()) > 100:
        raise ValueError(f"{text} fits too much or nothing; expect a value other than 0")
    exponent = int(number.as_tuple().exponent)
    rounding = 0.5 * 10.0 ** min(exponent, 0)
    value = float(number)
    return Expected(value, rounding, max(rounding, abs(value) * within_percent / 100))


def view(words: Words, start: int, kind: Type, order: Order) -> View | None:
    """None where one of its registers could not be read."""
    encoding = Encoding(kind, order)
    needed = range(start, start + encoding.registers)
    if not all(address in words for address in needed):
        return None
    values, _ = RegisterDecoder(encoding.registers, [(0, encoding)]).decode(packed(words, needed))
    return View(start, kind, order, values[0])


def views(words: Words, start: int) -> Iterator[View]:
    """Every type in every order that differs from another."""
    for kind in TYPES:
        for order in orders(kind):
            if (found := view(words, start, kind, order)) is not None:
                yield found


def orders(kind: Type) -> Sequence[Order]:
    """Those that make a difference: a value of one register has no words to swap."""
    return ORDERS if Encoding(kind).registers > 1 else ("ABCD", "BADC")


def text(words: Words, start: int, count: int, order: Order) -> str | None:
    """The registers as text, unprintable characters as a dot; None where one could not be read."""
    needed = range(start, start + count)
    if not all(address in words for address in needed):
        return None
    encoding = Encoding("string", order, length=2 * count)
    values, _ = RegisterDecoder(count, [(0, encoding)]).decode(packed(words, needed))
    return "".join(one if one.isprintable() else "·" for one in str(values[0]))


def packed(words: Words, addresses: Sequence[int]) -> bytes:
    """The registers' bytes as they came over the line."""
    return struct.pack(f">{len(addresses)}H", *(words[address] for address in addresses))


def fits(words: Words, wanted: Expected, asked: int) -> list[Fit]:
    """What comes near the expected value, the likeliest first: exactly, at the address asked for, without scaling."""
    found = [fit for start in sorted(words) for seen in views(words, start) for fit in _scaled(seen, wanted)]
    exact = [fit for fit in found if fit.is_exact]
    return sorted(exact or found, key=lambda fit: _unlikeliness(fit, wanted, asked))[:FITS_MAX]


def _scaled(seen: View, wanted: Expected) -> Iterator[Fit]:
    """The first scaling that fits, if one does: the others say the same of another value."""
    raw = seen.value
    if raw is None or isinstance(raw, str | bool):
        return
    for scale, offset in SCALINGS:
        value = raw * scale + offset
        distance = abs(value - wanted.value)
        if distance <= wanted.tolerance:
            # A hair's breadth more than half a digit, for 23.55 is not a binary number.
            yield Fit(seen, scale, offset, value, distance <= wanted.rounding * 1.000001)
            return


def _unlikeliness(fit: Fit, wanted: Expected, asked: int) -> tuple[float, ...]:
    near = 0 if fit.view.start == asked else abs(fit.view.start - asked)
    return (
        not fit.is_exact,
        near,
        SCALINGS.index((fit.scale, fit.offset)),
        ORDERS.index(fit.view.order),
        TYPES.index(fit.view.type),
        abs(fit.value - wanted.value),
    )

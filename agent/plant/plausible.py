"""What a tag could show: values that move within what its unit suggests and its settings allow. Pure.

Every value is a function of the time and of the tag's name, by the signals of `protocol: simulated`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from protocols.field.contract import Value
from protocols.field.simulated import Signal, TagSettings, value_at

SEED = 1
PERIOD_S = 90.0
SQUARE_S = 20.0
TEXT_S = 60

_BY_UNIT: dict[str, tuple[float, float]] = {
    "°c": (18, 85),
    "°f": (60, 190),
    "k": (290, 360),
    "bar": (0.8, 8),
    "mbar": (20, 600),
    "pa": (100, 900),
    "kpa": (90, 480),
    "%": (4, 96),
    "v": (223, 237),
    "a": (0.5, 32),
    "w": (80, 7_500),
    "kw": (0.5, 55),
    "kva": (0.5, 60),
    "hz": (49.9, 50.1),
    "rpm": (700, 1_480),
    "1/min": (700, 1_480),
    "min-1": (700, 1_480),
    "mm": (0, 250),
    "m": (0.4, 4.2),
    "mm/s": (0.2, 4.5),
    "m/s": (0.1, 2.4),
    "l/min": (4, 60),
    "l/h": (200, 3_600),
    "m³/h": (0.8, 12),
    "kn": (0, 900),
}
_COUNTING = frozenset(["wh", "kwh", "mwh", "m³", "l", "s", "h", "pcs", "pieces"])
_ANY = (0.0, 100.0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number may be: a closed interval."""

    low: float = -inf
    high: float = inf

    def within(self, low: float, high: float) -> tuple[float, float]:
        """The part of an interval that is allowed; the lowest tenth of what is allowed, where none of it is."""
        first, last = max(self.low, low), min(self.high, high)
        return (first, last) if first < last else (self.low, self.low + (self.high - self.low) / 10)


def number(name: str, unit: str, bounds: Bounds, time_us: int) -> float:
    """A number of this unit, at this time."""
    unit = unit.lower()
    counts = unit in _COUNTING
    low, high = bounds.within(*((1_000.0, 1e9) if counts else _BY_UNIT.get(unit, _ANY)))
    signal: Signal = "ramp" if counts else "random_walk"
    period_s = 86_400.0 if counts else PERIOD_S
    value = value_at(_settings(name, signal, low, high, period_s), SEED, time_us)
    if not isinstance(value, float):
        raise TypeError(f"{signal} gives numbers")
    return min(max(value, low), high)


def truth(name: str, time_us: int) -> bool:
    """True for half of the time."""
    return value_at(_settings(name, "square", 0, 1, SQUARE_S), SEED, time_us) is True


def turn(count: int, period_s: float, time_us: int) -> int:
    """0 to count - 1, one after another, each for `period_s` seconds."""
    return int(time_us / 1e6 / period_s) % count


def text(name: str, length: int, time_us: int) -> str:
    """At most so many ASCII characters, others in each minute."""
    shown = f"{turn(10_000, TEXT_S, time_us):04d}"
    head = "".join(character for character in name if character.isascii())[: max(0, length - 5)]
    return f"{head}-{shown}"[:length] if head else shown[-length:]


def of_type(name: str, unit: str, kind: str, time_us: int) -> Value:
    """A value of one of our value types (see ValueType), by its name."""
    match kind:
        case "bool":
            return truth(name, time_us)
        case "string":
            return text(name, 24, time_us)
        case "int" | "uint":
            return round(number(name, unit, Bounds(0, 30_000), time_us))
    return number(name, unit, Bounds(), time_us)


def _settings(name: str, signal: Signal, low: float, high: float, period_s: float) -> TagSettings:
    return TagSettings.model_construct(
        name=name, signal=signal, low=low, high=high, period_s=period_s, decimals=4, text=None
    )

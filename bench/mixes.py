"""Made-up plants of other kinds than the recording's, so that nothing is tuned to one file.

Each mix is one kind of tag alone; `everything` has some of each. They are the same in every run.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator
from itertools import accumulate

from bench.recordings import Recording, Tag
from protocols.values import Quality, Value, ValueType

_START_US = 1_704_067_200_000_000  # 2024-01-01
_STATES = ("idle", "starting", "running", "blocked upstream", "blocked downstream", "fault", "maintenance")


def float32(value: float) -> float:
    """The nearest value that 32 bits can hold."""
    (found,) = struct.unpack("<f", struct.pack("<f", value))
    return float(found)


def _each_second(rows: int, chance: random.Random) -> list[int]:
    """A poller's times: every second, late by up to 3 ms."""
    return [_START_US + row * 1_000_000 + chance.randrange(3000) for row in range(rows)]


def _noisy(rows: int, chance: random.Random, at: int) -> Tag:
    """A process value as a transmitter gives it: slow swing, noise down to the last bit of a float32."""
    middle, swing, noise = chance.uniform(-50, 500), chance.uniform(0.5, 50), chance.uniform(0.01, 1)
    period = chance.uniform(60, 7200)
    values = [
        float32(middle + swing * math.sin(2 * math.pi * row / period) + chance.gauss(0, noise)) for row in range(rows)
    ]
    return Tag(f"Process/PT_{at:04}.PV", ValueType.FLOAT32, values, "bar")


def _counter(rows: int, chance: random.Random, at: int) -> Tag:
    """Pieces, seconds, pulses, energy: rising by a rate of its own, some of them rarely."""
    rate = chance.choice((0.01, 0.3, 1, 1, 20, 3000))
    steps = (int(rate) + (chance.random() < rate % 1) + (chance.randrange(40) if rate > 1 else 0) for _ in range(rows))
    total = accumulate(steps, initial=chance.randrange(10**9))
    return Tag(f"Line{at % 7}.Counter[{at}]", ValueType.UINT, [n for n, _ in zip(total, range(rows), strict=False)])


def _boolean(rows: int, chance: random.Random, at: int) -> Tag:
    likely = chance.choice((0.0, 0.001, 0.02, 0.3))
    state, values = chance.random() < 0.5, []
    for _ in range(rows):
        state ^= chance.random() < likely
        values.append(state)
    return Tag(f"DI_{at // 16:02}.{at % 16:02}", ValueType.BOOL, values)


def _setpoint(rows: int, chance: random.Random, at: int) -> Tag:
    value, values = round(chance.uniform(0, 250), 1), []
    for _ in range(rows):
        if chance.random() < 0.0005:
            value = round(chance.uniform(0, 250), 1)
        values.append(value)
    return Tag(f"Recipe.SP_{at:04}", ValueType.FLOAT64, values, "°C")


def _sensor(rows: int, chance: random.Random, at: int) -> Tag:
    """A float64 with 12 significant digits, wandering: what a gateway gets from an OPC UA server that calculates."""
    value, step, values = chance.uniform(0.001, 5000), chance.uniform(1e-4, 1e-2), []
    for _ in range(rows):
        value *= 1 + chance.gauss(0, step)
        values.append(float(f"{value:.12g}"))
    return Tag(f"ns=2;s=Plant.Unit{at % 9}.Sensor{at}.Value", ValueType.FLOAT64, values, "kg/h")


def _readout(rows: int, chance: random.Random, at: int) -> Tag:
    """What a display shows: one decimal, moving by a few steps."""
    value, values = chance.randrange(200, 9000), list[Value]()
    for _ in range(rows):
        value += chance.choice((-2, -1, -1, 0, 0, 0, 0, 1, 1, 2))
        values.append(value / 10)
    return Tag(f"TI-{at // 10:03}.{at % 10}", ValueType.FLOAT64, values, "°C")


def _text(rows: int, chance: random.Random, at: int) -> Tag:
    """A state that stays for a while, or an order number that is new every time."""
    state, values, likely = _STATES[0], list[Value](), chance.choice((0.002, 0.05))
    for _ in range(rows):
        if chance.random() < likely:
            state = f"ORD-{chance.randrange(10**8):08}" if at % 4 == 0 else chance.choice(_STATES)
        values.append(state)
    return Tag(f"Machine{at}.State", ValueType.STRING, values)


def _change(rows: int, chance: random.Random, at: int) -> Tag:
    """An OPC UA item that reports changes only: few rows, now and then uncertain or bad."""
    likely = chance.choice((0.005, 0.03, 0.2))
    at_rows = [row for row in range(rows) if chance.random() < likely]
    value, values, quality = chance.uniform(-10, 90), list[Value](), []
    for _ in at_rows:
        value += chance.gauss(0, 0.7)
        values.append(round(value, 2))
        quality.append(Quality.GOOD if chance.random() < 0.99 else Quality.UNCERTAIN)
    return Tag(f"ns=4;i={6000 + at}", ValueType.FLOAT64, values, rows=at_rows, quality=quality)


_Kind = Callable[[int, random.Random, int], Tag]
KINDS: dict[str, _Kind] = {
    "noisy float32": _noisy,
    "counters": _counter,
    "booleans": _boolean,
    "setpoints": _setpoint,
    "float64, 1 decimal": _readout,
    "float64, 12 digits": _sensor,
    "texts": _text,
    "sparse OPC UA changes": _change,
}


def mix(name: str, tags: int, rows: int) -> Recording:
    """`name`: one of KINDS, or "everything"."""
    chance = random.Random(name)
    kinds = list(KINDS.values()) if name == "everything" else [KINDS[name]]
    if name == "sparse OPC UA changes":  # a publishing interval of 100 ms, stamped by the server
        times_us = [_START_US + row * 100_000 + chance.randrange(20_000) for row in range(rows)]
    else:
        times_us = _each_second(rows, chance)
    made = [kinds[at % len(kinds)](rows, chance, at) for at in range(tags)]
    return Recording(name, "plc-1", times_us, [tag for tag in made if tag.values])


def mixes(tags: int, rows: int) -> Iterator[Recording]:
    """One of each kind, and everything together."""
    for name in (*KINDS, "everything"):
        yield mix(name, tags, rows)

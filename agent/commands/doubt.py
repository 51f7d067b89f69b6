"""Values that are good and yet hardly true: mostly a wrong word order. Pure.

A wrong order cannot be told from the protocol, only from the number: 21.5 read with its words swapped is 2.36e-41, and
a counter that stands at 7 becomes 458,752, which is 7 × 65,536. So numbers beyond all that plants measure, and whole
numbers whose lowest word is zero, are doubted, and shown as the other orders would read them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from agent.commands.polling import Latest
from protocols.field.contract import Quality

ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
SMALL, LARGE = 1e-12, 1e15
PLAUSIBLE = (1e-4, 1e7)
_FORMATS = {"float32": ">f", "float64": ">d", "int32": ">i", "uint32": ">I", "int64": ">q", "uint64": ">Q"}


def doubts(written: Mapping[str, Mapping[str, Any]], order: str | None, latest: Latest) -> Iterator[str]:
    """A sentence for each doubtful value. `written`: tag → its keys in the configuration; `order`: the device's.

    A driver without word orders (`order` None) is never doubted.
    """
    if order is None:
        return
    for tag, reading in zip(latest.group.tags, latest.readings, strict=True):
        keys = written[tag.name]
        kind = str(keys.get("type"))
        if reading is None or reading.quality != Quality.GOOD or kind not in _FORMATS or "bit" in keys:
            continue
        if isinstance(reading.value, bool) or not isinstance(reading.value, int | float):
            continue
        scale, offset = float(keys.get("scale", 1)), float(keys.get("offset", 0))
        raw = (reading.value - offset) / scale if (scale, offset) != (1, 0) else reading.value
        used = str(keys.get("order", order))
        if is_doubtful(kind, raw):
            others = _plausible(kind, raw, used)
            hint = f"; {others}" if others else "; check address and type"
            yield f"{tag.name}: {reading.value:.6g} as {kind} {used} is hardly a true value{hint}"


def is_doubtful(kind: str, raw: float) -> bool:
    """Whether a raw value of that type looks as if its words or bytes stood in the wrong places."""
    if kind.startswith("float"):
        return raw != 0 and not SMALL <= abs(raw) <= LARGE
    whole = round(raw)
    return whole != 0 and whole % 65536 == 0


def readings(kind: str, raw: float, used: str) -> dict[str, float]:
    """What the same registers say in each of the other orders."""
    form = _FORMATS[kind]
    try:
        wire = _laid(used, struct.pack(form, raw if kind.startswith("float") else round(raw)))
    except (struct.error, OverflowError):  # scaled back, it does not fit any more
        return {}
    return {order: struct.unpack(form, _laid(order, wire))[0] for order in ORDERS if order != used}


def _plausible(kind: str, raw: float, used: str) -> str:
    """The other orders with a likely value, as text."""
    low, high = PLAUSIBLE
    likely = {order: value for order, value in readings(kind, raw, used).items() if low <= abs(value) <= high}
    return ", ".join(f"with order: {order} it is {value:.7g}" for order, value in likely.items())


def _laid(order: str, content: bytes) -> bytes:
    """Bytes from ABCD into this order, and from this order into ABCD."""
    words = [content[at : at + 2] for at in range(0, len(content), 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    return b"".join(words)

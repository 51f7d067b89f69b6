"""Dates and times as devices keep them in registers → ISO 8601 text. Pure.

| type           | registers | what it holds                                                                      |
|----------------|-----------|------------------------------------------------------------------------------------|
| time_unix32    | 2         | seconds since 1970-01-01 UTC, unsigned; shown with Z                               |
| time_registers | 6         | year, month, day, hour, minute, second, one register each                          |
| time_iec870    | 4         | year since 2000; month and day; hour and minute; milliseconds of the minute        |
|                |           | (IEC 60870-5-4 binary time 2a word by word, as in Schneider's power meters)        |
| time_s7        | 4         | Siemens S7 DATE_AND_TIME: year, month, day, hour, minute, second, milliseconds and |
|                |           | weekday as BCD, two digits per byte; years 90 to 99 are 1990 to 1999               |

Only time_unix32 says which time zone it means; the others are the device's own local time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

Time = Literal["time_unix32", "time_registers", "time_iec870", "time_s7"]

REGISTERS: dict[str, int] = {"time_unix32": 2, "time_registers": 6, "time_iec870": 4, "time_s7": 4}


def iso(kind: Time, raw: bytes) -> str:
    """The time in `raw`, big-endian. Raises ValueError where it is none."""
    return _READ[kind](raw)


def _unix32(raw: bytes) -> str:
    return datetime.fromtimestamp(int.from_bytes(raw, "big"), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _registers(raw: bytes) -> str:
    year, month, day, hour, minute, second = (int.from_bytes(raw[at : at + 2], "big") for at in range(0, 12, 2))
    return _local(year, month, day, hour, minute, second).isoformat()


def _iec870(raw: bytes) -> str:
    year, month, day = 2000 + (raw[1] & 0x7F), raw[2] & 0x0F, raw[3] & 0x1F
    hour, minute, millisecond = raw[4] & 0x1F, raw[5] & 0x3F, int.from_bytes(raw[6:8], "big")
    if millisecond > 59_999:
        raise ValueError(f"{millisecond} milliseconds are more than a minute")
    moment = _local(year, month, day, hour, minute, 0) + timedelta(milliseconds=millisecond)
    return moment.isoformat(timespec="milliseconds")


def _s7(raw: bytes) -> str:
    digits = raw.hex()
    if not digits[:15].isdecimal():
        raise ValueError("it has digits above 9")
    year, month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(0, 12, 2))
    moment = _local(year + (1900 if year >= 90 else 2000), month, day, hour, minute, second)
    return (moment + timedelta(milliseconds=int(digits[12:15]))).isoformat(timespec="milliseconds")


def _local(year: int, month: int, day: int, hour: int, minute: int, second: int) -> datetime:
    return datetime(year, month, day, hour, minute, second)  # noqa: DTZ001  # the device's own time: it names no zone


_READ: dict[Time, Callable[[bytes], str]] = {
    "time_unix32": _unix32,
    "time_registers": _registers,
    "time_iec870": _iec870,
    "time_s7": _s7,
}


def now_iso(kind: str, time_us: int) -> str:
    """The moment `time_us`, microseconds since 1970, as `iso` gives it of this type; the local time is UTC here."""
    moment = datetime.fromtimestamp(time_us // 1000 / 1000, UTC).replace(tzinfo=None)
    if kind == "time_unix32":
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return moment.isoformat(timespec="seconds" if kind == "time_registers" else "milliseconds")


def encoded(kind: Time, text: str) -> bytes:
    """What `iso` makes this text of, big-endian. Raises ValueError where the type cannot hold it."""
    try:
        return _WRITE[kind](datetime.fromisoformat(text.removesuffix("Z")))
    except (OverflowError, struct.error) as error:
        raise ValueError(f"{text} does not fit into {kind}") from error


def _to_unix32(moment: datetime) -> bytes:
    return int(moment.replace(tzinfo=UTC).timestamp()).to_bytes(4, "big")


def _to_registers(moment: datetime) -> bytes:
    return struct.pack(">6H", *moment.timetuple()[:6])


def _to_iec870(moment: datetime) -> bytes:
    milliseconds = moment.second * 1000 + moment.microsecond // 1000
    year = moment.year - 2000
    if year > 0x7F:
        raise OverflowError
    return struct.pack(">HBBBBH", year, moment.month, moment.day, moment.hour, moment.minute, milliseconds)


def _to_s7(moment: datetime) -> bytes:
    if not 1990 <= moment.year <= 2089:
        raise OverflowError
    day = moment.isoweekday() % 7 + 1  # Sunday is 1
    return bytes.fromhex(f"{moment:%y%m%d%H%M%S}{moment.microsecond // 1000:03d}{day}")


_WRITE: dict[Time, Callable[[datetime], bytes]] = {
    "time_unix32": _to_unix32,
    "time_registers": _to_registers,
    "time_iec870": _to_iec870,
    "time_s7": _to_s7,
}

"""The driver contract: what every protocol towards the plant floor looks like to the agent.

Rules, in the order in which they matter:

1. A driver owns at most one connection to its endpoint, and reads only, unless a tag is made writable.
2. `read` returns every tag it was asked for. A tag that failed is a reading with bad quality and a reason,
   never a hole. Only when *nothing* could be read does `read` raise one of the errors below.
3. Quality is the OPC UA StatusCode (OPC 10000-4, 7.39): 32 bits, the top two of which say good (00),
   uncertain (01) or bad (10). Other protocols' failures are translated to the code that fits.
4. `time_us` is wall-clock time, microseconds since 1970-01-01 UTC: the source's own time stamp where the
   protocol carries one, otherwise the moment of the response.
5. A driver's settings model and tag model stand beside it in its file (`Settings`, `TagSettings`), so that
   checking, documentation and JSON Schema come from it. A new protocol is one new file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from protocols.values import Quality as Quality
from protocols.values import Value as Value
from protocols.values import ValueType as ValueType


@dataclass(frozen=True, slots=True)
class Tag:
    """A named value of a device, as the rest of the system sees it.

    `address` is the driver's own business (its parsed TagSettings); nobody else looks into it.
    """

    name: str
    value_type: ValueType
    unit: str = ""
    address: Any = None


@dataclass(frozen=True, slots=True)
class Group:
    """The tags of one device that are read together, on one fixed grid of `period_s` seconds."""

    device: str
    name: str
    period_s: float
    tags: tuple[Tag, ...]
    options: Any = None  # the driver's parsed GroupSettings
    priority: int = 0  # which goes first when not all can go, and last when something must: more is more important


@dataclass(frozen=True, slots=True)
class Scan:
    """Tags of one group at one moment.

    `indexes` are the positions in `group.tags` that this scan holds, ascending; None: all of them.
    `values` and `quality` are aligned with `indexes`; quality None: all good.
    `reasons`: for readings that are not good, position in `group.tags` → one sentence for a person.
    """

    group: Group
    time_us: int
    values: Sequence[Value]
    indexes: Sequence[int] | None = None
    quality: Sequence[int] | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many readings it holds."""
        return len(self.values)

    @classmethod
    def all_bad(cls, group: Group, time_us: int, code: int, reason: str) -> Scan:
        """Every tag of the group with the same bad quality, as for a device that is away."""
        n = len(group.tags)
        return cls(group, time_us, [None] * n, None, [code] * n, dict.fromkeys(range(n), reason))


@dataclass(frozen=True, slots=True)
class Evidence:
    """How a tag's reading came about, for a person who signs for it.

    `place`: where the device is asked, in every notation of the protocol. `type`, `order`: what stands there.
    `raw`: the bytes that the device sent for this tag in the answer that was read, untouched; none: it sent nothing.
    """

    place: str
    type: str
    order: str = ""
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Inspection:
    """One read of a group, looked at closely. `scans` together hold every tag; `evidence` is aligned with its tags.

    `latencies_s`: of each request that was answered, from its sending to the answer, pauses not counted.
    """

    scans: Sequence[Scan]
    evidence: Sequence[Evidence]
    latencies_s: Sequence[float]


class FieldError(Exception):
    """Nothing could be read. The message is one sentence: what failed, where, what to do.

    `quality` is the status code that the group's tags get meanwhile.
    """

    quality: int = Quality.BAD


class DeviceAway(FieldError):
    """The endpoint does not answer or closed the line: reconnect later, with growing pauses."""

    quality = Quality.BAD_NOT_CONNECTED


class DeviceTimeout(DeviceAway):
    """Connected, but no answer within the deadline. The connection is not to be trusted any more: reconnect."""

    quality = Quality.BAD_TIMEOUT


class DeviceRefused(FieldError):
    """The device answered no (credentials, certificate, configuration). Trying again alone will not help."""

    quality = Quality.BAD_CONFIGURATION


class WriteFailed(FieldError):
    """A value was not written, or it is not known whether it was. The connection is as good as before."""


class StrictModel(BaseModel):
    """Base of all settings: unknown keys are errors, values are not coerced, instances do not change.

    YAML knows no tuples and no enumerations: fields of those types say `Field(strict=False)`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")


def percent(deadband: str) -> float:
    """2.5 of `2.5 %`. Raises ValueError with a sentence."""
    found = _PERCENT.fullmatch(deadband)
    if found is None:
        raise ValueError(f"{deadband!r} is no deadband; write a number in the tag's unit, as 0.5, or a share, as 2 %")
    return float(found[1])


def _deadband(given: float | str) -> float | str:
    if isinstance(given, str):
        percent(given)
    elif not 0 <= given < float("inf"):
        raise ValueError("a deadband is 0 or more")
    return given


Deadband = Annotated[float | str, AfterValidator(_deadband)]
"""How far a value must move to be reported: in the tag's unit, or as `2 %` of the value that was reported last."""

Silence = Annotated[float, Field(ge=0, le=86_400)]
"""How long a tag that is reported by exception is silent at most, in seconds."""

AVERAGE_MAX = 1000
MEDIAN_MAX = 99


class TagSettingsBase(StrictModel):
    """What every driver's tag settings begin with. All but the name and the unit is the agent's business."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\[\]-]{0,127}$",
        description="Name of the tag, unique in its machine.",
    )
    unit: str = Field("", max_length=32, description="Engineering unit, for example °C or bar.")
    description: str = Field("", max_length=256, description="For people.")
    deadband: Deadband | None = Field(
        None,
        description="Report only changes of more than this, in the tag's unit, or as `2 %` of the value reported last; "
        "0: each change. Default: the group's.",
    )
    max_silence_s: Silence | None = Field(
        None,
        description="Report only changes, but at least one reading in so many seconds. Default: the group's, or an "
        "hour where there is a deadband.",
    )
    median_of: int | None = Field(
        None, ge=3, le=MEDIAN_MAX, description="The value is the median of the last so many: single spikes are gone."
    )
    average_of: int | None = Field(
        None, ge=2, le=AVERAGE_MAX, description="The value is the mean of the last so many; after the median."
    )
    smooth_s: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="The value follows the tag's smoothly: 63 % of a step after so many seconds; after the average.",
    )


@runtime_checkable
class Driver(Protocol):
    """One device. Used by one task at a time; never called concurrently.

    `connect` is called before the first read and again after `close`, or after a DeviceAway, any number of times;
    it must leave nothing of an earlier connection behind. It raises DeviceAway or DeviceRefused.
    `read` returns the group's scans since the last call: one full scan for a polled protocol, none or many
    partial ones for a subscription. It keeps its own deadline. Cancelling it leaves the driver closable.
    `close` never raises and may be called at any time, twice too.
    `requests` counts requests sent to the device since the start.
    """

    requests: int

    async def connect(self) -> None: ...

    async def read(self, group: Group) -> Sequence[Scan]: ...

    async def close(self) -> None: ...


@runtime_checkable
class Remembers(Protocol):
    """What a driver may offer beside `Driver`: it learns something about its device that should outlive a restart.

    `recall` is called at most once, before the first connect, with what `memory` gave in an earlier run; whatever
    may have become of it meanwhile. Raises ValueError, TypeError or KeyError on what it cannot use, and is as before.
    `memory` gives what to keep, plain JSON; None when nothing is new since it was last asked. It is cheap.
    """

    def recall(self, state: Mapping[str, Any]) -> None: ...

    def memory(self) -> Mapping[str, Any] | None: ...


@runtime_checkable
class Writes(Protocol):
    """What a driver may offer beside `Driver`: it can write tags whose settings make them writable.

    `write` sets a tag of one of its groups to `value`, given as it would be read, then reads it back, and returns
    what the device holds. Raises WriteFailed with a sentence where the tag is not writable, the value is outside its
    limits or does not fit, the device refuses it, or holds something else afterwards; DeviceAway as `read` does, and
    then it is not known whether it was written. Nothing is ever written twice by itself. Same task rules as `read`.
    """

    async def write(self, tag: Tag, value: Value) -> Value: ...


@runtime_checkable
class KeepsFiles(Protocol):
    """What a driver may offer beside `Driver`: it keeps files of its own, such as a private key.

    `keep_in` is called once, before the first connect. The directory is that of all devices of this protocol on this
    gateway, and may not exist yet. The driver makes it when it needs it, and keeps secrets in it readable by the
    agent's user only.
    """

    def keep_in(self, directory: Path) -> None: ...


@runtime_checkable
class Inspects(Protocol):
    """What a driver may offer beside `Driver`: it shows what lies behind a reading.

    `inspect` asks the device for the group now, whatever a subscription may have reported, and raises what `read`
    raises. A tag that `read` would report as bad for another reason than its value is bad here, too. Same task rules.
    `facts` are for people: what to know of the connection, such as unit ids, security and the fingerprints of
    certificates, a label with its text. Complete after `connect`, be it that this failed.
    """

    async def inspect(self, group: Group) -> Inspection: ...

    def facts(self) -> Mapping[str, str]: ...


class Happening(IntEnum):
    """What can happen between a driver and its device. The numbers stand in capture files and never change."""

    OPENED = 1
    NOT_OPENED = 2  # content: why
    SENT = 3  # content: the bytes, as they go over the line
    RECEIVED = 4  # the same; whatever came, also what fits nothing
    TIMED_OUT = 5  # no answer came within the deadline
    LOST = 6  # the other end closed the line, or it broke; content: how
    CLOSED = 7  # we closed it; content: why
    READ = 8  # only of a driver that is not Tapped: what it gave; content: JSON, see docs/capture.md
    AWAY = 9  # the same: why it gave nothing


Tap: TypeAlias = Callable[[Happening, bytes], None]
"""Called in the event loop for each happening, in order. Returns at once and never raises. Reasons are UTF-8."""


@runtime_checkable
class Tapped(Protocol):
    """What a driver may offer beside `Driver`: whoever looks for a fault may listen to its line, byte by byte.

    `listen` may be called at any time, and takes the place of an earlier tap; None ends the listening. A line that is
    open already is told as OPENED at once. Devices that share an endpoint share its line, and what is heard of it.
    """

    def listen(self, tap: Tap | None) -> None: ...


@runtime_checkable
class Narrows(Protocol):
    """What a driver may offer beside `Driver`: the device itself leaves small changes out.

    `narrowed` gives the positions of the group's tags whose absolute `deadband` the device applies, always the same.
    """

    def narrowed(self, group: Group) -> Collection[int]: ...


class DriverModule(Protocol):
    """What a driver's module (or the object behind an entry point of group `holdfast.drivers`) offers.

    `Settings`: the device's own keys in the configuration. `TagSettings`: a tag's, derived from TagSettingsBase.
    `tag(settings)`: that tag for the rest of the system; raises ValueError with a sentence on an impossible one.
    `driver(name, settings, groups)`: the driver, not yet connected; `name` is the device's, for messages. Raises
    ValueError with a sentence where it cannot serve these tags with these settings.
    `GroupSettings`: further keys of a poll group; a driver without any names StrictModel itself.
    """

    Settings: type[StrictModel]
    TagSettings: type[TagSettingsBase]
    GroupSettings: type[StrictModel]

    def tag(self, settings: Any) -> Tag: ...

    def driver(self, name: str, settings: Any, groups: Sequence[Group]) -> Driver: ...

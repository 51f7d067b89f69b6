"""Status and last will: what a gateway says of itself, every 10 s and on each change of health. Pure.

JSON, retained, on the gateway's status topic. The keys are camelCase on the wire. Unknown keys are ignored, so that a
newer gateway can say more to an older receiver. The session number rises with every connection that a gateway makes:
whatever carries an older number than what was last heard (a late will, a retained status) is history.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from protocols.uplink.batch import SEQ_MAX
from protocols.uplink.topics import NAME

SCHEMA_VERSION = 1
HEARTBEAT_S = 10.0
SILENCE_S = 35.0
"""Three heartbeats and a half without a word: the gateway is silent."""

TIMESTAMP_MS_MAX = 253_402_300_799_999  # the last millisecond of the year 9999
STATUS_BYTES_MAX = 128 * 1024

Seq = Annotated[int, Field(ge=0, le=SEQ_MAX)]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Text = Annotated[str, Field(max_length=500)]


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", allow_inf_nan=False)


class GatewayInfo(_Wire):
    """Which gateway, which version, up how long."""

    thing_name: Name
    version: Annotated[str, Field(max_length=64)]
    uptime_sec: Annotated[int, Field(ge=0)]


class Buffer(_Wire):
    """The outbox in figures: what waits for a confirm.

    `full_in_sec`: how long it would last from now on if nothing were confirmed any more, at the rate at which readings
    have come lately; None while nothing comes. `kept_bytes`: of what is confirmed and still kept for its grace time.
    """

    mode: Literal["disk", "memory"] = "disk"
    queued_messages: Annotated[int, Field(ge=0)] = 0
    kept_bytes: Annotated[int, Field(ge=0)] = 0
    bytes: Annotated[int, Field(ge=0)] = 0
    limit_bytes: Annotated[int, Field(ge=0)] = 0
    oldest_sec: Annotated[int, Field(ge=0)] | None = None
    full_in_sec: Annotated[int, Field(ge=0)] | None = None


class Health(_Wire):
    """`internet` is unknown where the broker stands in the plant's own network."""

    internet: Literal["ok", "down", "unknown"] = "unknown"
    mqtt: Literal["ok", "down"] = "ok"
    plc_link: Literal["ok", "degraded", "down"] = "ok"
    buffer: Buffer = Buffer()


class MachineNumbers(_Wire):
    """`last_seq`: the last number given. `sent_seq`: all up to here were taken by the broker at least once.

    `sent_highest`: the highest number that it took; live numbers pass the backlog, and the receiver is to miss them.
    `dropped`: ranges [first, last, reason] that the gateway let go unconfirmed, so that nobody waits for them.
    """

    last_seq: Seq
    sent_seq: Seq = 0
    sent_highest: Seq = 0
    dropped: Annotated[list[tuple[Seq, Seq, Text]], Field(max_length=200)] = []


class DeviceLink(_Wire):
    """One device's link: `ok`, `bad` (answers, but some tags fail), `away`. `since`: ms since 1970 of the change."""

    machine: Name
    state: Literal["ok", "bad", "away", "starting"]
    since: Annotated[int, Field(ge=0, le=TIMESTAMP_MS_MAX)]
    reason: Text = ""
    readings: Annotated[int, Field(ge=0)] = 0


ZEROS_MAX = 16
Span = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Clock(_Wire):
    """`synchronised`: whether the gateway's clock is; None: nobody says.

    `span`: the time without synchronisation that goes on, as its messages are marked (protocols/uplink/mark.py); empty
    while the clock is vouched for. `marked`: batches marked in it since the agent started. `zeros`: of the last spans
    that a synchronisation ended, the true time, in microseconds since 1970, at which their boot began.
    """

    synchronised: bool | None = None
    span: Literal[""] | Span = ""
    marked: Annotated[int, Field(ge=0)] = 0
    zeros: Annotated[
        dict[Span, Annotated[int, Field(ge=0, le=TIMESTAMP_MS_MAX * 1000)]], Field(max_length=ZEROS_MAX)
    ] = {}


Epoch = Annotated[str, Field(max_length=64)]
OTHERS_MAX = 20


class Status(_Wire):
    """A heartbeat, a planned goodbye, or a last will (`offline` with reason `unexpected_disconnect`).

    `machines`: the numbers of `epoch`; `others`: those of a machine's other epochs, by epoch. `instance`: which
    installation speaks (a gateway that was cloned has another), `host`: its host name, for people. `dropped_count`:
    batches let go of unconfirmed, `dropped_readings`: readings in them, and those lost before they got a number.
    """

    schema_version: Literal[1] = 1
    timestamp: Annotated[int, Field(ge=0, le=TIMESTAMP_MS_MAX)]
    state: Literal["online", "offline"]
    reason: Text | None = None
    session: Seq = 0
    epoch: Epoch = ""
    instance: Annotated[str, Field(max_length=64)] = ""
    host: Annotated[str, Field(max_length=255)] = ""
    gateway: GatewayInfo | None = None
    health: Health | None = None
    machines: Annotated[dict[Name, MachineNumbers], Field(max_length=1000)] = {}
    others: Annotated[
        dict[Name, Annotated[dict[Epoch, MachineNumbers], Field(max_length=OTHERS_MAX)]], Field(max_length=1000)
    ] = {}
    devices: Annotated[dict[Name, DeviceLink], Field(max_length=1000)] = {}
    dropped_count: Annotated[int, Field(ge=0)] = 0
    dropped_readings: Annotated[int, Field(ge=0)] = 0
    clock: Clock | None = None
    config_hash: Annotated[str, Field(max_length=64)] = ""
    certificate_days_left: int | None = None

    def encode(self) -> bytes:
        """The message's bytes."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class StatusError(ValueError):
    """Not a status message; the text says why in one sentence."""


REASON_SHUTDOWN = "shutdown"
REASON_UNEXPECTED = "unexpected_disconnect"


def will(session: int, timestamp_ms: int, epoch: str = "") -> Status:
    """The last will to leave with the broker when connecting as `session`."""
    return Status(timestamp=timestamp_ms, state="offline", reason=REASON_UNEXPECTED, session=session, epoch=epoch)


def decode(payload: bytes) -> Status:
    """The status in a message. Raises StatusError with one sentence on anything that is not one."""
    if len(payload) > STATUS_BYTES_MAX:
        raise StatusError(f"a status of {len(payload)} bytes is over the limit of {STATUS_BYTES_MAX}")
    try:
        found = Status.model_validate_json(payload)
        check_keys(payload)
    except ValidationError as error:
        raise StatusError(f"not a status message: {first_fault(error)}") from None
    except KeyTwice as error:
        raise StatusError(f"not a status message: {error}") from None
    return found


class KeyTwice(ValueError):
    """A key stands twice in one object, so that two readers could take two meanings from it."""


def check_keys(payload: bytes) -> None:
    """Raises KeyTwice. `payload`: JSON that a validator has read already."""
    json.loads(payload.decode(), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise KeyTwice("a key stands twice in one object")
    return found


def first_fault(error: ValidationError) -> str:
    """Where and what, in one sentence. Keys are a stranger's choice: they are cut short, and escaped."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:64] for part in first["loc"]) or "message"
    return f"{where.encode('unicode_escape').decode()}: {first['msg']}"

"""Confirm: the receiver's word to one gateway on what is stored, per machine. Pure.

JSON on the gateway's confirm topic:
`{"schemaVersion":1,"timestamp":ms,"machines":{machine:{"epoch":…,"through":N,"missing":[[first,last],…]}}}`.

`through`: every number from 1 to N of this epoch is stored, or was declared dropped: the gateway may let go of them.
`missing`: ranges above `through` that the receiver knows to exist and does not have: to be sent again. Numbers above
`through` that are in no missing range may be stored or not known of yet: the gateway keeps them and waits.
`highest`: the highest number stored; what lies above `through`, at or below `highest`, and is not missing, is stored.
`others`: the same of a machine's other epochs that the gateway's last status named, at most OTHERS_MAX each.
`fenced`: one sentence where two installations speak under this gateway's name. Both hear it: the one whose instance is
`fencedInstance` then sends no telemetry, the other goes on.
`receiver`: which run of the receiver speaks; another one than before may speak of another database, or of a backup.
`definitions`: references (hexadecimal) of definitions that batches refer to and the receiver lacks: to be published
again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from protocols.uplink.status import OTHERS_MAX, KeyTwice, Name, Seq, Text, check_keys, first_fault

MISSING_RANGES_MAX = 100
"""A confirm names at most this many ranges, the lowest first; the next confirm names the rest."""

DEFINITIONS_MAX = 100
Reference = Annotated[str, Field(pattern=r"^[0-9a-f]{2,64}$")]


class MachineConfirm(BaseModel):
    """What the receiver has of one machine in one epoch."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    epoch: Annotated[str, Field(max_length=64)]
    through: Seq
    highest: Seq = 0
    missing: Annotated[list[tuple[Seq, Seq]], Field(max_length=MISSING_RANGES_MAX)] = []
    definitions: Annotated[list[Reference], Field(max_length=DEFINITIONS_MAX)] = []


class Confirm(BaseModel):
    """One confirm message."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    schema_version: Literal[1] = 1
    timestamp: int
    machines: Annotated[dict[Name, MachineConfirm], Field(max_length=1000)]
    others: Annotated[
        dict[Name, Annotated[list[MachineConfirm], Field(max_length=OTHERS_MAX)]], Field(max_length=1000)
    ] = {}
    fenced: Text = ""
    fenced_instance: Annotated[str, Field(max_length=64)] = ""
    receiver: Annotated[str, Field(max_length=64)] = ""

    def encode(self) -> bytes:
        """The message's bytes."""
        return self.model_dump_json(by_alias=True).encode()


class ConfirmError(ValueError):
    """Not a confirm message; the text says why in one sentence."""


def decode(payload: bytes) -> Confirm:
    """The confirm in a message. Raises ConfirmError with one sentence on anything that is not one."""
    try:
        found = Confirm.model_validate_json(payload)
        check_keys(payload)
    except ValidationError as error:
        raise ConfirmError(f"not a confirm message: {first_fault(error)}") from None
    except KeyTwice as error:
        raise ConfirmError(f"not a confirm message: {error}") from None
    return found

"""What the disk outbox writes down beside its batches: one record for the whole, and one for each lane. Pure.

The record of the whole is JSON and names the schema, in every version of it, so that an older program can say that it
is too old. A lane's record is MessagePack. Schema 1 had one epoch, and JSON records of machines in place of lanes; its
batches and definitions had the keys that they have today.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from agent.outbox.bookkeeping import KeptDefinition
from agent.outbox.contract import NORMAL, Dropped, GroupDefinition, Lane, OutboxError
from agent.outbox.lane import Kept, LaneState
from agent.outbox.rows import Whole
from protocols.uplink import ranges
from protocols.uplink.ranges import Ranges

SCHEMA = 2

DefinitionOf = Callable[[bytes], GroupDefinition | None]


class RecordError(ValueError):
    """Not a record."""


def pack_whole(whole: Whole) -> bytes:
    """The record of the whole."""
    record = {
        "schema": SCHEMA,
        "epochs": {str(priority): epoch for priority, epoch in whole.epochs.items()},
        "session": whole.session,
        "dropped": whole.dropped,
        "dropped_readings": whole.dropped_readings,
        "next_lane": whole.next_lane,
        "id": whole.id,
        "signs": whole.signs,
        "commits": whole.commits,
        "steady_us": whole.steady_us,
        "wall_us": whole.wall_us,
        "damaged": whole.damaged,
    }
    return json.dumps(record, separators=(",", ":")).encode()


def unpack_whole(packed: bytes) -> tuple[Whole, list[str] | None]:
    """(what concerns all lanes, the machines' names of schema 1). Raises RecordError; OutboxError for a newer one."""
    try:
        record = json.loads(packed)
        if record["schema"] > SCHEMA:
            raise OutboxError(f"written by a newer version (schema {record['schema']}); update the agent")
        if record["schema"] == 1:
            names = [str(name) for name in record["machines"]]
            whole = Whole({NORMAL: record["epoch"]}, record["session"], record["dropped"], next_lane=len(names))
            return whole, names
        epochs = {int(priority): str(epoch) for priority, epoch in record["epochs"].items()}
        figures = {name: int(record[name]) for name in ("session", "dropped", "dropped_readings", "next_lane")}
        figures |= {name: int(record.get(name, 0)) for name in ("commits", "steady_us", "wall_us")}
        damaged = tuple(str(epoch) for epoch in record.get("damaged", ()))
        return Whole(epochs, id=str(record["id"]), signs=dict(record["signs"]), damaged=damaged, **figures), None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"the outbox's main record cannot be read ({error!r:.80})") from None


def pack_lane(state: LaneState) -> bytes:
    """A lane's record. What was offered is written as marked, in whole blocks."""
    packed: bytes = msgpack.packb(
        [
            state.name,
            state.priority,
            state.last,
            state.waiting,
            state.waiting_bytes,
            state.kept,
            [(one.first, one.last, one.reason) for one in state.dropped],
            state.marked,
            [(kept.since, kept.definition.ref) for kept in state.definitions],
            state.doomed,
            state.thinned,
        ]
    )
    return packed


def unpack_lane(number: int, packed: bytes, definition_of: DefinitionOf) -> LaneState:
    """The lane. A definition that is not there (any more) is left out. Raises RecordError."""
    try:
        name, priority, last, waiting, size, kept, dropped, marked, definitions, doomed, thinned = msgpack.unpackb(
            packed
        )
        state = LaneState(Lane(*name), number, priority, last, _ranges(waiting), size)
        state.keep_only([Kept(since_us, _ranges(numbers), held) for since_us, numbers, held in kept])
        state.dropped = tuple(Dropped(*parts) for parts in dropped)
        state.marked = _ranges(marked)
        state.definitions = _definitions(definitions, definition_of)
        state.doomed = _ranges(doomed)
        state.thinned = None if thinned is None else (thinned[0], thinned[1])
        return _opened(state)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise RecordError(f"the record of lane {number} cannot be read ({error!r:.80})") from None


def unpack_machine(number: int, machine: str, epoch: str, packed: bytes, definition_of: DefinitionOf) -> LaneState:
    """The lane of a machine's record of schema 1. All of it may have been offered. Raises RecordError."""
    try:
        record: Mapping[str, Any] = json.loads(packed)
        first, following = int(record["first"]), int(record["next"])
        state = LaneState(Lane(machine, epoch), number, last=following - 1)
        if first < following:
            state.waiting, state.waiting_bytes = ((first, following - 1),), int(record["bytes"])
        state.dropped = tuple(Dropped(*parts) for parts in record["dropped"])
        state.marked = ((1, following - 1),) if following > 1 else ()
        state.definitions = _definitions([(first, bytes.fromhex(ref)) for ref in record["definitions"]], definition_of)
        return _opened(state)
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"the record of machine {machine} cannot be read ({error!r:.80})") from None


def _opened(state: LaneState) -> LaneState:
    state.fresh = state.last + 1
    state.offered = ranges.common(state.marked, ((1, state.last),))
    return state


def _ranges(found: Any) -> Ranges:
    return tuple((int(first), int(last)) for first, last in found)


def _definitions(found: Any, definition_of: DefinitionOf) -> tuple[KeptDefinition, ...]:
    there = [(since, definition_of(ref)) for since, ref in found]
    return tuple(KeptDefinition(since, definition) for since, definition in there if definition is not None)


def pack_definition(since: int, definition: GroupDefinition) -> bytes:
    """A definition's row. `since`: the first batch that refers to it."""
    packed: bytes = msgpack.packb([since, definition.device, definition.group, definition.message])
    return packed


def unpack_definition(ref: bytes, packed: bytes) -> tuple[int, GroupDefinition]:
    """(since, definition). Raises RecordError."""
    try:
        since, device, group, message = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RecordError(f"definition {ref.hex()} cannot be read ({error!r:.80})") from None
    return since, GroupDefinition(ref, device, group, message)

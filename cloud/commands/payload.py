"""What is in a payload, as far as it can be read. Pure; whatever is in there, this gives lines and no error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

from protocols.uplink import envelope, frames, mark, status, topics
from protocols.uplink.batch import Batch
from protocols.values import Quality

TAGS_SHOWN_MAX = 20
TEXT_SHOWN_MAX = 2000
HEX_ROWS = 8
_FORMS = ((b"\x28\xb5\x2f\xfd", "a Zstandard frame"), (b"\x1f\x8b", "gzip"), (b"{", "JSON"))


def explained(topic: str, payload: bytes) -> list[tuple[str, str]]:
    """Lines of (label, text): where it belongs, its form, and its contents to the point where reading fails."""
    return [("form", _form(payload)), *_contents(topic, payload)]


def hex_head(payload: bytes) -> Iterator[str]:
    """The first bytes, sixteen a line, with what is printable of them in ASCII."""
    for start in range(0, min(len(payload), 16 * HEX_ROWS), 16):
        row = payload[start : start + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{start:04x}  {row.hex(' '):47}  {text}"
    if len(payload) > 16 * HEX_ROWS:
        yield f"…     {len(payload) - 16 * HEX_ROWS:,} more bytes; save them all with --raw FILE"


def _form(payload: bytes) -> str:
    if not payload:
        return "empty"
    known = next((name for first, name in _FORMS if payload.startswith(first)), None)
    return known or f"begins with {payload[:4].hex(' ')}"


def _contents(topic: str, payload: bytes) -> Iterator[tuple[str, str]]:
    try:
        where = topics.parse(topic)
    except topics.TopicError as error:
        yield "unread", str(error)
        yield from _value(payload)
        return
    try:
        if isinstance(where, topics.MachineTopic):
            marked = mark.read(payload)
            if marked.historical:
                yield "mark", "historical: of a backlog"
            if marked.clock is not None:
                yield "mark", f"stamped by a clock that nobody vouched for, in span {marked.clock.span.hex()}"
            yield from _batch(envelope.decode(marked.message))
            return
        if isinstance(where, topics.GatewayTopic):
            said = status.decode(payload)
            yield "status", f"{said.state}, session {said.session}" + (f", {said.reason}" if said.reason else "")
        yield from _value(payload)
    except (envelope.EnvelopeError, envelope.DefinitionMissing, status.StatusError) as error:
        yield "unread", str(error)
        yield from _value(payload)


def _batch(batch: Batch) -> Iterator[tuple[str, str]]:
    sender = f"gateway {batch.gateway!r}, " if batch.gateway else ""
    yield "batch", f"{sender}epoch {batch.epoch!r}, number {batch.seq}, {batch.readings():,} readings"
    columns = [(block, column) for block in batch.blocks for column in block.columns if column.values]
    for block, column in islice(columns, TAGS_SHOWN_MAX):
        quality = Quality.GOOD if column.quality is None else column.quality[-1]
        last = f"{column.values[-1]!r:.100} {column.unit}".rstrip()
        count = len(column.values)
        yield "tag", f"{block.device} {column.name}: {last} ({Quality.name(quality)}), {count} values".lstrip()
    if len(columns) > TAGS_SHOWN_MAX:
        yield "", f"… and {len(columns) - TAGS_SHOWN_MAX} more tags"


def _value(payload: bytes) -> Iterator[tuple[str, str]]:
    """What a lower layer makes of it: an unpacked value, or text."""
    try:
        text = json.dumps(frames.unpack(payload), ensure_ascii=False, default=lambda value: f"<{value!r:.60}>")
    except frames.FrameError as error:
        yield "unpacked", f"no: {error}"
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            return
        if not text.isprintable():
            return
    yield "contents", text if len(text) <= TEXT_SHOWN_MAX else f"{text[:TEXT_SHOWN_MAX]}…"

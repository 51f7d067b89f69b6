"""docs/wire.md, its vectors on file, our decoder and an independent one: all four say the same."""

from __future__ import annotations

import ast
import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.definitions import Book, SelfContained
from protocols.field.contract import Group
from protocols.uplink import confirm, definition, envelope, frames, status
from protocols.uplink.batch import Batch
from protocols.uplink.definition import Definition, DefinitionError
from protocols.uplink.envelope import DefinitionMissing, EnvelopeError
from protocols.uplink.mark import Marked, read
from protocols.uplink.streams import varints
from tests.support import independent_decoder as independent
from tests.support.make_wire_vectors import (
    DIRECTORY,
    Vector,
    dumps,
    inside,
    plain,
    plain_definition,
    told,
    vectors,
    worked_example,
)
from tests.unit.test_definition import EPOCH, group_of, in_group_order, scans_of
from tests.unit.test_envelope import batches

VECTORS = {vector.name: vector for vector in vectors()}
DOCUMENT = (DIRECTORY.parent / "wire.md").read_text(encoding="utf-8")
each_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())


def payload_on_file(vector: Vector) -> bytes:
    return (DIRECTORY / f"{vector.name}.bin").read_bytes()


def document_on_file(vector: Vector) -> Any:
    return json.loads((DIRECTORY / f"{vector.name}.json").read_text(encoding="utf-8"))


def needed(vector: Vector) -> list[bytes]:
    """The definition messages that the receiver of this vector has."""
    return [(DIRECTORY / f"{name}.bin").read_bytes() for name in document_on_file(vector).get("needs", [])]


def said(marked: Marked) -> dict[str, Any]:
    """What the marks say, as the files have it."""
    historical = {"historical": True} if marked.historical else {}
    clock = marked.clock
    return historical | ({} if clock is None else {"clock": {"span": clock.span.hex(), "zero_us": clock.zero_us}})


def decode_ours(kind: str, payload: bytes, needs: list[bytes]) -> dict[str, Any]:
    """What stands in the JSON file beside `about`, `kind` and `needs`, by our decoder."""
    match kind:
        case "telemetry":
            known = {definition.ref(message): definition.decode(message) for message in needs}
            marked = read(payload)
            try:
                return {"batch": plain(envelope.decode(marked.message, known.get))} | said(marked)
            except DefinitionMissing as missing:
                return {"missing": [ref.hex() for ref in missing.refs]}
        case "definition":
            return {"definition": plain_definition(definition.ref(payload), definition.decode(payload))}
        case "status":
            return {"status": told(status.decode(payload))}
        case _:
            return {"confirm": told(confirm.decode(payload))}


def decode_independently(kind: str, payload: bytes, needs: list[bytes]) -> dict[str, Any]:
    """The same by the decoder that was written from the document."""
    match kind:
        case "telemetry":
            known = {found["ref"]: found for found in map(independent.decode_definition, needs)}
            try:
                batch = independent.decode_telemetry(payload, known)
                return {"batch": batch} | independent.without_marks(payload)[1]
            except independent.Missing as missing:
                return {"missing": missing.refs}
        case "definition":
            return {"definition": independent.decode_definition(payload)}
        case "status":
            return {"status": independent.decode_status(payload)}
        case _:
            return {"confirm": independent.decode_confirm(payload)}


def test_every_file_is_a_vector_and_every_vector_has_its_files() -> None:
    expected = {f"{name}.{ending}" for name in VECTORS for ending in ("bin", "json")}
    assert {path.name for path in DIRECTORY.iterdir()} == expected


@each_vector
def test_the_files_are_what_the_generator_makes(vector: Vector) -> None:
    """Compressed bytes may differ between versions of the compressors; what is inside may not."""
    assert dumps(document_on_file(vector)) == dumps(vector.document())
    on_file = payload_on_file(vector)
    fresh = inside(vector.payload)
    assert inside(on_file) == fresh
    assert fresh is None or fresh != b"" or vector.payload == on_file


@each_vector
def test_our_decoder_reads_the_files(vector: Vector) -> None:
    payload, expected = payload_on_file(vector), document_on_file(vector)
    if "refuse" in expected:
        refusals = (EnvelopeError, DefinitionError, status.StatusError, confirm.ConfirmError)
        with pytest.raises(refusals) as caught:
            decode_ours(vector.kind, payload, needed(vector))
        assert "\n" not in str(caught.value)
        assert 10 < len(str(caught.value)) < 400
    else:
        assert dumps(decode_ours(vector.kind, payload, needed(vector))) == dumps(_content(expected))


@each_vector
def test_the_independent_decoder_reads_the_files(vector: Vector) -> None:
    payload, expected = payload_on_file(vector), document_on_file(vector)
    if "refuse" in expected:
        with pytest.raises(independent.Refused) as caught:
            decode_independently(vector.kind, payload, needed(vector))
        assert caught.value.why == expected["refuse"]
    else:
        assert dumps(decode_independently(vector.kind, payload, needed(vector))) == dumps(_content(expected))


def _content(document: dict[str, Any]) -> dict[str, Any]:
    return {key: found for key, found in document.items() if key not in ("about", "kind", "needs")}


def test_the_independent_decoder_has_nothing_of_ours() -> None:
    tree = ast.parse(Path(independent.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {"__future__", "collections.abc", "typing", "hashlib", "json", "math", "re", "struct", "unicodedata"}
    assert imported <= allowed | {"zlib", "msgpack", "zstandard"}


SHOWN = re.findall(
    r"`docs/wire-vectors/([a-z-]+)\.bin`, (\d+) bytes.*?```hex\n(.*?)```.*?(\| bytes \| meaning \|\n.*?)\n\n",
    DOCUMENT,
    re.DOTALL,
)


def test_the_document_shows_three_examples() -> None:
    assert [name for name, *_ in SHOWN] == ["worked-example", "definition-worked-example", "referring-worked-example"]
    assert DOCUMENT.count("```hex") == len(SHOWN)
    assert f"reference `{document_on_file(VECTORS['definition-worked-example'])['definition']['ref']}`" in DOCUMENT


@pytest.mark.parametrize(("name", "size", "shown", "table"), SHOWN, ids=[name for name, *_ in SHOWN])
def test_an_example_of_the_document_is_as_it_is_on_file(name: str, size: str, shown: str, table: str) -> None:
    payload = bytes.fromhex(shown)
    assert payload == payload_on_file(VECTORS[name])
    assert len(payload) == int(size)
    first_cells = "".join(re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE))
    apart = bytes.fromhex("".join(re.findall(r"`([0-9a-f ]+)`", first_cells)))
    assert apart == payload[:-4]  # all but the checksum, in order


def test_the_json_example_of_the_document_is_a_message() -> None:
    [shown] = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    decoded = independent.decode_telemetry(shown.encode())
    assert dumps(decoded) == dumps(plain(envelope.decode(shown.encode())))
    assert [column["name"] for column in decoded["blocks"][0]["columns"]] == ["temp", "on", "name", "gone"]


@given(batches())
@settings(max_examples=150)
def test_two_implementations_agree_on_what_our_encoder_sends(batch: Batch) -> None:
    assert dumps(independent.decode_telemetry(envelope.encode(batch))) == dumps(plain(batch))


@given(st.lists(batches(), min_size=1, max_size=3), st.integers(0, 2))
@settings(max_examples=100)
def test_they_agree_on_what_our_gateway_sends(sent: list[Batch], more: int) -> None:
    """In the referring form: the definitions of the first batches, made for other values, serve the later ones too."""
    book = Book("gw-1")
    ours: dict[bytes, Definition] = {}
    theirs: dict[str, dict[str, Any]] = {}
    groups: dict[Any, Group] = {}
    for seq, batch in enumerate(sent, 1):
        scans = []
        for at, given_block in enumerate(batch.blocks):
            block = in_group_order(replace(given_block, device=f"d{at}"))
            key = (block.device, tuple((column.name, column.type, column.unit) for column in block.columns))
            found = scans_of(groups.setdefault(key, group_of(block, more)), block)
            scans += [found] if found else []
        if not scans:
            continue
        encoded = book.encode(EPOCH, seq, scans)
        for one in encoded.definitions:
            ours[one.ref] = definition.decode(one.message)
            said = independent.decode_definition(one.message)
            theirs[said["ref"]] = said
            assert dumps(said) == dumps(plain_definition(one.ref, ours[one.ref]))
        decoded = plain(envelope.decode(encoded.payload, ours.get))
        assert dumps(independent.decode_telemetry(encoded.payload, theirs)) == dumps(decoded)
        alone = SelfContained("gw-1").encode(EPOCH, seq, scans).payload
        assert dumps(decoded) == dumps(independent.decode_telemetry(alone))


# --- and on what nobody should send ----------------------------------------------------------------------------------

WHOLE = frames.unpack(envelope.encode(worked_example()))
strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from(
        [2**31, 2**63 - 1, 2**64 - 1, -(2**63), 1.0, "", "x", "fill", b"", b"\x03", b"\x00" * 8, b"\xff" * 11]
    ),
    st.binary(max_size=12),
    st.lists(st.integers(0, 4), max_size=6),
    st.dictionaries(st.integers(-1, 5), st.text(max_size=3), max_size=2),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every part of a nested value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in places(part, (*path, key)))]


def replaced(whole: Any, path: tuple[Any, ...], wrong: Any) -> bytes:
    """The message with another part at this path."""
    value = copy.deepcopy(whole)
    part = value
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = wrong
    return zstandard.compress(msgpack.packb(value, use_bin_type=True))


@given(st.sampled_from(places(WHOLE)[1:]), strange)
@settings(max_examples=600)
def test_they_agree_on_a_message_with_any_part_replaced(path: tuple[Any, ...], wrong: Any) -> None:
    payload = replaced(WHOLE, path, wrong)
    try:
        ours: Any = plain(envelope.decode(payload))
    except envelope.EnvelopeError:
        with pytest.raises(independent.Refused):
            independent.decode_telemetry(payload)
    else:
        assert dumps(independent.decode_telemetry(payload)) == dumps(ours)


NEEDED = needed(VECTORS["referring-worked-example"])
REFERRING = frames.unpack(payload_on_file(VECTORS["referring-bad-qualities"]))
DEFINITION = frames.unpack(NEEDED[0])
TYPES = DEFINITION[7]


@given(st.sampled_from(places(REFERRING)[1:]), strange)
@settings(max_examples=600)
def test_they_agree_on_a_referring_message_with_any_part_replaced(path: tuple[Any, ...], wrong: Any) -> None:
    both_say_the_same("telemetry", replaced(REFERRING, path, wrong), NEEDED)


@given(st.sampled_from(places(DEFINITION)[1:]), strange)
@settings(max_examples=400)
def test_they_agree_on_a_definition_with_any_part_replaced(path: tuple[Any, ...], wrong: Any) -> None:
    both_say_the_same("definition", replaced(DEFINITION, path, wrong), [])


@given(st.data())
@settings(max_examples=400)
def test_they_agree_on_a_message_that_refers_to_any_definition(data: st.DataObject) -> None:
    """The definition has any bases, however strange; the message does not suit it."""
    exponents = data.draw(st.lists(st.integers(0, 17), min_size=4, max_size=4))
    firsts = [data.draw(st.integers(0, 2 ** data.draw(st.sampled_from([8, 32, 33, 63, 64])) - 1)) for _ in exponents]
    parts = [*DEFINITION[:7], data.draw(st.binary(min_size=4, max_size=4)) if data.draw(st.booleans()) else TYPES]
    message = frames.pack([*parts, DEFINITION[8], bytes(exponents), varints(firsts)])
    both_say_the_same("definition", message, [])
    try:
        definition.decode(message)
    except DefinitionError:
        return
    value = copy.deepcopy(REFERRING)
    value[2][0][0] = definition.ref(message)
    if data.draw(st.booleans()):
        value[2][0][3] = bytes([data.draw(st.sampled_from([0, 3, 6])), *data.draw(st.binary(min_size=3, max_size=3))])
    both_say_the_same("telemetry", frames.pack(value), [message])


def both_say_the_same(kind: str, payload: bytes, needs: list[bytes]) -> None:
    try:
        ours = decode_ours(kind, payload, needs)
    except (EnvelopeError, DefinitionError):
        with pytest.raises(independent.Refused):
            decode_independently(kind, payload, needs)
    else:
        assert dumps(decode_independently(kind, payload, needs)) == dumps(ours)


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_neither_takes_random_bytes(payload: bytes) -> None:
    with pytest.raises(independent.Refused):
        independent.decode_telemetry(payload)
    with pytest.raises(envelope.EnvelopeError):
        envelope.decode(payload)

"""docs/wire.md, its vectors on file, our decoder and an independent one: all four say the same."""

from __future__ import annotations

import ast
import copy
import json
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.uplink import confirm, envelope, frames, status
from protocols.uplink.batch import Batch
from tests.support import independent_decoder as independent
from tests.support.make_wire_vectors import DIRECTORY, Vector, dumps, inside, plain, told, vectors, worked_example
from tests.unit.test_envelope import batches

VECTORS = {vector.name: vector for vector in vectors()}
DOCUMENT = (DIRECTORY.parent / "wire.md").read_text(encoding="utf-8")
each_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())


def payload_on_file(vector: Vector) -> bytes:
    return (DIRECTORY / f"{vector.name}.bin").read_bytes()


def document_on_file(vector: Vector) -> Any:
    return json.loads((DIRECTORY / f"{vector.name}.json").read_text(encoding="utf-8"))


def decode_ours(kind: str, payload: bytes) -> dict[str, Any]:
    """What stands in the JSON file beside `about` and `kind`, by our decoder."""
    match kind:
        case "telemetry":
            return {"batch": plain(envelope.decode(payload))}
        case "status":
            return {"status": told(status.decode(payload))}
        case _:
            return {"confirm": told(confirm.decode(payload))}


def decode_independently(kind: str, payload: bytes) -> dict[str, Any]:
    """The same by the decoder that was written from the document."""
    match kind:
        case "telemetry":
            return {"batch": independent.decode_telemetry(payload)}
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
        with pytest.raises((envelope.EnvelopeError, status.StatusError, confirm.ConfirmError)) as caught:
            decode_ours(vector.kind, payload)
        assert "\n" not in str(caught.value)
        assert 10 < len(str(caught.value)) < 400
    else:
        assert dumps(decode_ours(vector.kind, payload)) == dumps(_content(expected))


@each_vector
def test_the_independent_decoder_reads_the_files(vector: Vector) -> None:
    payload, expected = payload_on_file(vector), document_on_file(vector)
    if "refuse" in expected:
        with pytest.raises(independent.Refused) as caught:
            decode_independently(vector.kind, payload)
        assert caught.value.why == expected["refuse"]
    else:
        assert dumps(decode_independently(vector.kind, payload)) == dumps(_content(expected))


def _content(document: dict[str, Any]) -> dict[str, Any]:
    return {key: found for key, found in document.items() if key not in ("about", "kind")}


def test_the_independent_decoder_has_nothing_of_ours() -> None:
    tree = ast.parse(Path(independent.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {"__future__", "collections.abc", "typing", "json", "math", "re", "struct", "unicodedata", "zlib"}
    assert imported <= allowed | {"msgpack", "zstandard"}


def test_the_document_shows_the_worked_example_as_it_is_on_file() -> None:
    [shown] = re.findall(r"```hex\n(.*?)```", DOCUMENT, re.DOTALL)
    payload = bytes.fromhex(shown)
    assert payload == payload_on_file(VECTORS["worked-example"])
    assert f"`docs/wire-vectors/worked-example.bin`, {len(payload)} bytes" in DOCUMENT
    table = DOCUMENT.partition("Taken apart:")[2].partition("So temp is")[0]
    first_cells = "".join(re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE))
    apart = bytes.fromhex("".join(re.findall(r"`([0-9a-f ]+)`", first_cells)))
    assert apart == payload[:-4]  # all but the checksum, in order


def test_the_json_example_of_the_document_is_a_message() -> None:
    [shown] = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    decoded = independent.decode_telemetry(shown.encode())
    assert dumps(decoded) == dumps(plain(envelope.decode(shown.encode())))
    assert [column["name"] for column in decoded["blocks"][0]["columns"]] == ["temp", "on", "name", "gone"]


@given(batches())
@settings(max_examples=150, deadline=None)
def test_two_implementations_agree_on_what_our_encoder_sends(batch: Batch) -> None:
    assert dumps(independent.decode_telemetry(envelope.encode(batch))) == dumps(plain(batch))


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


@given(st.sampled_from(places(WHOLE)[1:]), strange)
@settings(max_examples=600, deadline=None)
def test_they_agree_on_a_message_with_any_part_replaced(path: tuple[Any, ...], wrong: Any) -> None:
    value = copy.deepcopy(WHOLE)
    part = value
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = wrong
    payload = zstandard.compress(msgpack.packb(value, use_bin_type=True))
    try:
        ours: Any = plain(envelope.decode(payload))
    except envelope.EnvelopeError:
        with pytest.raises(independent.Refused):
            independent.decode_telemetry(payload)
    else:
        assert dumps(independent.decode_telemetry(payload)) == dumps(ours)


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_neither_takes_random_bytes(payload: bytes) -> None:
    with pytest.raises(independent.Refused):
        independent.decode_telemetry(payload)
    with pytest.raises(envelope.EnvelopeError):
        envelope.decode(payload)

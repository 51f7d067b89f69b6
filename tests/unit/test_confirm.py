"""The confirm: what is written, what is read, and what is refused in one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.uplink.batch import SEQ_MAX
from protocols.uplink.confirm import MISSING_RANGES_MAX, Confirm, ConfirmError, MachineConfirm, decode

WORD = {"epoch": "00ff", "through": 3}


def message(**machines: Any) -> bytes:
    return json.dumps({"schemaVersion": 1, "timestamp": 5, "machines": machines}).encode()


def test_the_keys_on_the_wire() -> None:
    said = Confirm(timestamp=5, machines={"m": MachineConfirm(epoch="00ff", through=3, highest=9, missing=[(5, 6)])})
    assert json.loads(said.encode()) == {
        "schemaVersion": 1,
        "timestamp": 5,
        "machines": {"m": {"epoch": "00ff", "through": 3, "highest": 9, "missing": [[5, 6]], "definitions": []}},
        "others": {},
        "fenced": "",
        "fencedInstance": "",
        "receiver": "",
    }
    assert decode(said.encode()) == said


def test_what_a_receiver_need_not_say_and_what_a_newer_one_may() -> None:
    said = decode(json.dumps({"timestamp": 5, "machines": {"m": WORD | {"mood": "fine"}}, "definitions": []}).encode())
    assert said.machines["m"] == MachineConfirm(epoch="00ff", through=3, highest=0, missing=[])
    assert decode(message()).machines == {}


STRANGE: dict[str, tuple[bytes, str]] = {
    "a key twice": (b'{"timestamp":1,"machines":{},"machines":{}}', "a key stands twice in one object"),
    "a key twice, inside": (
        b'{"timestamp":1,"machines":{"m":{"epoch":"","through":1,"through":9}}}',
        "a key stands twice in one object",
    ),
    "nothing": (b"", "message: Invalid JSON"),
    "binary": (b"\xff\x00", "message: Invalid JSON"),
    "a number": (b"7", "message: Input should be an object"),
    "version": (b'{"schemaVersion":2,"timestamp":1,"machines":{}}', "schemaVersion: Input should be 1"),
    "no machines": (b'{"schemaVersion":1,"timestamp":1}', "machines: Field required"),
    "no epoch": (message(m={"through": 1}), "machines.m.epoch: Field required"),
    "epoch as number": (message(m=WORD | {"epoch": 5}), "machines.m.epoch: "),
    "epoch too long": (message(m=WORD | {"epoch": "f" * 65}), "machines.m.epoch: "),
    "through negative": (message(m=WORD | {"through": -1}), "machines.m.through: "),
    "through beyond": (message(m=WORD | {"through": SEQ_MAX + 1}), "machines.m.through: "),
    "through as null": (message(m=WORD | {"through": None}), "machines.m.through: "),
    "half a range": (message(m=WORD | {"missing": [[4]]}), "machines.m.missing.0.1: Field required"),
    "range of texts": (message(m=WORD | {"missing": [["a", "b"]]}), "machines.m.missing.0.0: "),
    "too many ranges": (message(m=WORD | {"missing": [[4, 4]] * (MISSING_RANGES_MAX + 1)}), "machines.m.missing: List"),
    "machine's name": (message(**{"M\n": WORD}), r"machines\.M\\n\.\[key\]: "),
}


@pytest.mark.parametrize(("payload", "says"), STRANGE.values(), ids=STRANGE.keys())
def test_what_is_no_confirm_is_refused_in_one_sentence(payload: bytes, says: str) -> None:
    with pytest.raises(ConfirmError, match=says) as caught:
        decode(payload)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=80))
def test_random_bytes_never_raise_anything_else(payload: bytes) -> None:
    with pytest.raises(ConfirmError):
        decode(payload)


seqs = st.integers(0, SEQ_MAX)
words = st.builds(
    MachineConfirm,
    epoch=st.text("0123456789abcdef", max_size=64),
    through=seqs,
    highest=seqs,
    missing=st.lists(st.tuples(seqs, seqs), max_size=5),
)


@given(st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}", fullmatch=True), words, max_size=4))
@settings(max_examples=60)
def test_every_confirm_is_read_back(machines: dict[str, MachineConfirm]) -> None:
    said = Confirm(timestamp=1, machines=machines)
    assert decode(said.encode()) == said

"""What a machine's latest value says of why it is bad, though a gateway says a repeated reason once."""

from __future__ import annotations

import pytest

from agent.blocks import block
from cloud.store.packing import pack
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink.batch import Batch
from protocols.uplink.envelope import decode, encode
from protocols.values import Quality, ValueType

GROUP = Group("plc-1", "main", 1.0, (Tag("t", ValueType.FLOAT64),))
BAD, GOOD, INFO = Quality.BAD_TIMEOUT, Quality.GOOD, 0x00AF0000  # the last is good, with information


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([(BAD, "no answer")], "no answer"),
        ([(BAD, "no answer"), (BAD, "no answer"), (BAD, "no answer")], "no answer"),
        ([(BAD, "no answer"), (BAD, "broken")], "broken"),
        ([(BAD, "no answer"), (GOOD, "")], ""),
        ([(BAD, "no answer"), (GOOD, ""), (BAD, "no answer")], "no answer"),
        ([(BAD, "no answer"), (INFO, "")], ""),
        ([(BAD, "no answer"), (INFO, ""), (BAD, "")], ""),
        ([(GOOD, ""), (GOOD, "")], ""),
    ],
)
def test_the_latest_value_has_its_reason(said: list[tuple[int, str]], reason: str) -> None:
    scans = [
        Scan(GROUP, 1000 * at, [None if code == BAD else 1.5], None, [code], {0: text} if text else {})
        for at, (code, text) in enumerate(said)
    ]
    sent = decode(encode(Batch("gw-1", "00ff", 1, [block(GROUP, scans)])))
    [packed] = pack(sent, 10**15)
    assert packed.newest == len(said) - 1
    assert packed.reason == reason

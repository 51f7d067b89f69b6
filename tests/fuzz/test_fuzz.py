"""A bounded number of damaged messages, always the same ones; `make faults` takes others, for longer."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import run_case
from tests.fuzz.targets import TARGETS, Target

CASES = {"settings": 40, "capture": 300}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_nothing_but_the_errors_it_may_raise(name: str) -> None:
    target = TARGETS[name]()
    for seed in range(CASES.get(name, 1500)):
        run_case(name, target, seed)


def test_a_target_that_fails_is_noticed() -> None:
    def feed(payload: bytes) -> None:
        if payload != b"sound":
            raise ZeroDivisionError

    def run() -> None:
        for seed in range(20):
            run_case("example", Target((b"sound",), feed), seed)

    with pytest.raises(ZeroDivisionError) as raised:
        run()
    assert "--target example" in raised.value.__notes__[0]

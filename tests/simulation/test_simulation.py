"""Both programs on a virtual clock: always the same 500 seeds here, 10,000 in `make faults`; and the oracle itself."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.oracle import Account, Broken, check

A, B = ("m", "e", 1), ("m", "e", 2)


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_whatever_happens() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "500"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert "none broken" in done.stdout


def taken() -> Account:
    account = Account()
    account.note(A, [1, 2])
    account.note(B, [3])
    return account


def test_what_is_stored_once_is_well() -> None:
    assert check(taken(), {"m": Counter([1, 2, 3])}, set(), set(), set())["readings"] == 3


@pytest.mark.parametrize(
    ("stored", "missing", "words"),
    [
        ([1, 2], [], "neither stored nor declared"),
        ([1, 2, 2, 3], [], "more than once"),
        ([1, 2, 3, 4], [], "never taken"),
        ([1, 2, 3], [B], "still missing"),
    ],
)
def test_what_breaks_the_promise_is_told(stored: list[int], missing: list[tuple[str, str, int]], words: str) -> None:
    with pytest.raises(Broken, match=words):
        check(taken(), {"m": Counter(stored)}, set(), set(missing), set())


def test_what_was_declared_is_no_loss() -> None:
    assert check(taken(), {"m": Counter([1, 2])}, {B}, set(), set())["declared"] == 1


def test_a_dead_letter_breaks_it() -> None:
    with pytest.raises(Broken, match="dead letters"):
        check(taken(), {"m": Counter([1, 2, 3])}, set(), set(), {3})


def test_a_number_is_given_once() -> None:
    account = taken()
    account.undone.add(A)
    with pytest.raises(Broken, match="given twice"):
        account.note(A, [7])

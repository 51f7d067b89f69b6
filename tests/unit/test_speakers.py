"""A replaced PC is told from a clone by who speaks when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.speakers import CLONE_S, KNOWN_MAX, Speakers, accepted, from_json, heard, to_json

SECOND = 1_000_000


def follow(*said: tuple[float, str], before: Speakers = Speakers()) -> tuple[Speakers, list[str]]:  # noqa: B008  # frozen
    """Statuses at these seconds from these installations: who speaks at the end, and the news."""
    events = []
    for at_s, instance in said:
        before, news = heard(before, instance, f"host-{instance}", int(at_s * SECOND))
        events += [one.event for one in news]
    return before, events


def test_one_installation_is_no_news() -> None:
    found, events = follow(*((at * 10, "a") for at in range(20)))
    assert (found.speaking, found.fenced, events, found.sentence()) == ("a", "", [], "")


def test_a_gateway_that_names_no_instance_says_nothing_here() -> None:
    assert follow((0, ""), (5, "")) == (Speakers(), [])
    found, events = follow((0, "a"), (5, ""), (10, "a"))
    assert (found.speaking, events) == ("a", [])


def test_a_replaced_pc_is_noted_and_not_fenced() -> None:
    found, events = follow((0, "a"), (10, "a"), (15, "b"), (25, "b"), (95, "b"))
    assert (found.speaking, found.fenced, events) == ("b", "", ["replaced"])


def test_of_two_that_live_the_later_one_is_fenced() -> None:
    found, events = follow((0, "a"), (5, "b"), (10, "a"))
    assert (found.fenced, found.fenced_us, events) == ("b", 10 * SECOND, ["replaced", "cloned"])
    assert "host-a, which was there first" in found.sentence()
    assert "host-b, which sends nothing" in found.sentence()
    same, events = follow((15, "b"), (20, "a"), (25, "b"), before=found)
    assert (same.fenced, events) == ("b", [])


def test_the_first_that_was_seen_is_right_whoever_speaks_third() -> None:
    found, _ = follow((0, "a"), (100, "b"), (110, "b"), (120, "a"), (130, "b"))
    assert found.fenced == "b"


def test_old_hardware_that_comes_back_much_later_is_no_clone() -> None:
    found, events = follow((0, "a"), (100, "b"), (100 + CLONE_S + 1, "a"))
    assert (found.fenced, events) == ("", ["replaced", "replaced"])


@pytest.mark.parametrize("left", ["a", "b"])
def test_it_ends_when_only_one_speaks_for_a_minute(left: str) -> None:
    cloned, _ = follow((0, "a"), (5, "b"), (10, "a"), (15, "b"))
    before, events = follow((20, left), (10 + CLONE_S - 1, left), before=cloned)
    assert (before.fenced, events) == ("b", [])
    after, events = follow((16 + CLONE_S, left), before=before)
    assert (after.fenced, after.fenced_us, events) == ("", None, ["clone ended"])


def test_an_operator_can_say_that_the_other_is_right() -> None:
    cloned, _ = follow((0, "a"), (5, "b"), (10, "a"))
    found = accepted(cloned)
    assert (found.fenced, found.speaking) == ("", "b")
    again, events = follow((15, "a"), (20, "b"), before=found)  # the other goes on speaking: now that one is fenced
    assert (again.fenced, events) == ("a", ["replaced", "cloned"])
    with pytest.raises(ValueError, match="no installation"):
        accepted(found)


@given(st.lists(st.tuples(st.integers(0, 90), st.sampled_from("abcdefgh"))))
def test_whoever_speaks_in_whatever_order_it_stays_bounded_and_the_first_is_never_fenced_before_others(
    steps: list[tuple[int, str]],
) -> None:
    now_s, found = 0, Speakers()
    for pause_s, instance in steps:
        now_s += pause_s
        found, _ = heard(found, instance, "h" * 255, now_s * SECOND)
        assert len(found.known) <= KNOWN_MAX
        assert found.speaking == instance
        assert list(found.known) == sorted(found.known, key=lambda one: one.first_us)
        assert len(found.sentence()) <= 500  # what a confirm has room for
        assert from_json(to_json(found)) == found

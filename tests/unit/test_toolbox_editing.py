"""Edits of a settings file leave everything else as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.commands.init import example
from agent.toolbox.editing import CannotEdit, Listing, applied
from protocols.program.document import parse

FILE = """\
# the head
gateway: {thing: gw-1}   # stays

devices:
  # about devices

  # about a
  - name: a              # behind a
    text: |
      some
      text
    # timeout_s: 1

  - name: b
    tags:
      - {name: x, address: 1}    # the first
      # about y
      - {name: y, address: 2}

# the end
last: 1
"""


def value(text: str) -> Any:
    document = parse(text, "x")
    assert document.problems == ()
    return document.value


def test_appending_touches_nothing_else() -> None:
    item: dict[str, Any] = {
        "name": "c",
        "host": "10.0.0.1",
        "groups": [{"period_s": 0.5, "tags": [{"name": "t", "address": 40001}]}],
    }
    found = applied(FILE, Listing(FILE, ("devices",)).append([item]))
    assert value(found)["devices"] == [*value(FILE)["devices"], item]
    added = """\
  - name: c
    host: 10.0.0.1
    groups:
      - period_s: 0.5
        tags:
          - {name: t, address: 40001}
"""
    assert found == FILE.replace("address: 2}\n", "address: 2}\n" + added)


def test_removing_takes_what_belongs_to_it() -> None:
    found = applied(FILE, [Listing(FILE, ("devices",)).remove(0)])
    assert value(found)["devices"] == value(FILE)["devices"][1:]
    assert found == FILE[: FILE.index("  # about a\n")] + FILE[FILE.index("\n  - name: b") :]
    found = applied(FILE, [Listing(FILE, ("devices",)).remove(1)])
    assert found == FILE[: FILE.index("  - name: b")] + FILE[FILE.index("\n# the end") :]


def test_items_in_lists_of_items() -> None:
    tags = Listing(FILE, ("devices", 1, "tags"))
    edits = [tags.replace(0, {"name": "x", "address": 7}), *tags.append([{"name": "z"}])]
    found = applied(FILE, edits)
    assert value(found)["devices"][1]["tags"] == [
        {"name": "x", "address": 7},
        {"name": "y", "address": 2},
        {"name": "z"},
    ]
    assert "      - {name: y, address: 2}\n      - {name: z}\n" in found
    assert "      # about y\n" in found
    without = applied(FILE, [tags.remove(1)])
    assert "about y" not in without
    assert value(without)["devices"][1]["tags"] == [{"name": "x", "address": 1}]


def test_lists_on_one_line() -> None:
    text = "devices: [{name: a}, {name: b}] # all\n"
    listing = Listing(text, ("devices",))
    assert applied(text, listing.append([{"name": "c"}])) == "devices: [{name: a}, {name: b}, {name: c}] # all\n"
    assert applied(text, [listing.remove(0)]) == "devices: [{name: b}] # all\n"
    assert applied(text, [listing.remove(1)]) == "devices: [{name: a}] # all\n"
    assert applied(text, [listing.replace(0, {"name": "z"})]) == "devices: [{name: z}, {name: b}] # all\n"


def test_a_file_without_a_last_line_break_and_one_of_windows() -> None:
    text = "devices:\n- name: a\n  host: h"
    assert applied(text, Listing(text, ("devices",)).append([{"name": "b"}])) == text + "\n- name: b"
    text = "devices:\r\n- name: a\r\n\r\n# end\r\n"
    assert applied(text, Listing(text, ("devices",)).append([{"name": "b"}])) == (
        "devices:\r\n- name: a\r\n- name: b\r\n\r\n# end\r\n"
    )


def test_what_cannot_be_edited_is_said() -> None:
    for text in ("a: 1\n", "devices: []\n", "devices:\n", "devices: {}\n"):
        with pytest.raises(CannotEdit, match="devices is no list with entries"):
            Listing(text, ("devices",))
    with pytest.raises(CannotEdit, match="the only one"):
        Listing("devices:\n- name: a\n", ("devices",)).remove(0)


def test_the_example_keeps_its_comments() -> None:
    text = example()
    tags = ("devices", 0, "groups", 0, "tags")
    found = applied(text, Listing(text, tags).append([{"name": "new", "address": "holding:7"}]))
    before, after = text.splitlines(), found.splitlines()
    new = [line for line in after if line not in before]
    assert [line for line in after if line not in new] == before
    assert new == ["          - name: new", "            address: holding:7"]
    assert value(found)["devices"][0]["groups"][0]["tags"][-1] == {"name": "new", "address": "holding:7"}


NAMES = st.text("ab-:#'\" {}[],\n°", min_size=1, max_size=6)
VALUES = st.recursive(
    st.one_of(NAMES, st.integers(-(2**63), 2**63), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=40)
@given(
    st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), min_size=2, max_size=4),
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=3),
    st.data(),
)
def test_any_item_can_be_added_replaced_and_removed(
    items: list[dict[str, Any]], new: dict[str, Any], data: Any
) -> None:
    start = "before: 1\ndevices:\n  - first: 1\nafter: 2\n"
    text = applied(start, Listing(start, ("devices",)).append(items))
    there = [{"first": 1}, *items]
    assert value(text) == {"before": 1, "devices": there, "after": 2}
    at = data.draw(st.integers(0, len(there) - 1))
    listing = Listing(text, ("devices",))
    replaced = [*there[:at], new, *there[at + 1 :]]
    assert value(applied(text, [listing.replace(at, new)])) == {"before": 1, "devices": replaced, "after": 2}
    removed = [*there[:at], *there[at + 1 :]]
    assert value(applied(text, [listing.remove(at)])) == {"before": 1, "devices": removed, "after": 2}

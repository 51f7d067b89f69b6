"""Readings of drivers whose line is not recorded: as records and back, and how they went over the recording."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.capture.readings import Course, Shown, decoded, encoded
from agent.capture.records import CONTENT_BYTES_MAX, Record
from protocols.field.contract import Group, Happening, Quality, Scan, Tag, Value, ValueType

TAGS = tuple(Tag(f"t{at}", ValueType.STRING) for at in range(300))
GROUP = Group("ua", "main", 1.0, TAGS)
VALUES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=50)
)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(VALUES, st.sampled_from([0, Quality.BAD, Quality.UNCERTAIN]), st.text(max_size=40)), max_size=25)
)
def test_a_scan_comes_back(given_: list[tuple[Value, int, str]]) -> None:
    indexes = [7 * at for at in range(len(given_))]
    scan = Scan(
        GROUP,
        1,
        [value for value, _, _ in given_],
        indexes,
        [quality for _, quality, _ in given_],
        {at: reason for at, (_, _, reason) in zip(indexes, given_, strict=True)},
    )
    found: dict[str, Shown] = {}
    for content in encoded(scan):
        found |= decoded(content)
    assert found == {f"t{at}": (value, quality) for at, (value, quality, _) in zip(indexes, given_, strict=True)}


def test_a_wide_scan_is_several_records() -> None:
    scan = Scan(GROUP, 1, ["x" * 90] * 300)
    contents = list(encoded(scan))
    assert len(contents) > 10
    assert max(map(len, contents)) <= CONTENT_BYTES_MAX
    assert len({tag for content in contents for tag in decoded(content)}) == 300
    (cut,) = encoded(replace(scan, values=["y" * 100_000], indexes=[0]))
    assert decoded(cut) == {"t0": ("y" * 400, 0)}


@given(st.binary(max_size=60) | st.sampled_from([b'{"readings": 7}', b'{"readings": {"a": [[], 0]}}', b"[" * 5000]))
def test_what_is_no_record_is_none(content: bytes) -> None:
    assert decoded(content) == {}
    assert Course([Record(Happening.READ, 5, content)]).at("a", 9).value is None


def test_a_course_goes_on_and_begins_again() -> None:
    def read(at_us: int, value: int, quality: int = 0) -> Record:
        return Record(Happening.READ, at_us, b'{"readings": {"a": [%d, %d]}}' % (value, quality))

    course = Course([read(1000, 1), read(2000, 2, Quality.BAD), read(3000, 3), Record(Happening.AWAY, 5000, b"gone")])
    assert [course.at("a", at).value for at in (0, 999, 1000, 1999, 2000, 3999, 4000, 5500)] == [1, 1, 2, 2, 3, 3, 1, 2]
    assert course.at("a", 1500) == (2, Quality.BAD)
    assert course.at("b", 0) == (None, Quality.BAD_WAITING_FOR_INITIAL_DATA)
    assert (course.tags, course.length_us) == ({"a": (3, 1)}, 4000)

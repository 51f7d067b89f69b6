"""When an outbox may answer for what is destroyed: never where anything says that it may be a copy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.outbox.contract import NORMAL
from agent.outbox.identity import Signs, differences
from agent.outbox.passport import Passport, unpack
from agent.outbox.recognition import Here, recognise
from agent.outbox.rows import Whole
from agent.outbox.tally import Count

MARKERS = st.sampled_from(["1 10.5", "2 10.5", "2 20.5", "2 0", "3 30.5"])
COUNTS = st.builds(Count, st.integers(0, 5), st.integers(0, 5))


@st.composite
def signs(draw: st.DrawFn, *, markers: bool = True) -> dict[str, list[str]]:
    found = draw(st.dictionaries(st.sampled_from(["machine", "disk"]), st.lists(st.sampled_from("ab"), max_size=2)))
    return found | ({"marker": draw(st.lists(MARKERS, max_size=2)), "boot": ["b"]} if markers else {})


PASSPORTS = st.builds(
    Passport,
    st.sampled_from(["x", "y"]),
    signs(),
    st.lists(st.sampled_from(["e1", "e2"]), unique=True).map(tuple),
    st.lists(st.sampled_from(["e0"]), unique=True).map(tuple),
    COUNTS,
)
WHOLES = st.builds(
    Whole,
    st.just({NORMAL: "e2"}),
    id=st.sampled_from(["x", "y"]),
    signs=st.one_of(st.just({}), signs()),
    commits=st.integers(0, 5),
)
HERES = st.builds(
    Here, st.none() | MARKERS, st.none() | st.just("9 90.5"), signs(markers=False), st.sampled_from(["b", "c", ""])
)


@given(PASSPORTS)
def test_a_passport_is_read_as_it_was_written(passport: Passport) -> None:
    assert unpack(passport.pack()) == passport


@given(PASSPORTS, st.data())
def test_a_passport_that_was_changed_is_none(passport: Passport, data: st.DataObject) -> None:
    packed = bytearray(passport.pack())
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= 1 << data.draw(st.integers(0, 7))
    assert unpack(bytes(packed)) is None


def is_original(passport: Passport | None, marker: str | None, here: Signs) -> bool:
    return (
        passport is not None
        and marker in passport.signs["marker"]
        and not str(marker).endswith(" 0")
        and not differences(passport.signs, here)
    )


@given(WHOLES, st.none() | PASSPORTS, COUNTS, HERES)
def test_only_the_original_answers_and_only_where_something_is_lost(
    whole: Whole, passport: Passport | None, tally: Count, here: Here
) -> None:
    found = recognise(whole, passport, tally, here)
    if found.lost is not None or found.epochs:
        assert is_original(passport, here.marker, here.signs)
        assert not found.copied
    if whole.signs and whole.commits < tally.commits:
        assert found.lost is not None or found.copied, "its numbers would be given again"
    if found.lost is not None and whole.signs:
        assert found.lost.id == whole.id
        assert whole.commits < found.counted.commits or here.marker not in whole.signs["marker"]
    if found.lost is None and is_original(passport, here.marker, here.signs):
        assert whole.signs, "a new database beside a passport that proves something is a loss"

"""The rules of presence, one by one and under whatever order messages arrive in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.uplink.presence import Heard, Presence, came, hear, presence
from protocols.uplink.status import REASON_SHUTDOWN, REASON_UNEXPECTED, SILENCE_S, GatewayInfo, Status, will

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
SILENCE_US = int(SILENCE_S * SECOND)
LONG_AGO = NOW - 3600 * SECOND
INFO = GatewayInfo(thing_name="gw-1", version="1.0", uptime_sec=5)


def online(session: int, *, at_us: int = NOW) -> Status:
    return Status(timestamp=at_us // 1000, state="online", session=session, gateway=INFO)


def goodbye(session: int) -> Status:
    return Status(timestamp=NOW // 1000, state="offline", reason=REASON_SHUTDOWN, session=session, gateway=INFO)


def lost(session: int) -> Status:
    return will(session, NOW // 1000)


def after(*messages: Status, retained: bool = False, at_us: int = NOW) -> Heard:
    heard = Heard()
    for message in messages:
        heard = hear(heard, message, retained=retained, received_us=at_us)
    return heard


def seen(heard: Heard, *, later_s: float = 0, since_us: int = LONG_AGO) -> Presence:
    return presence(heard, now_us=NOW + int(later_s * SECOND), listening_since_us=since_us)


def test_a_live_status_is_a_sign_of_life() -> None:
    heard = after(online(3))
    assert seen(heard) is Presence.ONLINE
    assert (heard.alive_us, heard.session, heard.ended) == (NOW, 3, "")
    assert heard.status == online(3)


def test_a_goodbye_and_a_will_end_their_session_and_say_which_it_was() -> None:
    assert seen(after(online(3), goodbye(3))) is Presence.STOPPED
    assert seen(after(online(3), lost(3))) is Presence.LOST
    assert after(online(3), lost(3)).status == online(3)  # a will says nothing about the gateway: the last word stays
    assert after(online(3), goodbye(3)).status == goodbye(3)


def test_a_late_will_of_a_former_connection_changes_nothing() -> None:
    heard = after(online(3), online(4))
    assert hear(heard, lost(3), retained=False, received_us=NOW + SECOND) == heard
    assert seen(heard) is Presence.ONLINE


def test_the_will_arriving_before_the_next_connections_first_word() -> None:
    assert seen(after(online(3), lost(3), online(4))) is Presence.ONLINE


def test_a_status_overtaken_by_its_own_sessions_end_does_not_revive_it() -> None:
    assert seen(after(online(3), lost(3), online(3))) is Presence.LOST


def test_the_first_end_of_a_session_stays() -> None:
    heard = after(online(3), goodbye(3), lost(3))
    assert heard.ended == REASON_SHUTDOWN
    assert seen(heard) is Presence.STOPPED


def test_a_will_of_a_newer_session_than_ever_heard_counts() -> None:
    heard = after(online(3), lost(4))
    assert (heard.session, heard.ended) == (4, REASON_UNEXPECTED)


def test_an_end_without_a_reason_is_an_end() -> None:
    heard = after(online(3), Status(timestamp=0, state="offline", session=3))
    assert heard.ended == "offline"
    assert seen(heard) is Presence.LOST


@pytest.mark.parametrize("first", [True, False])
def test_a_retained_status_is_history(first: bool) -> None:
    heard = (
        after(online(3), retained=True) if first else hear(after(online(2)), online(3), retained=True, received_us=NOW)
    )
    assert heard.status == online(3)
    assert heard.alive_us == (None if first else NOW)
    assert seen(heard, later_s=SILENCE_S + 1) is Presence.SILENT


def test_a_retained_status_does_not_undo_an_end() -> None:
    ended = after(online(3), lost(3))
    assert hear(ended, online(3), retained=True, received_us=NOW) == ended


def test_a_retained_status_of_the_ended_session_only_tells_what_it_last_said() -> None:
    heard = hear(after(lost(3)), online(3), retained=True, received_us=NOW)
    assert (heard.ended, heard.status) == (REASON_UNEXPECTED, online(3))
    assert seen(heard) is Presence.LOST


def test_a_gateway_without_session_numbers_comes_back_with_its_next_status() -> None:
    assert seen(after(online(0), lost(0))) is Presence.LOST
    assert seen(after(online(0), lost(0), online(0))) is Presence.ONLINE
    assert seen(after(online(0), lost(0), online(0), goodbye(0))) is Presence.STOPPED


def test_a_retained_goodbye_is_known_after_the_receivers_restart() -> None:
    assert seen(after(goodbye(3), retained=True), since_us=NOW) is Presence.STOPPED


def test_silence() -> None:
    heard = after(online(3))
    assert seen(heard, later_s=SILENCE_S) is Presence.ONLINE
    assert seen(heard, later_s=SILENCE_S + 0.001) is Presence.SILENT


def test_a_receiver_that_has_just_begun_to_listen_accuses_nobody() -> None:
    heard = after(online(3), at_us=LONG_AGO)
    assert seen(heard, since_us=NOW) is Presence.UNKNOWN
    assert seen(heard, since_us=NOW - SILENCE_US) is Presence.SILENT


def test_a_gateway_never_heard_is_unknown_however_long() -> None:
    assert seen(Heard()) is Presence.UNKNOWN


def test_the_clocks_difference_is_measured_at_the_sign_of_life() -> None:
    heard = hear(Heard(), online(1, at_us=NOW - 90 * SECOND), retained=False, received_us=NOW)
    assert heard.skew_us == -90 * SECOND


def test_every_state_has_its_own_word_and_shape() -> None:
    assert len({state.word for state in Presence}) == len({state.shape for state in Presence}) == len(Presence)
    assert all(state.colour for state in Presence)


messages = st.tuples(st.sampled_from([online, goodbye, lost]), st.integers(0, 4), st.booleans())


@given(st.lists(messages, max_size=20))
def test_whatever_arrives_in_whatever_order(sequence: list[tuple[type, int, bool]]) -> None:
    heard, alive = Heard(), None
    for at, (make, session, retained) in enumerate(sequence):
        before = heard
        heard = hear(before, make(session), retained=retained, received_us=NOW + at)
        is_known = before.status is not None and before.status.session == before.session
        begins_anew = make is online and not retained and not is_known  # only wills of that session were heard
        if session < before.session and not begins_anew:
            assert heard == before
        assert heard.session >= before.session or begins_anew
        if before.ended and heard.session == before.session and not (session == 0 and heard.alive_us == NOW + at):
            assert heard.ended == before.ended  # only a newer session ends an end
        if heard.alive_us != alive:
            assert make is online and not retained and heard.alive_us == NOW + at
            alive = heard.alive_us


@pytest.mark.parametrize(
    ("noted", "uptime_s", "why"),
    [
        ("lost", 65, "after it was lost: the program ran on, so the line was broken"),
        ("silent", 64, "after it was silent: the program ran on, so the line was broken"),
        ("lost", 3, "after it was lost: the program was started anew"),
        ("stopped", 3, "after it was stopped"),
        ("", 3, "heard for the first time"),
    ],
)
def test_the_programs_age_tells_a_crash_from_a_broken_line(noted: str, uptime_s: int, why: str) -> None:
    info = GatewayInfo(thing_name="gw-1", version="1.0", uptime_sec=uptime_s)
    before = after(online(1), lost(1))
    back = online(2).model_copy(update={"gateway": info})
    now = hear(before, back, retained=False, received_us=NOW + 60 * SECOND)
    assert came(before, noted, now) == why
    assert came(Heard(), "lost", now) == "after it was lost", "what it last said is not known"


def test_another_installation_counts_its_sessions_from_below() -> None:
    """A new disk, and a clock that is not set yet: its heartbeats must not be taken for history."""
    counts_from_below({"instance": "a" * 16}, {"instance": "b" * 16})


def test_a_disk_that_was_set_back_counts_its_sessions_from_below() -> None:
    """It is the same installation, and every boot begins a new epoch."""
    same = {"instance": "a" * 16}
    counts_from_below(same | {"epoch": "11" * 8}, same | {"epoch": "22" * 8})


def counts_from_below(one: dict[str, str], other: dict[str, str]) -> None:
    old = Status(timestamp=0, state="online", session=1_780_000_000, **one)
    new = Status(timestamp=0, state="online", session=40, **other)
    known = hear(Heard(), old, retained=False, received_us=1)
    after = hear(known, new, retained=False, received_us=2)
    assert (after.session, after.alive_us, after.status) == (40, 2, new)
    assert hear(known, new, retained=True, received_us=2) == known
    assert hear(known, new.model_copy(update={"state": "offline"}), retained=False, received_us=2) == known
    assert hear(known, old.model_copy(update={"session": 40}), retained=False, received_us=2) == known


def test_a_will_of_a_session_that_nobody_heard_does_not_silence_what_counts_from_below() -> None:
    """The old disk's will, said again by a broker that was put back to an earlier state."""
    new = Status(timestamp=0, state="online", session=40, instance="b" * 16)
    for heard in (after(lost(1_780_000_000)), after(new, lost(1_780_000_000))):
        assert seen(heard) is Presence.LOST
        assert hear(heard, new, retained=True, received_us=NOW) == heard
        assert hear(heard, lost(40), retained=False, received_us=NOW) == heard
        assert seen(hear(heard, new, retained=False, received_us=NOW)) is Presence.ONLINE


def test_what_is_delivered_again_after_the_end_of_a_session_is_history() -> None:
    known = after(online(5), goodbye(5), online(6), lost(6))
    assert hear(known, online(5), retained=False, received_us=NOW) == known

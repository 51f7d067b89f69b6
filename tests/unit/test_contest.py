"""When two programs share a client id, and when a broker is only away."""

from __future__ import annotations

from agent.uplink.contest import HANG_UPS, OVER_S, SHORT_S, TAKE_OVERS, WITHIN_S, Contest
from protocols.uplink.link import LinkAway, LinkError, LinkHungUp, LinkTakenOver

TAKEN, CLOSED, AWAY = LinkTakenOver("taken over"), LinkHungUp("closed"), LinkAway("no network")


def after(*ends: tuple[float, LinkError], lived_s: float = 1.0, had_session: bool = True) -> Contest:
    contest = Contest("gw-1")
    for at_s, error in ends:
        contest.lost(error, lived_s, at_s, had_session=had_session)
    return contest


def test_one_take_over_is_a_restart_of_ours_elsewhere_two_are_a_contest() -> None:
    assert after((0.0, TAKEN)).sentence == ""
    contest = after(*((at, TAKEN) for at in range(TAKE_OVERS)))
    assert contest.sentence.startswith("another client takes this connection over, again and again: two programs use")
    assert "'gw-1'" in contest.sentence
    assert contest.is_certain


def test_take_overs_far_apart_are_none() -> None:
    assert after((0.0, TAKEN), (WITHIN_S, TAKEN)).sentence == ""


def test_a_broker_that_only_hangs_up_tells_by_doing_it_again_and_again_at_once() -> None:
    ends = [(float(at), CLOSED) for at in range(HANG_UPS)]
    suspicion = after(*ends)
    assert "right after it was made" in suspicion.sentence
    assert "or the line is bad" in suspicion.sentence
    assert not suspicion.is_certain, "a line that is cut again and again must not be left alone for a minute"
    assert after(*ends[:-1]).sentence == ""
    assert after(*ends, lived_s=SHORT_S).sentence == "", "it was up for a while"
    assert after(*ends, had_session=False).sentence == "", "the broker has forgotten us: it was restarted"
    assert after(*ends[:2], (1.5, AWAY), *ends[2:]).sentence == "", "the network"


def test_a_broker_that_is_away_in_between_was_restarted() -> None:
    contest = after((0.0, CLOSED), (1.0, CLOSED))
    contest.connect_failed()
    contest.lost(CLOSED, 1.0, 2.0, had_session=True)
    assert contest.sentence == ""


def test_it_is_over_when_a_connection_lasts() -> None:
    contest = after((0.0, TAKEN), (1.0, TAKEN))
    contest.goes_on(OVER_S - 1)
    assert contest.sentence
    contest.goes_on(OVER_S)
    assert contest.sentence == ""
    assert not contest.is_certain
    contest.lost(TAKEN, OVER_S, 500.0, had_session=True)
    assert contest.sentence == ""


def test_it_is_not_over_because_the_other_one_waits_too() -> None:
    contest = after((0.0, TAKEN), (1.0, TAKEN))
    contest.lost(TAKEN, 45.0, 120.0, had_session=True)
    assert contest.sentence

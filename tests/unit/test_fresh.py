"""What is kept in memory until it is published, and the sentences on what is wrong."""

from __future__ import annotations

from structlog.testing import capture_logs

from agent.outbox.contract import Lane
from agent.uplink.fresh import Fresh, FreshBatches
from agent.uplink.trouble import Kind, Troubles

PRESS = Lane("press", "aa")


def test_the_newest_are_kept_within_the_bound() -> None:
    kept = FreshBatches(bytes_max=25)
    for seq in range(1, 5):
        kept.put(Fresh(PRESS, seq, bytes(10)))
    assert [kept.get(PRESS, seq) is not None for seq in range(1, 5)] == [False, False, True, True]
    kept.put(Fresh(PRESS, 4, bytes(5)))  # again: it counts once
    kept.put(Fresh(PRESS, 5, bytes(10)))
    assert kept.get(PRESS, 3) is not None
    kept.pop(PRESS, 4)
    kept.pop(PRESS, 4)
    kept.put(Fresh(PRESS, 6, bytes(5)))
    assert kept.get(PRESS, 3) is not None
    kept.put(Fresh(PRESS, 7, bytes(100)))
    assert all(kept.get(PRESS, seq) is None for seq in range(1, 8))
    kept.put(Fresh(PRESS, 8, bytes(25)))
    assert kept.get(PRESS, 8) is not None


def test_of_several_troubles_the_gravest_is_shown_and_each_is_logged_once() -> None:
    troubles = Troubles()
    with capture_logs() as logs:
        troubles.say(Kind.UNCONFIRMED, "nothing for 5 min", again=False)
        troubles.say(Kind.UNCONFIRMED, "nothing for 6 min", again=False)
        assert troubles.sentence == "nothing for 6 min"
        troubles.say(Kind.FENCED, "be silent")
        troubles.say(Kind.FENCED, "be silent")
        assert troubles.sentence == "be silent"
        troubles.over(Kind.FENCED, Kind.LINK)
        assert troubles.sentence == "nothing for 6 min"
        troubles.over(Kind.UNCONFIRMED)
        assert troubles.sentence == ""
        troubles.say(Kind.UNCONFIRMED, "nothing for 5 min")
    assert [log["event"] for log in logs] == ["nothing for 5 min", "be silent", "nothing for 5 min"]

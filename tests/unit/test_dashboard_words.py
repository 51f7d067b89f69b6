"""What the operators' page says of gateways and ledgers, in words and figures. Pure but for the store, in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud import overview
from cloud.dashboard import backlog, gateways, ledgers, snapshot
from cloud.dashboard.backlog import Sample, Trend
from cloud.dashboard.text import TEXT_MAX, plain
from cloud.speakers import Speaker, Speakers
from cloud.store.contract import GatewayRow
from cloud.store.memory import MemoryStore
from protocols.uplink.presence import Heard, Presence
from protocols.uplink.status import (
    REASON_SHUTDOWN,
    REASON_UNEXPECTED,
    Buffer,
    Clock,
    DeviceLink,
    Health,
    MachineNumbers,
)
from protocols.uplink.topics import GatewayTopic
from protocols.values import ValueType
from tests.contract.store_cases import GATEWAY, NOW, PLANT, PRESS, SECOND, beat, one_column, telemetry, with_plant

DAY_S = 86_400
REVERSED = "\u202egnp.exe"  # shown by a screen that obeys it as exe.png


def row(
    *, buffer: Buffer | None = None, ago_s: float = 0, heard: dict[str, Any] | None = None, **said: Any
) -> GatewayRow:
    """A gateway whose last heartbeat came `ago_s` before NOW."""
    at_us = NOW - int(ago_s * SECOND)
    status = beat(received_us=at_us, health=Health(buffer=buffer or Buffer()), **said).status
    known = Heard(alive_us=at_us, session=1, status=status, skew_us=0)
    return GatewayRow(PLANT, "gw-1", True, replace(known, **(heard or {})), since_us=at_us - SECOND)


def told(one: GatewayRow, trend: Trend | None = None, listening_since_us: int = 0) -> dict[str, Any]:
    return gateways.gateway(one, overview.gateway(one, NOW, listening_since_us), trend, NOW)


def notes(one: GatewayRow, trend: Trend | None = None) -> list[tuple[str, str]]:
    return [(note["colour"], note["text"]) for note in told(one, trend)["notes"]]


# --- why it is away, and since when ---


@pytest.mark.parametrize(
    ("one", "listening_since_us", "word", "why", "since_us"),
    [
        (row(ago_s=5), 0, "online", "", NOW - 6 * SECOND),
        (row(heard={"ended": REASON_SHUTDOWN, "ended_us": NOW - 7}), 0, "stopped", "planned stop", NOW - 7),
        (row(heard={"ended": REASON_UNEXPECTED, "ended_us": NOW - 8}), 0, "lost", "broke off: a crash", NOW - 8),
        (row(heard={"ended": REVERSED, "ended_us": NOW - 9}), 0, "lost", r"offline: \u202egnp.exe", NOW - 9),
        (row(ago_s=90), 0, "silent", "no heartbeat, and no goodbye", NOW - 90 * SECOND),
        (row(ago_s=90), NOW, "unknown", "has not listened for long enough", NOW - 90 * SECOND),
        (GatewayRow(PLANT, "gw-1", True, Heard()), 0, "unknown", "never heard", None),
    ],
)
def test_why_a_gateway_is_away_and_since_when(
    one: GatewayRow, listening_since_us: int, word: str, why: str, since_us: int | None
) -> None:
    shown = told(one, listening_since_us=listening_since_us)
    assert (shown["word"], shown["since_us"]) == (word, since_us)
    assert why in shown["why"]
    assert bool(shown["why"]) is (word != "online")


# --- the outage budget ---

HELD = Buffer(
    queued_messages=12,
    kept_bytes=2_400_000,
    bytes=5000,
    limit_bytes=10**9,
    oldest_sec=180,
    full_in_sec=9 * DAY_S + 14_400,
)


def test_how_long_an_outage_may_last() -> None:
    assert told(row(buffer=HELD))["budget"] == [
        "12 batches wait; at this rate 9 d 4 h left",
        "oldest unsent 3 min",
        "5.0 kB of 1.0 GB",
        "2.4 MB confirmed, still kept",
    ]
    assert told(row(buffer=HELD))["kept_bytes"] == 2_400_000


@pytest.mark.parametrize(
    ("presence", "silence_s", "lead"),
    [
        (Presence.LOST, 2 * DAY_S, "12 batches wait; if it still runs, about 7 d 4 h left"),
        (Presence.SILENT, 30 * DAY_S, "12 batches wait; if it still runs, it is full by now"),
        (Presence.STOPPED, 60, "12 batches wait"),
    ],
)
def test_one_that_is_away_goes_on_filling_unless_it_was_stopped(presence: Presence, silence_s: int, lead: str) -> None:
    assert gateways.budget(HELD, presence, silence_s)[0] == lead


def test_an_outbox_that_is_empty_or_only_in_memory_says_so() -> None:
    assert gateways.budget(Buffer(limit_bytes=1000), Presence.ONLINE, 0) == ["nothing waits", "0 B of 1.0 kB"]
    assert gateways.budget(Buffer(queued_messages=1, mode="memory"), Presence.ONLINE, 0) == [
        "1 batch waits",
        "0 B of 0 B",
        "in memory only: a power cut empties it",
    ]
    assert told(GatewayRow(PLANT, "gw-1", True, Heard()))["budget"] == []


# --- what an operator should see to ---


@pytest.mark.parametrize(
    ("days", "found"),
    [
        (None, []),
        (30, []),
        (29, [("amber", "its certificate ends in 29 days; renew it in time")]),
        (1, [("red", "its certificate ends in 1 day; renew it in time")]),
        (0, [("red", "its certificate ends today; renew it in time")]),
        (-2, [("red", "its certificate expired 2 days ago; renew it, or it cannot connect again")]),
    ],
)
def test_a_certificate_that_ends_soon(days: int | None, found: list[tuple[str, str]]) -> None:
    assert notes(row(certificate_days_left=days)) == found


@pytest.mark.parametrize(
    ("skew_s", "synchronised", "found"),
    [
        (1.9, True, None),
        (14.2, True, "14.2 s ahead of the receiver's"),
        (-7200, False, "2 h behind the receiver's"),
        (0, False, "not synchronised"),
        (0, None, None),
    ],
)
def test_a_clock_that_is_wrong(skew_s: float, synchronised: bool | None, found: str | None) -> None:
    one = row(heard={"skew_us": int(skew_s * SECOND)}, clock=Clock(synchronised=synchronised))
    said = notes(one)
    assert len(said) == (found is not None)
    assert all(found is not None and found in text for _, text in said)
    assert all(note["command"] == "timedatectl set-ntp true" for note in told(one)["notes"])


@pytest.mark.parametrize(
    ("synchronised", "uncertain", "found", "command"),
    [
        (False, 1200, "not synchronised: 1,200 batches have uncertain times", "timedatectl set-ntp true"),
        (True, 1, "1 batch has uncertain times: it was switched off before", ""),
        (None, 2, "2 batches have uncertain times: it was switched off before", ""),
    ],
)
def test_times_that_nobody_vouches_for(synchronised: bool | None, uncertain: int, found: str, command: str) -> None:
    one = replace(row(clock=Clock(synchronised=synchronised)), uncertain=uncertain, corrected=5)
    (note,) = told(one)["notes"]
    assert (note["colour"], note["command"]) == ("amber", command)
    assert found in note["text"]
    assert (told(one)["uncertain"], told(one)["corrected"]) == (uncertain, 5)


def test_a_wrong_clock_that_will_be_corrected_has_one_remedy_and_its_devices_the_right_since() -> None:
    link = DeviceLink(machine="m", state="ok", since=(NOW - 30 * SECOND) // 1000 - 7_200_000)
    one = row(heard={"skew_us": -7200 * SECOND}, clock=Clock(synchronised=False), devices={"plc-1": link})
    found = told(replace(one, uncertain=3))
    assert [note["command"] for note in found["notes"]] == ["", "timedatectl set-ntp true"]
    assert "2 h behind" in found["notes"][0]["text"] and "3 batches" in found["notes"][1]["text"]
    assert found["links"][0]["since_us"] == NOW - 30 * SECOND


def test_two_installations_under_one_name_are_a_red_line_with_both_hosts_and_what_to_do() -> None:
    first, second = Speaker("a" * 32, "line-3", NOW, NOW), Speaker("b" * 32, f"copy{REVERSED}", NOW, NOW)
    one = replace(row(), speakers=Speakers((first, second), "a" * 32, "b" * 32, NOW))
    (note,) = told(one)["notes"]
    assert (note["colour"], note["shape"]) == ("red", "▲")
    assert "aaaaaaaa on host line-3, which was there first" in note["text"]
    assert r"bbbbbbbb on host copy\u202egnp.exe" in note["text"]
    assert "stop one of them" in note["text"]
    assert note["command"] == f"holdfast-cloud gateway accept {PLANT} gw-1"


def test_batches_that_were_given_up() -> None:
    assert notes(row(dropped_count=1, dropped_readings=2000)) == [
        ("amber", "it gave up 1 batch unconfirmed, 2,000 readings in all; which and why stands with their machines")
    ]


BEHIND = Buffer(queued_messages=12_000, bytes=1, limit_bytes=10, oldest_sec=3600, full_in_sec=9 * DAY_S)


@pytest.mark.parametrize(
    ("buffer", "trend", "found"),
    [
        (HELD.model_copy(update={"oldest_sec": 5}), Trend(3.0, 4), []),
        (BEHIND, None, []),
        (
            BEHIND,
            Trend(50.0, 240),
            [("green", "catching up: 12,000 batches of backlog, 50.0 fewer each second, done in about 4 min")],
        ),
        (BEHIND, Trend(0.0, None), [("amber", "not catching up: 12,000 batches of backlog, and none fewer")]),
        (
            BEHIND.model_copy(update={"full_in_sec": 7200}),
            Trend(-3.0, None),
            [
                (
                    "red",
                    "12,000 batches of backlog, more of them each second; room for 2 h more, then the oldest go unsent",
                )
            ],
        ),
    ],
)
def test_a_backlog_that_shrinks_or_does_not(buffer: Buffer, trend: Trend | None, found: list[tuple[str, str]]) -> None:
    assert notes(row(buffer=buffer), trend) == found


def test_of_a_gateway_that_is_away_no_backlog_is_foretold() -> None:
    assert notes(row(buffer=BEHIND, ago_s=90), Trend(50.0, 240)) == []


# --- the trend ---


def samples(seen: backlog.Seen) -> list[tuple[int, int]]:
    return [(one.at_us - NOW, one.queued) for one in seen.get(GATEWAY, ())]


def heartbeat(at_s: float, queued: int, oldest_s: int | None = 3600) -> GatewayRow:
    return row(ago_s=-at_s, buffer=Buffer(queued_messages=queued, oldest_sec=oldest_s))


def test_heartbeats_are_kept_for_a_while_once_each_and_as_long_as_there_is_a_backlog() -> None:
    seen = backlog.noted({}, [heartbeat(0, 1000)])
    seen = backlog.noted(seen, [heartbeat(0, 1000)])
    assert samples(seen) == [(0, 1000)]
    seen = backlog.noted(seen, [heartbeat(100, 500)])
    seen = backlog.noted(seen, [heartbeat(130, 400)])
    assert samples(seen) == [(100 * SECOND, 500), (130 * SECOND, 400)]
    assert backlog.noted(seen, [heartbeat(140, 3, oldest_s=2)]) == {}
    assert backlog.noted(seen, [heartbeat(140, 0, oldest_s=None)]) == {}
    assert backlog.noted(seen, [GatewayRow(PLANT, "gw-1", True, Heard())]) == {}
    assert list(backlog.noted(seen, [heartbeat(140, 300), replace(heartbeat(140, 300), thing="gw-2")])) == [
        GATEWAY,
        GatewayTopic(PLANT, "gw-2"),
    ]


def test_the_trend_over_the_window() -> None:
    assert backlog.trend([]) is None
    assert backlog.trend([Sample(NOW, 100)]) is None
    assert backlog.trend([Sample(NOW, 100), Sample(NOW + 4 * SECOND, 50)]) is None
    assert backlog.trend([Sample(NOW, 100), Sample(NOW + 10 * SECOND, 50)]) == Trend(5.0, 10)
    assert backlog.trend([Sample(NOW, 100), Sample(NOW + 10 * SECOND, 100)]) == Trend(0.0, None)
    assert backlog.trend([Sample(NOW, 100), Sample(NOW + 10 * SECOND, 200)]) == Trend(-10.0, None)


sizes = st.integers(0, 2**70) | st.integers(4000, 4200).map(lambda digits: int(10**digits))


@given(sizes, sizes, st.integers(0, 10**15))
def test_no_figure_that_a_stranger_sends_is_too_much(first: int, last: int, later_us: int) -> None:
    seen = backlog.noted({}, [row(ago_s=60, buffer=Buffer(queued_messages=first, oldest_sec=last))])
    buffer = Buffer(queued_messages=last, bytes=first, limit_bytes=last, oldest_sec=last, full_in_sec=first)
    one = row(buffer=buffer, certificate_days_left=-last, dropped_count=first, dropped_readings=last)
    trend = backlog.trend(backlog.noted(seen, [one]).get(GATEWAY, ()))
    shown = told(one, trend)
    assert len(json.dumps(shown)) < 3000
    assert shown["budget"]
    found = backlog.trend([Sample(NOW, first % 2**53), Sample(NOW + later_us, last % 2**53)])
    assert found is None or (found.left_s is None) is (last % 2**53 >= first % 2**53)


# --- ledgers ---


def test_a_ledger_over_all_epochs_with_reasons_and_gaps() -> None:
    store = MemoryStore()
    with_plant(store)
    store.commit([telemetry(seq, epoch="e0") for seq in (1, 2, 5)])
    numbers = MachineNumbers(last_seq=10, sent_seq=8, dropped=[(3, 4, "full"), (5, 5, REVERSED)])
    store.commit([telemetry(1), telemetry(7), beat({"press-1": numbers})])
    found = ledgers.books(store, PRESS)
    shown = ledgers.shown(found)
    assert shown == {
        "batches": 15,
        "stored": 5,
        "in_flight": 2,
        "dropped": 3,
        "missing": 5,
        "readings": 5,
        "complete": False,
        "losses": [{"batches": 2, "reason": "full"}, {"batches": 1, "reason": r"\u202egnp.exe"}],
        "reasons": 2,
        "gaps": [
            {"epoch": "e1", "first": 2, "last": 2},
            {"epoch": "e1", "first": 6, "last": 6},
            {"epoch": "e1", "first": 8, "last": 8},
            {"epoch": "e0", "first": 3, "last": 4},
        ],
        "gaps_in_all": 4,
    }
    whole = ledgers.whole([found, None, found])
    assert (whole["batches"], whole["missing"], whole["complete"]) == (30, 10, False)
    assert ledgers.whole([None])["complete"]
    assert ledgers.whole([]) == {key: whole[key] * 0 for key in whole if key != "complete"} | {"complete": True}


def test_a_ledger_with_many_reasons_and_gaps_is_told_in_part() -> None:
    store = MemoryStore()
    with_plant(store)
    dropped = [(seq, seq, f"reason {seq}") for seq in range(2, 21, 2)]
    store.commit([telemetry(40), beat({"press-1": MachineNumbers(last_seq=40, sent_seq=40, dropped=dropped)})])
    shown = ledgers.shown(ledgers.books(store, PRESS))
    assert shown is not None
    assert (len(shown["losses"]), shown["reasons"]) == (ledgers.REASONS_MAX, 10)
    assert (len(shown["gaps"]), shown["gaps_in_all"]) == (ledgers.RANGES_MAX, 11)


def test_of_a_machine_without_numbers_nothing_is_said() -> None:
    store = MemoryStore()
    with_plant(store)
    assert ledgers.books(store, PRESS) is None
    assert ledgers.shown(None) is None


# --- what strangers chose ---


def test_what_strangers_chose_cannot_steer_a_screen() -> None:
    assert plain("plc-1 \x1b[2J\n\u2028") == r"plc-1 \x1b[2J\n\u2028"
    assert plain("x" * 1000) == "x" * TEXT_MAX + "…"
    column = one_column(ValueType.STRING, REVERSED, tag=f"tag {REVERSED}", unit="\x07")
    store = MemoryStore()
    with_plant(store)
    store.commit([telemetry(1, column)])
    (value,) = snapshot.values(store.latest(PRESS), "tag")["values"]
    assert (value["shown"], value["value"], value["unit"]) == (r"tag \u202egnp.exe", r"\u202egnp.exe", r"\x07")
    assert value["tag"] == f"tag {REVERSED}"  # as it is: what its row is known by

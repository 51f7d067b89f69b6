"""What `holdfast status` makes of the agent's own word: the buffer, losses, the certificate, the machines' numbers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agent import health
from agent.commands import status as command
from agent.commands.findings import Finding, Mark
from agent.running import Life, Sighting
from agent.statusfile import AgentStatus
from protocols.uplink.status import Buffer, GatewayInfo, Health, MachineNumbers, Status

GIB = 1 << 30
DAY_S = 86_400


def said(**more: Any) -> Status:
    return Status(
        timestamp=1,
        state="online",
        gateway=GatewayInfo(thing_name="gw-1", version="1", uptime_sec=5),
        health=Health(buffer=Buffer(limit_bytes=GIB)),
        **more,
    )


def findings(status: Status, life: Life = Life.RUNNING) -> dict[str, Finding]:
    agent = Sighting(life, AgentStatus(status.model_dump(by_alias=True), "connected, MQTT 5", "", time.time()))
    return {finding.subject: finding for finding in command._about_plant(agent, status, time.time())}


@pytest.mark.parametrize(
    ("buffer", "mark", "text"),
    [
        (Buffer(limit_bytes=GIB), Mark.OK, "0 batches wait, 0 B of 1.1 GB"),
        (
            Buffer(limit_bytes=GIB, full_in_sec=9 * DAY_S + 4 * 3600),
            Mark.OK,
            "0 batches wait, 0 B of 1.1 GB; at this rate 9 d 4 h left",
        ),
        (
            Buffer(
                limit_bytes=GIB, queued_messages=180, bytes=500_000, oldest_sec=190, full_in_sec=9 * DAY_S + 4 * 3600
            ),
            Mark.OK,
            "180 batches wait, 500.0 kB of 1.1 GB; oldest unsent 3 min; at this rate 9 d 4 h left",
        ),
        (
            Buffer(limit_bytes=GIB, queued_messages=180, bytes=500_000, oldest_sec=190, full_in_sec=7200),
            Mark.NOTE,
            "180 batches wait, 500.0 kB of 1.1 GB; oldest unsent 3 min; at this rate 2 h left",
        ),
        (
            Buffer(limit_bytes=GIB, queued_messages=1, bytes=50, oldest_sec=0, full_in_sec=7200),
            Mark.OK,  # it is not filling: that is how long an outage might last
            "1 batches wait, 50 B of 1.1 GB; oldest unsent 0 s; at this rate 2 h left",
        ),
    ],
)
def test_the_buffer_in_words(buffer: Buffer, mark: Mark, text: str) -> None:
    found = health.buffer(buffer, is_alive=True)
    assert (found.mark, found.text) == (mark, text)


def test_of_an_agent_that_is_gone_only_what_it_left_counts() -> None:
    status = said(certificate_days_left=3)
    status = status.model_copy(update={"health": Health(buffer=Buffer(queued_messages=7, bytes=700, full_in_sec=1))})
    found = findings(status, Life.DEAD)
    assert found.keys() == {"buffer"}
    assert found["buffer"].text == "7 batches lie on disk, 700 B; they are sent when it runs again"


def test_losses_are_told_in_batches_and_readings() -> None:
    assert "lost" not in findings(said())
    found = findings(said(dropped_count=1200, dropped_readings=72_000))["lost"]
    assert found.mark is Mark.NOTE
    assert found.text.startswith("1,200 batches were given up unconfirmed, 72,000 readings in all;")


@pytest.mark.parametrize(
    ("days", "mark", "text"),
    [
        (90, Mark.OK, "valid for 90 more days"),
        (29, Mark.NOTE, "valid for 29 more days"),
        (-2, Mark.BAD, "expired 2 days ago"),
    ],
)
def test_a_certificate_that_ends_soon_is_told_in_time(days: int, mark: Mark, text: str) -> None:
    found = findings(said(certificate_days_left=days))["certificate"]
    assert (found.mark, found.text) == (mark, text)
    assert "certificate" not in findings(said())


def test_numbers_of_other_epochs_stand_beside_the_present_ones(capsys: pytest.CaptureFixture[str]) -> None:
    machines = {"press": MachineNumbers(last_seq=120, sent_seq=118, dropped=[(3, 9, "outbox full")])}
    command._print_machines(said(machines=machines))
    assert [line.split() for line in capsys.readouterr().out.splitlines() if line][-1] == ["press", "120", "118", "7"]
    others = {"press": {"8899aabbccddeeff": MachineNumbers(last_seq=5, sent_seq=5)}}
    command._print_machines(said(machines=machines, others=others))
    out = capsys.readouterr().out
    assert "other epoch" in out
    assert ["press", "8899aabb", "5", "5", "0"] in [line.split() for line in out.splitlines()]

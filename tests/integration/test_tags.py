"""Deadbands, filters and derived tags on the whole way: Modbus server → agent → broker → receiver → database."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import mosquitto
from tests.support.cli import Prepared, prepared
from tests.support.modbus_servers import HOST, Plc, Unit, plc
from tests.support.programs import Program, programs, until, write_yaml

LEVEL, COUNTER, DIVISOR, HOLE = 0, 1, 2, 9
PERIOD_S = 0.05
BAD_OUT_OF_RANGE = 0x803C0000
UNCERTAIN = 0x40000000


def agent_document(folder: Path, broker: dict[str, Any], port: int) -> dict[str, Any]:
    return {
        "gateway": {"thing": "gw-1", "tenant": "acme", "province": "north", "plant": "mill"},
        "broker": broker,
        "data_dir": str(folder / "agent"),
        "batch": {"interval_s": 0},
        "devices": [
            {
                "name": "plc-1",
                "machine": "press-1",
                "protocol": "modbus",
                "host": HOST,
                "port": port,
                "timeout_s": 20.0,  # the server lives in this process, which sometimes waits for a command of ours
                "groups": [
                    {
                        "period_s": PERIOD_S,
                        "deadband": 5,
                        "tags": [
                            {"name": "level", "address": f"holding:{LEVEL}"},
                            {"name": "pieces", "address": f"holding:{COUNTER}", "counter_step_max": 100, "deadband": 0},
                            {"name": "divisor", "address": f"holding:{DIVISOR}"},
                            {"name": "clamped", "address": f"holding:{LEVEL}", "clamp_max": 50},
                            {"name": "hole", "address": f"holding:{HOLE}"},
                        ],
                        "derived": [
                            {"name": "share", "expression": "level / divisor", "unit": "%"},
                            {"name": "is_high", "expression": "level > 100"},
                            {"name": "pace", "rate_of": "pieces", "deadband": 0},
                            {"name": "of_hole", "expression": "hole + 1"},
                        ],
                    }
                ],
            }
        ],
    }


class Database:
    """The receiver's, as SQL shows it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, query: str, *values: Any) -> list[Any]:
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query, values).fetchall()

    def history(self, tag: str) -> list[tuple[Any, int]]:
        """(value, quality) of all its readings, in the order of their times."""
        of_tag = "FROM readings JOIN series ON series.id = series_id WHERE tag = ?"
        return self(f"SELECT value, quality {of_tag} ORDER BY readings.time", tag)

    def newest(self, tag: str) -> Any:
        """Value, status code and reason."""
        found = self("SELECT value, status_code, reason FROM latest_named WHERE tag = ?", tag)
        return found[0] if found else None


async def polls(server: Plc, count: int) -> None:
    """Wait until the agent has asked so many times more."""
    wanted = len(server.asked) + 3 * count  # a read is at most three requests: the hole may be looked at, too
    await until("the agent polls", lambda: len(server.asked) >= wanted)


async def test_only_changes_and_qualities_with_their_reasons_reach_the_database(tmp_path: Path) -> None:
    unit = Unit(holding={LEVEL: 100, COUNTER: 65_530, DIVISOR: 4})
    async with mosquitto(tmp_path / "broker") as broker, plc({1: unit}) as server:
        where = {"host": broker.host, "port": broker.port}
        database = Database(tmp_path / "cloud.db")
        cloud = {"broker": where, "store": {"path": str(tmp_path / "cloud.db")}, "http": {"port": 0}}
        receiver = Program("cloud.cli", write_yaml(tmp_path / "cloud.yaml", cloud))
        agent = Program("agent.cli", write_yaml(tmp_path / "agent.yaml", agent_document(tmp_path, where, server.port)))
        for words in (("tenant", "add", "acme"), ("plant", "add", "acme", "north", "mill")):
            command = [sys.executable, "-m", "cloud.cli", *words, "--config", str(receiver.config)]
            await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
        async with programs(agent, receiver):
            receiver.start()
            agent.start()

            async def stored(what: str, condition: Callable[[], bool]) -> None:
                await until(f"{what}; see {agent.log} and {receiver.log}", condition)

            await stored("the first readings", lambda: database.newest("share") == (25.0, 0, ""))
            unit.holding[LEVEL] = 104  # within the deadband, also of what is derived from it
            await polls(server, 5)
            unit.holding[LEVEL] = 106
            await stored("the change", lambda: database.newest("level") == (106, 0, ""))
            unit.holding[DIVISOR] = 0
            await stored(
                "the division by zero",
                lambda: database.newest("share") is not None and database.newest("share")[1] != 0,
            )
            unit.holding[COUNTER] = 4  # goes round: ten more
            await stored("the counter", lambda: database.newest("pieces") == (65_540, 0, ""))
            await stored("the counter stands still", lambda: database.newest("pace") == (0.0, 0, ""))
            await polls(server, 5)
            assert await asyncio.to_thread(agent.stop) == 0
            assert await asyncio.to_thread(receiver.stop) == 0

        assert database.history("level") == [(100, 0), (106, 0)]
        assert database.history("clamped") == [(50, UNCERTAIN)]
        assert database.newest("clamped")[2] == "holding 0 (40001): the device sent 100, above clamp_max 50"
        assert database.history("is_high") == [(0, 0), (1, 0)]
        assert database.history("share") == [(25.0, 0), (None, BAD_OUT_OF_RANGE)]
        assert database.newest("share")[2] == "division by zero, where level = 106, divisor = 0"
        assert database.history("divisor") == [(4, 0)], "4 to 0 is within its deadband of 5: not reported, but used"
        assert database.history("pieces") == [(65_530, 0), (65_540, 0)]
        paces = [value for value, quality in database.history("pace") if quality == 0]
        assert min(paces) == 0.0, "a counter that goes round is no fall"
        assert max(paces) > 0
        assert database.history("hole") == [(None, BAD_OUT_OF_RANGE)]
        assert "illegal data address" in database.newest("hole")[2]
        assert database.newest("of_hole") == (None, BAD_OUT_OF_RANGE, f"hole: {database.newest('hole')[2]}")
        said = json.loads((tmp_path / "agent" / "status.json").read_text())["status"]["devices"]["plc-1"]
        assert database("SELECT count(*) FROM readings") == [(said["readings"],)], (
            "what was handed on is what is stored"
        )


OVEN = """
gateway: {thing: gw-1, tenant: acme, province: north, plant: mill}
broker: {host: 127.0.0.1}
data_dir: data
devices:
  - name: oven
    machine: oven-1
    protocol: memory
    groups:
      - deadband: 9
        tags:
          - {name: inlet, value: 80.0}
          - {name: outlet, value: 60.0}
          - {name: none, type: int}
        derived:
          - {name: heat, expression: (inlet - outlet) * 4.19, unit: kW}
          - {name: power, rate_of: heat}
          - {name: ratio, expression: inlet / none}
          - {name: far, expression: inlet + gauge}
  - {name: other, machine: oven-1, protocol: memory, groups: [{tags: [{name: gauge}]}]}
"""


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Prepared]:
    with prepared("agent.cli", "agent.settings", "agent.commands.read", "agent.commands.polling") as program:
        yield program


def test_read_shows_derived_tags_and_what_they_are_made_of(tmp_path: Path, holdfast: Prepared) -> None:
    (tmp_path / "agent.yaml").write_text(OVEN)
    ended = holdfast.run(["read", "oven", "--config", "agent.yaml"], cwd=tmp_path, environ={})
    assert ended.code == 0, ended.err
    _, derived = ended.out.split("group main-derived\n")
    assert re.search(r"^heat +83.8  kW +good +\d+ s +\(inlet - outlet\) \* 4.19$", derived, re.MULTILINE)
    assert re.search(r"^power +- +none +- +rate of heat$", derived, re.MULTILINE)
    assert "! power: a rate needs two readings" in derived
    assert "! far: it is made of gauge, not read here" in derived
    assert "✗ ratio: division by zero, where inlet = 80, none = 0" in derived


def test_check_counts_them_and_names_those_that_cannot_be_computed(tmp_path: Path, holdfast: Prepared) -> None:
    (tmp_path / "agent.yaml").write_text(OVEN)
    ended = holdfast.run(["check", "--config", "agent.yaml", "--json"], cwd=tmp_path, environ={})
    found = {one["subject"]: one for one in json.loads(ended.out)["findings"]}
    assert found["configuration"]["text"] == "agent.yaml: 2 devices, 8 tags, 4 of them derived"
    assert found["oven"]["text"] == "4 of 5 tags good"
    assert found["oven"]["details"] == ["ratio: division by zero, where inlet = 80, none = 0"]
    assert found["other"]["text"] == "1 tag good"


def test_why_of_a_derived_tag_leads_to_what_it_is_made_of(tmp_path: Path, holdfast: Prepared) -> None:
    (tmp_path / "agent.yaml").write_text(OVEN)
    ended = holdfast.run(["why", "heat", "--config", "agent.yaml"], cwd=tmp_path, environ={})
    assert ended.code == 64
    assert "heat is derived from inlet, outlet; look at that: holdfast why inlet" in ended.err
    ended = holdfast.run(["why", "inlet", "--config", "agent.yaml"], cwd=tmp_path, environ={})
    assert "80" in ended.out

"""`holdfast-cloud` as people call it: against real databases and a real broker, on pipes and on a terminal.

A wait here has a limit only so that a failure says where it waited; no time is asserted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pty
import re
import select
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import structlog
import typer.main

from cloud.cli import app
from cloud.commands.options import now_us
from cloud.store.contract import Item, Undecodable
from cloud.store.sqlite import SqliteStore
from protocols.program.console import CONFIGURATION, TEMPORARY, UNAVAILABLE, USAGE, run
from protocols.uplink import envelope
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.status import Buffer, Clock, DeviceLink, GatewayInfo, Health, MachineNumbers, Status
from protocols.uplink.topics import GatewayTopic, MachineTopic
from protocols.values import ValueType
from tests.contract.store_cases import ELSEWHERE, GATEWAY, OVEN, PLANT, PRESS, beat, telemetry, with_plant
from tests.support.brokers import Broker, free_port, mosquitto
from tests.support.terminal import in_terminal

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
SECOND = 1_000_000


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """Commands in this process, with a configuration and its database."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def config(self) -> Path:
        return self.folder / "cloud.yaml"

    @property
    def database(self) -> Path:
        return self.folder / "cloud.db"

    def configure(self, broker_port: int = 1, **http: object) -> None:
        given = {"broker": {"host": "127.0.0.1", "port": broker_port, "connect_timeout_s": 2.0}}
        self.config.write_text(json.dumps({**given, "store": {"path": str(self.database)}, "http": http}))

    def __call__(self, *words: str) -> Done:
        code = run(app, [*words, "--config", str(self.config)], prog="holdfast-cloud")
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(code, out, err)

    def refused(self, *words: str) -> str:
        """The one sentence of a command that was used wrongly."""
        done = self(*words)
        assert (done.code, done.out, done.err.count("\n")) == (USAGE, "", 1), done
        return done.err

    def store(self) -> SqliteStore:
        return SqliteStore(self.database)

    def commit(self, *items: Item) -> None:
        with closing(self.store()) as store:
            store.commit(items)

    def receiver(self, listening_s: float = 3600, ago_s: float = 0) -> None:
        """As if a receiver had been at work that long ago, and had listened for so long."""
        beat_us = now_us() - int(ago_s * SECOND)
        with closing(self.store()) as store:
            store.receiver_beat(beat_us - int(listening_s * SECOND), beat_us)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    yield
    structlog.reset_defaults()
    root.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.delenv("HOLDFAST_CLOUD_CONFIG", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it for its workers
    found = Cli(tmp_path, capsys)
    found.configure()
    return found


@pytest.fixture
def plant(cli: Cli) -> Cli:
    """With PLANT in the database."""
    with closing(cli.store()) as store:
        with_plant(store)
    return cli


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with mosquitto(tmp_path / "broker") as broker:
        yield broker


# --- init ---


def test_init_writes_an_example_for_its_owner_alone(cli: Cli) -> None:
    path = cli.folder / "new.yaml"
    assert run(app, ["init", str(path)], prog="holdfast-cloud") == 0
    assert "holdfast-cloud check" in cli.capsys.readouterr().out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "# a single setting can be changed" in path.read_text().lower()
    path.write_text("mine")
    assert run(app, ["init", str(path)], prog="holdfast-cloud") == USAGE
    assert "--force" in cli.capsys.readouterr().err
    assert path.read_text() == "mine"
    assert run(app, ["init", str(path), "--force", "--json"], prog="holdfast-cloud") == 0
    assert json.loads(cli.capsys.readouterr().out) == {"path": str(path)}
    assert path.read_text().startswith("# Holdfast receiver")
    assert run(app, ["init", str(cli.folder)], prog="holdfast-cloud") == USAGE
    assert run(app, ["init", str(cli.folder / "no" / "such")], prog="holdfast-cloud") == UNAVAILABLE


# --- which configuration ---


def test_the_configuration_is_named_found_here_or_in_the_environment(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def listed() -> Done:
        code = run(app, ["tenant", "list", "--json"], prog="holdfast-cloud")
        return Done(code, *cli.capsys.readouterr())

    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    nowhere = listed()
    assert nowhere.code == CONFIGURATION
    assert "holdfast-cloud init" in nowhere.json["error"]
    monkeypatch.setenv("HOLDFAST_CLOUD_CONFIG", str(cli.config))
    assert listed().json == {"tenants": []}
    monkeypatch.delenv("HOLDFAST_CLOUD_CONFIG")
    monkeypatch.chdir(cli.folder)
    assert listed().json == {"tenants": []}


def test_a_setting_can_be_changed_for_one_command(cli: Cli) -> None:
    other = cli.folder / "other.db"
    assert cli("tenant", "add", "acme", "--set", f"store.path={other}").code == 0
    assert cli("tenant", "list", "--json").json == {"tenants": []}
    assert cli("tenant", "list", "--json", "--set", f"store.path={other}").json["tenants"][0]["tenant"] == "acme"


def test_problems_of_the_configuration_come_with_their_places(cli: Cli) -> None:
    cli.config.write_text("broker:\n  hots: b\nhttp:\n  port: no\n")
    done = cli("check")
    assert done.code == CONFIGURATION
    assert [line.split(": ")[0] for line in done.err.splitlines()] == [
        f"{cli.config}:{place}" for place in ("2:3", "2:3", "4:9")
    ]


def test_every_command_that_prints_can_print_json() -> None:
    group = typer.main.get_command(app)

    def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        for word, inner in getattr(command, "commands", {}).items():
            yield from leaves(inner, f"{name} {word}".strip())
        if not hasattr(command, "commands"):
            yield name, command

    without = {name for name, command in leaves(group, "") if not any("--json" in p.opts for p in command.params)}
    assert without == {"run", "schema"}  # the first logs, the other is JSON


# --- tenants and plants ---


def test_tenants_and_plants_are_added_and_listed(cli: Cli) -> None:
    assert "holdfast-cloud tenant add" in cli("tenant", "list").out
    assert "holdfast-cloud plant add" in cli("plant", "list").out
    assert "plant add acme" in cli("tenant", "add", "acme").out
    assert cli("plant", "add", "acme", "north", "p1", "--json").json == {"plant": "acme/north/p1"}
    assert cli("tenant", "list", "--json").json == {"tenants": [{"tenant": "acme", "plants": 1}]}
    assert cli("plant", "list", "--json").json == {"plants": [{"plant": "acme/north/p1", "gateways": 0, "machines": 0}]}
    assert cli("plant", "list").out.splitlines()[1].split() == ["acme/north/p1", "0", "0"]


def test_what_exists_or_has_no_tenant_is_refused(plant: Cli) -> None:
    assert "acme exists already" in plant.refused("tenant", "add", "acme")
    assert "exists already" in plant.refused("plant", "add", "acme", "hessen", "kassel")
    assert "there is no tenant nobody" in plant.refused("plant", "add", "nobody", "hessen", "kassel")


@pytest.mark.parametrize("wrong", ["Acme", "a/b", "a b", "", "+", "#", "ü", "-a", "a" * 65, "a\nb", "\x1b[2J"])
def test_a_name_that_cannot_stand_in_a_topic_is_refused(plant: Cli, wrong: str) -> None:
    for words in (
        ("tenant", "add", "--", wrong),
        ("plant", "add", "--", "acme", wrong, "p"),
        ("plant", "add", "--", "acme", "north", wrong),
        ("gateway", "add", "--", str(PLANT), wrong),
        ("gateway", "add", "--", f"acme/{wrong}/kassel", "gw-1"),
        ("machine", "approve", "--", str(PLANT), wrong),
    ):
        at = words.index("--")
        code = run(app, [*words[:at], "--config", str(plant.config), *words[at:]], prog="holdfast-cloud")
        out, err = plant.capsys.readouterr()
        assert (code, out, err.count("\n")) == (USAGE, "", 1)
        assert "TENANT/PROVINCE/PLANT" in err or "use 1 to 64 of a to z" in err
        assert "\x1b" not in err
    assert plant("tenant", "list", "--json").json["tenants"] == [{"tenant": "acme", "plants": 1}]


@pytest.mark.parametrize("wrong", ["acme", "acme/hessen", "acme/hessen/kassel/x", "/acme/hessen"])
def test_a_plant_is_written_with_its_tenant_and_province(plant: Cli, wrong: str) -> None:
    assert "TENANT/PROVINCE/PLANT" in plant.refused("gateway", "add", wrong, "gw-1") or wrong == "/acme/hessen"


# --- gateways ---


def heartbeat(gateway: GatewayTopic = GATEWAY, ago_s: float = 0, **more: Any) -> Item:
    """A beat with everything in it."""
    received_us = now_us() - int(ago_s * SECOND)
    said = {
        "timestamp": received_us // 1000 + 400,
        "state": "online",
        "session": 1,
        "epoch": "e1",
        "gateway": GatewayInfo(thing_name=gateway.thing, version="2.1", uptime_sec=60),
        "health": Health(buffer=Buffer(queued_messages=1204, bytes=9000, limit_bytes=10000, oldest_sec=125)),
        "devices": {
            "plc-1": DeviceLink(machine="press-1", state="ok", since=1),
            "plc-2": DeviceLink(machine="press-1", state="away", since=1, reason="no answer within 1 s"),
        },
        "clock": Clock(synchronised=True),
        **more,
    }
    item = beat(gateway=gateway, received_us=received_us)
    status = Status(**said)
    return type(item)(gateway, status, status.encode(), False, received_us)


def test_a_gateway_is_listed_with_what_it_says(plant: Cli) -> None:
    plant.commit(heartbeat())
    plant.receiver()
    (shown,) = plant("gateway", "list", "--json").json["gateways"]
    assert (shown["presence"], shown["registered"], shown["version"]) == ("online", False, "2.1")
    assert shown["buffer"]["messages"] == 1204
    assert shown["links"]["plc-2"]["reason"] == "no answer within 1 s"
    assert plant("gateway", "add", str(PLANT), "gw-1").code == 0
    assert "is registered already" in plant.refused("gateway", "add", str(PLANT), "gw-1")
    heading, row = plant("gateway", "list").out.splitlines()
    assert heading.split()[:4] == ["state", "since", "gateway", "plant"]
    for text in ("● online", "gw-1", "registered", "0 s ago", "1,204", "2 min", "+0.4 s", "2.1"):
        assert text in row
    assert "1 ok, 1 away (plc-2: no answer within 1 s)" in row


@pytest.mark.parametrize(
    ("state", "reason", "beat_ago_s", "listening_s", "shown"),
    [
        ("online", None, 5, 3600, "● online"),
        ("offline", "shutdown", 5, 3600, "■ stopped"),
        ("offline", "unexpected_disconnect", 5, 3600, "▲ lost"),
        ("online", None, 60, 3600, "◆ silent"),
        ("online", None, 60, 10, "○ unknown"),
    ],
)
def test_presence_in_a_shape_and_a_word(
    plant: Cli, state: str, reason: str | None, beat_ago_s: float, listening_s: float, shown: str
) -> None:
    plant.commit(heartbeat(ago_s=beat_ago_s, state=state, reason=reason))
    plant.receiver(listening_s)
    assert plant("gateway", "list").out.splitlines()[1].startswith(shown)


def test_without_a_receiver_the_list_says_when_it_was_true(plant: Cli) -> None:
    nothing = plant("gateway", "list")
    assert "No receiver has run on this database yet" in nothing.out
    assert "No gateway is known yet" in nothing.out
    plant.commit(heartbeat(ago_s=7203))
    plant.receiver(listening_s=3600, ago_s=7200)
    note, _, row = plant("gateway", "list").out.splitlines()
    assert note == "The receiver is not running: this is how things were 2 h ago."
    assert row.startswith("● online") and "3 s ago" in row
    assert plant("gateway", "list", "--json").json["receiver"]["running"] is False
    plant.receiver(listening_s=0)
    assert "no connection to the broker" in plant("gateway", "list").out


def test_a_hostile_reason_cannot_steer_the_terminal(plant: Cli) -> None:
    link = DeviceLink(machine="press-1", state="away", since=1, reason="\x1b[2J\x1b]0;owned\x07")
    plant.commit(heartbeat(devices={"plc-1": link}))
    assert "\x1b" not in plant("gateway", "list").out


@contextmanager
def terminal(*words: str, config: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A command on a terminal of its own."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "cloud.cli", *words, "--config", str(config)]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "20"}
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
    )
    os.close(slave)
    try:
        yield master, process
    finally:
        process.kill()
        process.wait()
        os.close(master)


def read_until(master: int, wanted: str | None) -> str:
    """What the terminal shows until there is `wanted`; None: to the end."""
    seen, deadline = b"", time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            part = b""
        seen += part
        if (wanted is not None and wanted in seen.decode(errors="replace")) or not part:
            return seen.decode(errors="replace")
    raise TimeoutError(f"{wanted!r} never came after {seen.decode(errors='replace')!r}")


def test_watch_draws_anew_and_leaves_the_terminal_as_it_was(plant: Cli) -> None:
    plant.receiver()
    with terminal("gateway", "watch", "--interval", "0.2", config=plant.config) as (master, process):
        first = read_until(master, "No gateway is known yet")
        assert first.startswith("\x1b[?1049h\x1b[?25l")
        plant.commit(heartbeat())
        assert "gw-1" in read_until(master, "● online")
        process.send_signal(signal.SIGINT)
        assert read_until(master, "\x1b[?25h\x1b[?1049l").endswith("\x1b[?25h\x1b[?1049l")
        assert process.wait(PATIENCE_S) == 0


def test_watch_into_a_pipe_gives_a_line_of_json_for_each_look(plant: Cli) -> None:
    assert "gateway list" in plant.refused("gateway", "watch")
    plant.commit(heartbeat())
    command = [sys.executable, "-m", "cloud.cli", "gateway", "watch", "--json", "--interval", "0.2"]
    with subprocess.Popen([*command, "--config", str(plant.config)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert [look["gateways"][0]["thing"] for look in looks] == ["gw-1", "gw-1"]


# --- machines ---


def test_machines_are_listed_with_their_ledger_and_approved(plant: Cli) -> None:
    assert "No machine has sent anything yet" in plant("machine", "list").out
    numbers = MachineNumbers(last_seq=9, sent_seq=8, dropped=[(4, 5, "outbox full")])
    plant.commit(*(telemetry(seq) for seq in (1, 2, 3, 7)), beat({"press-1": numbers}), telemetry(1, machine=OVEN))
    oven, press = plant("machine", "list", "--json").json["machines"]
    assert (press["machine"], press["state"], press["batches"], press["tags"]) == ("press-1", "pending", 4, 1)
    figures = {"through": 5, "known": 9, "stored": 4, "in_flight": 1, "missing": 2, "dropped": 2, "missing_before": 0}
    assert {key: value for key, value in press["ledger"].items() if key != "all"} == {"epoch": "e1", **figures}
    assert press["ledger"]["all"] == {
        "batches": 9,
        "stored": 4,
        "in_flight": 1,
        "missing": 2,
        "dropped": 2,
        "readings": 4,
    }
    assert (oven["ledger"]["missing"], oven["gateway"]) == (0, "gw-1")
    assert "through 5 of 9, 2 missing, 1 in flight, 2 dropped" in plant("machine", "list").out
    assert plant("machine", "approve", str(PLANT), "press-1").code == 0
    assert plant("machine", "list", "--json").json["machines"][1]["state"] == "approved"
    assert "there is no machine nobody" in plant.refused("machine", "approve", str(PLANT), "nobody")


def test_numbers_missing_from_before_a_reinstallation_are_not_forgotten(plant: Cli) -> None:
    plant.commit(telemetry(1), telemetry(4), telemetry(1, epoch="e2"))
    assert "through 1 of 1, nothing missing, 2 missing from earlier epochs" in plant("machine", "list").out


# --- dead letters ---


def real(seq: int, topic: MachineTopic = PRESS) -> tuple[str, bytes]:
    """A message as it comes from the broker."""
    column = Column("speed", ValueType.FLOAT64, [1.25], "rpm", quality=[0x800A0000], reasons={0: "no answer"})
    return topic.telemetry, envelope.encode(Batch("gw-1", "e1", seq, [Block("plc-1", [5], [column])]))


def lost(topic: str, payload: bytes, received_us: int = 1_700_000_000 * SECOND) -> Undecodable:
    return Undecodable(topic, payload, "so it was", received_us)


def test_dead_letters_are_listed_and_shown(plant: Cli) -> None:
    assert "There are no dead letters" in plant("dlq", "list").out
    plant.commit(lost(*real(7)), lost(PRESS.telemetry, b"\x00\x1bHallo"), lost("factory/x", b'{"a": [1, 2]}'))
    listed = plant("dlq", "list", "--json").json
    assert listed["waiting"] == 3
    assert [letter["topic"] for letter in listed["dead_letters"]][-1] == PRESS.telemetry
    assert "so it was" in plant("dlq", "list").out
    batch = plant("dlq", "show", "1").out
    for text in ("dead letter 1, waiting", PRESS.telemetry, "so it was", "2023-11-1", "number 7", "1 readings"):
        assert text in batch
    assert "plc-1 speed: 1.25 rpm (BadTimeout)" in batch
    assert "28 b5 2f fd" in batch
    noise = plant("dlq", "show", "2").out
    assert "first bytes are 00 1b" in noise and "..Hallo" in noise and "\x1b" not in noise
    other = plant("dlq", "show", "3", "--json").json
    assert ["contents", '{"a": [1, 2]}'] in other["contents"]
    assert bytes.fromhex(other["hex"]) == b'{"a": [1, 2]}'
    assert "there is no dead letter 9" in plant.refused("dlq", "show", "9")


def test_a_dead_letters_payload_is_saved_byte_by_byte(plant: Cli) -> None:
    payload = bytes(range(256)) * 3
    plant.commit(lost("factory/x", payload))
    path = plant.folder / "payload"
    shown = plant("dlq", "show", "1", "--raw", str(path))
    assert "512 more bytes" not in shown.out and "640 more bytes" in shown.out
    assert path.read_bytes() == payload
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "left alone" in plant.refused("dlq", "show", "1", "--raw", str(path))


def test_replaying_stores_once_and_says_what_became_of_each(plant: Cli) -> None:
    elsewhere = MachineTopic(ELSEWHERE, "press-1")
    conflict = real(1)[0], envelope.encode(Batch("gw-1", "e1", 1, []))
    plant.commit(
        lost(*real(1)), lost(*real(2)), lost(*conflict), lost(PRESS.telemetry, b"?"), lost(*real(1, elsewhere))
    )
    assert plant("dlq", "replay", "1", "--json").json["letters"] == [{"id": 1, "taken": True, "outcome": "stored"}]
    done = plant("dlq", "replay", "--all")
    assert done.code == 1
    outcomes = [line.split(maxsplit=2)[1:] for line in done.out.splitlines()[1:-1]]
    assert [mark for mark, _ in outcomes] == ["✓", "✗", "✗", "✗"]
    for (_, said), expected in zip(outcomes, ("stored", "other content", "undecodable", "no plant"), strict=True):
        assert expected in said
    assert done.out.splitlines()[-1] == "1 replayed, 3 remain."
    again = plant("dlq", "replay", "1", "--json")
    assert (again.code, again.json["letters"][0]["outcome"]) == (0, "had it already")
    with closing(plant.store()) as store:
        assert (store.totals().events, store.totals().readings) == (2, 2)
        assert [store.dead_letter(number)[0].state for number in (1, 2, 3)] == ["replayed", "replayed", "waiting"]
        assert [store.dead_letter(number)[0].count for number in (1, 4, 5)] == [1, 1, 1]
    assert "--all" in plant.refused("dlq", "replay")
    assert "--all" in plant.refused("dlq", "replay", "1", "--all")
    plant.commit()
    with closing(sqlite3.connect(plant.database)) as connection, connection:
        connection.execute("DELETE FROM dead_letters WHERE state = 'waiting'")
    assert plant("dlq", "replay", "--all").out == "No dead letter waits.\n"


def test_a_dead_letter_is_dropped_by_choice_and_no_other_with_it(plant: Cli) -> None:
    plant.commit(lost(PRESS.telemetry, b"?"), lost(*real(2)))
    assert plant("dlq", "drop", "1").out == "Dead letter 1 is thrown away.\n"
    assert [letter["id"] for letter in plant("dlq", "list", "--json").json["dead_letters"]] == [2]
    assert plant("dlq", "drop", "2", "--json").json == {"dropped": 2}
    assert "there is no dead letter 2" in plant.refused("dlq", "drop", "2")


def test_a_plant_that_is_added_says_what_waits_for_it(cli: Cli) -> None:
    cli.commit(lost(*real(1)))
    cli("tenant", "add", "acme")
    assert "dlq replay --all" in cli("plant", "add", "acme", "hessen", "kassel").out


# --- status ---


def test_status_says_what_is_running_and_counts(plant: Cli) -> None:
    fresh = plant("status")
    assert fresh.code == 0
    assert "none has run on this database yet" in fresh.out
    plant.commit(telemetry(1), telemetry(2), heartbeat(), lost("x", b"?"))
    plant.receiver(listening_s=7200)
    done = plant("status")
    assert done.code == 1
    shown = done.out
    for text in ("✓ receiver", "connected to the broker for 2 h", "1 online", "1 pending", "2 readings in 2 messages"):
        assert text in shown
    assert "✗ dead letters  1 wait" in shown
    assert "✓ ledger        2 of 2 batches stored; 0 missing" in shown
    found = plant("status", "--json").json
    assert found["receiver"]["running"] and found["receiver"]["connected"]
    assert (found["messages"], found["readings"], found["dead_letters"]) == (2, 2, {"kept": 1, "waiting": 1})
    plant.receiver(ago_s=3600)
    assert "not running; last at work 1 h ago" in plant("status").out


def test_statuses_exit_code_says_whether_something_wants_attention(plant: Cli) -> None:
    plant.receiver(listening_s=7200)
    plant.commit(telemetry(1), heartbeat(machines={"press-1": MachineNumbers(last_seq=3, sent_seq=1)}))
    assert plant("status").code == 0  # pending, and on its way: nothing is wrong
    plant.commit(heartbeat(machines={"press-1": MachineNumbers(last_seq=3, sent_seq=2)}))
    done = plant("status", "--json")
    assert (done.code, done.json["ok"], done.json["ledger"]["missing"]) == (1, False, 1)
    plant.commit(telemetry(2), telemetry(3), heartbeat())
    assert plant("status").code == 0
    plant.commit(heartbeat(state="offline", reason="shutdown"))
    assert plant("status").code == 0  # a planned stop
    plant.commit(heartbeat(session=2), heartbeat(session=2, state="offline", reason="unexpected_disconnect"))
    done = plant("status")
    assert done.code == 1
    assert "✗ gateways      1 lost" in done.out


# --- ledger ---


def test_the_ledger_states_what_became_of_every_number(plant: Cli) -> None:
    assert plant("ledger").out == "No machine has sent anything yet.\n"
    numbers = {"press-1": MachineNumbers(last_seq=5, sent_seq=5)}
    plant.commit(*(telemetry(seq) for seq in range(1, 6)), heartbeat(machines=numbers), telemetry(1, machine=OVEN))
    done = plant("ledger", "press-1")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "5 of 5 batches stored; 0 missing, 5 readings"
    assert plant("ledger").out.splitlines()[-1] == "6 of 6 batches stored; 0 missing, 6 readings"
    gone = {"press-1": MachineNumbers(last_seq=20, sent_seq=15, dropped=[(7, 9, "disk full")])}
    plant.commit(heartbeat(machines=gone), telemetry(12))
    done = plant("ledger", f"{PLANT}/press-1")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[2:] == [
        "  press-1 e1: missing 6",
        "  press-1 e1: missing 10 to 11 (2)",
        "  press-1 e1: missing 13 to 15 (3)",
        "  press-1 e1: dropped 7 to 9 (3): disk full",
        "6 of 20 batches stored; 6 missing, 3 dropped, 5 in flight, 6 readings",
    ]
    (epoch,) = plant("ledger", "press-1", "--json").json["epochs"]
    assert epoch["missing_ranges"] == [[6, 6], [10, 11], [13, 15]]
    assert epoch["dropped_ranges"] == [{"first": 7, "last": 9, "reason": "disk full"}]
    assert "there is no machine nobody" in plant.refused("ledger", "nobody")


def test_the_ledger_since_a_time_begins_with_what_was_stored_then(plant: Cli) -> None:
    now = now_us()
    plant.commit(*(telemetry(seq, received_us=now - 7200 * SECOND) for seq in (1, 2, 4)))
    plant.commit(*(telemetry(seq, received_us=now - 60 * SECOND) for seq in (5, 7)))
    assert plant("ledger").out.splitlines()[-1] == "5 of 7 batches stored; 2 missing, 5 readings"
    assert plant("ledger", "--since", "1h").out.splitlines()[-1] == "2 of 3 batches stored; 1 missing"
    assert plant("ledger", "--since", "1m").out.splitlines()[-1] == "Nothing was stored since then."
    assert plant("ledger", "--since", "2020-01-01").out.splitlines()[-1] == "5 of 7 batches stored; 2 missing"
    assert "is no time; write" in plant.refused("ledger", "--since", "yesterday")


# --- what is gone with its gateway ---


def begin_anew(plant: Cli) -> None:
    """Of press-1's epoch e1 numbers 3 and 6 to 9 are missing, and its gateway has an empty disk since."""
    lanes = {"press-1": MachineNumbers(last_seq=9, sent_seq=5)}
    plant.commit(heartbeat(machines=lanes), *(telemetry(seq) for seq in (1, 2, 4, 5)))
    plant.commit(heartbeat(session=2, epoch="e2", machines={"press-1": MachineNumbers(last_seq=4, sent_seq=4)}))
    plant.commit(telemetry(1, epoch="e2"))


def test_what_no_gateway_answers_for_is_written_off(plant: Cli) -> None:
    begin_anew(plant)
    told = plant("ledger")
    assert told.out.splitlines()[-3:-1] == [
        "  press-1: no gateway answers for 5 of the missing; if they are gone for good:",
        f"    holdfast-cloud machine write-off {PLANT} press-1",
    ]
    words = ("machine", "write-off", str(PLANT), "press-1")
    done = plant(*words)
    assert (done.code, done.err) == (
        USAGE,
        "nobody is here to agree, so nothing was changed; add --yes to write them off all the same\n",
    )
    assert done.out.splitlines() == [
        f"Machine press-1 of plant {PLANT} lacks batches for which no gateway answers any more:",
        "  epoch e1: 5 batches",
        "    3",
        "    6 to 9 (4)",
    ]
    assert plant(*words, "--json").code == USAGE
    assert plant("ledger").out == told.out
    done = plant(*words, "--yes", "--reason", "the PC burnt")
    why = "written off by the operator: the PC burnt"
    assert (
        done.out.splitlines()[-1]
        == f"5 batches of machine press-1 are written off; the ledger has them as dropped ({why})."
    )
    told = plant("ledger")
    assert f"  press-1 e1: dropped 6 to 9 (4): {why}" in told.out.splitlines()
    assert told.out.splitlines()[-1] == "5 of 13 batches stored; 3 missing, 5 dropped, 5 readings"
    assert "write-off" not in told.out  # what e2 lacks its gateway answers for


def test_writing_off_is_refused_where_a_gateway_answers_or_nothing_is_missing(plant: Cli) -> None:
    begin_anew(plant)
    words = ("machine", "write-off", str(PLANT), "press-1", "--yes")
    assert "epoch e2 of machine press-1 is named by its gateway's last status" in plant.refused(*words, "--epoch", "e2")
    assert "machine press-1 has no epoch e9" in plant.refused(*words, "--epoch", "e9")
    assert "machine nobody has no numbers" in plant.refused("machine", "write-off", str(PLANT), "nobody", "--yes")
    assert "one line of at most 200" in plant.refused(*words, "--reason", "a\nb")
    done = plant(*words, "--epoch", "e1", "--json").json
    assert done == {
        "plant": str(PLANT),
        "machine": "press-1",
        "written_off": 5,
        "reason": "written off by the operator",
        "epochs": [{"epoch": "e1", "batches": 5, "ranges": [[3, 3], [6, 9]]}],
    }
    assert "nothing is missing of machine press-1 in epoch e1" in plant.refused(*words, "--epoch", "e1")
    assert "epoch e2 of machine press-1 is named" in plant.refused(*words)


@pytest.mark.parametrize(("answer", "code", "missing"), [("y", 0, 3), ("n", 1, 8)])
async def test_an_operator_is_shown_what_is_written_off_and_asked(
    plant: Cli, answer: str, code: int, missing: int
) -> None:
    begin_anew(plant)
    words = ("machine", "write-off", str(PLANT), "press-1", "--config", str(plant.config))
    screen = await in_terminal(plant.folder, *words, answers={"Write off 5 batches?": answer}, program="cloud.cli")
    assert (screen.code, screen.widest <= 80) == (code, True), screen.text
    assert "A gateway that has them still, and comes back, lets go of them unsent." in screen.flat
    assert plant("ledger", "--json").json["total"]["missing"] == missing


# --- a database that is not well ---


def test_a_locked_database_is_temporary_and_a_missing_directory_is_not(plant: Cli) -> None:
    with closing(sqlite3.connect(plant.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        done = plant("tenant", "add", "other", "--set", "store.busy_timeout_s=0.05")
        assert done.code == TEMPORARY
        assert "another program holds its lock" in done.err
        assert plant("tenant", "list").code == 0  # reading goes on
    done = plant("tenant", "list", "--set", "store.path=/nowhere/at/all.db")
    assert done.code == UNAVAILABLE
    assert done.err == "store /nowhere/at/all.db: the directory /nowhere/at does not exist; make it.\n"


# --- check ---


async def test_check_finds_everything_well(plant: Cli, broker: Broker) -> None:
    plant.configure(broker.port, port=0)
    done = await in_a_thread(plant, "check")
    assert done.code == 0, done
    assert [line[0] for line in done.out.splitlines()] == ["✓"] * 4
    assert "MQTT 5" in done.out
    found = (await in_a_thread(plant, "check", "--json")).json
    assert found["ok"] and [one["subject"] for one in found["findings"]] == ["configuration", "store", "broker", "page"]


async def in_a_thread(cli: Cli, *words: str) -> Done:
    """A command that runs an event loop of its own."""
    return await asyncio.to_thread(cli, *words)


def test_check_says_what_is_wrong_and_what_to_do(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cli.configure(free_port(), port=taken.getsockname()[1])
        done = cli("check", "--set", "store.path=/nowhere/at/all.db")
        assert done.code == UNAVAILABLE
        lines = done.out.splitlines()
        assert [line[0] for line in lines] == ["✓", "✗", " ", "✗", " ", "✗", " "]
        assert "does not exist" in lines[1] and "→ make it" in lines[2]
        assert "refused" in lines[3]
        assert "in use" in lines[5] and "http.port" in lines[6]
        assert "none yet: all that arrives becomes a dead letter" in cli("check").out


@pytest.mark.parametrize(
    ("host", "sentence"),
    [("192.0.2.1", "no such address"), ("no-such-host.invalid", "the host is unknown"), ("::1", "is free")],
)
def test_check_tries_the_pages_address(plant: Cli, host: str, sentence: str) -> None:
    plant.configure(free_port(), host=host, port=free_port())
    assert sentence in plant("check").out


# --- run ---


@contextmanager
def service(cli: Cli) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[str], str]]]:
    """`holdfast-cloud run` as systemd starts it; `said(word)` waits for what it tells systemd."""
    with ExitStack() as stack:
        notified = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        address = str(cli.folder / "notify")
        notified.bind(address)
        notified.settimeout(PATIENCE_S)
        environ = {**os.environ, "NOTIFY_SOCKET": address}
        command = [sys.executable, "-m", "cloud.cli", "run", "--config", str(cli.config)]
        log = stack.enter_context((cli.folder / "run.log").open("wb"))
        process = subprocess.Popen(command, cwd=ROOT, stderr=log, env=environ)

        def said(word: str) -> str:
            while word not in (message := notified.recv(4096).decode()):
                pass
            return message

        try:
            yield process, said
        finally:
            process.kill()
            process.wait()


async def test_run_serves_until_it_is_told_to_stop(plant: Cli, broker: Broker) -> None:
    plant.configure(broker.port, port=0)
    with service(plant) as (process, said):
        ready = await asyncio.to_thread(said, "READY=1")
        found = re.search(r"http://127\.0\.0\.1:\d+/", ready)
        assert found is not None

        def healthz() -> Any:
            with urlopen(f"{found[0]}healthz") as answer:  # noqa: S310  # our own page
                return json.load(answer)

        while (await asyncio.to_thread(healthz))["broker"] != "connected":
            assert process.poll() is None
        assert await asyncio.to_thread(said, "WATCHDOG=1")
        while not (await in_a_thread(plant, "status", "--json")).json["receiver"]["connected"]:
            assert process.poll() is None
        check = await in_a_thread(plant, "check")
        assert check.code == 0  # and the receiver has not lost its connection by it
        assert (await asyncio.to_thread(healthz))["broker"] == "connected"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(said, "STOPPING=1")
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
    assert "Traceback" not in (plant.folder / "run.log").read_text()


def test_a_reload_takes_log_level_and_retention_and_refuses_what_is_wrong(plant: Cli) -> None:
    plant.configure(free_port(), port=0)
    log = plant.folder / "run.log"

    def logged(text: str, times: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while log.read_text().count(text) < times:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)

    plant.commit(*(lost(f"topic-{number}", b"?") for number in range(4)))
    given = json.loads(plant.config.read_text())
    with service(plant) as (process, said):
        assert said("READY=1")
        plant.config.write_text(json.dumps({**given, "store": {**given["store"], "dead_letters_max": 2}}))
        process.send_signal(signal.SIGHUP)
        logged("the configuration was read anew")
        assert len(plant("dlq", "list", "--json").json["dead_letters"]) == 2
        plant.config.write_text(json.dumps({**given, "store": {**given["store"], "dead_letters_max": -1}}))
        process.send_signal(signal.SIGHUP)
        logged("the changed configuration was not taken, the old one stays")
        assert "dead_letters_max" in log.read_text()
        plant.config.write_text(json.dumps({**given, "log": {"level": "debug"}, "http": {"port": free_port()}}))
        process.send_signal(signal.SIGHUP)
        logged("log level and retention hold now, the rest after a restart")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_run_needs_no_broker_to_be_ready(plant: Cli) -> None:
    plant.configure(free_port(), port=0)
    with service(plant) as (process, said):
        assert said("READY=1")
        deadline = time.monotonic() + PATIENCE_S
        while "refused" not in (plant.folder / "run.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0


def test_run_says_why_it_cannot(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cli.configure(free_port(), port=port)
        done = cli("run")
    assert (done.code, done.out) == (UNAVAILABLE, "")
    assert done.err == (
        f"operators' page at 127.0.0.1:{port}: the port is in use;"
        " stop what listens there, or set http.port to another\n"
    )
    done = cli("run", "--set", "store.path=/nowhere/at/all.db")
    assert (done.code, done.err) == (
        UNAVAILABLE,
        "store /nowhere/at/all.db: the directory /nowhere/at does not exist; make it.\n",
    )
    empty = cli.folder / "empty.db"
    with closing(sqlite3.connect(empty, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = cli("run", "--set", f"store.path={empty}", "--set", "store.busy_timeout_s=0.05")
    assert done.code == TEMPORARY
    assert "another program holds its lock" in done.err

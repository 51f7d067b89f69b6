"""The documents say what is true: their code runs, their configurations work, their queries find what is there."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
import yaml
from typer.main import get_command

from agent import drivers
from agent import settings as agent_settings
from agent.cli import app as agent_app
from agent.commands.polling import poll_once
from cloud import settings as cloud_settings
from cloud.cli import app as cloud_app
from cloud.store.contract import Committed, Undecodable
from cloud.store.sqlite import SqliteStore
from protocols.program import console
from protocols.program.problem import SettingsError
from protocols.uplink.link import LinkRefused, Message, Outcome
from protocols.uplink.mark import ClockMark
from protocols.uplink.mqtt import BrokerSettings, MqttAgentLink, MqttCloudLink, TlsSettings
from protocols.uplink.status import Clock, MachineNumbers
from protocols.uplink.topics import STATUS_FILTER, TELEMETRY_FILTER, GatewayTopic, MachineTopic, Plant
from protocols.values import Quality, ValueType
from tests.contract.store_cases import beat, one_column, telemetry
from tests.support.brokers import HOST, Broker, free_port, mosquitto_program, nats_program

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
OWN = ("operations.md", "security.md", "writing-a-driver.md", "sql.md")
HANG_S = 30

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[str]:
    """The document's code in that language."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return [code for found, code in _BLOCK.findall(text) if found == language]


def every(language: str) -> list[Any]:
    """The same of all documents, as parameters that name document and number."""
    return [
        pytest.param(code, id=f"{document}-{number}")
        for document in OWN
        for number, code in enumerate(blocks(document, language), 1)
    ]


def test_no_block_is_left_out() -> None:
    text = "".join((ROOT / "docs" / document).read_text(encoding="utf-8") for document in OWN)
    assert {language for language, _ in _BLOCK.findall(text)} == {"sh", "yaml", "sql", "python", "toml"}
    assert len(re.findall("^```", text, re.MULTILINE)) == 2 * len(_BLOCK.findall(text))


# ── configuration ───────────────────────────────────────────────────────────────────────────────────────────────────

AGENT = {
    "gateway": {"thing": "gw-1", "tenant": "acme", "province": "bolzano", "plant": "plant-1"},
    "broker": {"host": "localhost"},
    "devices": [
        {
            "name": "sim",
            "machine": "press-1",
            "protocol": "simulated",
            "groups": [{"tags": [{"name": "force"}]}],
        }
    ],
}


@pytest.mark.parametrize("snippet", every("yaml"))
def test_a_configuration_is_taken(
    snippet: str, tmp_path: Path, textline: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = {"# agent.yaml": "agent", "# cloud.yaml": "cloud"}[snippet.splitlines()[0]]
    base: dict[str, Any] = AGENT if program == "agent" else {"broker": {"host": "localhost"}}
    rest = {key: value for key, value in base.items() if key not in yaml.safe_load(snippet)}
    path = tmp_path / f"{program}.yaml"
    path.write_text(snippet + yaml.safe_dump(rest), encoding="utf-8")
    if program == "agent":
        agent_settings.read(path, environ={})
    else:
        cloud_settings.read(path, environ={})


def test_precedence_is_flag_then_environment_then_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(AGENT), encoding="utf-8")
    environ = {"HOLDFAST_BROKER__HOST": "10.0.0.1", "HOLDFAST_BROKER__PORT": "1884"}
    broker = agent_settings.read(path, environ=environ, overrides={"broker.host": "10.0.0.2"}).settings.broker
    assert (broker.host, broker.port, broker.keep_alive_s) == ("10.0.0.2", 1884, 20)


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("script", every("sh"))
def test_a_script_is_shell(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def our_commands() -> Iterator[tuple[str, list[str]]]:
    """(program, arguments) of each command of ours in a script or in backquotes."""
    for document in OWN:
        for script in blocks(document, "sh"):
            for line in script.replace("\\\n", " ").splitlines():
                words = shlex.split(line)
                for at, word in enumerate(words):
                    if word in ("holdfast", "holdfast-cloud") and (at == 0 or words[at - 2] == "-u" or at == 1):
                        yield word, words[at + 1 :]
        text = _BLOCK.sub("", (ROOT / "docs" / document).read_text(encoding="utf-8"))
        for quoted in re.findall(r"`(holdfast(?:-cloud)? [a-z-][^`]*)`", text):
            program, *arguments = shlex.split(quoted)
            yield program, arguments


def test_every_command_of_ours_exists_with_its_options() -> None:
    programs: dict[str, Any] = {"holdfast": get_command(agent_app()), "holdfast-cloud": get_command(cloud_app)}
    seen = list(our_commands())
    assert len(seen) > 25
    for program, arguments in seen:
        command, words = programs[program], arguments
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{program} {shlex.join(arguments)}"
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}, (program, arguments)


def source_text() -> str:
    """All texts of our programs, those that are written in pieces put together."""
    files = [path for part in ("agent", "cloud", "protocols") for path in (ROOT / part).rglob("*.py")]
    whole = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", whole)


def test_every_sentence_in_the_tables_of_trouble_is_said_by_a_program() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    trouble = text[text.index("\n## Trouble\n") : text.index("\n## The outbox\n")]
    letters = text[text.index("\n### Dead letters\n") : text.index("\n## The broker\n")]
    said = source_text()
    cells = [line.split("|")[1] for line in (trouble + letters).splitlines() if line.startswith("| ")]
    sentences = [sentence for cell in cells for sentence in re.findall("`([^`]+)`", cell)]
    assert len(sentences) > 50
    assert [sentence for sentence in sentences if not all(part.strip() in said for part in sentence.split("…"))] == []


def test_the_exit_codes_are_all_there() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text[text.index("**Exit codes.**") : text.index("\n## Looking\n")]
    ours = {
        value for name, value in vars(console).items() if name.isupper() and name[0] != "_" and isinstance(value, int)
    }
    assert set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == {0, 1, *ours}


def test_files_and_sections_that_are_named_exist() -> None:
    for document in OWN:
        text = (ROOT / "docs" / document).read_text(encoding="utf-8")
        for path in re.findall(r"`?\b((?:docs|config|systemd|locks|tests|protocols)/[\w./-]+\.\w+)", text):
            is_the_readers = path in ("protocols/field/NAME.py", "tests/contract/driver_cases/textline.py")
            assert is_the_readers or (ROOT / path).exists(), f"{document}: {path}"
        sections = {
            re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall("^#+ (.*)$", text, re.M)
        }
        assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= sections, document


# ── the driver ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def textline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The document's driver, installed with the document's entry point; gives the module of its contract case."""
    module, case = blocks("writing-a-driver.md", "python")
    (project,) = blocks("writing-a-driver.md", "toml")
    settings = tomllib.loads(project)
    site = tmp_path / "site"
    info = site / "holdfast_textline-1.0.0.dist-info"
    info.mkdir(parents=True)
    (site / settings["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"][0]).write_text(module)
    (site / "textline_case.py").write_text(case)
    (info / "METADATA").write_text(f"Name: {settings['project']['name']}\nVersion: {settings['project']['version']}\n")
    points = settings["project"]["entry-points"]["holdfast.drivers"]
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[holdfast.drivers]", *lines]) + "\n")
    monkeypatch.syspath_prepend(site)
    yield importlib.import_module("textline_case")
    for name in ("textline_case", "holdfast_textline"):
        sys.modules.pop(name, None)


def contract() -> dict[str, Callable[..., Any]]:
    suite = importlib.import_module("tests.contract.test_driver_contract")
    return {name: test for name, test in vars(suite).items() if name.startswith("test_")}


@pytest.mark.parametrize("test", list(contract().values()), ids=list(contract()))
async def test_the_documents_driver_keeps_the_contract(
    test: Callable[..., Any], textline: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    offered = {"new_case": textline.case, "caplog": caplog}
    await test(**{name: offered[name] for name in inspect.signature(test).parameters})


def driver_configuration(tmp_path: Path, **changes: Any) -> Path:
    (snippet,) = blocks("writing-a-driver.md", "yaml")
    whole = {**AGENT, **yaml.safe_load(snippet)}
    device = whole["devices"][0]
    device.update(changes)
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return path


async def test_the_agent_finds_the_documents_driver_and_reads_with_it(tmp_path: Path, textline: ModuleType) -> None:
    assert "textline" in drivers.known()
    server = textline.Server()
    await server.start()
    try:
        configuration = agent_settings.read(driver_configuration(tmp_path, host=HOST, port=server.port), environ={})
        device = configuration.devices[0]
        async with asyncio.timeout(HANG_S):
            (latest,) = await poll_once(device, device.groups, tmp_path)
    finally:
        await server.cut()
    assert [(reading.value, reading.quality) for reading in latest.readings if reading] == [
        (1.013, Quality.GOOD),
        ("setup", Quality.GOOD),
    ]


def test_mistakes_in_its_configuration_are_told_at_their_place(tmp_path: Path, textline: ModuleType) -> None:
    tags = [{"name": f"t{n}", "item": f"i{n}"} for n in range(51)]
    path = driver_configuration(tmp_path, prot=1, groups=[{"tags": [*tags, {"name": "x", "item": "a b"}]}])
    with pytest.raises(SettingsError) as raised:
        agent_settings.read(path, environ={})
    told = "\n".join(map(str, raised.value.problems))
    assert 'devices[0].prot: unknown key "prot"; did you mean "port"?' in told
    assert "devices[0].groups[0].tags[51].item" in told
    path = driver_configuration(tmp_path, groups=[{"tags": tags}])
    with pytest.raises(SettingsError, match="the device answers 50 at once; make two of it"):
        agent_settings.read(path, environ={})


async def test_a_silent_device_is_a_timeout_and_its_late_answer_answers_nothing(textline: ModuleType) -> None:
    module = importlib.import_module("holdfast_textline")
    release = asyncio.Event()
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await reader.readline():
            asked += 1
            if asked == 1:
                await release.wait()
            writer.write(f"pressure={asked}\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    tag = module.tag(module.TagSettings(name="pressure", item="pressure"))
    group = module.Group("scale-1", "main", 1.0, (tag,))
    settings = module.Settings(host=HOST, port=server.sockets[0].getsockname()[1], timeout_s=0.1)
    device = module.driver("scale-1", settings, [group])
    await device.connect()
    with pytest.raises(module.DeviceTimeout, match=r"no answer within 0\.1 s"):
        await device.read(group)
    release.set()
    await device.connect()
    (scan,) = await device.read(group)
    assert scan.values == [2.0]
    await device.close()
    server.close()
    await server.wait_closed()


# ── SQL ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

SECOND = 1_000_000
MORNING = 1_796_025_600 * SECOND  # 2026-11-30 08:00 UTC
PLANT_1 = Plant("acme", "bolzano", "plant-1")
PRESS = MachineTopic(PLANT_1, "press-1")
GATEWAY = GatewayTopic(PLANT_1, "line-7-gateway")


def press(seq: int, **more: Any) -> Any:
    """Ten minutes of pressure, a reading a second, the fifth of them bad."""
    values = [5.0 + seq, *(float(second % 7) for second in range(598)), None]
    quality = [Quality.GOOD] * 599 + [Quality.BAD_DEVICE_FAILURE]
    times_us = [MORNING + (seq * 600 + second) * SECOND for second in range(600)]
    columns = [
        one_column(
            ValueType.FLOAT64, *values, tag="pressure", unit="bar", quality=quality, reasons={599: "it is broken"}
        ),
        one_column(ValueType.FLOAT32, *[20.5] * 600, tag="oil_temperature", unit="°C"),
    ]
    settings = {"machine": PRESS, "gateway": GATEWAY.thing, "times_us": times_us, "received_us": times_us[-1], **more}
    return telemetry(seq, *columns, **settings)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Numbers 1, 2, 5 and 6 stored; 3 dropped; 4, 7 and 8 missing; a dead letter."""
    path = tmp_path / "cloud.db"
    store = SqliteStore(path)
    store.add_tenant(PLANT_1.tenant)
    store.add_plant(PLANT_1)
    numbers = {"press-1": MachineNumbers(last_seq=8, sent_seq=8, dropped=[(3, 3, "disk full")])}
    status = beat(numbers, gateway=GATEWAY, received_us=MORNING)
    letter = Undecodable("factory/x", b"?", "unknown form", MORNING)
    outcomes = store.commit([*(press(seq) for seq in (1, 2, 5, 6)), status, letter])
    assert outcomes == [*[Committed.NEW] * 4, Committed.BEAT, Committed.DEAD]
    store.close()
    return path


@pytest.fixture
def eventful(database: Path) -> Path:
    """Also two messages by clocks that nobody vouched for, one of them corrected."""
    store = SqliteStore(database)
    spans = [bytes([at]) * 16 for at in range(2)]
    store.commit([replace(press(1 + at, epoch="e2"), clock=ClockMark(spans[at], 0)) for at in range(2)])
    clock = Clock(synchronised=True, zeros={spans[0].hex(): 5 * SECOND})
    store.commit([beat(gateway=GATEWAY, clock=clock, received_us=MORNING)])
    assert not store.tend(MORNING)
    store.close()
    return database


def asked(path: Path, query: str) -> list[dict[str, Any]]:
    """The rows, as an SQL user gets them who may only read."""
    for variable, time_us in (("$__from", MORNING), ("$__to", MORNING + 7200 * SECOND)):
        query = query.replace(variable, str(time_us // 1000))
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def query(heading: str) -> str:
    """The document's query below the sentence that begins so."""
    text = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
    found = _BLOCK.search(text, text.index(f"\n{heading}"))
    assert found is not None
    return found.group(2)


@pytest.mark.parametrize("code", [pytest.param(code, id=f"{at}") for at, code in enumerate(blocks("sql.md", "sql"), 1)])
def test_a_query_finds_something(code: str, eventful: Path) -> None:
    assert asked(eventful, code)


def test_what_was_corrected_and_what_is_not(eventful: Path) -> None:
    done, waiting = asked(eventful, query("What a gateway stamps before"))
    assert (done["batches"], done["corrected"], done["uncertain"]) == (1, 1, 0)
    assert (waiting["batches"], waiting["corrected"], waiting["uncertain"], waiting["true_boot"]) == (1, 0, 1, None)
    assert asked(eventful, query("Which messages were")) == [
        {"machine": "press-1", "epoch": "e2", "seq": 1, "readings": 1200, "shift_s": 5.0}
    ]
    stamped = asked(eventful, query("The readings whose times"))
    assert stamped[0]["stamped_us"] == MORNING + 1200 * SECOND


def test_latest_values_and_history(database: Path) -> None:
    oil, pressure = asked(database, query("The latest value"))
    assert (oil["tag"], oil["value"], oil["quality"]) == ("oil_temperature", 20.5, "good")
    assert (pressure["value"], pressure["quality"], pressure["reason"]) == (None, "bad", "it is broken")
    history = asked(database, query("A tag's history"))
    assert len(history) == 4 * 600
    assert history[0] == {"time": "2026-11-30T08:10:00.000000Z", "value": 6.0, "unit": "bar", "quality": "good"}


def test_averages_leave_out_what_is_no_number(database: Path) -> None:
    store = SqliteStore(database)
    nan = one_column(ValueType.FLOAT64, float("nan"), tag="pressure", unit="bar")
    store.commit([telemetry(9, nan, machine=PRESS, times_us=[MORNING + 100 * SECOND])])
    store.close()
    first, second = asked(database, query("Hourly averages"))
    assert (first["hour"], first["readings"], second["hour"]) == ("2026-11-30 08:00", 3 * 599, "2026-11-30 09:00")
    values = [float(n % 7) for n in range(598)]
    assert first["mean"] == pytest.approx((3 * sum(values) + 6 + 7 + 10) / (3 * 599))


def test_the_account_and_the_gaps_are_the_ledgers(database: Path) -> None:
    (account,) = asked(database, query("A gateway numbers the batches"))
    assert {key: account[key] for key in ("known", "stored", "dropped", "missing")} == {
        "known": 8,
        "stored": 4,
        "dropped": 1,
        "missing": 3,
    }
    gaps = asked(database, query("Which numbers are missing"))
    assert [(gap["first_missing"], gap["last_missing"], gap["numbers"]) for gap in gaps] == [(4, 4, 1), (7, 8, 2)]
    (dropped,) = asked(database, query("What gateways had to let go"))
    assert (dropped["first"], dropped["last"], dropped["reason"]) == (3, 3, "disk full")


def test_a_stretch_without_readings_is_found(database: Path) -> None:
    (gap,) = asked(database, query("Stretches without"))
    assert gap == {"until": "2026-11-30T08:50:00.000000Z", "gap_s": 1201.0}


def test_bounding_the_time_uses_the_index(database: Path) -> None:
    for heading in ("A tag's history", "Hourly averages"):
        plan = asked(database, "EXPLAIN QUERY PLAN " + query(heading))
        assert any("USING INDEX readings_by_time (time>? AND time<?)" in row["detail"] for row in plan), plan


def test_the_tables_and_columns_that_are_named_exist(database: Path) -> None:
    text = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
    part = text[text.index("## What is where") : text.index("**Times**")]
    with closing(sqlite3.connect(database)) as connection:
        there = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        }
        named = {
            name
            for line in part.splitlines()
            if line.startswith("|")
            for name in re.findall(r"`(\w+)`", line.split("|")[1])
        }
        assert named <= there
        for view in (name for name in named if name.endswith("_named")):
            row = next(line for line in part.splitlines() if line.startswith(f"| `{view}`"))
            columns = [column[1] for column in connection.execute(f"PRAGMA table_info({view})")]
            assert row.split("|")[3].strip().split(", ") == columns


# ── the database in operation ───────────────────────────────────────────────────────────────────────────────────────


def database_scripts() -> list[str]:
    return [script for script in blocks("operations.md", "sh") if "sqlite3" in script]


@pytest.mark.parametrize("words", ["VACUUM INTO", ".backup"])
def test_a_backup_is_taken_while_the_store_writes_and_can_be_opened(words: str, database: Path, tmp_path: Path) -> None:
    (script,) = [script for script in database_scripts() if words in script]
    copy = tmp_path / "copy.db"
    script = script.replace("sudo -u holdfast-cloud ", "").replace("/var/lib/holdfast-cloud/cloud.db", str(database))
    script = script.replace("/var/backups/holdfast/cloud.db", str(copy))
    store = SqliteStore(database)  # a receiver that is at work, with something in its log
    store.commit([press(7)])
    before = store.totals()
    subprocess.run(["bash", "-euc", script], check=True)
    store.commit([press(8)])
    store.close()
    assert copy.stat().st_mode & 0o777 == 0o600
    restored = SqliteStore(copy)
    assert restored.totals() == before
    assert restored.commit([press(7)]) == [Committed.DUPLICATE]
    restored.close()
    (check,) = [script for script in database_scripts() if "integrity_check" in script]
    done = subprocess.run(
        ["bash", "-euc", check.replace("/var/backups/holdfast/cloud.db", str(copy))], check=True, capture_output=True
    )
    assert done.stdout == b"ok\n"


def test_gaps_that_nobody_can_fill_are_declared_and_the_confirm_passes_them(database: Path) -> None:
    store = SqliteStore(database)
    assert store.confirm(GATEWAY).machines["press-1"].through == 3
    (declare,) = blocks("operations.md", "sql")
    with closing(sqlite3.connect(database)) as beside:
        assert beside.execute(declare).rowcount == 1
        beside.commit()
    word = store.confirm(GATEWAY).machines["press-1"]
    assert (word.through, word.highest, word.missing) == (6, 6, [(7, 8)])  # what may still come is waited for
    assert store.commit([press(4), press(7)]) == [Committed.NEW, Committed.NEW]  # it came after all
    (ledger,) = store.ledgers(PRESS)
    assert (ledger.stored, ledger.dropped) == (((1, 2), (4, 7)), ((3, 3),))
    store.close()


# ── the brokers ─────────────────────────────────────────────────────────────────────────────────────────────────────

RECEIVER = "holdfast-receiver"
SEVEN, EIGHT = "line-7-gateway", "line-8-gateway"
ELSEWHERE = Plant("acme", "bolzano", "plant-2")
DEFINITION = "factory/acme/bolzano/plant-1/press-1/definition/press-plc/process"
DEFINITION_FILTER = "factory/+/+/+/+/definition/+/+"

Settings = Callable[[str], BrokerSettings]


def changed(text: str, *changes: tuple[str, object]) -> str:
    """The text with each of these, which must stand there once, replaced."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, str(new))
    return text


def certificates(folder: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "broker.pem"))
    return authority


def mosquitto_text(folder: Path, port: int, acl: Path) -> str:
    (folder / "data").mkdir()
    return (
        changed(
            (CONFIG / "mosquitto.conf.example").read_text(encoding="utf-8"),
            ("listener 8883", f"listener {port} {HOST}"),
            ("certfile /etc/mosquitto/certs/broker.pem", f"certfile {folder}/broker.pem"),
            ("keyfile /etc/mosquitto/certs/broker.key", f"keyfile {folder}/broker.pem"),
            ("cafile /etc/mosquitto/certs/clients-ca.pem", f"cafile {folder}/ca.pem"),
            ("acl_file /etc/mosquitto/holdfast.acl", f"acl_file {acl}"),
            ("persistence_location /var/lib/mosquitto/", f"persistence_location {folder}/data/"),
        )
        + "user root\n"  # without effect for anybody else
    )


@asynccontextmanager
async def running(program: str, folder: Path, port: int, text: str) -> AsyncIterator[Broker]:
    (folder / "broker.conf").write_text(text, encoding="utf-8")
    broker = Broker([program, "-c", str(folder / "broker.conf")], port, folder / "broker.log")
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def by_certificate(folder: Path, port: int, authority: trustme.CA) -> Settings:
    def settings(name: str) -> BrokerSettings:
        path = folder / f"{name}.pem"
        authority.issue_cert(f"{name}.example", common_name=name).private_key_and_cert_chain_pem.write_to_path(
            str(path)
        )
        tls = TlsSettings(ca_file=folder / "ca.pem", cert_file=path, key_file=path)
        return BrokerSettings(host="localhost", port=port, tls=tls)

    return settings


def by_password(folder: Path, port: int, passwords: dict[str, str]) -> Settings:
    def settings(name: str) -> BrokerSettings:
        path = folder / f"{name}.password"
        path.write_text(passwords[name] + "\n")
        tls = TlsSettings(ca_file=folder / "ca.pem")
        return BrokerSettings(host="localhost", port=port, tls=tls, username=name, password_file=path)

    return settings


@asynccontextmanager
async def both_ends(settings: Settings) -> AsyncIterator[tuple[MqttCloudLink, MqttAgentLink, GatewayTopic]]:
    """A receiver and gateway 7, connected."""
    me = GatewayTopic(PLANT_1, SEVEN)
    receiver, gateway = MqttCloudLink(settings(RECEIVER), RECEIVER), MqttAgentLink(settings(SEVEN), SEVEN)
    try:
        async with asyncio.timeout(HANG_S):
            await receiver.connect([TELEMETRY_FILTER, DEFINITION_FILTER, STATUS_FILTER])
            await gateway.connect(Message(me.status, b"will", retain=True), me.confirm)
            yield receiver, gateway, me
    finally:
        await gateway.close()
        await receiver.close()


async def taken(receiver: MqttCloudLink, count: int) -> list[str]:
    topics: list[str] = []
    while len(topics) < count:
        for delivery in await receiver.deliveries(10):
            delivery.ack()
            topics.append(delivery.topic)
    return topics


async def check_what_is_allowed(receiver: MqttCloudLink, gateway: MqttAgentLink, me: GatewayTopic) -> None:
    allowed = [me.status, DEFINITION, MachineTopic(PLANT_1, "press-1").telemetry]
    for topic in allowed:
        assert await gateway.publish(Message(topic, b"x")) is Outcome.ACCEPTED
    assert await taken(receiver, len(allowed)) == allowed
    assert await receiver.publish(Message(me.confirm, b"stored")) is Outcome.ACCEPTED
    assert (await gateway.inbound()).payload == b"stored"


def forbidden(me: GatewayTopic) -> list[str]:
    return [
        GatewayTopic(PLANT_1, EIGHT).status,
        me.confirm,
        MachineTopic(ELSEWHERE, "press-1").telemetry,
        GatewayTopic(ELSEWHERE, SEVEN).status,
        "factory/acme/bolzano/plant-2/press-1/definition/press-plc/process",
    ]


async def check_what_is_denied(receiver: MqttCloudLink, gateway: MqttAgentLink, me: GatewayTopic) -> None:
    """MQTT 5 says so: reason code 0x87, which is Outcome.DENIED (protocols/uplink/mqtt_reasons.py)."""
    for topic in forbidden(me):
        assert await gateway.publish(Message(topic, b"x")) is Outcome.DENIED, topic
    assert await receiver.publish(Message(MachineTopic(PLANT_1, "press-1").telemetry, b"x")) is Outcome.DENIED


async def test_mosquitto_with_certificates_lets_each_do_its_own(tmp_path: Path) -> None:
    authority, port = certificates(tmp_path), free_port()
    text = mosquitto_text(tmp_path, port, CONFIG / "mosquitto.acl.example")
    settings = by_certificate(tmp_path, port, authority)
    async with running(mosquitto_program(), tmp_path, port, text), both_ends(settings) as ends:
        await check_what_is_allowed(*ends)
        await check_what_is_denied(*ends)
        stranger = MqttCloudLink(
            BrokerSettings(host="localhost", port=port, tls=TlsSettings(ca_file=tmp_path / "ca.pem")), "x"
        )
        with pytest.raises(LinkRefused, match="cert_file"):
            await stranger.connect([])
        await stranger.close()


async def test_mosquitto_lets_no_gateway_read_anothers_confirm(tmp_path: Path) -> None:
    authority, port = certificates(tmp_path), free_port()
    text = mosquitto_text(tmp_path, port, CONFIG / "mosquitto.acl.example")
    settings = by_certificate(tmp_path, port, authority)
    async with running(mosquitto_program(), tmp_path, port, text), both_ends(settings) as (receiver, gateway, me):
        eight = GatewayTopic(PLANT_1, EIGHT)
        curious = MqttAgentLink(settings(EIGHT), EIGHT)
        try:
            await curious.connect(Message(eight.status, b"will", retain=True), me.confirm)
        except LinkRefused:  # newer brokers refuse; 2.0.11 grants the subscription and delivers nothing
            await curious.connect(Message(eight.status, b"will", retain=True), eight.confirm)
        await receiver.publish(Message(me.confirm, b"for seven"))
        assert (await gateway.inbound()).payload == b"for seven"
        await curious.close()
        await curious.connect(Message(eight.status, b"will", retain=True), eight.confirm)
        await receiver.publish(Message(eight.confirm, b"for eight"))
        assert (await curious.inbound()).payload == b"for eight"
        await curious.close()


@pytest.fixture
def passwords(tmp_path: Path) -> dict[str, str]:
    """User → password, as they stand in the file that Mosquitto's own tool made of them."""
    passwords = {RECEIVER: "one", SEVEN: "seven"}
    for name, password in passwords.items():
        file = tmp_path / "passwd"
        subprocess.run(
            ["mosquitto_passwd", "-b", *(() if file.exists() else ("-c",)), str(file), name, password], check=True
        )
    return passwords


async def test_mosquitto_with_passwords_and_with_patterns(tmp_path: Path, passwords: dict[str, str]) -> None:
    certificates(tmp_path)
    port = free_port()
    # The short form of the rules: the gateways' own lines away, the patterns in.
    rules = (CONFIG / "mosquitto.acl.example").read_text(encoding="utf-8")
    kept = rules[: rules.index("# Each gateway")] + rules[rules.index("# Shorter") :].replace("# pattern", "pattern")
    (tmp_path / "acl").write_text(kept, encoding="utf-8")
    text = changed(
        mosquitto_text(tmp_path, port, tmp_path / "acl"),
        (f"cafile {tmp_path}/ca.pem\n", ""),
        ("require_certificate true\n", ""),
        ("use_identity_as_username true\n", ""),
        ("# password_file /etc/mosquitto/holdfast.passwd", f"password_file {tmp_path}/passwd"),
    )
    async with running(mosquitto_program(), tmp_path, port, text):
        async with both_ends(by_password(tmp_path, port, passwords)) as ends:
            await check_what_is_allowed(*ends)
            _, gateway, me = ends
            for topic in forbidden(me):
                assert await gateway.publish(Message(topic, b"x")) is Outcome.DENIED, topic
        wrong = MqttCloudLink(by_password(tmp_path, port, {SEVEN: "guessed"})(SEVEN), SEVEN)
        with pytest.raises(LinkRefused):
            await wrong.connect([])
        await wrong.close()


async def test_nats_lets_each_do_its_own_and_throws_the_rest_away(tmp_path: Path) -> None:
    certificates(tmp_path)
    port = free_port()
    text = changed(
        (CONFIG / "nats.conf.example").read_text(encoding="utf-8"),
        ("0.0.0.0:8883", f"{HOST}:{port}"),
        ("127.0.0.1:4222", f"{HOST}:{free_port()}"),
        ("/etc/nats/certs/broker.pem", tmp_path / "broker.pem"),
        ("/etc/nats/certs/broker.key", tmp_path / "broker.pem"),
        ("/var/lib/nats/jetstream", tmp_path / "jetstream"),
    )
    settings = by_password(tmp_path, port, {RECEIVER: "RECEIVER-PASSWORD", SEVEN: "LINE-7-PASSWORD"})
    async with running(nats_program(), tmp_path, port, text) as broker, both_ends(settings) as ends:
        await check_what_is_allowed(*ends)
        receiver, gateway, me = ends
        for topic in forbidden(me):  # acknowledged, and thrown away: what the document warns of
            assert await gateway.publish(Message(topic, b"x")) is Outcome.ACCEPTED, topic
        await gateway.publish(Message(me.status, b"after them"))
        assert await taken(receiver, 1) == [me.status]
        assert broker.log.read_text().count("Publish Violation") == len(forbidden(me))


def test_mosquittos_numbers_fit_what_holdfast_sends() -> None:
    text = (CONFIG / "mosquitto.conf.example").read_text(encoding="utf-8")
    numbers = {key: int(value) for key, value in re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE)}
    assert numbers["message_size_limit"] > 128 * 1024
    assert numbers["max_inflight_messages"] >= 200
    assert numbers["max_queued_messages"] >= 500
    days = [int(days) for days in re.findall(r"persistent_client_expiration (\d+)d", text)]
    assert days and days[0] * 86_400 > BrokerSettings(host="x").session_expiry_s
    settings = [line.split()[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert all(one != other for one, other in pairwise(sorted(settings))), "Mosquitto refuses a setting given twice"

"""The operators' page: a real server, a real database, real clients.

A wait here has a limit only so that a failure says where it waited; no time is asserted.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from hypothesis import given
from hypothesis import strategies as st

from cloud.dashboard import feed, server, snapshot
from cloud.dashboard.server import Page
from cloud.receiver import ReceiverState, _now_us
from cloud.settings import HttpSettings
from cloud.store.contract import Beat, MachineRow, StoreAway
from cloud.store.sqlite import SqliteStore
from cloud.worker import StoreWorker
from protocols.program.listening import PageError, listen, url
from protocols.uplink.status import REASON_UNEXPECTED, Buffer, DeviceLink, Health, MachineNumbers
from protocols.uplink.topics import GatewayTopic
from protocols.values import Quality, Value, ValueType
from tests.contract.store_cases import (
    ELSEWHERE,
    GATEWAY,
    NOW,
    OVEN,
    PLANT,
    PRESS,
    beat,
    one_column,
    telemetry,
    with_plant,
)
from tests.support import pages

PATIENCE_S = 20.0
SECOND = 1_000_000
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
SCRIPTS = ("page", "receiver", "completeness", "gateways", "machines", "values")
STATIC = ("index.html", "page.css", *(f"{name}.js" for name in SCRIPTS))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it; TimeoutError where it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for tells nobody
            await asyncio.sleep(0.01)


class Watched(SqliteStore):
    """Counts how often it is asked for everything; `away`: cannot be read."""

    looks = 0
    away = False

    def machines(self) -> Sequence[MachineRow]:
        self.looks += 1
        if self.away:
            raise StoreAway("store x: the disk cannot be read or written; check its space and its health.")
        return super().machines()


@dataclass
class Serving:
    """A page with its database, and a browser's session. `receiver`: what the receiver would say of itself."""

    page: Page
    store: Watched
    worker: StoreWorker
    receiver: ReceiverState
    session: ClientSession

    async def commit(self, *items: Any) -> None:
        await self.worker.call(lambda store: store.commit(items))
        self.page.changed()

    async def state(self) -> Any:
        async with self.session.get(f"{self.page.url}api/state") as answer:
            assert answer.status == 200
            return await answer.json()

    async def values(self, **query: str) -> Any:
        async with self.session.get(f"{self.page.url}api/values", params=query) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            return await answer.json()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[Events]:
        async with self.session.get(f"{self.page.url}events") as answer:
            assert answer.status == 200
            yield Events(answer)


class Events:
    """Reads server-sent events."""

    def __init__(self, answer: ClientResponse) -> None:
        self._lines = aiter(answer.content)

    async def next(self) -> tuple[str, Any]:
        """The next event's name and contents; ("", None) at the end."""
        kind, data = "", ""
        async with asyncio.timeout(PATIENCE_S):
            async for raw in self._lines:
                line = raw.decode().rstrip("\r\n")
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    data += line[6:]
                elif not line and data:
                    return kind, json.loads(data)
        return "", None

    async def having(self, *keys: str) -> Any:
        """The contents of the next event that has these keys."""
        while True:
            kind, contents = await self.next()
            assert kind, "the stream has ended"
            if all(key in contents for key in keys):
                return contents


@asynccontextmanager
async def serving(path: Path, **http: Any) -> AsyncIterator[Serving]:
    with closing(Watched(path)) as store:
        worker = StoreWorker(lambda: store)
        await worker.open()
        receiver = ReceiverState(_now_us(), listening_since_us=_now_us() - 3600 * SECOND, protocol="MQTT 5")
        settings = HttpSettings(port=0, **http)
        async with Page(worker, receiver, settings) as page, ClientSession() as session:
            running = asyncio.create_task(page.run())
            try:
                yield Serving(page, store, worker, receiver, session)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        await worker.close()


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses than in life."""
    monkeypatch.setattr(feed, "PERIOD_S", 0.02)
    monkeypatch.setattr(feed, "ROWS_S_MAX", 0.1)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Serving]:
    """With PLANT in the database."""
    async with serving(tmp_path / "cloud.db") as found:
        await found.worker.call(with_plant)
        yield found


# --- the files ---


async def test_the_pages_files_are_served_and_nothing_else(here: Serving) -> None:
    await pages.files_are_served(here.session, here.page.url, "cloud.dashboard")
    for name in ("index.html", "../server.py", "static/page.js", "api", "page.js/", "%2e%2e/server.py"):
        async with here.session.get(here.page.url + name) as answer:
            assert answer.status == 404
    async with here.session.post(here.page.url) as answer:
        assert answer.status == 405


async def test_every_answer_forbids_what_is_not_ours(here: Serving) -> None:
    for at in ("", "page.js", "api/state", "api/values", "healthz", "metrics", "events", "nothing"):
        await pages.forbids_what_is_not_ours(here.session, here.page.url + at)


def test_the_page_needs_nothing_from_anywhere_else_and_only_makes_text() -> None:
    assert set(pages.static("cloud.dashboard")) == set(STATIC)
    pages.need_nothing_else("cloud.dashboard")
    pages.only_make_text("cloud.dashboard", {'lettersLink.href = "#dead-letters"'})


# --- what is told ---


def status(*, ago_s: float = 0, now_us: int | None = None, gateway: GatewayTopic = GATEWAY, **more: Any) -> Beat:
    """A heartbeat with a buffer and PLC links."""
    item = beat(gateway=gateway, received_us=(_now_us() if now_us is None else now_us) - int(ago_s * SECOND))
    links = {
        "plc-1": DeviceLink(machine="press-1", state="ok", since=1000),
        "plc-2": DeviceLink(machine="press-1", state="away", since=2000, reason=HOSTILE),
    }
    buffer = Buffer(queued_messages=12, bytes=5000, limit_bytes=10000, oldest_sec=9, full_in_sec=60)
    said = item.status.model_copy(update={"health": Health(buffer=buffer), "devices": links, **more})
    return Beat(gateway, said, said.encode(), False, item.received_us)


async def test_the_state_tells_gateways_machines_and_dead_letters(here: Serving) -> None:
    numbers = MachineNumbers(last_seq=5, sent_seq=4)
    await here.commit(status(machines={"press-1": numbers}), telemetry(1), telemetry(3), telemetry(1, content="other"))
    state = await here.state()
    assert state["receiver"]["word"] == "receiving"
    assert state["setup"] == {"tenants": 1, "plants": 1}
    assert state["dead_letters"] == {"waiting": 1}
    gateway = state["gateways"][f"{PLANT}/gw-1"]
    assert (gateway["shape"], gateway["word"], gateway["colour"]) == ("●", "online", "green")
    assert (gateway["queued"], gateway["queued_bytes"], gateway["limit_bytes"]) == (12, 5000, 10000)
    assert (gateway["oldest_s"], gateway["full_in_s"], gateway["registered"]) == (9, 60, False)
    assert [(link["device"], link["state"], link["since_us"]) for link in gateway["links"]] == [
        ("plc-1", "ok", 1_000_000),
        ("plc-2", "away", 2_000_000),
    ]
    assert gateway["links"][1]["reason"] == HOSTILE  # as it is: the page makes text of it
    machine = state["machines"][f"{PLANT}/press-1"]
    assert (machine["state"], machine["tags"]) == ("pending", 1)
    figures = {"batches": 5, "stored": 2, "in_flight": 1, "dropped": 0, "missing": 2, "readings": 2, "complete": False}
    assert figures.items() <= machine["ledger"].items()
    assert state["totals"]["ledger"] == figures
    assert machine["ledger"]["gaps"][0] == {"epoch": "e1", "first": 2, "last": 2}
    assert state["totals"]["presence"] == {"online": 1, "stopped": 0, "lost": 0, "silent": 0, "unknown": 0}


@pytest.mark.parametrize(
    ("ago_s", "more", "listening", "word"),
    [
        (5, {}, True, "online"),
        (5, {"state": "offline", "reason": "shutdown"}, True, "stopped"),
        (5, {"state": "offline", "reason": REASON_UNEXPECTED}, True, "lost"),
        (60, {}, True, "silent"),
        (60, {}, False, "unknown"),
    ],
)
async def test_presence(here: Serving, ago_s: float, more: dict[str, Any], listening: bool, word: str) -> None:
    await here.commit(status(ago_s=ago_s, **more))
    if not listening:
        here.receiver.listening_since_us = None
    state = await here.state()
    assert state["gateways"][f"{PLANT}/gw-1"]["word"] == word
    assert state["totals"]["presence"][word] == 1


@pytest.mark.parametrize(
    ("state", "word", "trouble"),
    [
        ({}, "receiving", ""),
        ({"listening_since_us": None}, "connecting to the broker", ""),
        (
            {"listening_since_us": None, "trouble": "MQTT broker b: x."},
            "no connection to the broker",
            "MQTT broker b: x.",
        ),
        ({"store_trouble": "store y: full."}, "nothing is stored", "store y: full."),
    ],
)
async def test_the_receivers_own_health(here: Serving, state: dict[str, Any], word: str, trouble: str) -> None:
    for name, value in state.items():
        setattr(here.receiver, name, value)
    told = (await here.state())["receiver"]
    assert (told["word"], told["trouble"]) == (word, trouble)
    async with here.session.get(f"{here.page.url}healthz") as answer:
        health = await answer.json()
    assert answer.status == 200
    assert health["broker"] == ("connected" if here.receiver.listening_since_us else "away")
    assert health["store"] == ("away" if here.receiver.store_trouble else "ok")


async def test_while_the_database_cannot_be_read_the_page_says_so_and_keeps_what_it_had(here: Serving) -> None:
    await here.commit(telemetry(1))
    async with here.events() as events:
        assert f"{PLANT}/press-1" in (await events.having("machines"))["machines"]
        here.store.away = True
        here.page.changed()
        told = await events.having("receiver")
        while not told["receiver"]["trouble"]:
            told = await events.having("receiver")
        assert "the disk cannot be read" in told["receiver"]["trouble"]
        assert "machines" not in told
        here.store.away = False
        while told["receiver"]["trouble"]:
            told = await events.having("receiver")


async def test_metrics(here: Serving) -> None:
    here.receiver.readings = 12_345_678
    here.receiver.outcomes["new"] = 9
    await here.commit(status(), telemetry(1))
    async with here.session.get(f"{here.page.url}metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = (await answer.text()).splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert samples["holdfast_receiver_connected"] == "1"
    assert samples["holdfast_readings_total"] == "12345678"
    assert samples['holdfast_messages_total{outcome="new"}'] == "9"
    assert samples['holdfast_gateways{presence="online"}'] == "1"
    assert samples[f'holdfast_gateway_buffer_messages{{plant="{PLANT}",gateway="gw-1"}}'] == "12"
    assert samples["holdfast_machines_pending"] == "1"
    assert samples["holdfast_gateways_fenced"] == "0"
    assert [
        samples[f'holdfast_batches{{state="{state}"}}'] for state in ("stored", "in_flight", "dropped", "missing")
    ] == [*("1", "0", "0", "0")]
    families = {re.split(r"[{ ]", line)[0] for line in samples}
    assert families == {line.split()[2] for line in lines if line.startswith("# TYPE")}


# --- values ---


async def test_a_backlog_that_comes_late_takes_nothing_back(here: Serving) -> None:
    """It is counted, but neither the latest values nor the time of the last message go backwards."""
    now = [one_column(ValueType.FLOAT64, 42.0), one_column(ValueType.STRING, "live", tag="program")]
    await here.commit(telemetry(9, *now, received_us=NOW))
    before = (await here.values(machine=f"{PLANT}/press-1"))["values"]
    old = [one_column(ValueType.FLOAT64, float(seq), tag="speed") for seq in range(1, 6)]
    late = [telemetry(seq, column, times_us=[NOW - 3600 * SECOND + seq]) for seq, column in enumerate(old, 1)]
    await here.commit(*(replace(item, historical=True, received_us=NOW - SECOND) for item in late))
    assert (await here.values(machine=f"{PLANT}/press-1"))["values"] == before
    assert {value["tag"]: value["value"] for value in before} == {"speed": "42", "program": "live"}
    state = await here.state()
    assert state["machines"][f"{PLANT}/press-1"]["last_event_us"] == NOW
    assert state["totals"]["ledger"]["stored"] == 6


async def test_a_backlog_that_shrinks_is_foretold_from_heartbeat_to_heartbeat(here: Serving) -> None:
    now_us = _now_us()

    def behind(ago_s: int, waiting: int) -> Beat:
        buffer = Buffer(queued_messages=waiting, bytes=9, limit_bytes=99, oldest_sec=7200)
        return status(ago_s=ago_s, now_us=now_us, health=Health(buffer=buffer))

    await here.commit(behind(20, 10_000))
    async with here.events() as events:
        (gateway,) = (await events.having("gateways"))["gateways"].values()
        assert gateway["notes"] == []
        await here.commit(behind(10, 7_000))
        (gateway,) = (await events.having("gateways"))["gateways"].values()
        sentence = "catching up: 7,000 batches of backlog, 300.0 fewer each second, done in about 23 s"
        assert [note["text"] for note in gateway["notes"]] == [sentence]


async def test_two_installations_under_one_name_are_told(here: Serving) -> None:
    for ago_s, (instance, host) in enumerate([("aaaa", "line-3"), ("bbbb", HOSTILE), ("aaaa", "line-3")]):
        await here.commit(status(ago_s=10 - ago_s, instance=instance, host=host))
    state = await here.state()
    (note,) = state["gateways"][f"{PLANT}/gw-1"]["notes"]
    assert note["colour"] == "red"
    assert "aaaa on host line-3" in note["text"]
    assert f"bbbb on host {HOSTILE[:64]}" in note["text"]  # as it is: the page makes text of it
    assert state["totals"]["fenced"] == 1


async def test_the_latest_values_of_a_machine(here: Serving) -> None:
    floats = ValueType.FLOAT64
    bad = one_column(floats, None, tag="level", unit="%", quality=[Quality.BAD_TIMEOUT], reasons={0: HOSTILE})
    columns = (
        bad,
        one_column(floats, 71.53125, tag="Temperature", unit="°C"),
        one_column(ValueType.STRING, "x", tag=HOSTILE),
    )
    await here.commit(telemetry(1, *columns), telemetry(1, machine=OVEN))
    told = await here.values(machine=f"{PLANT}/press-1")
    assert (told["tags"], told["found"]) == (3, 3)
    hostile, temperature, level = told["values"]
    assert hostile["tag"] == HOSTILE
    assert (temperature["tag"], temperature["value"], temperature["unit"]) == ("Temperature", "71.53125", "°C")
    assert (temperature["quality"], temperature["time_us"]) == ("good", NOW)
    assert (level["value"], level["quality"], level["code"], level["reason"]) == ("–", "bad", "BadTimeout", HOSTILE)
    filtered = await here.values(machine=f"{PLANT}/press-1", tag="TEMP")
    assert [value["tag"] for value in filtered["values"]] == ["Temperature"]
    assert (filtered["tags"], filtered["found"]) == (3, 1)
    assert (await here.values(machine=f"{PLANT}/nobody"))["values"] == []


async def test_a_machine_with_very_many_tags_is_told_in_part(here: Serving) -> None:
    columns = [one_column(ValueType.INT, number, tag=f"tag-{number:05}") for number in range(snapshot.VALUES_MAX + 7)]
    await here.commit(telemetry(1, *columns))
    told = await here.values(machine=f"{PLANT}/press-1")
    assert (told["found"], len(told["values"])) == (snapshot.VALUES_MAX + 7, snapshot.VALUES_MAX)
    last = await here.values(machine=f"{PLANT}/press-1", tag=f"-{snapshot.VALUES_MAX + 6:05}")
    assert [value["value"] for value in last["values"]] == [str(snapshot.VALUES_MAX + 6)]


@pytest.mark.parametrize("machine", ["", "press-1", f"{PLANT}", f"{PLANT}/a/b", "a/b/c/+", "a/b/c/D", "../b/c/d"])
async def test_a_question_for_no_machine_is_refused(here: Serving, machine: str) -> None:
    async with here.session.get(f"{here.page.url}api/values", params={"machine": machine}) as answer:
        assert answer.status == 400
        assert "tenant/province/plant/name" in (await answer.json())["error"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "true"),
        (0.0, "0"),
        (-0.0, "0"),
        (2.4000000953674316, "2.4"),
        (71.53125, "71.53125"),
        (0.0031415926535, "0.003141593"),
        (1e-12, "1e-12"),
        (12345678.9, "12345678.90"),
        (123456789012.0, "123456789012"),
        (-1e300, "-1e+300"),
        (1e22, "1e+22"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**64 - 1, "18446744073709551615"),
        ("Nougat", "Nougat"),
        ("x" * 400, "x" * 300 + "…"),
    ],
)
def test_a_value_as_people_read_it(value: Value, text: str) -> None:
    assert snapshot.shown(value) == text


# --- events ---


async def test_events_tell_everything_first_and_then_what_has_changed(here: Serving) -> None:
    await here.commit(telemetry(1, machine=OVEN))
    async with here.events() as events:
        kind, state = await events.next()
        assert (kind, list(state["machines"])) == ("state", [f"{PLANT}/oven-1"])
        here.receiver.readings += 5
        await here.commit(telemetry(1), status())
        changed = await events.having("machines", "gateways")
        assert list(changed["machines"]) == [f"{PLANT}/press-1"]
        assert list(changed["gateways"]) == [f"{PLANT}/gw-1"]
        assert "setup" not in changed


async def test_what_an_operator_does_elsewhere_appears_by_itself(here: Serving) -> None:
    await here.commit(telemetry(1))
    async with here.events() as events:
        await events.having("machines")
        await here.worker.call(lambda store: store.approve_machine(PRESS))
        changed = await events.having("machines")
        assert changed["machines"][f"{PLANT}/press-1"]["state"] == "approved"


async def test_one_look_serves_all_clients_and_none_is_taken_for_nobody(
    here: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "ROWS_S_MAX", math.inf)
    await here.commit(telemetry(1))
    assert here.store.looks == 0
    streams = [here.events() for _ in range(10)]
    clients = [await stream.__aenter__() for stream in streams]
    for _ in range(5):
        for client in clients:
            await client.next()
        await here.commit()
    assert 1 <= here.store.looks <= 6  # one at first, and one after each commit at the most
    assert here.page._feed.clients == 10
    for stream in streams:
        await stream.__aexit__(None, None, None)
    await until(lambda: here.page._feed.clients == 0)
    assert not here.page._feed._wanted.is_set()


async def test_beyond_the_bound_a_client_is_refused_until_another_leaves(
    here: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "CLIENTS_MAX", 2)
    async with here.events() as first, here.events():
        await first.next()
        async with here.session.get(f"{here.page.url}events") as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers
    await until(lambda: here.page._feed.clients < 2)
    async with here.events() as again:
        assert (await again.next())[0] == "state"


async def test_a_client_that_takes_nothing_is_let_go_and_the_others_are_served(
    here: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SEND_TIMEOUT_S", 0.2)
    links = {f"d{number}": DeviceLink(machine="m", state="away", since=1, reason="x" * 300) for number in range(100)}
    gateways = [GatewayTopic(PLANT, f"gw-{number}") for number in range(200)]
    await here.commit(*(status(gateway=gateway, devices=links) for gateway in gateways))
    with socket.create_connection(("127.0.0.1", int(here.page.url.split(":")[2].strip("/")))) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: here.page._feed.clients == 1)
        async with here.session.get(f"{here.page.url}healthz") as answer:
            assert answer.status == 200
        await until(lambda: here.page._feed.clients == 0)


async def test_the_page_ends_though_somebody_looks(tmp_path: Path) -> None:
    async with ClientSession() as session:
        async with serving(tmp_path / "cloud.db") as found:
            answer = await session.get(f"{found.page.url}events")
            events = Events(answer)
            assert (await events.next())[0] == "state"
        while (await events.next())[0]:
            pass
        answer.close()


names = st.sampled_from(["a", "b", "c"])
entries = st.dictionaries(names, st.integers(0, 2), max_size=3)
states = st.fixed_dictionaries(
    {"now_us": st.integers(0, 3), "gateways": entries, "machines": entries, "notes": st.lists(names, max_size=1)}
)


@given(states, states)
def test_a_state_and_its_change_make_the_next_state(before: Any, after: Any) -> None:
    told = snapshot.change(before, after)
    found = deepcopy(before)
    for key, value in told.items():
        if key in ("gateways", "machines"):
            found[key] = {name: entry for name, entry in {**found[key], **value}.items() if entry is not None}
        else:
            found[key] = value
    assert found == after
    assert before == after or len(told) > 1 or before["now_us"] != after["now_us"]
    assert not any(value == {} for value in told.values())


# --- who may ask ---


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost:1", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1", 200),
        ("192.0.2.7:8480", 200),
        ("[::1]:8480", 200),
        ("plant.example.org", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
    ],
)
async def test_another_sites_name_for_this_address_is_refused(tmp_path: Path, host: str, code: int) -> None:
    async with serving(tmp_path / "cloud.db", names=("Plant.example.org",)) as found:
        for at in ("", "api/state", "events"):
            async with found.session.get(found.page.url + at, headers={"Host": host}) as answer:
                assert answer.status == code
                if code == 421:
                    assert "http.names" in await answer.text()


async def test_a_port_in_use_is_one_sentence(here: Serving) -> None:
    port = int(here.page.url.split(":")[2].strip("/"))
    with pytest.raises(PageError) as caught:
        listen("127.0.0.1", port, page="operators' page", key="http")
    assert caught.value.in_use
    assert str(caught.value) == (
        f"operators' page at 127.0.0.1:{port}: the port is in use; stop what listens there, or set http.port to another"
    )


@pytest.mark.parametrize(
    ("host", "shown"),
    [("0.0.0.0", "localhost"), ("::1", r"\[::1\]"), ("localhost", "localhost")],  # noqa: S104  # bound for a moment
)
def test_the_address_for_a_browser(host: str, shown: str) -> None:
    with listen(host, 0, page="page", key="http") as listening:
        assert re.fullmatch(rf"http://{shown}:{listening.getsockname()[1]}/", url(host, listening))


async def test_a_plant_without_anything_in_it(tmp_path: Path) -> None:
    async with serving(tmp_path / "cloud.db") as found:
        await found.commit(telemetry(1, machine=type(PRESS)(ELSEWHERE, "press-1")))
        state = await found.state()
        assert state["setup"] == {"tenants": 0, "plants": 0}
        assert (state["gateways"], state["machines"]) == ({}, {})
        assert state["dead_letters"] == {"waiting": 1}

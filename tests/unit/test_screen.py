"""The full-screen view: lines that always fit, keys that do what the help says. Textual's own pilot presses them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.widgets import Static

from agent.live.client import FeedAway
from agent.live.query import Query
from agent.screen import draw
from agent.screen.app import WatchApp
from agent.screen.page import page
from agent.screen.sparks import TAGS_MAX, Sparks, bars
from agent.screen.state import DEVICES, HELP, REASONS, VALUES, State
from protocols.program.terminal import width

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp")), min_size=1, max_size=60)
MARKS = st.sampled_from(["ok", "bad", "note", None])
REASON = st.fixed_dictionaries(
    {
        "mark": st.sampled_from(["bad", "note"]),
        "subject": NAMES,
        "text": st.text(max_size=200),
        "fix": st.text(max_size=80),
    }
)


def station(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"name": st.just(name), "mark": MARKS, "text": NAMES, "detail": NAMES, "reasons": st.lists(REASON, max_size=4)}
    )


DEVICE = st.fixed_dictionaries(
    {
        "name": NAMES, "endpoint": NAMES, "state": st.sampled_from(["ok", "bad", "away", "starting"]),
        "mark": st.sampled_from(["ok", "bad", "note"]), "requests_per_s": st.none() | st.floats(0, 9999),
        "readings_per_s": st.none() | st.floats(0, 99999), "wrong": st.integers(0, 99999),
    }
)  # fmt: skip
ROW = st.fixed_dictionaries(
    {
        "device": NAMES, "tag": NAMES, "group": NAMES, "unit": NAMES, "address": NAMES, "shown": NAMES, "reason": NAMES,
        "value": st.none() | st.floats(-1e9, 1e9) | st.booleans() | NAMES,
        "quality": st.sampled_from(["good", "bad", "uncertain", "none"]), "time_us": st.none() | st.integers(0, 2**50),
    }
)  # fmt: skip


@st.composite
def views(draw: st.DrawFn) -> dict[str, Any]:
    devices = draw(st.lists(DEVICE, min_size=1, max_size=8))
    rows = draw(st.lists(ROW, max_size=40))
    return {
        "now_us": 2**50,
        "agent": {"thing": draw(NAMES), "plant": "a/b/c", "uptime_s": 5, "is_direct": draw(st.booleans())},
        "line": [draw(station(name)) for name in ("PLC", "driver", "outbox", "broker", "receiver")],
        "devices": devices,
        "device_count": len(devices),
        "values": {"rows": rows, "found": len(rows), "tags": len(rows) + 3, "offset": 0},
    }


@settings(max_examples=60)
@given(
    views(),
    st.integers(20, 200),
    st.integers(3, 60),
    st.sampled_from([VALUES, DEVICES, REASONS, HELP]),
    st.integers(-50, 50),
    st.booleans(),
    st.sampled_from(["", "it hung up"]),
)
def test_every_page_fits_the_window(
    view: dict[str, Any], cells: int, height: int, part: str, moved: int, is_typing: bool, trouble: str
) -> None:
    state, sparks = State(part=part, is_typing=is_typing, filter="x" * 30), Sparks()
    sparks.take(view["values"]["rows"])
    page(view, state, sparks, ("12:00:00", "", trouble), cells, height)
    state.move(moved)
    lines = page(view, state, sparks, ("12:00:00", "", trouble), cells, height)
    assert len(lines) == height
    assert max(sum(width(text) for text, _ in line) for line in lines) <= cells
    assert 0 <= state.top <= state.cursor or state.count == 0


@given(st.lists(st.none() | st.floats(-1e300, 1e300), max_size=50), st.integers(0, 30))
def test_a_chart_fills_its_cells(points: list[float | None], cells: int) -> None:
    assert len(bars(points, cells)) == cells


def test_a_chart_shows_highest_and_lowest_and_gaps() -> None:
    assert bars([0, 7, None, 3.5], 6) == "  ▁█ ▅"
    assert bars([5, 5], 2) == "▁▁"


def test_charts_are_kept_for_so_many_tags() -> None:
    sparks = Sparks()
    for at in range(TAGS_MAX + 10):
        sparks.take([{"device": "d", "tag": f"t{at}", "value": at}])
    assert sparks.of("d", "t0") == ()
    assert sparks.of("d", f"t{TAGS_MAX + 9}") == (TAGS_MAX + 9,)


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Source:
    """Shows 400 tags of one device, of which every tenth is bad; `trouble`: why it cannot."""

    def __init__(self) -> None:
        self.asked: list[Query] = []
        self.trouble = ""

    async def ask(self, query: Query) -> dict[str, Any]:
        self.asked.append(query)
        if self.trouble:
            raise FeedAway(self.trouble)
        every = [self._row(at) for at in range(400)]
        found = [row for row in every if query.filter in row["tag"] and (not query.wrong or row["quality"] == "bad")]
        rows = found[query.offset : query.offset + query.limit]
        reasons = [{"mark": "bad", "subject": "plc", "text": "40 tags fail", "fix": "look at the addresses"}]
        line: list[dict[str, Any]] = [
            {"name": n, "mark": "ok", "text": "well", "detail": "", "reasons": []} for n in ["PLC", "driver", "outbox"]
        ]
        line.append({"name": "broker", "mark": "bad", "text": "bad", "detail": "", "reasons": reasons})
        device = {"name": "plc", "endpoint": "10.0.0.1:502", "state": "ok", "mark": "ok", "requests_per_s": 1.0,
                  "readings_per_s": 9.0, "wrong": 40}  # fmt: skip
        return {
            "now_us": 5_000_000,
            "agent": {"thing": "gw-1", "plant": "a/b/c", "uptime_s": 5, "is_direct": False},
            "line": line,
            "devices": [device],
            "device_count": 1,
            "values": {"rows": rows, "found": len(found), "tags": 400, "offset": query.offset},
        }

    def _row(self, at: int) -> dict[str, Any]:
        bad = at % 10 == 0
        return {"device": "plc", "tag": f"tag-{at:03}", "group": "main", "unit": "bar", "address": f"{40001 + at}",
                "value": at, "shown": f"{at}", "quality": "bad" if bad else "good",
                "time_us": 4_000_000, "reason": "exception 2; look" if bad else ""}  # fmt: skip


def screen(app: WatchApp) -> str:
    return str(app.query_one("#page", Static).render())


async def shows(app: WatchApp, pilot: Any, text: str) -> str:
    async with asyncio.timeout(20):
        while text not in screen(app):
            await pilot.pause(0.02)
    return screen(app)


@pytest.fixture
def source() -> Source:
    return Source()


async def test_the_keys_of_the_help(source: Source) -> None:
    app = WatchApp(source, Query(), 0.05)
    async with app.run_test(size=(80, 24)) as pilot:
        first = await shows(app, pilot, "tag-000")
        assert "✗ plc: 40 tags fail → look at the addresses" in first
        assert len(first.split("\n")) == 24
        await pilot.press("b")
        assert "tag-001" not in await shows(app, pilot, "40 without a good value (of 400)")
        await pilot.press("b", "slash", *"tag-12")
        await shows(app, pilot, "Filter: tag-12▏")
        await shows(app, pilot, "tag-129")
        await pilot.press("backspace", "9", "enter")
        await shows(app, pilot, "10 tags with “tag-19” (of 400)")
        await pilot.press("escape", "end")
        await shows(app, pilot, "tag-399")
        assert source.asked[-1].offset > 0
        for key, wanted in (("d", "10.0.0.1:502"), ("e", "look at the addresses"), ("question_mark", "these keys")):
            await pilot.press(key)
            await shows(app, pilot, wanted)
        await pilot.press("question_mark", "space")
        await shows(app, pilot, "held at")
        await pilot.press("q")
    assert app.return_code == 0


async def test_what_is_not_live_says_so_and_comes_back(source: Source) -> None:
    app = WatchApp(source, Query(), 0.02)
    async with app.run_test(size=(100, 30)) as pilot:
        await shows(app, pilot, "tag-001")
        source.trouble = "it hung up"
        await shows(app, pilot, "✗ the agent does not answer: it hung up; trying again")
        source.trouble = ""
        async with asyncio.timeout(20):
            while "not live" in screen(app):
                await pilot.pause(0.02)


async def test_it_leaves_when_it_is_told_to_stop(source: Source) -> None:
    app, stopping = WatchApp(source, Query(), 0.02), asyncio.Event()
    async with app.run_test(size=(50, 5)) as pilot:
        await shows(app, pilot, "too small")
        leaving = asyncio.create_task(app._leave(stopping), name="leave")
        stopping.set()
        await leaving


def test_plain_lines_have_no_styles() -> None:
    assert draw.plain([[("a ", "red"), ("b", "")], []]) == "a b\n"

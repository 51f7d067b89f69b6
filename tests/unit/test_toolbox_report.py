"""The report of commissioning: what it counts, and that nobody's name becomes part of the page."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from agent.toolbox.report import BrokerSheet, DeviceSheet, GroupSheet, Latency, Report, TagSheet, plain
from agent.toolbox.report_page import page
from protocols.program.terminal import bar

TAG = TagSheet(
    "level",
    "main",
    "holding 0–1 (40001–40002)",
    "float32",
    "CDAB",
    "000041bc",
    23.5,
    "23.5",
    "mm",
    "good",
    "Good",
    "",
    "",
)
DEVICE = DeviceSheet(
    "press-plc",
    "press-1",
    "modbus",
    "10.0.0.5:502",
    {"unit": "1", "server certificate, SHA-256": "AB:CD"},
    "",
    "",
    Latency(5, 1.0, 2.0, 130.0),
    [GroupSheet("main", 1.0, 1, ["unit 1, holding 0–1 (40001–40002)"], 1)],
    [TAG],
)
REPORT = Report(
    {"thing": "gw-1", "tenant": "acme", "province": "bolzano", "plant": "plant-1", "host": "box"},
    {"file": "/etc/holdfast/agent.yaml", "hash": "5d2ae44a"},
    "2026-11-28T04:00:00+01:00",
    "1.0",
    "Anna",
    BrokerSheet("broker:8883", "TLS", "lets this gateway in", "", "", "AA:BB", "CC:DD"),
    [DEVICE],
)


class Page(HTMLParser):
    """What a browser would make of it: elements, their attributes, and the text outside of the style sheet."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.styles = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.styles += tag == "style"

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "style":
            self.text += data


def test_all_good_is_nothing_open() -> None:
    assert (REPORT.good, REPORT.open, REPORT.notes) == (1, [], [])
    found = json.loads(to_json(plain(REPORT)))
    assert found["ok"] is True
    assert found["summary"] == {"tags": 1, "good": 1, "open": [], "notes": []}
    assert found["devices"][0]["tags"][0]["raw"] == "000041bc"
    shown = Page(page(REPORT)).text
    for text in ("1 of 1 tags are good; nothing is open", "00 00 41 BC", "23.5 mm", "float32 CDAB", "AB:CD", "AA:BB"):
        assert text in shown
    assert "1.0 ms / 2.0 ms / 130 ms (min / median / max of 5 requests)" in shown


def test_what_is_open_is_told_once() -> None:
    bad = [replace(TAG, name=f"t{at}", quality="bad", reason="it has none") for at in range(12)]
    doubtful = replace(TAG, name="odd", quality="uncertain", reason="its clock is wrong")
    away = replace(
        DEVICE,
        name="press-2",
        trouble="press-2 (modbus): refused",
        fix="check it",
        latency=None,
        tags=[replace(TAG, quality="none", status="", reason="press-2 (modbus): refused")],
    )
    report = replace(
        REPORT,
        broker=replace(REPORT.broker, trouble="refused", fix="check it"),
        devices=[replace(DEVICE, tags=[TAG, *bad, doubtful], doubts=["t0: hardly true"]), away],
        more_open=["clock: wrong"],
    )
    assert report.open == [
        "clock: wrong",
        "broker broker:8883: refused; check it",
        "press-plc: t0, t1, t2, t3, t4, t5, t6, t7 and 4 more: it has none",
        "press-plc: odd: its clock is wrong",
        "press-2 (modbus): refused; check it",
    ]
    assert report.notes == ["press-plc: t0: hardly true"]
    assert (away.result, DEVICE.result, replace(DEVICE, trouble="cut").result) == ("not read", "read", "broken off")
    shown = Page(page(report)).text
    assert "1 of 15 tags are good; 5 open" in shown
    assert "✗ press-2 (modbus): refused; check it" in shown


ATTACKS = [
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>'",
    "&lt;b&gt;",
    "]]><!--",
    "\x00\x1b[2J\u202e\ud800",
]


@given(st.one_of(st.sampled_from(ATTACKS), st.text(max_size=30)))
def test_no_name_or_value_becomes_part_of_the_page(strange: str) -> None:
    tag = replace(
        TAG, name=strange, place=strange, type=strange, order=strange, shown=strange, unit=strange, reason=strange
    )
    device = replace(
        DEVICE,
        name=strange,
        machine=strange,
        endpoint=strange,
        facts={strange: strange},
        trouble=strange,
        fix=strange,
        groups=[GroupSheet("main", 1.0, 1, [strange], 1)],
        tags=[tag],
        doubts=[strange],
    )
    whole = replace(
        REPORT,
        gateway=dict.fromkeys(REPORT.gateway, strange),
        configuration={"file": strange, "hash": strange},
        when=strange,
        by=strange,
        devices=[device],
        more_open=[strange],
    )
    text = page(whole)
    text.encode(errors="backslashreplace")
    harmless = page(replace(REPORT, devices=[replace(device, tags=[replace(tag, reason="x")])], more_open=["x"]))
    found = Page(text)
    assert {name for name, _ in found.elements} <= {name for name, _ in Page(harmless).elements} | {"h3", "ul", "li"}
    assert found.styles == 1
    attributes = {name for _, given_attributes in found.elements for name in given_attributes}
    assert attributes <= {"class", "colspan", "lang", "charset", "http-equiv", "content", "name"}


def test_the_page_needs_nothing_beside_it() -> None:
    text = page(REPORT)
    assert not any(word in text for word in ("http:", "https:", "url(", "@import", "src=", "href=", "<script"))
    assert "default-src 'none'" in text


@pytest.mark.parametrize(("done", "of", "full"), [(0, 4, 0), (1, 4, 5), (4, 4, 20), (9, 4, 20), (0, 0, 20)])
def test_a_bar_is_as_full_as_the_work_is_done(done: int, of: int, full: int) -> None:
    assert bar(done, of) == "█" * full + "░" * (20 - full)

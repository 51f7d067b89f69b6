"""A report of commissioning as one HTML file that needs nothing beside it, and prints on A4. Pure.

Names, values and reasons come from devices and strangers: the page is built as a tree, whose texts are escaped when it
is written, and its policy allows no script and no resource at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from xml.etree.ElementTree import Element, tostring

from agent.toolbox.report import GOOD, BrokerSheet, DeviceSheet, GroupSheet, Report, TagSheet, milliseconds, with_fix
from protocols.program.terminal import clean

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
RAW_BYTES_MAX = 32
"""What is longer is a text or an array; --json has all of it."""

PLAN_MAX = 40
SIGNS = {GOOD: "✓", "uncertain": "!", "bad": "✗", "none": "✗"}
_UNSAFE = re.compile(r"[^\w .:+-]", re.ASCII)
_COLUMNS = ("Tag", "Address", "Type", "Raw bytes", "Value", "Quality")
_SIGNERS = ("Commissioned by", "Checked by", "Accepted by")


def page(report: Report) -> str:
    """The whole file."""
    title = f"Commissioning of {report.gateway.get('thing', '')}"
    css = files("agent.toolbox").joinpath("report.css").read_text(encoding="utf-8")
    head = _e(
        "head",
        _e("meta", charset="utf-8"),
        _e("meta", {"http-equiv": "Content-Security-Policy"}, content=POLICY),
        _e("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _e("title", title),
        _e("style", css + _footer(report)),
    )
    body = _e("body", *_head(report, title), *_summary(report))
    body.extend([_device(device) for device in report.devices])
    body.extend(_signatures(report))
    root = _e("html", head, body, lang="en")
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def _e(name: str, /, *content: str | Element | Mapping[str, str], **attributes: str) -> Element:
    """An element. Texts come before elements; `class_` is the class, a mapping holds attributes of any name."""
    made = Element(name, {key.rstrip("_"): value for key, value in attributes.items()})
    for one in content:
        if isinstance(one, Element):
            made.append(one)
        elif isinstance(one, str):
            made.text = (made.text or "") + (one if name == "style" else clean(one))
        else:
            made.attrib.update(one)
    return made


def _facts(facts: Mapping[str, str]) -> Element:
    """Labels with their texts; those without a text are left out."""
    made = _e("dl", class_="facts")
    for label, text in facts.items():
        if text:
            made.extend([_e("dt", label), _e("dd", text, class_="sha" if "SHA-256" in label else "")])
    return made


def _head(report: Report, title: str) -> Iterator[Element]:
    gateway = report.gateway
    yield _e("h1", title)
    yield _facts(
        {
            "Plant": " / ".join(gateway.get(key, "") for key in ("tenant", "province", "plant")),
            "Gateway": f"{gateway.get('thing', '')}, on the computer {gateway.get('host', '')}",
            "Configuration": f"{report.configuration['hash']} ({report.configuration['file']})",
            "Date": _day(report),
            "Done by": report.by,
            "Holdfast": report.version,
        }
    )


def _summary(report: Report) -> Iterator[Element]:
    found, good, total = report.open, report.good, len(report.tags)
    verdict = f"{good} of {total} tags are good" + (f"; {len(found)} open" if found else "; nothing is open")
    yield _e("p", f"{'✗' if found else '✓'} {verdict}", class_=f"verdict {'bad' if found else 'good'}")
    for heading, told in (("Open", found), ("To be known", report.notes)):
        if told:
            yield _e("h3", heading)
            yield _e("ul", *(_e("li", one) for one in told))
    yield _e("h3", "Devices")
    yield _devices(report)
    yield _e("h2", "Broker")
    yield _broker(report.broker)


def _devices(report: Report) -> Element:
    """A line for each."""
    titles = ("Device", "Machine", "Endpoint", "Good", "Latency")
    rows = [
        _e(
            "tr",
            _e("td", f"{'✓' if device.good == len(device.tags) and not device.trouble else '✗'} {device.name}"),
            _e("td", device.machine),
            _e("td", f"{device.protocol} {device.endpoint}"),
            _e("td", f"{device.good} of {len(device.tags)}", class_="keep"),
            _e("td", _latency(device, short=True), class_="keep"),
        )
        for device in report.devices
    ]
    return _table(titles, rows)


def _broker(broker: BrokerSheet) -> Element:
    result = broker.result
    if broker.trouble:
        result = f"✗ {with_fix(broker.trouble, broker.fix)}"
    return _facts(
        {
            "Endpoint": broker.endpoint,
            "Result": result,
            "Security": broker.security,
            "Broker's certificate, SHA-256": broker.server_sha256,
            "Gateway's certificate, SHA-256": broker.client_sha256,
        }
    )


def _device(device: DeviceSheet) -> Element:
    result = "✓ connected, every tag was read"
    if device.trouble:
        result = f"✗ {with_fix(device.trouble, device.fix)}"
    about = {
        "Endpoint": f"{device.protocol} {device.endpoint}",
        "Machine": device.machine,
        "Result": result,
        "Latency": _latency(device),
        **{label[:1].upper() + label[1:]: text for label, text in device.facts.items()},
    }
    made = _e("section", _e("h2", f"Device {device.name}"), _facts(about))
    for group in device.groups:
        made.extend(_group(group, [tag for tag in device.tags if tag.group == group.name]))
    return made


def _latency(device: DeviceSheet, *, short: bool = False) -> str:
    one = device.latency
    if one is None:
        return "-" if short else "not measured"
    times = " / ".join(milliseconds(number) for number in (one.min_ms, one.median_ms, one.max_ms))
    return times if short else f"{times} (min / median / max of {one.requests} requests)"


def _group(group: GroupSheet, tags: list[TagSheet]) -> Iterator[Element]:
    count = (
        "" if group.requests is None else f", {group.requests} request{'' if group.requests == 1 else 's'} in a read"
    )
    yield _e(
        "h3", f"Group {group.name}: {group.tags} tag{'' if group.tags == 1 else 's'} every {group.period_s:g} s{count}"
    )
    if group.plan:
        more = f" … and {len(group.plan) - PLAN_MAX} more" if len(group.plan) > PLAN_MAX else ""
        yield _e("p", f"Read plan: {'; '.join(group.plan[:PLAN_MAX])}{more}.", class_="faint")
    made = _table(_COLUMNS, [row for tag in tags for row in _tag(tag)])
    made.set("class", "tags")
    yield made


def _table(titles: tuple[str, ...], rows: list[Element]) -> Element:
    heads = [_e("th", title, class_=f"of-{title.lower().replace(' ', '-')}") for title in titles]
    return _e("table", _e("thead", _e("tr", *heads)), _e("tbody", *rows))


def _tag(tag: TagSheet) -> Iterator[Element]:
    """Its line, and below it why it is not good."""
    order = f" {tag.order}" if tag.order else ""
    yield _e(
        "tr",
        _e("td", tag.name),
        _e("td", tag.place),
        _e("td", f"{tag.type}{order}"),
        _e("td", _raw(tag.raw), class_="raw"),
        _e("td", tag.shown if tag.value is None else f"{tag.shown} {tag.unit}".rstrip(), class_="value"),
        _e("td", f"{SIGNS.get(tag.quality, '?')} {tag.quality}", class_=f"keep {tag.quality}"),
        class_="joined" if tag.reason else "",
    )
    if tag.reason:
        yield _e("tr", _e("td", tag.reason, colspan=str(len(_COLUMNS)), class_=tag.quality), class_="reason")


def _raw(raw: str) -> str:
    """Bytes apart, as people read them."""
    if not raw:
        return "-"
    shown = " ".join(raw[at : at + 2] for at in range(0, min(len(raw), 2 * RAW_BYTES_MAX), 2)).upper()
    return shown if len(raw) <= 2 * RAW_BYTES_MAX else f"{shown} … ({len(raw) // 2} bytes)"


def _signatures(report: Report) -> Iterator[Element]:
    yield _e("h2", "Signatures")
    rows = [
        _e("tr", _e("td", signer), _e("td", report.by if at == 0 else ""), _e("td"), _e("td"))
        for at, signer in enumerate(_SIGNERS)
    ]
    made = _table(("For", "Name", "Date", "Signature"), rows)
    made.set("class", "sign")
    yield made
    yield _e(
        "p",
        f"What the devices answered on {_day(report)}, asked with the configuration {report.configuration['hash']}.",
        class_="faint",
    )


def _day(report: Report) -> str:
    return report.when.replace("T", " ")


def _footer(report: Report) -> str:
    """What stands below each printed page. In a style sheet nothing is escaped: only harmless characters are kept."""
    text = f"{report.gateway['thing']}   configuration {report.configuration['hash']}   {_day(report)}"
    return f'@page {{ @bottom-left {{ content: "{_UNSAFE.sub("", text)}" }} }}'

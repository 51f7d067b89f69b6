"""Writes the tables of docs/performance.md anew, from the figures of a run; the words between them stay.

    python -m bench.document [--json FILE ...] [--document docs/performance.md]

The figures are those of .bench/bench.json and .bench/profile.json unless others are named.

In the document `<!-- bench: NAME -->` and `<!-- end -->` enclose what is written: `run` (command, machine, versions),
`unmet` (the aims that this run missed), or the beginning of a section's title, whose table comes there. A section that
the run did not measure keeps what stands there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.processes import ROOT
from bench.table import figure

Found = Mapping[str, Any]
"""What `python -m bench` writes as JSON; or one of its rows."""

FIGURES = (ROOT / ".bench" / "bench.json", ROOT / ".bench" / "profile.json")

_PLACE = re.compile(r"(<!-- bench: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_LISTED_IN_CELL = 4
"""So many peers at most have columns of their own; more are listed in one."""


class DocumentError(ValueError):
    """The document has a place for something that no run ever measures."""


def written(document: str, found: Found) -> str:
    """The document with these figures. Raises DocumentError."""
    sections = {str(row["section"]): None for row in found["rows"]}

    def put(place: re.Match[str]) -> str:
        content = _content(place["name"], found, sections)
        return place[0] if content is None else f"{place[1]}{content}\n{place[3]}"

    return _PLACE.sub(put, document)


def _content(name: str, found: Found, sections: Mapping[str, None]) -> str | None:
    special: dict[str, Callable[[Found], str]] = {"run": _run, "unmet": _unmet}
    if name in special:  # a profile is no run of the bench
        return special[name](found) if "date" in found else None
    titles = [title for title in sections if title.startswith(name)]
    if len(titles) > 1:
        raise DocumentError(f"{name!r} begins more than one section: {', '.join(titles)}")
    return _table(titles[0], [row for row in found["rows"] if row["section"] == titles[0]]) if titles else None


def _run(found: Found) -> str:
    about = {**found["machine"], **found["versions"]}
    versions = ", ".join(f"{name} {value}" for name, value in about.items() if name not in ("cpu", "memory", "load"))
    minutes = found["seconds"] / 60
    return (
        f"`{found['command']}` on {found.get('date', 'a day that was not noted')}: {minutes:.0f} minutes on "
        f"{about['cpu']}, {about['memory']}; load averages before it {about['load']}.\n{versions}."
    )


def _unmet(found: Found) -> str:
    rows = [row for row in found["rows"] if row["met"] is False]
    without = [row for row in found["rows"] if row["ours"] is None]
    aims = sum(row["met"] is not None for row in found["rows"])
    lines = [f"Of {aims} aims this run met {aims - len(rows)}."]
    if rows:
        lines += ["", "| not met | unit | Holdfast | aim |", "|---|---|---|---|"]
        lines += [f"| {row['what']} | {row['unit']} | {figure(row['ours'])} | {_aim(row)} |" for row in rows]
    if without:
        lines += ["", "Without a figure: " + "; ".join(f"{row['what']} ({row['note']})" for row in without) + "."]
    return "\n".join(lines)


def _table(title: str, rows: Sequence[Found]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    apart = names if len(names) <= _LISTED_IN_CELL else []
    has_limits, has_aims = any(row["limit"] for row in rows), any(row["aim"] for row in rows)
    head = ["what", "unit", "Holdfast", *apart]
    head += [] if apart or not names else ["others (× better than)"]
    head += ["limit (part reached)"] if has_limits else []
    head += ["aim", "met"] if has_aims else []
    lines = [f"*{title}*", "", _line(head), "|---" * len(head) + "|"]
    for row in rows:
        cells = [row["what"], row["unit"], f"**{figure(row['ours'])}**"]
        cells += [_peer(row, name) for name in apart]
        if names and not apart:
            cells.append("; ".join(f"{name} {_peer(row, name)}" for name in row["peers"]))
        cells += [_limit(row)] if has_limits else []
        cells += [_aim(row), {True: "yes", False: "**no**", None: ""}[row["met"]]] if has_aims else []
        lines.append(_line(cells))
    notes = [f"- {row['what']}: {row['note']}." for row in rows if row["note"]]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _peer(row: Found, name: str) -> str:
    if name not in row["peers"]:
        return ""
    value, ratio = row["peers"][name], row["times_better_than_peers"][name]
    return figure(value) + ("" if ratio is None else f" (×{figure(ratio)})")


def _limit(row: Found) -> str:
    if row["limit"] is None:
        return ""
    part = "" if row["of_limit"] is None else f" ({100 * row['of_limit']:.0f} %)"
    return f"{row['limit']['name']} {figure(row['limit']['value'])}{part}"


def _aim(row: Found) -> str:
    if row["aim"] is None:
        return ""
    return f"{'≥' if row['aim']['comparison'] == '>=' else '≤'} {figure(row['aim']['value'])}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.document", description="Write the tables of a document.")
    parser.add_argument("--json", type=Path, action="append", default=[], help="figures; may be given again")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    try:
        document = options.document.read_text()
        for path in options.json or [path for path in FIGURES if path.exists()]:
            document = written(document, json.loads(path.read_text()))
        options.document.write_text(document)
    except (OSError, ValueError) as error:
        print(f"{options.document} was not written: {error}; run `make bench` first", file=sys.stderr)
        return 1
    print(f"the tables in {options.document} are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())

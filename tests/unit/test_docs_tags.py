"""docs/tags.md says what is true: its configurations are taken, its examples come out as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import settings
from agent.derived import Computed, Known
from agent.expression import FUNCTION_NAMES, Expression
from agent.latest import shown
from agent.rules import GroupRules
from agent.settings import Configuration
from agent.shaping import Shaping
from protocols.field.contract import Scan, Value

TEXT = (Path(__file__).parents[2] / "docs" / "tags.md").read_text(encoding="utf-8")
SECOND_US = 1_000_000


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def read(tmp_path: Path, devices: str) -> Configuration:
    document = {
        "gateway": {"thing": "gw-1", "tenant": "acme", "province": "bolzano", "plant": "plant-1"},
        "broker": {"host": "localhost"},
    }
    path = tmp_path / "agent.yaml"
    path.write_text(devices + yaml.safe_dump(document), encoding="utf-8")
    return settings.read(path, environ={})


@pytest.mark.parametrize("snippet", blocks("yaml"))
def test_a_configuration_is_taken(snippet: str, tmp_path: Path) -> None:
    [device] = read(tmp_path, snippet).devices
    assert device.rules["main"] != GroupRules()


def test_no_example_is_left_out() -> None:
    assert len(blocks("yaml")) == 2
    assert len(blocks("example")) == 5
    assert len(re.findall("^```", TEXT, re.MULTILINE)) == 2 * (1 + 2 + 5)


@pytest.mark.parametrize("example", blocks("example"))
def test_an_example_comes_out_as_it_stands_there(example: str, tmp_path: Path) -> None:
    """A tag x with these keys, or derived from x, read once a second."""
    keys_line, read_line, reported_line = example.splitlines()
    keys: dict[str, Any] = yaml.safe_load(keys_line)
    given = [yaml.safe_load(word) for word in read_line.split()[1:]]
    tag = {"name": "x", "type": "int" if all(type(one) is int for one in given) else "float64"}
    group_written: dict[str, Any] = {"tags": [tag]}
    if "rate_of" in keys:
        group_written["derived"] = [{"name": "y", **keys}]
    else:
        tag.update(keys)
    written = {"name": "d", "machine": "m", "protocol": "memory", "groups": [group_written]}
    [device] = read(tmp_path, yaml.safe_dump({"devices": [written]})).devices
    shaped, [group] = Shaping(device, {}), device.groups
    wanted = "y" if "rate_of" in keys else "x"
    told = []
    for at, value in enumerate(given):
        scans = shaped.of(group, [Scan(group, at * SECOND_US, [value])], float(at), at * SECOND_US)
        mine = [scan.values[0] for scan in scans if scan.group.tags[0].name == wanted]
        told.append(f"{round(mine[0], 2)}" if mine and isinstance(mine[0], int | float) else "-")
    assert told == reported_line.split()[1:]


ROWS = re.findall(r"^\| `([^`]+)` \| ([^|]+=[^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("expression", "tags", "result"), ROWS)
def test_an_expression_is_worth_what_stands_there(expression: str, tags: str, result: str) -> None:
    given: dict[str, Value] = {}
    for pair in tags.split(", "):
        name, value = pair.split(" = ")
        given[name] = yaml.safe_load(value)
    formula = Computed(Expression(expression))
    found = formula.of([Known(given[name], 0, 0, "", 0) for name in formula.names])
    assert found is not None
    kind = formula.expression.value_type({})
    assert result == (found.reason or shown(found.value, kind))


def test_the_functions_are_all_named() -> None:
    assert len(ROWS) == 5
    [named] = re.findall(r"the functions `([^`]+)`", TEXT)
    assert named.split() == list(FUNCTION_NAMES)

"""The receiver's settings: the example, what is refused and where, and overrides."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from cloud.settings import Configuration, find_store, read
from cloud.store.sqlite import Settings, SqliteStore
from protocols.program.settings import SettingsError

ROOT = Path(__file__).parents[2]


def configured(tmp_path: Path, text: str, **more: Any) -> Configuration:
    path = tmp_path / "cloud.yaml"
    path.write_text(text)
    return read(path, **{"environ": {}, **more})


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        configured(tmp_path, text)
    return [str(problem).removeprefix(f"{tmp_path}/cloud.yaml:") for problem in caught.value.problems]


def test_the_example_is_what_it_says(tmp_path: Path) -> None:
    text = files("cloud").joinpath("example.yaml").read_text(encoding="utf-8")
    shown = configured(tmp_path, text)
    assert shown.settings == configured(tmp_path, "broker: {host: 127.0.0.1}").settings.model_copy(
        update={"store": shown.settings.store}
    )
    assert shown.store_settings == Settings()


def test_everything_in_the_example_that_is_commented_out_is_a_default(tmp_path: Path) -> None:
    """With the # taken away, all but what has no default (files, names) says what is true anyway."""
    text = files("cloud").joinpath("example.yaml").read_text(encoding="utf-8")
    wanted = ("# port:", "# future_tolerance_s:", "# dead_letters_max:", "# busy_timeout_s:", "# session_expiry_s:")
    lines = [line.replace("# ", "", 1) if line.strip().startswith(wanted) else line for line in text.splitlines()]
    shown = configured(tmp_path, "\n".join(lines))
    assert shown.settings.broker == configured(tmp_path, text).settings.broker
    assert shown.store_settings == Settings()


def test_the_copy_for_readers_is_the_example() -> None:
    packaged = files("cloud").joinpath("example.yaml").read_text(encoding="utf-8")
    assert (ROOT / "config" / "cloud.example.yaml").read_text() == packaged


def test_the_store_opens_with_its_own_settings(tmp_path: Path) -> None:
    text = f"broker: {{host: b}}\nstore:\n  type: sqlite\n  path: {tmp_path}/x.db\n  dead_letters_max: 7\n"
    configuration = configured(tmp_path, text)
    assert configuration.store_settings == Settings(path=tmp_path / "x.db", dead_letters_max=7)
    store = configuration.open_store()
    assert isinstance(store, SqliteStore)
    store.close()


def test_every_problem_is_reported_at_its_place(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "broker:\n  hots: b\nstore:\n  path: x.db\n  busy_timeout_s: 0\n  pth: y\nhttp:\n  port: 70000\n  names: x\n",
    )
    places = [problem.split(": ")[:2] for problem in found]
    assert places == [
        ["2:3", "broker.host"],
        ["2:3", "broker.hots"],
        ["5:19", "store.busy_timeout_s"],
        ["6:3", "store.pth"],
        ["8:9", "http.port"],
        ["9:10", "http.names"],
    ]
    assert "path" in found[3]  # what was meant


@pytest.mark.parametrize("kind", ["memory", "contract", "postgres9", "../sqlite", "sqlite_schema", ""])
def test_only_a_store_that_can_be_opened_is_a_type(tmp_path: Path, kind: str) -> None:
    (problem,) = problems(tmp_path, f"broker: {{host: b}}\nstore: {{type: '{kind}'}}\n")
    assert problem == f"2:15: store.type: there is no store of type {kind!r}; use sqlite"
    assert find_store(kind) is None


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("broker: {host: b}\nstore: sqlite\n", 1),
        ("broker: {host: b}\nstore:\n", 1),
        ("broker: {host: b}\nstore: {type: 5}\n", 1),
        ("store: {path: x}\n", 1),
    ],
)
def test_a_wrong_shape_is_a_problem_and_no_crash(tmp_path: Path, text: str, count: int) -> None:
    assert len(problems(tmp_path, text)) == count


def test_environment_and_flags_reach_the_stores_own_settings(tmp_path: Path) -> None:
    variables = {"HOLDFAST_CLOUD_STORE__PATH": "a.db", "HOLDFAST_CLOUD_STORE__DEAD_LETTERS_MAX": "5"}
    environ = {**variables, "HOLDFAST_CLOUD_CONFIG": "not a setting", "HOLDFAST_GATEWAY__THING": "the agent's"}
    found = configured(tmp_path, "broker: {host: b}", environ=environ, overrides={"store.path": "b.db"})
    assert found.store_settings == Settings(path=Path("b.db"), dead_letters_max=5)

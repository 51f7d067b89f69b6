"""Strict YAML with positions, pydantic's errors in sentences, overrides, and the JSON Schema."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError, WrapValidator, field_validator, model_validator

from protocols.field.contract import StrictModel
from protocols.program import document as document_module
from protocols.program.document import DEPTH_MAX, SIZE_MAX_BYTES, Document, parse
from protocols.program.explain import suggest
from protocols.program.problem import Path, Problem, SettingsError, dotted
from protocols.program.scalar import Ambiguous, resolve
from protocols.program.schema import json_schema
from protocols.program.settings import Loaded, flags, load


class Level(StrEnum):
    INFO = "info"
    DEBUG = "debug"


class Broker(StrictModel):
    host: str
    port: int = Field(1883, ge=1, le=65535)
    password: str = ""
    tls: bool = False


class Modbus(StrictModel):
    protocol: Literal["modbus"]
    host: str
    unit: int = Field(1, ge=0, le=255)


class OpcUa(StrictModel):
    protocol: Literal["opcua"]
    url: str = Field(min_length=3, max_length=20)
    modbus: str = ""  # a key that is called as the other driver's tag is


class Settings(StrictModel):
    thing: str = Field("gw-1", pattern="^[a-z0-9-]+$")
    broker: Broker
    devices: list[Annotated[Modbus | OpcUa, Field(discriminator="protocol")]] = Field([], max_length=4)
    level: Level = Field(Level.INFO, strict=False)
    factor: int | float = 1
    limits: tuple[int, int] = Field((0, 1), strict=False)
    labels: dict[Annotated[str, Field(pattern="^[a-z]+$")], str] = Field(default_factory=dict)
    window: Annotated[int, WrapValidator(lambda value, handler: handler(value))] | None = None

    @field_validator("factor")
    @classmethod
    def _bounded(cls, value: float) -> float:
        if value > 9:
            raise ValueError("the factor is above 9; lower it")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.thing == "forbidden":
            raise ValueError("this thing name is taken; choose another")
        return self


def problems(text: str, model: type[BaseModel] = Settings, **more: Any) -> list[str]:
    """What loading this text says, a line for each problem, without the file's name."""
    with pytest.raises(SettingsError) as caught:
        loaded(text, model, **more)
    return [line.removeprefix("f.yaml:") for line in str(caught.value).splitlines()]


def loaded(
    text: str | bytes,
    model: type[BaseModel] = Settings,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
    ignore: tuple[str, ...] = (),
) -> Loaded[Any]:
    FilePath("f.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return load("f.yaml", model, overrides=overrides, environ=environ or {}, env_prefix="HOLDFAST_", ignore=ignore)


@pytest.fixture(autouse=True)
def in_a_directory(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """libyaml's parser and PyYAML's own, which stands in where PyYAML was built without libyaml."""
    monkeypatch.setattr(document_module, "_LOADER", getattr(yaml, request.param))


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("false", False),
        ("0", 0), ("-7", -7), ("-0", 0), ("18446744073709551615", 2**64 - 1), ("1883", 1883),
        ("0.5", 0.5), ("-1.50", -1.5), ("1e3", 1000.0), ("2.5E-3", 0.0025),
        ("2026-11-30", "2026-11-30"), ("10.0.0.5", "10.0.0.5"), ("10.0.0.5:502", "10.0.0.5:502"),
        ("=", "="), ("nan", "nan"), ("1.2.3", "1.2.3"), ("y", "y"), ("٣", "٣"), ("ab12", "ab12"), ("0xZZ", "0xZZ"),
    ],
)  # fmt: skip
def test_plain_words(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("no", 'write false, or "no" in quotes'),
        ("Yes", 'write true, or "Yes" in quotes'),
        ("ON", "write true"),
        ("off", "write false"),
        ("True", "write true"),
        ("NULL", "write null"),
        ("010", "write 10, or put quotes around it"),
        ("-007", "write -7"),
        ("00.5", "write 0.5"),
        ("0x1F", "write 31"),
        ("-0X1f", "write -31"),
        ("0o17", "write 15"),
        ("0b101", "write 5"),
        ("0x" + "f" * 5000, "write it in decimal"),
        ("12:30:00", "put quotes around it"),
        ("12:30", "put quotes around it"),
        ("00:11:22:33:44:55", "put quotes around it"),
        ("1_000", "write 1000"),
        ("1_0.5", "write 10.5"),
        (".inf", "no finite number"),
        ("-.INF", "no finite number"),
        (".nan", "no finite number"),
        ("+5", "write 5"),
        (".5", "write 0.5"),
        ("5.", "write 5.0"),
        ("1.e3", "write 1000.0"),
        ("18446744073709551616", "does not fit into 64 bits"),
        ("9" * 5000, "does not fit into 64 bits"),
        ("1e999", "beyond every number"),
        ("+" + "9" * 5000, "write it with plain digits"),
    ],
)
def test_words_that_could_be_something_else_are_refused(text: str, advice: str) -> None:
    with pytest.raises(Ambiguous) as caught:
        resolve(text)
    assert advice in str(caught.value)
    assert len(str(caught.value)) < 160


words = st.text(alphabet="0123456789abcdefxoXO_:.+-eE~truefalsnyINFNUL<=", max_size=12) | st.text(max_size=8)


@given(words)
def test_whatever_is_taken_means_the_same_to_pyyaml_or_is_a_number_it_misses(text: str) -> None:
    """What we read as a text PyYAML reads as a text or a date; what we read as a value, it reads as that value."""
    text = text.strip()
    assume(text not in ("=", "&", "*", "!"))  # types of their own in YAML 1.1; the last three are no words either
    try:
        value = resolve(text)
    except Ambiguous:
        return
    loader = yaml.SafeLoader("")
    found: Any = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # as the stubs say
    tag = found.removeprefix("tag:yaml.org,2002:")
    if isinstance(value, str):
        assert tag in ("str", "timestamp", "merge")
    elif tag == "str":
        assert isinstance(value, float)  # 1e3, which YAML 1.1 does not know without a point
    else:
        node = yaml.ScalarNode(f"tag:yaml.org,2002:{tag}", text)
        assert loader.construct_object(node) == value


# --- documents ------------------------------------------------------------------------------------------------------


TEXT = """\
# a comment
broker:
  host: "10.0.0.1"   # quoted
  'port': 1883
devices:
  - {protocol: modbus, host: ä, unit: 3}
  -
    - one
    - |
      two
empty:
on: 2026-01-01
"""


@pytest.mark.usefixtures("either_parser")
def test_values_and_the_place_of_each_key_and_value() -> None:
    read = parse(TEXT, "f.yaml")
    assert read.problems == ()
    assert read.value == {
        "broker": {"host": "10.0.0.1", "port": 1883},
        "devices": [{"protocol": "modbus", "host": "ä", "unit": 3}, ["one", "two\n"]],
        "empty": None,
        "on": "2026-01-01",
    }
    assert read.keys == {
        ("broker",): (2, 1),
        ("broker", "host"): (3, 3),
        ("broker", "port"): (4, 3),
        ("devices",): (5, 1),
        ("devices", 0, "protocol"): (6, 6),
        ("devices", 0, "host"): (6, 24),
        ("devices", 0, "unit"): (6, 33),
        ("empty",): (11, 1),
        ("on",): (12, 1),
    }
    places: dict[Path, tuple[int, int]] = {
        (): (2, 1),
        ("broker",): (3, 3),
        ("broker", "host"): (3, 9),
        ("broker", "port"): (4, 11),
        ("devices",): (6, 3),
        ("devices", 0): (6, 5),
        ("devices", 0, "protocol"): (6, 16),
        ("devices", 0, "host"): (6, 30),
        ("devices", 0, "unit"): (6, 39),
        ("devices", 1): (8, 5),
        ("devices", 1, 0): (8, 7),
        ("devices", 1, 1): (9, 7),
        ("on",): (12, 5),
    }
    assert {path: read.values[path] for path in places} == places


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "a: 1\nb:\n  c: 2\n  a: 3\na: 4\n",
            "5:1: a: the key is here a second time, first on line 1; keep one of the two",
        ),
        ("a:\n  - {b: 1, b: {c: no}}\n", "2:12: a[0].b: the key is here a second time, first on line 2"),
        ("a: &x 1\n", "1:4: a: &x names this place; remove it"),
        ("b: *x\n", "1:4: b: *x refers to another place; write the value out"),
        ("- *x\n", "1:3: [0]: *x refers to another place"),
        ("a:\n  <<: {b: 1}\n", "2:3: a.<<: merge keys are not used here; write the keys out"),
        ("a: !!int 3\n", "1:4: a: the tag !!int is not used here; remove it"),
        ("a: !custom {b: 1}\n", "1:4: a: the tag !custom is not used here"),
        ("!x a: 1\n", "1:1: a: the tag !x is not used here"),
        ("a:\n  b: no\n", '2:6: a.b: no could be a text or a boolean; write false, or "no" in quotes'),
        ("a: [1, 010]\n", "1:8: a[1]: 010 begins with a zero"),
        ("db:\n  password: 0815\n", "2:13: db.password: this can be read in more than one way; put quotes around it"),
        ('"": 1\n', "1:1: the key is empty; write a name"),
    ],
)
def test_what_a_document_refuses_and_goes_on(text: str, line: str) -> None:
    read = parse(text, "f.yaml")
    told = [str(problem) for problem in read.problems]
    assert len([one for one in told if one.startswith(f"f.yaml:{line}")]) == 1, told


@pytest.mark.usefixtures("either_parser")
def test_of_two_equal_keys_the_first_counts_and_nothing_of_the_second() -> None:
    read = parse("a: 1\na: {b: 2, c: [3]}\nd: 4\n", "f.yaml")
    assert read.value == {"a": 1, "d": 4}
    assert read.keys == {("a",): (1, 1), ("d",): (3, 1)}
    assert read.values == {(): (1, 1), ("a",): (1, 4), ("d",): (3, 4)}


def test_a_text_in_quotes_is_a_text() -> None:
    read = parse("[\"no\", '010', \"12:30:00\", 'null', '', \"<<\", '*x', '1_000']\n", "f.yaml")
    assert (read.value, read.problems) == (["no", "010", "12:30:00", "null", "", "<<", "*x", "1_000"], ())


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\n---\nb: 2\n", "2:1: a second document begins here; one file holds one, so remove this line"),
        ("a:\n\tb: 1\n", "2:1: a tab stands where spaces belong; indent with spaces"),
        ("a: |\n\tb\n", "2:1: a tab stands where spaces belong; indent with spaces"),
        ("a: b: c\n", "1:5: a second key begins here; start a new line, or put quotes around the text"),
        ("x: 1\na: 'b\nc: 1\n", "2:4: a quote that was opened is never closed; close it"),
        ("a: @b\n", "1:4: no text may begin with this character; put quotes around the text"),
        ("a: [1, 2\nb: 3\n", "2:2: a list or mapping that was opened is not closed"),
        ("a:\n  - 1\n b: 2\n", "3:2: this fits neither as a key nor as an entry; check indentation and quotes"),
        ("a: 'b' c\n", "1:8: this fits neither as a key nor as an entry; check indentation and quotes"),
        ("[1, 2]: 3\n", "1:1: a key must be a single word or text; put quotes around it"),
        ("? {a: 1}\n: 3\n", "1:3: a key must be a single word or text; put quotes around it"),
        ("*x : 1\n", "1:1: *x stands as a key; write the key out, or put quotes around it"),
        ("a: b\x07\n", "1:5: the invisible character U+0007 is not allowed; delete it"),
        ("a:\r\n  b: c\u2028\n", "2:7: the invisible character U+2028 is not allowed; delete it"),
        ("%YAML 3.0\n---\na: 1\n", "1:1: this is not YAML (found incompatible YAML document"),
    ],
)
def test_where_a_document_ends_early(text: str, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text, "f.yaml")
    assert str(caught.value).startswith(f"f.yaml:{line}")


def test_what_was_found_before_a_syntax_error_is_told_too() -> None:
    with pytest.raises(SettingsError) as caught:
        parse("a: no\nb: 'x\n", "f.yaml")
    assert [problem.line for problem in caught.value.problems] == [1, 2]


@pytest.mark.usefixtures("either_parser")
def test_depth_and_size_have_limits() -> None:
    assert parse("[" * DEPTH_MAX + "]" * DEPTH_MAX, "f.yaml").problems == ()
    for depth in (DEPTH_MAX + 1, 50_000):
        with pytest.raises(SettingsError, match=rf"f.yaml:1:{DEPTH_MAX + 1}: .*nested more than {DEPTH_MAX} deep"):
            parse("[" * depth, "f.yaml")
    with pytest.raises(SettingsError, match=r"f\.yaml: the file is larger than 5 MB; check that it is the right one"):
        parse(" " * (SIZE_MAX_BYTES + 1), "f.yaml")


printable = st.characters(exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp"))
texts = st.text(alphabet=printable, max_size=6)
numbers = st.integers(-(2**64) + 1, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts.filter(bool), inner, max_size=4),
    max_leaves=12,
)


class Writer:
    """Writes a value as YAML and notes where each key and value begins: the other way to know the positions."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.keys: dict[Path, tuple[int, int]] = {}
        self.values: dict[Path, tuple[int, int]] = {}

    @property
    def here(self) -> tuple[int, int]:
        return self.text.count("\n") + 1, len(self.text) - self.text.rfind("\n")

    def write(self, value: Any, path: Path, indent: int, flow: bool) -> None:
        """The cursor stands where the value begins: behind `: ` or `- `, or at a line's beginning."""
        flow = flow or self.draw(st.booleans()) or not value
        if not isinstance(value, (list, dict)) or flow:
            self.values[path] = self.here
            self.flow(value, path)
            return
        entries: list[tuple[Any, Any]] = list(value.items() if isinstance(value, dict) else enumerate(value))
        for number, (key, inner) in enumerate(entries):
            if number or path:
                self.text += "\n" * self.draw(st.integers(1, 2)) + " " * indent
            if number == 0:
                self.values[path] = self.here
            self.entry(key, isinstance(value, dict), (*path, key))
            self.write(inner, (*path, key), indent + self.draw(st.integers(1, 3)), flow=False)

    def entry(self, key: Any, in_mapping: bool, path: Path) -> None:
        if not in_mapping:
            self.text += "- "
            return
        self.keys[path] = self.here
        self.text += json.dumps(key, ensure_ascii=False) + ": "

    def flow(self, value: Any, path: Path) -> None:
        if not isinstance(value, (list, dict)):
            self.text += scalar_text(value)
            return
        entries: list[tuple[Any, Any]] = list(value.items() if isinstance(value, dict) else enumerate(value))
        self.text += "{" if isinstance(value, dict) else "["
        for key, inner in entries:
            if isinstance(value, dict):
                self.keys[(*path, key)] = self.here
                self.text += json.dumps(key, ensure_ascii=False) + ": "
            self.values[(*path, key)] = self.here
            self.flow(inner, (*path, key))
            self.text += ", "
        self.text += "}" if isinstance(value, dict) else "]"


def scalar_text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


@given(st.data(), trees)
@hypothesis_settings(max_examples=150)
def test_positions_are_those_at_which_the_text_was_written(data: st.DataObject, tree: Any) -> None:
    @st.composite
    def written(draw: st.DrawFn) -> Writer:
        writer = Writer(draw)
        writer.write(tree, (), 0, flow=False)
        return writer

    writer = data.draw(written())
    for name in ("CSafeLoader", "SafeLoader"):
        read = parse_with(getattr(yaml, name), writer.text + "\n")
        assert read.problems == ()
        assert read.value == tree
        assert read.keys == writer.keys
        assert read.values == writer.values


def parse_with(loader: Any, text: str) -> Document:
    before = document_module._LOADER
    document_module._LOADER = loader
    try:
        return parse(text, "f.yaml")
    finally:
        document_module._LOADER = before


yamlish = st.text(alphabet="ab01-:?*&!|>'\"[]{},#%@ \n\t<=~\r\u2028\ud800\x00ä", max_size=40)


@given(yamlish | st.text(max_size=40))
@hypothesis_settings(max_examples=300)
def test_any_text_gives_a_document_or_problems_that_lie_in_it(text: str) -> None:
    for loader in (yaml.CSafeLoader, yaml.SafeLoader):
        try:
            found = parse_with(loader, text).problems
        except SettingsError as error:
            found = error.problems
            assert found
        last = len(text.splitlines()) + 2
        for problem in found:
            assert problem.line is None or 1 <= problem.line <= last
            assert problem.column is None or 1 <= problem.column <= len(text) + 2
            assert not any(unicodedata.category(character) == "Cc" for character in problem.message.replace("\t", ""))


# --- files ----------------------------------------------------------------------------------------------------------


def read_problem(path: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path, Settings, environ={}, env_prefix="HOLDFAST_")
    return str(caught.value)


def test_files_that_cannot_be_read() -> None:
    assert read_problem("gone.yaml") == "gone.yaml: there is no such file; check the path"
    assert read_problem(".") == ".: this is a directory; name the file in it"
    assert read_problem("a\0b").endswith("the file cannot be read (embedded null byte); check the path")
    assert "the file cannot be read (File name too long)" in read_problem("x" * 300)
    with FilePath("big.yaml").open("wb") as file:
        file.truncate(SIZE_MAX_BYTES + 1)
    assert read_problem("big.yaml").startswith("big.yaml: the file is larger than 5 MB")


def test_a_file_that_another_user_owns() -> None:
    FilePath("secret.yaml").write_text("broker: {host: a}\n")
    FilePath("secret.yaml").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root reads everything
    try:
        told = read_problem("secret.yaml")
    finally:
        os.seteuid(user)
    assert told == "secret.yaml: the file may not be read; give this user the right to read it"


def test_encodings() -> None:
    assert loaded("\ufeffbroker: {host: ä}\n".encode()).settings.broker.host == "ä"
    with pytest.raises(SettingsError) as caught:
        loaded("# ü\nbroker: {host: ".encode() + b"\xe4}\n")
    assert str(caught.value) == "f.yaml:2:16: the byte 0xE4 is not UTF-8; save the file as UTF-8"
    with pytest.raises(SettingsError, match=r"f\.yaml:1:1: the byte 0xFF is not UTF-8; save the file as UTF-8"):
        loaded("broker: {host: a}".encode("utf-16"))


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file(text: str) -> None:
    assert problems(text)[0].endswith("the file holds no settings; write `key: value` lines")


@pytest.mark.parametrize("text", ["- a\n", "broker\n"])
def test_a_file_without_keys(text: str) -> None:
    assert problems(text) == ["1:1: the file does not begin with a key; write `key: value` lines"]


# --- models ---------------------------------------------------------------------------------------------------------


def test_everything_wrong_with_a_file_is_told_at_once_in_its_order() -> None:
    text = """\
thing: Gw1
broker:
  hots: 10.0.0.1
  port: 70000
  password: 7
  tls: no
  tls: true
devices:
  - protocol: modbus
    host: 5
    unti: 4
  - protocol: opuca
    url: x
  - host: x
  - protocol: opcua
    url: ab
  - *x
level: inf
factor: ten
limits: [1]
labels:
  A: x
window: "3"
modbus: 3
"""
    assert problems(text) == [
        '1:8: thing: the text "Gw1" does not match the pattern ^[a-z0-9-]+$',
        '3:3: broker.host: the key "host" is missing; add it',
        '3:3: broker.hots: unknown key "hots"; did you mean "host"?',
        "4:9: broker.port: must be at most 65535, found the number 70000",
        (
            "5:13: broker.password: expected a text, found something else (not shown, it may be secret); "
            "put quotes around it"
        ),
        '6:8: broker.tls: no could be a text or a boolean; write false, or "no" in quotes',
        "7:3: broker.tls: the key is here a second time, first on line 6; keep one of the two",
        "9:3: devices: must have at most 4 entries, found 5",
        "17:5: devices[4]: *x refers to another place; write the value out, or quote the text",
        '18:8: level: expected one of "info", "debug"; found the text "inf"; did you mean "info"?',
        '19:9: factor: expected a number, found the text "ten"',
        "20:9: limits[1]: the list has 1 entry and needs more; add what is missing",
        '22:3: labels.A: the text "A" does not match the pattern ^[a-z]+$',
        '23:9: window: expected a whole number, found the text "3"; remove the quotes',
        '24:1: modbus: unknown key "modbus"; known here: broker, devices, factor, labels, level, limits, thing, window',
    ]


def test_unions_are_told_by_their_tag() -> None:
    text = """\
broker: {host: a}
devices:
  - {protocol: modbus, host: 5, unti: 4}
  - {protocol: opuca}
  - {host: x}
  - {modbus: 7, protocol: opcua, url: ab}
"""
    assert problems(text) == [
        "3:30: devices[0].host: expected a text, found the number 5; put quotes around it",
        '3:33: devices[0].unti: unknown key "unti"; did you mean "unit"?',
        '4:16: devices[1].protocol: expected one of "modbus", "opcua"; found the text "opuca"; did you mean "opcua"?',
        '5:5: devices[2].protocol: the key "protocol" is missing; add it',
        "6:14: devices[3].modbus: expected a text, found the number 7; put quotes around it",
        "6:39: devices[3].url: must have at least 3 characters, found 2",
    ]


class Shape(StrictModel):
    modbus: Annotated[Modbus | OpcUa, Field(discriminator="protocol")]


def test_a_key_that_is_called_as_a_unions_tag_does_not_mislead() -> None:
    text = "modbus: {protocol: opcua, url: abc, opcua: {}}\n"
    assert problems(text, Shape) == ['1:37: modbus.opcua: unknown key "opcua"; known here: modbus, protocol, url']
    text = "modbus: {protocol: opcua, opcua: {}}\n"
    assert '1:9: modbus.url: the key "url" is missing; add it' in problems(text, Shape)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("broker:\n", "1:8: broker: expected keys with values, found nothing; write them beneath it, indented"),
        ("broker: [1]\n", "1:9: broker: expected keys with values, found a list"),
        ("broker: {host: a}\ndevices: x\n", '2:10: devices: expected a list, found the text "x"; begin each entry'),
        ("broker: {host: a, tls: 'true'}\n", '1:24: broker.tls: expected true or false, found the text "true"; remove'),
        ("broker: {host: a, port: 1.5}\n", "1:25: broker.port: expected a whole number, found the number 1.5"),
        ("broker: {host: a, port: 0}\n", "1:25: broker.port: must be at least 1, found the number 0"),
        ("broker: {host: false}\n", "1:16: broker.host: expected a text, found false; put quotes around it"),
        ("broker: {host: {}}\n", "1:16: broker.host: expected a text, found keys with values"),
        ("broker: {host: a}\nfactor: 10\n", "2:9: factor: the factor is above 9; lower it"),
        ("thing: forbidden\nbroker: {host: a}\n", "1:1: this thing name is taken; choose another"),
        ("broker: {host: a}\nlimits: [1, 2, 3]\n", "2:9: limits: must have at most 2 entries, found 3"),
    ],
)  # fmt: skip
def test_one_wrong_value(text: str, line: str) -> None:
    (told,) = problems(text)
    assert told.startswith(line)


def test_right_settings_come_out_as_the_model() -> None:
    result = loaded("broker: {host: a}\nwindow: 3\nlevel: debug\nlimits: [1, 2]\n")
    assert result.settings == Settings(broker=Broker(host="a"), window=3, level=Level.DEBUG, limits=(1, 2))


def test_suggestions() -> None:
    assert suggest("hots", ["host", "port"]) == 'did you mean "host"?'
    assert suggest("unit_id", ["unit-id"]) == 'did you mean "unit-id"?'
    assert suggest("zzz", ["host", "port"]) == "known here: host, port"
    assert suggest("zzz", [f"k{number}" for number in range(40)]) == suggest("zzz", []) == "remove it"


def test_paths_are_written_as_they_are_read() -> None:
    assert dotted(("devices", 0, "tags", 12, "name")) == "devices[0].tags[12].name"
    assert dotted(()) == ""
    assert dotted((0,)) == "[0]"


# --- overrides ------------------------------------------------------------------------------------------------------

FILE = "broker: {host: file, port: 1}\ndevices:\n  - {protocol: modbus, host: a}\n"


def test_flags_go_before_variables_before_the_file_before_defaults() -> None:
    environ = {"HOLDFAST_BROKER__HOST": "variable", "HOLDFAST_BROKER__PORT": "2", "OTHER": "x"}
    settings = loaded(FILE, environ=environ, overrides={"broker.port": "3"}).settings
    assert (settings.broker.host, settings.broker.port, settings.broker.tls) == ("variable", 3, False)


def test_overrides_reach_into_lists_and_make_what_is_not_there() -> None:
    overrides = flags(["devices[0].unit=9", "labels.a=x=y", "broker.host=first", "broker.host= last "])
    result = loaded(FILE, environ={"HOLDFAST_DEVICES__0__HOST": "b", "HOLDFAST_WINDOW": "null"}, overrides=overrides)
    assert (result.settings.devices[0].unit, result.settings.devices[0].host) == (9, "b")
    assert result.settings.labels == {"a": "x=y"}
    assert result.settings.broker.host == "last"
    assert result.source.document.value["broker"]["host"] == "file"  # what the file says stays as it is


def test_a_variable_finds_a_key_with_dashes_or_capitals() -> None:
    class Named(StrictModel):
        machines: dict[str, dict[str, int]]

    result = loaded("machines: {Line-1: {a: 1}}\n", Named, environ={"HOLDFAST_MACHINES__LINE_1__A": "2"})
    assert result.settings.machines == {"Line-1": {"a": 2}}


def test_values_are_words_of_yaml_and_quotes_make_texts() -> None:
    assert loaded(FILE, overrides={"broker.password": '"0123"'}).settings.broker.password == "0123"
    assert loaded(FILE, overrides={"broker.password": "'no'"}).settings.broker.password == "no"
    assert loaded(FILE, overrides={"broker.password": "a: b #c"}).settings.broker.password == "a: b #c"


def test_wrong_overrides_are_named_by_their_variable_or_flag() -> None:
    environ = {
        "HOLDFAST_BROKR__HOST": "x",
        "HOLDFAST_BROKR__PORT": "1",
        "HOLDFAST_BROKER__PORT": "many",
        "HOLDFAST_BROKER__PASSWORD": "0815",
        "HOLDFAST_FACTOR": "010",
        "HOLDFAST_THING__NAME": "x",
        "HOLDFAST_A____B": "x",
        "HOLDFAST_THINGS": "x",
    }
    overrides = {"broker.tls": "5", "devices[7].host": "3", "a..b": "1", "labels.X": "y", "devices[0].host": "4"}
    assert problems("thing: a\n" + FILE, environ=environ, overrides=overrides) == [
        "--set a..b: write the path as broker.host or devices[0].host",
        "--set broker.tls: broker.tls: expected true or false, found the number 5",
        "--set devices[0].host: devices[0].host: expected a text, found the number 4; put quotes around it",
        "--set devices[7].host: devices.7.host: devices is a list of 1; use an index from 0 below that",
        '--set labels.X: labels.X: the text "X" does not match the pattern ^[a-z]+$',
        "HOLDFAST_A____B: write it as HOLDFAST_KEY, or HOLDFAST_KEY__KEY for a level",
        (
            "HOLDFAST_BROKER__PASSWORD: broker.password: this can be read in more than one way; put quotes around it; "
            "quotes belong inside the value, as in '\"no\"'"
        ),
        'HOLDFAST_BROKER__PORT: broker.port: expected a whole number, found the text "many"',
        'HOLDFAST_BROKR__HOST, HOLDFAST_BROKR__PORT: brokr: unknown key "brokr"; did you mean "broker"?',
        (
            "HOLDFAST_FACTOR: factor: 010 begins with a zero, which some programs read as octal; write 10, "
            "or put quotes around it; quotes belong inside the value, as in '\"no\"'"
        ),
        'HOLDFAST_THINGS: things: unknown key "things"; did you mean "thing"?',
        "HOLDFAST_THING__NAME: thing.name: thing holds a single value, not keys; there is nothing to set inside",
    ]


def test_an_override_of_a_word_that_the_file_got_wrong_is_judged_for_itself() -> None:
    text = "broker: {host: a, port: 010}\n"
    assert problems(text, overrides={"broker.port": "0"}) == [
        (
            "1:25: broker.port: 010 begins with a zero, which some programs read as octal; write 10, "
            "or put quotes around it"
        ),
        "--set broker.port: broker.port: must be at least 1, found the number 0",
    ]


def test_what_a_variables_mapping_lacks_is_told_by_the_variable() -> None:
    assert problems("thing: a\n", environ={"HOLDFAST_BROKER__PORT": "5"}) == [
        'HOLDFAST_BROKER__PORT: broker.host: the key "host" is missing; add it'
    ]


def test_variables_that_are_no_settings_can_be_ignored() -> None:
    environ = {"HOLDFAST_CONFIG": "x", "HOLDFAST_CLOUD_A": "x", "HOLDFAST_CLOUD_B": "x"}
    loaded(FILE, environ=environ, ignore=("HOLDFAST_CONFIG", "HOLDFAST_CLOUD_*"))
    assert len(problems(FILE, environ=environ, ignore=("HOLDFAST_CONFIG",))) == 2


def test_flags_need_a_value() -> None:
    with pytest.raises(SettingsError, match=r"^--set broker\.host: write it as path=value$"):
        flags(["broker.host", "a=b"])


# --- the caller's second stage --------------------------------------------------------------------------------------


def test_later_checks_can_point_at_the_place() -> None:
    result = loaded(FILE, environ={"HOLDFAST_THING": "x"})
    told = result.problem(("devices", 0, "host"), "is there twice")
    assert told == Problem("f.yaml", 3, 30, "devices[0].host", "is there twice")
    assert str(told) == "f.yaml:3:30: devices[0].host: is there twice"
    assert (result.problem(("devices", 0, "host"), "x", at_key=True).column) == 24
    assert str(result.problem(("thing",), "is taken")) == "HOLDFAST_THING: thing: is taken"
    assert str(result.problem(("devices", 0, "unit"), "is a default")) == "f.yaml:3:5: devices[0].unit: is a default"
    assert str(result.problem((), "is not complete")) == "f.yaml:1:1: is not complete"


class Loose(BaseModel):
    device: dict[str, Any]


def test_a_parts_own_model_is_explained_at_its_place() -> None:
    result = loaded("device:\n  protocol: modbus\n  hots: a\n", Loose)
    with pytest.raises(ValidationError) as caught:
        Modbus.model_validate(result.source.value["device"])
    assert [str(problem) for problem in result.explain(caught.value, Modbus, ("device",))] == [
        'f.yaml:2:3: device.host: the key "host" is missing; add it',
        'f.yaml:3:3: device.hots: unknown key "hots"; did you mean "host"?',
    ]


def test_problems_are_sorted_and_told_once() -> None:
    def numbered(line: int) -> Iterator[Problem]:
        yield Problem("f", line, 1, "", "x")

    error = SettingsError([Problem("--set a", None, None, "a", "y"), *numbered(10), *numbered(2), *numbered(10)])
    assert str(error) == "f:2:1: x\nf:10:1: x\n--set a: a: y"


# --- JSON Schema ----------------------------------------------------------------------------------------------------


def test_the_json_schema_is_stable_and_keeps_the_models_order() -> None:
    text = json_schema(Settings, "Holdfast agent")
    assert text == json_schema(Settings, "Holdfast agent")
    assert text.startswith('{\n  "$schema": "https://json-schema.org/draft/2020-12/schema",\n')
    assert text.endswith("}\n")
    schema = json.loads(text)
    assert schema["title"] == "Holdfast agent"
    assert list(schema["properties"]) == list(Settings.model_fields)
    assert schema["required"] == ["broker"]
    assert schema["additionalProperties"] is False

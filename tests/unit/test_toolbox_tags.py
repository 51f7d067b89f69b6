"""Tables of tags: exact there and back, and other programs' tables without guessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.toolbox.cells import read_cell, written_cell
from agent.toolbox.editing import CannotEdit, applied
from agent.toolbox.foreign import foreign, foreign_rows
from agent.toolbox.merging import HeldGroup, merged
from agent.toolbox.sheets import SheetError, column_name, read_csv, read_xlsx, write_csv, write_xlsx
from agent.toolbox.taglist import Listed, Row, checked, own_rows, table
from agent.toolbox.written import Plain, block_item
from protocols.field import modbus as modbus_module
from protocols.field import opcua as opcua_module
from protocols.field.contract import DriverModule
from protocols.program.document import parse

# mypy cannot see that these modules are what the contract asks for; that they are, the settings' tests show.
modbus, opcua = cast("DriverModule", modbus_module), cast("DriverModule", opcua_module)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
PLAINS = st.one_of(TEXTS, st.integers(-(2**63), 2**63), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))


@given(TEXTS, PLAINS)
def test_every_value_comes_back_from_its_cell(text: str, plain: Plain) -> None:
    assert read_cell(written_cell(text, True), True) == text
    back = read_cell(written_cell(plain, False), False)
    assert (back, isinstance(back, str)) == (plain, isinstance(plain, str))


@given(
    st.one_of(
        TEXTS, st.sampled_from(["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "\t=1", "'=1", "=HYPERLINK(1)"])
    )
)
def test_no_cell_is_a_formula(text: str) -> None:
    assert not written_cell(text, True).startswith(("=", "@", "\t", "\r"))
    assert not written_cell(text, True).startswith(("+", "-")) or text.replace(".", "").replace(",", "")[1:].isdigit()


@settings(max_examples=30)
@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1, max_size=5))
def test_csv_carries_every_text(rows: list[list[str]]) -> None:
    head = [["group,period", "name;x"]]
    assert read_csv(write_csv([*head, *rows])) == [*head, *rows]


TAGS: list[dict[str, Any]] = [
    {"name": "level", "address": 40001, "type": "float32", "scale": 0.1, "offset": -5.0, "unit": "°C"},
    {"name": "coil", "address": "00001", "description": "=1+1"},
    {"name": "mode", "address": "holding:7", "states": {"1": "off", "2": "on, or so"}, "unavailable": [65535.0, -1.0]},
    {"name": "text", "address": 30010, "type": "string", "length": 8, "description": ' "quoted" '},
]


def our(rows: Sequence[Sequence[str]], module: Any = modbus) -> Listed:
    return own_rows([list(row) for row in rows], module.TagSettings)


@pytest.mark.parametrize(("write", "read"), [(write_csv, read_csv), (write_xlsx, read_xlsx)], ids=["csv", "xlsx"])
def test_our_own_form_comes_back_exactly(write: Any, read: Any) -> None:
    if write is write_xlsx:
        pytest.importorskip("python_calamine")
        pytest.importorskip("xlsxwriter")
    rows = table([("fast", 0.5, TAGS[:2]), ("slow", 10.0, TAGS[2:])], modbus.TagSettings)
    listed = own_rows(read(write(rows)), modbus.TagSettings)
    assert [row.tag for row in listed.rows] == TAGS
    assert checked(listed, modbus) == []
    assert [(row.group, row.period_s) for row in listed.rows] == [("fast", 0.5)] * 2 + [("slow", 10.0)] * 2
    assert listed.rows[1].cells["address"] == "F3"


def test_every_fault_is_told_at_its_cell() -> None:
    rows = read_csv(
        b"group,name,address,type,scale,bit,colour\r\n"
        b"main,ok,40001,uint16,,,\r\n"
        b"main,bad name,70001,float31,x,99,red\r\n"
        b"main,ok,40002,uint16,0,,\r\n"
        b"main,half,40003,string,,,\r\n"
        b",,,,,,\r\n"
        b"main,late,,uint16,,,\r\n"
    )
    faults = {fault.cell: fault.message for fault in checked(our(rows), modbus)}
    assert set(faults) == {"G1", "B3", "C3", "D3", "E3", "F3", "B4", "row 4", "row 5", "row 7"}
    assert "address '70001' does not say which table it means" in faults["C3"]
    assert faults["B4"] == "a tag ok stands in row 2 already"
    assert "a string needs its `length`" in faults["row 5"]
    assert "address" in faults["row 7"]


def test_tables_of_spreadsheets_in_half_of_europe() -> None:
    rows = read_csv("group;period_s;name;address;scale;unit\nmain;0,5;öl;40001;0,1;°C\n".encode("cp1252"))
    [row] = our(rows).rows
    assert (row.period_s, row.tag["scale"], row.tag["unit"], row.tag["name"]) == (0.5, 0.1, "°C", "öl")


def test_what_is_no_table() -> None:
    for content in (b"a,b\0", b'a,b\n"open'):
        with pytest.raises(SheetError, match="CSV"):
            read_csv(content)
    pytest.importorskip("python_calamine")
    with pytest.raises(SheetError, match="no workbook"):
        read_xlsx(b"PK no zip")


def test_columns_are_named_as_spreadsheets_do() -> None:
    assert [column_name(index) for index in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]


KEPWARE = """\
"Tag Name","Address","Data Type","Respect Data Type","Client Access","Scan Rate","Scaling","Raw Low","Raw High",\
"Scaled Low","Scaled High","Scaled Data Type","Clamp Low","Clamp High","Eng Units","Description","Negate Value"
"Boiler 1.Level","400001","Float",1,"RO",100,,,,,,,,,"m","the level",
"Temp","40010","Short",1,"RO",500,"Linear",0,1000,-50,150,"Double",0,0,"°C","",0
"Running","40020.3","Boolean",1,"RO",100,,,,,,,,,,,
"Coil","000007","Boolean",1,"R/W",100,,,,,,,,,,,
"Name","40030.20L","String",1,"RO",100,,,,,,,,,,,
"Array","40040 [10]","Word Array",1,"RO",100,,,,,,,,,,,
"Flow","40050","Float",1,"RO",100,"Square Root",0,1,0,1,"Double",0,0,,,
"""


def theirs(text: str) -> Listed:
    rows = read_csv(text.encode())
    form = foreign(rows)
    assert form is not None
    return foreign_rows(rows, form)


def test_kepware() -> None:
    listed = theirs(KEPWARE)
    assert listed.form == "KEPServerEX"
    assert [row.tag for row in listed.rows] == [
        {"name": "Boiler_1.Level", "address": 400001, "type": "float32", "unit": "m", "description": "the level"},
        {"name": "Temp", "address": 40010, "type": "int16", "scale": 0.2, "offset": -50.0, "unit": "°C"},
        {"name": "Running", "address": 40020, "bit": 3},
        {"name": "Coil", "address": "000007"},
        {"name": "Name", "address": 40030, "type": "string", "length": 20, "order": "BADC"},
    ]
    assert [fault.cell for fault in listed.faults] == ["B7", "G8"]
    assert (listed.rows[0].period_s, listed.rows[1].period_s) == (0.1, 0.5)
    assert any("order: CDAB" in remark for remark in listed.remarks)
    assert any("1 names were changed" in remark for remark in listed.remarks)
    assert checked(Listed("x", listed.rows), modbus) == []


def test_neuron() -> None:
    listed = theirs(
        "group,name,address,attribute,type,description,decimal,precision\n"
        "Group 1,level,1!400001#BB,Read,FLOAT,the level,0.1,2\n"
        "Group 1,bit,2!300005.15,Read,BIT,,,\n"
        "Group 1,text,1!400100.20H,Read,STRING,,,\n"
        "Group 1,odd,1!400100,Read,BYTES,,,\n"
        "Group 1,bad,40001,Read,INT16,,,\n"
    )
    assert [row.tag for row in listed.rows] == [
        {"name": "level", "address": 400001, "type": "float32", "unit_id": 1, "order": "CDAB", "scale": 0.1,
         "description": "the level"},
        {"name": "bit", "address": 300005, "bit": 15, "unit_id": 2},
        {"name": "text", "address": 400100, "type": "string", "length": 20, "unit_id": 1},
    ]  # fmt: skip
    assert {row.group for row in listed.rows} == {"group-1"}
    assert [fault.cell for fault in listed.faults] == ["E5", "C6"]
    assert checked(Listed("x", listed.rows), modbus) == []


def test_tia_portal() -> None:
    listed = theirs(
        "Name,Path,Data Type,Logical Address,Comment,Hmi Visible,Hmi Accessible\n"
        "Füllstand,Tags,Real,%MD10,the level,True,True\n"
        "Motor on,Tags,Bool,%I0.0,,True,True\n"
        "Timer,Tags,Timer,%T1,,True,True\n"
    )
    assert [row.tag for row in listed.rows] == [
        {"name": "F_llstand", "node": 'nsu=http://www.siemens.com/simatic-s7-opcua;s="Füllstand"', "type": "float32",
         "description": "the level"},
        {"name": "Motor_on", "node": 'nsu=http://www.siemens.com/simatic-s7-opcua;s="Motor on"', "type": "bool"},
    ]  # fmt: skip
    assert [fault.cell for fault in listed.faults] == ["C4"]
    assert checked(Listed("x", listed.rows), opcua) == []


def test_anybody_elses_table_is_not_guessed() -> None:
    assert foreign([["Signal", "Register"]]) is None
    assert foreign([]) is None


FILE = """\
devices:
  - name: a
    groups:
      - name: fast
        tags:
          - {name: x, address: 1}   # the first
          # about y
          - {name: y, address: 2}
      - name: slow
        tags:
          - {name: z, address: 3}
"""


def held(text: str) -> list[HeldGroup]:
    return [HeldGroup(one["name"], one["tags"]) for one in parse(text, "x").value["devices"][0]["groups"]]


def rows(*tags: tuple[str | None, str, int]) -> list[Row]:
    return [Row(at, {"name": name, "address": address}, {}, group) for at, (group, name, address) in enumerate(tags, 2)]


def names(text: str) -> dict[str, list[tuple[str, int]]]:
    return {one.name: [(str(tag["name"]), tag["address"]) for tag in one.tags] for one in held(text)}  # type: ignore[misc]  # integers, here


def test_merging_touches_only_what_changes() -> None:
    listed = rows(("fast", "x", 1), (None, "y", 7), ("fast", "new", 8))
    changes = merged(FILE, 0, held(FILE), listed, None, is_whole=False)
    found = applied(FILE, changes.edits)
    assert names(found) == {"fast": [("x", 1), ("y", 7), ("new", 8)], "slow": [("z", 3)]}
    assert "          - {name: x, address: 1}   # the first\n          # about y\n" in found
    assert (changes.new, changes.changed, changes.removed, changes.same) == (["new"], ["y"], [], 2)


def test_merging_the_same_changes_nothing() -> None:
    changes = merged(
        FILE, 0, held(FILE), rows(("fast", "x", 1), ("fast", "y", 2), ("slow", "z", 3)), None, is_whole=True
    )
    assert (changes.edits, changes.same) == ([], 3)


def test_merging_a_whole_list_moves_removes_and_adds_groups() -> None:
    listed = rows(("slow", "y", 2), ("brand-new", "n", 9), ("slow", "z", 3), ("fast", "only", 4))
    changes = merged(FILE, 0, held(FILE), listed, None, is_whole=True)
    found = applied(FILE, changes.edits)
    assert names(found) == {"fast": [("only", 4)], "slow": [("z", 3), ("y", 2)], "brand-new": [("n", 9)]}
    assert (changes.removed, changes.changed) == (["x"], ["y"])
    with pytest.raises(CannotEdit, match="no tag would be left in group slow"):
        merged(FILE, 0, held(FILE), rows(("fast", "x", 1)), None, is_whole=True)


GROUPS = st.sampled_from(["g0", "g1", "g2"])
MEMBERS = st.lists(
    st.tuples(GROUPS, st.sampled_from("abcdef"), st.integers(1, 3)), min_size=1, max_size=6, unique_by=lambda t: t[1]
)


@settings(max_examples=60)
@given(MEMBERS, MEMBERS)
def test_merging_a_whole_list_gives_that_list(
    before: list[tuple[str, str, int]], after: list[tuple[str, str, int]]
) -> None:
    there = {group: [{"name": n, "address": a} for g, n, a in before if g == group] for group, _, _ in before}
    device: dict[str, Any] = {"name": "d", "groups": [{"name": group, "tags": tags} for group, tags in there.items()]}
    text = "\n".join(["devices:", *block_item(device, 2), ""])
    try:
        changes = merged(text, 0, held(text), rows(*after), None, is_whole=True)
    except CannotEdit:
        assert any(group not in {g for g, _, _ in after} for group in there)
        return
    found = names(applied(text, changes.edits))
    assert {(group, *tag) for group, tags in found.items() for tag in tags} == set(after)

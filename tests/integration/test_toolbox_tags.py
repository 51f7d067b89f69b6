"""`holdfast tags`: out of the file and back, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.commands.init import example
from agent.settings import read
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.device_file", "agent.toolbox.foreign", "agent.toolbox.merging") as made:
        yield made


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
async def test_what_is_exported_is_imported_without_any_change(holdfast: Toolbox, tmp_path: Path, ending: str) -> None:
    if ending == "xlsx":
        pytest.importorskip("python_calamine")
        pytest.importorskip("xlsxwriter")
    path = tmp_path / "agent.yaml"
    path.write_text(example(), encoding="utf-8")
    for device, count in (("press-plc", 8), ("oven-controller", 2)):
        table = f"{device}.{ending}"
        exported = await holdfast.run(tmp_path, "tags", "export", device, table)
        assert (exported.code, exported.out) == (0, f"{table}: {count} tags of {device}\n")
        back = await holdfast.run(tmp_path, "tags", "import", device, table, "--replace", "--json")
        assert (back.code, back.json["same"], back.json["saved"]) == (0, count, False)
        assert back.json["new"] == back.json["changed"] == back.json["removed"] == []
    assert path.read_text(encoding="utf-8") == example()
    again = await holdfast.run(tmp_path, "tags", "export", "press-plc", f"press-plc.{ending}")
    assert (again.code, again.err.startswith(f"press-plc.{ending} exists already")) == (64, True)


async def test_an_edited_table_changes_what_was_edited(holdfast: Toolbox, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(example(), encoding="utf-8")
    shown = await holdfast.run(tmp_path, "tags", "export", "press-plc")
    lines = shown.out.splitlines()
    assert lines[0].startswith("group,period_s,name,unit,description,address,type,")
    changed = [line.replace(",-1", ",-2") for line in lines if ",program," not in line]
    (tmp_path / "list.csv").write_text("\n".join([*changed, "slow,10,new,,,40100,uint16"]), encoding="utf-8")
    dry = await holdfast.run(tmp_path, "tags", "import", "press-plc", "list.csv", "--replace", "--dry-run")
    assert "Nothing was changed in agent.yaml (--dry-run)." in dry.out
    assert path.read_text(encoding="utf-8") == example()
    done = await holdfast.run(tmp_path, "tags", "import", "press-plc", "list.csv", "--replace")
    assert done.code == 0
    assert "  1 new: new\n  1 changed: pressure\n  1 removed: program\n  6 as they were\n" in done.out
    found = read(path).device("press-plc")
    assert found is not None
    assert {group.name: [tag.name for tag in group.tags] for group in found.groups} == {
        "process": ["pressure", "oil_temperature", "pump_running", "hours", "guard_closed", "lamp_green"],
        "fast": ["force"],
        "slow": ["new"],
    }
    comments = [line for line in example().splitlines() if line.lstrip().startswith("#")]
    kept = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in comments if line not in kept] == []


async def test_every_fault_stands_at_its_cell_and_nothing_changes(holdfast: Toolbox, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(example(), encoding="utf-8")
    (tmp_path / "bad.csv").write_text("name;address;type;scale\na;40001;float31;x\nb;7;int16;1\n", encoding="utf-8")
    said = await holdfast.run(tmp_path, "tags", "import", "press-plc", "bad.csv")
    assert (said.code, said.out) == (78, "")
    assert [line.split(": ")[0] for line in said.err.splitlines()[:-1]] == ["bad.csv:C2", "bad.csv:D2", "bad.csv:B3"]
    as_json = await holdfast.run(tmp_path, "tags", "import", "press-plc", "bad.csv", "--json")
    assert [fault["cell"] for fault in as_json.json["faults"]] == ["C2", "D2", "B3"]
    (tmp_path / "odd.csv").write_text("Signal,Register\na,1\n")
    (tmp_path / "empty.csv").write_text("name,address\n")
    (tmp_path / "tia.csv").write_text("Name,Data Type,Logical Address\na,Real,%MD1\n")
    for arguments, sentence in (
        (("press-plc", "no.csv"), "no.csv cannot be read (No such file or directory)"),
        (("press-plc", "odd.csv"), "odd.csv: the headings are not known; ours begin with group,period_s,name"),
        (("press-plc", "empty.csv"), "empty.csv: there is no tag in it"),
        (("press-plc", "tia.csv"), "a table of TIA Portal's is for a device with protocol opcua"),
        (("press-plc", "x.pdf"), "x.pdf: tables are .csv or .xlsx; name it so"),
        (("nobody", "odd.csv"), "there is no device nobody in agent.yaml"),
    ):
        said = await holdfast.run(tmp_path, "tags", "import", *arguments)
        assert said.code in (64, 69)
        assert sentence in said.err
        assert len(said.err.splitlines()) == 1
    assert path.read_text(encoding="utf-8") == example()


async def test_another_programs_table_fills_a_new_device(holdfast: Toolbox, tmp_path: Path) -> None:
    dummy: dict[str, Any] = {"name": "dummy", "address": 40001}
    path = write(tmp_path, configuration(modbus_device("meter", 502, dummy)))
    (tmp_path / "kepware.csv").write_text(
        '"Tag Name","Address","Data Type","Scaling","Raw Low","Raw High","Scaled Low","Scaled High"\n'
        '"Main.Power","400001","Float",,,,,\n"Temp 1","40010","Short","Linear",0,1000,0,100\n'
    )
    said = await holdfast.run(tmp_path, "tags", "import", "meter", "kepware.csv", "--replace")
    assert said.code == 0
    assert "kepware.csv: 2 tags, a table of KEPServerEX's" in said.out
    assert "! 1 names were changed" in said.out
    device = read(path).device("meter")
    assert device is not None
    assert [tag.name for tag in device.groups[0].tags] == ["Main.Power", "Temp_1"]

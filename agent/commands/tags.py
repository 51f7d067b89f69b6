"""`holdfast tags`: a device's tags as a table, out of the configuration and back into it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.options import Config, Json
from protocols.program.console import CONFIGURATION, UNAVAILABLE, USAGE, Failure
from protocols.program.terminal import print_json, tell

if TYPE_CHECKING:
    from agent.commands.device_file import ConfigurationFile
    from agent.settings import Device
    from agent.toolbox.merging import Changes
    from agent.toolbox.taglist import Fault, Listed

tags = typer.Typer(no_args_is_help=True, help="Carry a device's tags out of and into CSV and XLSX tables.")

FAULTS_SHOWN_MAX = 50
NAMES_SHOWN_MAX = 8
DeviceArgument = Annotated[str, typer.Argument(help="Name of the device.", show_default=False)]


@tags.command("export")
def export_tags(
    device: DeviceArgument,
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help=".csv or .xlsx. Default: CSV on stdout.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write a device's tags as a table that a spreadsheet opens and `tags import` reads back exactly."""
    from agent.commands.device_file import ConfigurationFile
    from agent.toolbox.sheets import SheetError, write_csv, write_xlsx
    from agent.toolbox.taglist import table

    file = ConfigurationFile(config)
    groups = file.configuration.settings.devices[file.device_at(device)].groups
    rows = table([(one.name, one.period_s, one.tags) for one in groups], _module(file, device).TagSettings)
    try:
        content = write_xlsx(rows) if _is_workbook(path) else write_csv(rows)
    except SheetError as error:
        raise Failure(f"{path}: {error}", UNAVAILABLE) from None
    if path is None:
        if as_json:
            print_json({"device": device, "columns": rows[0], "rows": rows[1:]})
        else:
            sys.stdout.write(content.decode("utf-8-sig").replace("\r\n", "\n"))
        return
    _write(path, content, force)
    if as_json:
        print_json({"path": str(path), "device": device, "tags": len(rows) - 1})
    else:
        tell(f"{path}: {len(rows) - 1} tags of {device}")


@tags.command("import")
def import_tags(
    device: DeviceArgument,
    path: Annotated[Path, typer.Argument(metavar="FILE", help=".csv or .xlsx.", show_default=False)],
    group: Annotated[
        str | None,
        typer.Option("--group", "-g", help="For tags that name no group. Default: the first.", show_default=False),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove the device's tags that are not in the table.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Take tags from a table of ours, of KEPServerEX, Neuron or TIA Portal into the configuration."""
    from agent.commands.device_file import TAKE_OVER, ConfigurationFile
    from agent.toolbox.editing import CannotEdit
    from agent.toolbox.merging import HeldGroup, merged
    from agent.toolbox.taglist import checked

    file = ConfigurationFile(config)
    at = file.device_at(device)
    module = _module(file, device)
    listed = _listed(path, file, device)
    if faults := checked(listed, module):
        return _tell_faults(path, faults, as_json)
    held = [HeldGroup(one.name, one.tags) for one in file.configuration.settings.devices[at].groups]
    try:
        changes = merged(file.text, at, held, listed.rows, group, replace)
    except CannotEdit as error:
        raise Failure(f"{path}: {error}", USAGE) from None
    if changes.edits and not dry_run:
        file.save(changes.edits)
    listed.remarks += [
        f"group {one.name} keeps its period of {one.period_s:g} s"
        for one in file.configuration.settings.devices[at].groups
        if any(row.group == one.name and row.period_s not in (None, one.period_s) for row in listed.rows)
    ]
    if as_json:
        print_json(_plain(path, listed, changes, dry_run))
        return 0
    tell(f"{path}: {len(listed.rows)} tags, a table of {listed.form}'s")
    for remark in listed.remarks:
        tell(f"! {remark}")
    tell("\n".join(_summary(changes)))
    if dry_run:
        tell(f"Nothing was changed in {file.shown} (--dry-run).")
    elif changes.edits:
        tell(f"{file.shown} has them now. Take it over: {TAKE_OVER}")
    return 0


def _module(file: ConfigurationFile, device: str) -> Any:
    file.device_at(device)
    found: Device | None = file.configuration.device(device)
    if found is None:
        raise Failure(f"there is no device {device} in {file.shown}", USAGE)
    return found.module


def _is_workbook(path: Path | None) -> bool:
    """By the name's ending. Raises Failure on one that is neither."""
    ending = "" if path is None else path.suffix.lower()
    if ending not in ("", ".csv", ".txt", ".xlsx"):
        raise Failure(f"{path}: tables are .csv or .xlsx; name it so", USAGE)
    return ending == ".xlsx"


def _listed(path: Path, file: ConfigurationFile, device: str) -> Listed:
    from agent.toolbox.foreign import foreign, foreign_rows
    from agent.toolbox.sheets import SheetError, read_csv, read_xlsx
    from agent.toolbox.taglist import own_rows

    is_workbook = _is_workbook(path)
    try:
        content = path.read_bytes()
        rows = read_xlsx(content) if is_workbook else read_csv(content)
    except OSError as error:
        raise Failure(
            f"{path} cannot be read ({error.strerror}); check the path and your rights", UNAVAILABLE
        ) from None
    except SheetError as error:
        raise Failure(f"{path}: {error}", USAGE) from None
    if len(rows) < 2:
        raise Failure(f"{path}: there is no tag in it; it needs a line of headings and a line for each tag", USAGE)
    found = file.configuration.device(device)
    if (form := foreign(rows)) is not None:
        if found is None or found.protocol != form.protocol:
            why = f"a table of {form.program}'s is for a device with protocol {form.protocol}, and {device} has another"
            raise Failure(f"{path}: {why}", USAGE)
        return foreign_rows(rows, form)
    if "name" not in [title.strip() for title in rows[0]]:
        known = "ours begin with group,period_s,name; KEPServerEX's, Neuron's and TIA Portal's are known by theirs"
        raise Failure(f"{path}: the headings are not known; {known}", USAGE)
    return own_rows(rows, _module(file, device).TagSettings)


def _tell_faults(path: Path, faults: list[Fault], as_json: bool) -> int:
    if as_json:
        print_json({"error": f"{len(faults)} faults in {path}; nothing was changed", "faults": faults})
        return CONFIGURATION
    lines = [f"{path}:{fault}" for fault in faults[:FAULTS_SHOWN_MAX]]
    if len(faults) > FAULTS_SHOWN_MAX:
        lines.append(f"… and {len(faults) - FAULTS_SHOWN_MAX} more; correct these first")
    tell("\n".join([*lines, "Nothing was changed."]), sys.stderr)
    return CONFIGURATION


def _summary(changes: Changes) -> list[str]:
    kinds = (("new", changes.new), ("changed", changes.changed), ("removed", changes.removed))
    lines = [f"  {len(names)} {what}: {_names(names)}" for what, names in kinds if names]
    return [*lines, f"  {changes.same} as they were"]


def _names(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN_MAX
    return ", ".join(names[:NAMES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _plain(path: Path, listed: Listed, changes: Changes, dry_run: bool) -> dict[str, Any]:
    return {
        "path": str(path),
        "form": listed.form,
        "remarks": listed.remarks,
        "new": changes.new,
        "changed": changes.changed,
        "removed": changes.removed,
        "same": changes.same,
        "saved": bool(changes.edits) and not dry_run,
    }


def _write(path: Path, content: bytes, force: bool) -> None:
    try:
        with path.open("wb" if force else "xb") as file:
            file.write(content)
    except FileExistsError:
        raise Failure(f"{path} exists already and was left alone; choose another path, or add --force", USAGE) from None
    except OSError as error:
        raise Failure(
            f"{path} cannot be written ({error.strerror}); check the path and your rights", UNAVAILABLE
        ) from None

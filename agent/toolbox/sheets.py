"""Tables as bytes of a file, CSV or XLSX, and as rows of text. Pure.

CSV is read in UTF-8, with or without its mark, otherwise in Windows-1252; the separator is the one of `, ; tab` that
divides the heading into most cells. XLSX needs the packages of the extra `xlsx`.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from importlib import import_module
from typing import Any

BYTES_MAX = 20_000_000
UNPACKED_BYTES_MAX = 300_000_000
ROWS_MAX = 200_000
COLUMNS_MAX = 200
CELL_CHARACTERS_MAX = 32_767  # of a spreadsheet's cell

Rows = list[list[str]]


class SheetError(ValueError):
    """The file is no table that can be read. The message is one sentence."""


def column_name(index: int) -> str:
    """As spreadsheets call the column: A, B … Z, AA."""
    name = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def read_csv(content: bytes) -> Rows:
    """Every row, the heading too. Raises SheetError."""
    if len(content) > BYTES_MAX:
        raise SheetError(f"the file is larger than {BYTES_MAX // 1_000_000} MB; is it the right one?")
    if b"\0" in content:
        raise SheetError("the file is no text; export it as CSV (UTF-8), or as .xlsx")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    rows: Rows = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            rows.append(row)
            if len(rows) > ROWS_MAX:
                raise SheetError(f"the table has more than {ROWS_MAX:,} rows; is it the right one?")
    except csv.Error as error:
        raise SheetError(f"row {len(rows) + 1} is no CSV ({error}); is a quote missing?") from None
    return rows


def write_csv(rows: Sequence[Sequence[str]]) -> bytes:
    """With commas, in UTF-8 with its mark, without which Excel takes it for Windows-1252."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8-sig")


def read_xlsx(content: bytes) -> Rows:
    """Every row of the first sheet that has any. Raises SheetError, also where the packages are missing."""
    calamine = _package("python_calamine")
    try:
        unpacked = sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(content)).infolist())
        if len(content) > BYTES_MAX or unpacked > UNPACKED_BYTES_MAX:
            raise SheetError("the workbook is far larger than any list of tags; is it the right one?")
        workbook = calamine.CalamineWorkbook.from_filelike(io.BytesIO(content))
        for name in workbook.sheet_names:
            if rows := _rows(workbook.get_sheet_by_name(name)):
                return rows
    except (calamine.CalamineError, zipfile.BadZipFile, OSError) as error:
        raise SheetError(f"this is no workbook that can be read ({error}); save it as .xlsx again, or as CSV") from None
    return []


def _package(name: str) -> Any:
    """One of the extra `xlsx`. By name, because it need not be there, neither to run nor to be checked."""
    try:
        return import_module(name)
    except ImportError:
        raise SheetError("workbooks need two more packages; install holdfast[xlsx], or save as CSV") from None


def _rows(sheet: Any) -> Rows:
    if sheet.total_height > ROWS_MAX or sheet.total_width > COLUMNS_MAX:
        raise SheetError(f"the table has more than {ROWS_MAX:,} rows or {COLUMNS_MAX} columns; is it the right one?")
    return [[_text(cell) for cell in row] for row in sheet.to_python(skip_empty_area=False)]


def _text(cell: object) -> str:
    """A cell as a person sees it: 40001 and not 40001.0."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    return str(cell)


def write_xlsx(rows: Sequence[Sequence[str]]) -> bytes:
    """One sheet, every cell a text, so that nothing is changed by opening it. Raises SheetError."""
    package = _package("xlsxwriter")
    content = io.BytesIO()
    with package.Workbook(content, {"in_memory": True}) as workbook:
        as_text, head = workbook.add_format({"num_format": "@"}), workbook.add_format({"bold": True})
        sheet = workbook.add_worksheet("tags")
        for at, row in enumerate(rows):
            for column, cell in enumerate(row):
                if len(cell) > CELL_CHARACTERS_MAX:
                    raise SheetError(
                        f"{column_name(column)}{at + 1} is longer than a spreadsheet's cell; export as CSV"
                    )
                sheet.write_string(at, column, cell, as_text if at else head)
        if rows:
            sheet.freeze_panes(1, 0)
            sheet.autofilter(0, 0, max(len(rows) - 1, 1), len(rows[0]) - 1)
    return content.getvalue()

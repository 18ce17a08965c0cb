"""Tables as Excel workbooks (ECMA-376 5th edition, part 1, SpreadsheetML).

Only what a table needs: one sheet, a header row that stays in sight, numbers, truth
values and texts. No library in the process writes the format under a permissive
licence, and this much of it is small.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from theatrum.node import Context, File, Table, node

_MOST_ROWS = 1_048_576  # of a sheet, its header with it
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml"
# Characters that XML 1.0 cannot hold.
_UNSPEAKABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@node(version="1.0.0", kind="export")
def to_excel(
    table: Table, *, name: str = "table", context: Context | None = None
) -> File:
    """Write a table as an Excel workbook; units stand in the header.

    A text is a text: what begins with = is no formula.

    Parameters
    ----------
    name
        Of the sheet and the file.
    """
    path = (context or Context()).path(f"{name}.xlsx")
    write_workbook(table, path, name)
    return File(path, f"{_SHEET}.sheet", "table", name)


def write_workbook(table: Table, path: Path, sheet: str = "table") -> None:
    """Write the workbook; raises ValueError for more rows than a sheet can hold."""
    if len(table) + 1 > _MOST_ROWS:
        raise ValueError(f"A sheet holds {_MOST_ROWS - 1} rows: this has {len(table)}.")
    title = re.sub(r"[\[\]:*?/\\]", " ", sheet)[:31] or "table"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _frame(title).items():
            archive.writestr(name, _XML + text)
        with archive.open("xl/worksheets/sheet1.xml", "w") as stream:
            for part in _sheet(table):
                stream.write(part.encode())


def _frame(title: str) -> dict[str, str]:
    """Return the parts of the package around the sheet."""
    types = "".join(
        f"<Override PartName={quoteattr(part)} ContentType={quoteattr(kind)}/>"
        for part, kind in {
            "/xl/workbook.xml": f"{_SHEET}.sheet.main+xml",
            "/xl/worksheets/sheet1.xml": f"{_SHEET}.worksheet+xml",
            "/xl/styles.xml": f"{_SHEET}.styles+xml",
        }.items()
    )
    relations = "application/vnd.openxmlformats-package.relationships+xml"
    default = f'<Default Extension="rels" ContentType="{relations}"/>'
    return {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">{default}'
        f"{types}</Types>",
        "_rels/.rels": _relations([("officeDocument", "xl/workbook.xml")]),
        "xl/_rels/workbook.xml.rels": _relations(
            [("worksheet", "worksheets/sheet1.xml"), ("styles", "styles.xml")]
        ),
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_RELS}"><sheets>'
        f'<sheet name={quoteattr(title)} sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><fonts count="2"><font/>'
        '<font><b/></font></fonts><fills count="1"><fill/></fills><borders count="1">'
        '<border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs>'
        '<cellXfs count="2"><xf/><xf fontId="1" applyFont="1"/></cellXfs></styleSheet>',
    }


def _relations(found: list[tuple[str, str]]) -> str:
    inside = "".join(
        f'<Relationship Id="rId{at}" Type="{_RELS}/{kind}" Target="{target}"/>'
        for at, (kind, target) in enumerate(found, start=1)
    )
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{inside}</Relationships>'


def _sheet(table: Table) -> list[str]:
    header = [
        f"{name} [{table.units[name]}]" if name in table.units else name
        for name in table.columns
    ]
    parts = [
        f'{_XML}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0">'
        '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/>'
        "</sheetView></sheetViews><sheetData>",
        _row(1, header, style=1),
    ]
    columns = list(table.columns.values())
    for at in range(len(table)):
        parts.append(_row(at + 2, [column[at] for column in columns]))
    parts.append("</sheetData></worksheet>")
    return parts


def _row(number: int, cells: Sequence[object], style: int = 0) -> str:
    inside = "".join(
        _cell(f"{_letters(at)}{number}", value, style) for at, value in enumerate(cells)
    )
    return f'<row r="{number}">{inside}</row>'


def _cell(place: str, value: object, style: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return f'<c r="{place}" s="{style}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return f'<c r="{place}" s="{style}"><v>{value!r}</v></c>'
    text = escape(_UNSPEAKABLE.sub("�", str(value))[:32_767])
    return (
        f'<c r="{place}" s="{style}" t="inlineStr"><is>'
        f'<t xml:space="preserve">{text}</t></is></c>'
    )


def _letters(column: int) -> str:
    """Return a column's letters: 0 is A, 26 is AA."""
    letters = ""
    column += 1
    while column:
        column, digit = divmod(column - 1, 26)
        letters = chr(65 + digit) + letters
    return letters

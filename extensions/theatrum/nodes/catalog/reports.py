"""A table described as a page: of each column how many, how spread, which values.

The page is one file of HTML and SVG without scripts, which any browser shows offline.
"""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from theatrum.node import Context, File, Table, node

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1d2430;background:#fff}h1{font-size:1.5rem}section{border-top:1px solid #ccd2dc;
padding:.8rem 0;display:grid;grid-template-columns:1fr 260px;gap:1rem}
h2{font-size:1.05rem;margin:0 0 .3rem}dl{display:grid;grid-template-columns:auto 1fr;
gap:0 1rem;margin:0}dt{color:#4a5568}dd{margin:0;font-variant-numeric:tabular-nums}
svg{width:260px;height:90px}rect{fill:#2f6fb3}table{border-collapse:collapse}
td,th{padding:.1rem .6rem;text-align:right}th{text-align:left}
"""


@node(version="1.0.0", kind="render")
def profile_report(
    table: Table, *, title: str = "Table", context: Context | None = None
) -> File:
    """Write a page that describes each column of a table, and how numbers go together.

    Parameters
    ----------
    title
        Of the page.
    """
    numbers = {
        name: _numbers(column)
        for name, column in table.columns.items()
        if _is_number(column)
    }
    sections = [
        _of_numbers(name, numbers[name], len(column), table.units.get(name, ""))
        if name in numbers
        else _of_texts(name, list(column))
        for name, column in table.columns.items()
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{_STYLE}</style><h1>{escape(title)}</h1><p>{len(table)} rows, "
        f"{len(table.columns)} columns</p>{''.join(sections)}"
        f"{_together(numbers)}</html>"
    )
    path = (context or Context()).path("report.html")
    path.write_text(page, encoding="utf-8")
    return File(path, "text/html", "report", title)


Column = npt.NDArray[np.float64]


def _is_number(column: Any) -> bool:
    known = [one for one in column if one is not None]
    return bool(known) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in known
    )


def _numbers(column: Any) -> Column:
    """Return the column with what is empty as no number, in its place."""
    return np.array([np.nan if one is None else one for one in column], np.float64)


def _of_numbers(name: str, column: Column, rows: int, unit: str) -> str:
    known = column[np.isfinite(column)]
    if not known.size:
        return _section(name, {"Rows": str(rows), "Empty": str(rows)}, "")
    low, middle, high = np.percentile(known, (25, 50, 75))
    spread = known.std(ddof=1) if known.size > 1 else 0.0
    facts = {
        "Known": f"{known.size} of {rows}",
        "Least": f"{known.min():.6g} {unit}",
        "25 %": f"{low:.6g} {unit}",
        "Median": f"{middle:.6g} {unit}",
        "75 %": f"{high:.6g} {unit}",
        "Most": f"{known.max():.6g} {unit}",
        "Mean": f"{known.mean():.6g} {unit}",
        "Standard deviation": f"{spread:.6g} {unit}",
        "Different": str(len(np.unique(known))),
    }
    counts, edges = np.histogram(known, bins=min(30, max(5, int(np.sqrt(known.size)))))
    label = f"{name} from {edges[0]:.4g} to {edges[-1]:.4g}"
    return _section(name, facts, _bars(counts.tolist(), label))


def _of_texts(name: str, column: list[Any]) -> str:
    known = Counter(str(one) for one in column if one is not None)
    total = sum(known.values())
    facts = {"Known": f"{total} of {len(column)}", "Different": str(len(known))}
    for word, count in known.most_common(8):
        facts[f"“{word[:60]}”"] = f"{count} ({100 * count / total:.1f} %)"
    top = [count for _, count in known.most_common(20)]
    return _section(name, facts, _bars(top, f"the most frequent of {name}"))


def _section(name: str, facts: dict[str, str], picture: str) -> str:
    inside = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>"
        for key, value in facts.items()
    )
    told = f"<div><h2>{escape(name)}</h2><dl>{inside}</dl></div>"
    return f"<section>{told}{picture}</section>"


def _bars(counts: list[int], label: str) -> str:
    most = max(counts, default=0) or 1
    width = 260 / max(1, len(counts))
    bars = "".join(
        f'<rect x="{at * width:.1f}" y="{90 - 85 * count / most:.1f}" '
        f'width="{max(1, width - 1):.1f}" height="{85 * count / most:.1f}"/>'
        for at, count in enumerate(counts)
    )
    return (
        f'<svg role="img" aria-label={_quoted(f"Histogram of {label}")} '
        f'viewBox="0 0 260 90">{bars}</svg>'
    )


def _quoted(text: str) -> str:
    return f'"{escape(text, quote=True)}"'


def _together(numbers: dict[str, Column]) -> str:
    """Return a table of Pearson's coefficients between the columns of numbers."""
    names = list(numbers)[:30]
    if len(names) < 2:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = ""
    for one in names:
        cells = "".join(
            f"<td>{_pearson(numbers[one], numbers[two])}</td>" for two in names
        )
        rows += f"<tr><th>{escape(one)}</th>{cells}</tr>"
    return (
        "<h2>Correlation (Pearson)</h2><div style='overflow:auto'>"
        f"<table><tr><th></th>{head}</tr>{rows}</table></div>"
    )


def _pearson(a: Column, b: Column) -> str:
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if a.size < 2 or a.std() == 0 or b.std() == 0:
        return "–"
    return f"{np.corrcoef(a, b)[0, 1]:.2f}"

"""A flow drawn: steps in columns by what they wait for, edges between their ports.

One SVG without scripts, so that it shows in a notebook, on a page and in a mail alike.
Each step's kind is a word and a shape, never a colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from theatrum.catalog.flows.graph import Flow, Step

WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE = 190, 54, 60, 26, 20
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1d2430}.s{font-size:11px;fill:#4a5568}"
    "rect{fill:#fff;stroke:#2f5f8f;stroke-width:1.5}.in{fill:#eef3f8}"
    ".review{stroke:#8a5a00;stroke-dasharray:5 3}"
    ".external{stroke:#6b3fa0;stroke-width:3}.failed{stroke:#b00020;stroke-width:3}"
    "path{fill:none;stroke:#5b6675;stroke-width:1.4}"
)


def picture(flow: Flow, states: Mapping[str, Mapping[str, int]] | None = None) -> str:
    """Return the flow as SVG.

    Parameters
    ----------
    states
        Of a batch, by step: how many runs are in each state.
    """
    places = _places(flow)
    columns = max((column for column, _ in places.values()), default=0) + 1
    rows = max((row for _, row in places.values()), default=0) + 1
    width = 2 * EDGE + columns * WIDTH + (columns - 1) * GAP_X
    height = 2 * EDGE + rows * HEIGHT + (rows - 1) * GAP_Y
    parts = [_curve(flow, places, edge.source, edge.target) for edge in flow.edges]
    parts += [
        _input(name, kind, places[f"${name}"]) for name, kind in flow.inputs.items()
    ]
    parts += [
        _box(one, places[one.key], (states or {}).get(one.key, {}))
        for one in flow.steps
    ]
    title = escape(flow.title or flow.name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="Flow {title}" '
        f'viewBox="0 0 {width} {height}" width="{width}" style="max-width:100%;'
        f'background:#fff"><style>{_STYLE}</style><defs><marker id="a" '
        'viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto">'
        '<path d="M0 0 8 4 0 8z" style="fill:#5b6675"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def _places(flow: Flow) -> dict[str, tuple[int, int]]:
    """Return the column and row of each input and step."""
    column = {f"${name}": 0 for name in flow.inputs}
    for step in flow.steps:
        column[step.key] = 1
    for _ in flow.steps:  # as often as the longest way has steps; circles end as well
        for edge in flow.edges:
            before = edge.source if not edge.step else edge.step
            if edge.to_step in column and before in column:
                column[edge.to_step] = min(
                    max(column[edge.to_step], column[before] + 1), len(flow.steps)
                )
    rows: dict[int, int] = {}
    places = {}
    for name, at in column.items():
        places[name] = (at, rows.get(at, 0))
        rows[at] = rows.get(at, 0) + 1
    return places


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    column, row = place
    return EDGE + column * (WIDTH + GAP_X), EDGE + row * (HEIGHT + GAP_Y)


def _box(step: Step, place: tuple[int, int], states: Mapping[str, int]) -> str:
    x, y = _corner(place)
    bad = " failed" if states.get("failed") else ""
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    node = step.address.rpartition(":")[2]
    under = told or (node if step.kind == "node" else f"{step.kind} {node}".strip())
    if step.over == "items" and not told:
        under += ", over all items"
    params = ", ".join(f"{name}={value}" for name, value in step.params.items())
    return (
        f"<g><title>{escape(step.title or step.key)}"
        f"{escape(f': {params}') if params else ''}</title>"
        f'<rect class="{step.kind}{bad}" x="{x}" y="{y}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="{14 if step.kind == "review" else 5}"/>'
        f'<text x="{x + 12}" y="{y + 23}">{escape(_short(step.key))}</text>'
        f'<text class="s" x="{x + 12}" y="{y + 41}">{escape(_short(under))}</text></g>'
    )


def _input(name: str, kind: str, place: tuple[int, int]) -> str:
    x, y = _corner(place)
    return (
        f'<g><rect class="in" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" '
        'rx="26"/>'
        f'<text x="{x + 22}" y="{y + 23}">{escape(_short(name))}</text>'
        f'<text class="s" x="{x + 22}" y="{y + 41}">{escape(kind)}</text></g>'
    )


def _curve(
    flow: Flow, places: Mapping[str, tuple[int, int]], source: str, target: str
) -> str:
    begin = source if source.startswith("$") else source.rpartition(".")[0]
    end = target.rpartition(".")[0]
    if begin not in places or end not in places:
        return ""
    (x1, y1), (x2, y2) = _corner(places[begin]), _corner(places[end])
    x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT // 2, y2 + HEIGHT // 2
    bend = max(30, (x2 - x1) // 2)
    del flow
    return (
        f'<path marker-end="url(#a)" d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} '
        f'{x2} {y2}"><title>{escape(source)} to {escape(target)}</title></path>'
    )


def _short(text: str, most: int = 25) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

"""A flow drawn: steps in columns by what they wait for, edges between their ports.

One SVG without scripts and without styles, so that it shows in a notebook, in a mail,
and on a page whose policy takes neither; a page's own style sheet gives it its colours
by the classes. Each step's kind is a word and a shape, never a colour alone.

A step stands in the middle of the rows of what follows on it alone, so that branches
lie beside each other and edges seldom cross.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from theatrum.catalog.flows.graph import Flow, Step

WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE = 168, 50, 46, 16, 12
_RECTS = {
    "node": 'stroke="#2f5f8f" stroke-width="1.5"',
    "review": 'stroke="#8a5a00" stroke-width="1.5" stroke-dasharray="5 3"',
    "external": 'stroke="#6b3fa0" stroke-width="3"',
}
_FAILED = 'stroke="#b00020" stroke-width="3"'

Place = tuple[int, float]
"""Column and row; a row may lie between two."""


def picture(
    flow: Flow,
    states: Mapping[str, Mapping[str, int]] | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    """Return the flow as SVG.

    Parameters
    ----------
    states
        Of a batch, by step: how many runs are in each state.
    links
        Of a page, by step: where a click on it leads.
    """
    places = _places(flow)
    columns = max((column for column, _ in places.values()), default=0) + 1
    rows = max((row for _, row in places.values()), default=0.0) + 1
    width = 2 * EDGE + columns * WIDTH + (columns - 1) * GAP_X
    height = round(2 * EDGE + rows * HEIGHT + (rows - 1) * GAP_Y)
    parts = [_curve(places, edge.source, edge.target) for edge in flow.edges]
    parts += [
        _input(name, kind, places[f"${name}"]) for name, kind in flow.inputs.items()
    ]
    for one in flow.steps:
        box = _box(one, places[one.key], (states or {}).get(one.key, {}))
        where = (links or {}).get(one.key)
        parts.append(f'<a href="{escape(where)}">{box}</a>' if where else box)
    title = escape(flow.title or flow.name)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="flow" role="img" '
        f'aria-label="Flow {title}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui,sans-serif">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0 8 4 0 8z" fill="#5b6675"/></marker></defs>'
        f'<rect class="paper" width="{width}" height="{height}" fill="#fff"/>'
        f"{''.join(parts)}</svg>"
    )


def _places(flow: Flow) -> dict[str, Place]:
    """Return where each input and step stands."""
    column = _columns(flow)
    before: dict[str, str] = {}
    for edge in flow.edges:
        source, target = edge.step or edge.source, edge.to_step
        # A step belongs to the latest of what it waits for.
        if source in column and target in column and column[source] < column[target]:
            known = before.get(target)
            if known is None or column[known] < column[source]:
                before[target] = source
    after: dict[str, list[str]] = {}
    for target in column:
        if target in before:
            after.setdefault(before[target], []).append(target)
    rows: dict[str, float] = {}
    for root in (key for key in column if key not in before):
        _lay(root, after, rows)
    return {key: (at, rows[key]) for key, at in column.items()}


def _columns(flow: Flow) -> dict[str, int]:
    column = {f"${name}": 0 for name in flow.inputs}
    for step in flow.steps:
        column[step.key] = 1
    for _ in flow.steps:  # as often as the longest way has steps; circles end as well
        for edge in flow.edges:
            before = edge.step or edge.source
            if edge.to_step in column and before in column:
                column[edge.to_step] = min(
                    max(column[edge.to_step], column[before] + 1), len(flow.steps)
                )
    return column


def _lay(root: str, after: Mapping[str, list[str]], rows: dict[str, float]) -> None:
    """Give rows to a step and all that follows on it; leaves take the next free one."""
    waiting = [(root, False)]
    while waiting:
        key, is_done = waiting.pop()
        below = after.get(key, [])
        if below and not is_done:
            waiting.append((key, True))
            waiting += [(one, False) for one in reversed(below)]
        elif below:
            rows[key] = (rows[below[0]] + rows[below[-1]]) / 2
        else:
            taken = sum(1 for one in rows if not after.get(one))
            rows[key] = float(taken)


def _corner(place: Place) -> tuple[float, float]:
    column, row = place
    return EDGE + column * (WIDTH + GAP_X), EDGE + row * (HEIGHT + GAP_Y)


def _box(step: Step, place: Place, states: Mapping[str, int]) -> str:
    x, y = _corner(place)
    failed = bool(states.get("failed"))
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    node = step.address.rpartition(":")[2]
    under = told or (node if step.kind == "node" else f"{step.kind} {node}".strip())
    if step.over == "items" and not told:
        under += ", over all items"
    params = ", ".join(f"{name}={_said(value)}" for name, value in step.params.items())
    kind = f"{step.kind} failed" if failed else step.kind
    rect = _FAILED if failed else _RECTS.get(step.kind, _RECTS["node"])
    return (
        f"<g><title>{escape(step.title or step.key)}"
        f"{escape(f': {params}') if params else ''}</title>"
        f'<rect class="step {kind}" fill="#fff" {rect} x="{x:g}" y="{y:g}" '
        f'width="{WIDTH}" height="{HEIGHT}" rx="{14 if step.kind == "review" else 5}"/>'
        f"{_text(x + 12, y, step.key, under)}</g>"
    )


def _input(name: str, kind: str, place: Place) -> str:
    x, y = _corner(place)
    return (
        f'<g><rect class="step in" fill="#eef3f8" {_RECTS["node"]} x="{x:g}" '
        f'y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="25"/>'
        f"{_text(x + 22, y, name, kind)}</g>"
    )


def _text(x: float, y: float, name: str, under: str) -> str:
    return (
        f'<text class="name" x="{x:g}" y="{y + 21:g}" font-size="13" fill="#1d2430">'
        f"{escape(_short(name))}</text>"
        f'<text class="under" x="{x:g}" y="{y + 38:g}" font-size="11" fill="#4a5568">'
        f"{escape(_short(under, 26))}</text>"
    )


def _curve(places: Mapping[str, Place], source: str, target: str) -> str:
    begin = source if source.startswith("$") else source.rpartition(".")[0]
    end = target.rpartition(".")[0]
    if begin not in places or end not in places:
        return ""
    (x1, y1), (x2, y2) = _corner(places[begin]), _corner(places[end])
    x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT / 2, y2 + HEIGHT / 2
    bend = max(24, (x2 - x1) / 2)
    return (
        '<path class="edge" fill="none" stroke="#5b6675" stroke-width="1.4" '
        f'marker-end="url(#arrow)" d="M{x1:g} {y1:g} C{x1 + bend:g} {y1:g} '
        f'{x2 - bend:g} {y2:g} {x2:g} {y2:g}"><title>{escape(source)} to '
        f"{escape(target)}</title></path>"
    )


def _said(value: object) -> str:
    if isinstance(value, Mapping) and set(value) == {"$"}:
        return "(asked)"
    return str(value)


def _short(text: str, most: int = 21) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

"""How far a batch is, moving in the notebook.

A bar, how many are done and failed, the time that is left, what runs, and a button that
cancels. It looks twice a second, in a thread of the kernel, and ends with the batch.
"""

from __future__ import annotations

import html
import threading
from typing import TYPE_CHECKING, Any

from theatrum.catalog.engine.ledger import FINAL, GOOD
from theatrum.catalog.query.spec import Q, Spec

if TYPE_CHECKING:
    from theatrum.catalog.engine.batch import Batch
    from theatrum.catalog.engine.far import RemoteBatch

EVERY_S = 0.5
WHYS = 4
"""Failures whose reasons are shown below the bar."""
_STYLES = {"failed": "danger"}


def shown(batch: Batch | RemoteBatch) -> Any:
    """Return a batch's display: a widget, with text beside it for who has none."""
    text = {"text/plain": repr(batch)}
    try:
        widget = bar(batch)
    except ImportError:
        return text
    return {**widget._repr_mimebundle_(), **text}


def bar(batch: Batch | RemoteBatch) -> Any:
    """Return the widget; ipywidgets ships no types, hence Any."""
    import ipywidgets

    share = ipywidgets.FloatProgress(
        value=0.0, min=0.0, max=1.0, layout=ipywidgets.Layout(width="22em")
    )
    told = ipywidgets.HTML()
    doing = ipywidgets.HTML()
    stop = ipywidgets.Button(
        description="Cancel", icon="stop", tooltip="Stop this batch"
    )
    stop.on_click(lambda _: batch.cancel())
    box = ipywidgets.VBox([ipywidgets.HBox([share, told, stop]), doing])

    def look() -> bool:
        """Show how it is; returns whether it goes on."""
        state = batch.state
        share.value = batch.progress
        told.value = html.escape(sentence(batch))
        lines = [
            f"{html.escape(text)} {part:.0%}" for part, text in batch.live.values()
        ]
        doing.value = "<br>".join(lines[:6])
        going = batch.running or state == "running"
        stop.disabled = not going
        if not going:
            clean = state == "succeeded" and not batch.counts.get("failed")
            share.bar_style = "success" if clean else _STYLES.get(state, "warning")
            doing.value = whys(batch)
        return going

    def follow() -> None:
        waited = threading.Event()
        while look():
            waited.wait(EVERY_S)

    if look():
        threading.Thread(target=follow, name="theatrum-bar", daemon=True).start()
    return box


def sentence(batch: Batch | RemoteBatch) -> str:
    """Return how a batch is, in one line: states are words, never colours alone."""
    counts = batch.counts
    good = sum(counts.get(state, 0) for state in GOOD)
    ended = sum(counts.get(state, 0) for state in FINAL)
    total = max(batch.total, sum(counts.values()))
    state = batch.state
    # A batch that came to its end succeeded, though single items may have failed.
    if state == "succeeded" and counts.get("failed"):
        state = "ended"
    parts = [f"{state}: {good} of {total} done"]
    for state in ("failed", "skipped", "cancelled"):
        if counts.get(state):
            parts.append(f"{counts[state]} {state}")
    if counts.get("cached"):
        parts.append(f"{counts['cached']} of them found")
    left = _left(batch, ended, total)
    told = ", ".join(parts) + (f", about {left} left" if left else "")
    return f"{told}. {reason}" if (reason := batch.reason) else told


def whys(batch: Batch | RemoteBatch) -> str:
    """Return why the first items failed, as HTML, by the names of their images."""
    failures = batch.failures
    if not failures:
        return ""
    keys = tuple({one["item"] for one in failures[:WHYS]})
    rows = batch.backend.rows(Spec("images", (Q(id__in=keys),), values=("id", "name")))
    names = {row["id"]: row["name"] for row in rows}
    lines = [
        f"<b>{html.escape(names.get(one['item'], one['item']))}</b>: "
        f"{html.escape(str(one.get('message', '')))}"
        for one in failures[:WHYS]
    ]
    if len(failures) > WHYS:
        more = len(failures) - WHYS
        lines.append(f"and {more} more: see <code>batch.failures</code>")
    return "<br>".join(lines)


def _left(batch: Batch | RemoteBatch, ended: int, total: int) -> str:
    if not batch.running or ended < 3 or ended >= total:
        return ""
    seconds = batch.elapsed_s * (total - ended) / ended
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

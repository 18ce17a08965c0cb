"""Nodes that tests steer: what they do lies in a note under the slide's width.

Copied into the home of a site; each run writes one line down.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from theatrum.node import (
    Context,
    Image,
    Marks,
    Measure,
    Numbers,
    Polygon,
    node,
)


@dataclass(frozen=True)
class Width:
    """How wide a slide is."""

    width: Annotated[int, Measure(title="Width", unit="px")]


@dataclass(frozen=True)
class Area:
    """How large the marked regions are."""

    area: Annotated[float, Measure(title="Area", unit="px2", digits=0)]


@dataclass(frozen=True)
class Candidates:
    """Marks for a person to sort."""

    count: Annotated[int, Measure(title="Count")]
    found: Marks


@node(name="probe", version="1.0.0", title="Probe")
def probe(image: Image, *, notes: str, context: Context | None = None) -> Width:
    """Tell the slide's width, after what the note says."""
    _obey(Path(notes), image, context or Context())
    return Width(image.width)


@node(name="region", version="1.0.0", title="Region")
def region(
    image: Image,
    areas: Sequence[Polygon],
    *,
    notes: str,
    context: Context | None = None,
) -> Area:
    """Tell the area of the marked regions, after what the note says."""
    _obey(Path(notes), image, context or Context())
    return Area(sum(one.area_px for one in areas))


@node(name="candidates", version="1.0.0", title="Candidates")
def candidates(
    image: Image, *, notes: str, context: Context | None = None
) -> Candidates:
    """Mark four places, three of them positive."""
    _obey(Path(notes), image, context or Context())
    points = np.array([[10, 10], [40, 20], [70, 30], [90, 50]], np.float64)
    classes = np.array([0, 0, 0, 1], np.int64)
    return Candidates(3, Marks(points, classes, ("Positive", "Negative")))


@candidates.recount
def _count(marks: Marks, numbers: Numbers) -> Numbers:
    """Count the positive ones."""
    return {"count": int((marks.classes == 0).sum())}


@candidates.action("recount", title="Recount", tooltip="Count again")
def _pressed(marks: Marks, numbers: Numbers) -> Numbers:
    return _count(marks, numbers)


def _runs(notes: Path, image: Image) -> list[str]:
    return (notes / f"runs-{image.width}").read_text().splitlines()


def _obey(notes: Path, image: Image, context: Context) -> None:
    pixel = np.asarray(image.region(0, 0, 1, 1))
    with (notes / f"runs-{image.width}").open("a") as runs:
        runs.write(f"{os.getpid()} {pixel.ravel().tolist()}\n")
    note = notes / f"do-{image.width}"
    if not note.exists():
        return
    asked = note.read_text()
    if asked == "raise":
        # In two parts, so that the text is found where it was written down only.
        raise RuntimeError("PHI-" + "MESSAGE of a node")
    if asked == "die":
        os._exit(9)
    if asked == "say":
        # In two parts as well.
        print("PHI-" + "PRINTED")
        print("PHI-" + "PRINTED", file=sys.stderr)
        logging.getLogger("node").warning("PHI-%s", "LOGGED")
        warnings.warn("PHI-" + "WARNED", stacklevel=1)
    if asked == "leave":
        left = subprocess.Popen(["sleep", "600"])
        (notes / f"left-{image.width}").write_text(str(left.pid))
    if asked == "full" and len(_runs(notes, image)) < 2:
        raise OSError(errno.ENOSPC, "no space")
    if asked == "chatter":
        for step in range(500):
            context.progress(step / 500, "working")
            time.sleep(0.005)
    while note.read_text() == "hold":
        context.progress(0.5, "waiting for the test")
        time.sleep(0.02)

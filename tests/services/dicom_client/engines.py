"""Engines as a researcher writes them, good and bad, as the text of one file."""

ENGINES = '''
"""Engines of the tests."""

import os
from typing import Annotated

import numpy as np
from pydantic import Field
from theatrum.node import Context, Labels, Measure, Modality, Volume, node


@node(name="ring", version="1.0.0", title="Ring and core")
def ring(
    volume: Annotated[Volume, Modality("CT")],
    *,
    from_hu: Annotated[float, Field(ge=-2000, le=3000)] = 100.0,
    context: Context | None = None,
) -> Labels:
    """Dense voxels, and what is denser still."""
    print("Andersen^Berit on standard output")
    context = context or Context()
    context.progress(0.5, "half")
    array = (volume.array >= from_hu).astype(np.uint8)
    array[volume.array >= 1000] = 2
    context.progress(1.0, "done")
    return Labels(
        array, {1: "Ring", 2: "Core"}, affine_lps=volume.affine_lps,
        colours={1: "#ff8000"},
    )


@node(version="1.0.0")
def endless(volume: Volume, *, context: Context | None = None) -> Labels:
    context.progress(0.1, "never")
    while True:
        context.check()


@node(version="1.0.0")
def deaf(volume: Volume) -> Labels:
    while True:
        pass


@node(version="1.0.0")
def greedy(volume: Volume) -> Labels:
    kept = [np.ones(1 << 26, np.uint8) for _ in range(1 << 12)]
    return Labels(volume.array > len(kept), {1: "x"}, affine_lps=volume.affine_lps)


@node(version="1.0.0")
def dying(volume: Volume) -> Labels:
    os.kill(os.getpid(), 11)


@node(version="1.0.0")
def failing(volume: Volume) -> Labels:
    raise ValueError("the patient Andersen")


@node(version="1.0.0")
def other_grid(volume: Volume) -> Labels:
    return Labels(
        np.ones((2, 2, 2), np.uint8), {1: "x"}, affine_lps=volume.affine_lps
    )


@node(version="1.0.0")
def no_engine(volume: Volume) -> Annotated[float, Measure(title="x")]:
    return 1.0
'''

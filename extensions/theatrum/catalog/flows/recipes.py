"""Recipes that ship as flows: "brain-slices", from a scan to slices that can be used.

    flow = brain_slices(planes=("ax", "cor"), resample_mm=1.0)
    run_flow(catalog.images.filter(modality="MR"), flow)

Each step is a run of its own: what was done to a slice is in its lineage. A second
order that differs in the rendering alone finds all else in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from theatrum.catalog.flows.builder import Builder, Placed, Source
from theatrum.catalog.flows.graph import Flow

PLANES = ("ax", "cor", "sag")


def brain_slices(
    *,
    planes: Sequence[str] = PLANES,
    central: int = 50,
    to: str = "RAS",
    resample_mm: float | None = None,
    bias: bool = False,
    frame: str = "",
    low: float = 0.5,
    high: float = 99.5,
    convention: str = "radiological",
    store: str = "uint16",
    pictures: bool = True,
    quality: int = 90,
    largest_px: int = 1024,
    review: bool = False,
    allow_shear: bool = False,
    keep: str | Sequence[str] = "all",
) -> Flow:
    """Return the recipe of the catalogue's specification, clause 4.8, as a flow.

    Parameters
    ----------
    planes
        Of ax, cor and sag; each gives a stack of its own.
    central
        Slices in the middle of each plane; 0 takes all.
    to
        Where the axes of the oriented volume lead to: RAS, or LPS.
    resample_mm
        Isotropic spacing in millimetres, linear; None leaves the voxels as they are.
    bias
        Take the coils' bias off by N4.
    frame
        Of a series in time: `mean`, `median`, `max` or `frame` (the first); "" for
        images without time.
    low, high
        Percentiles within the body that become 0 and 1; CT goes through a window.
    store
        uint16 or float16: what the slices are kept as.
    pictures
        Write JPEGs at once; without, they are drawn when somebody asks.
    review
        Let a person look at the slices before pictures are made.
    allow_shear
        Take volumes whose axes are not perpendicular (a gantry's tilt).
    keep
        `outputs` keeps the slices and pictures alone, `all` the steps between as well.
    """
    from theatrum.nodes import catalog as nodes

    flow = Builder("brain-slices", version="1", title="Brain slices", keep=keep)
    volume: Source = flow.input("image")
    if frame:
        volume = flow.add(nodes.pick_time, key="frame", image=volume, how=frame)
    volume = flow.add(nodes.rescale_slope, key="rescale", image=volume)
    shear: dict[str, Any] = {"largest_shear_degrees": 90.0} if allow_shear else {}
    volume = flow.add(nodes.orient, key="orient", image=volume, to=to, **shear)
    if resample_mm is not None:
        volume = flow.add(
            nodes.resample, key="resample", image=volume, spacing_mm=(resample_mm,)
        )
    if bias:
        volume = flow.add(nodes.n4, key="bias", image=volume)
    volume = flow.add(
        nodes.normalise, key="intensity", image=volume, low=low, high=high
    )
    for plane in planes:
        stack: Source = _cut(flow, volume, plane, central, convention)
        kept = flow.add(nodes.quantise, key=f"store-{plane}", image=stack, to=store)
        flow.add(nodes.slice_quality, key=f"quality-{plane}", image=kept)
        flow.add(nodes.thumbnail, key=f"thumbnail-{plane}", image=kept)
        flow.output(plane, kept)
        shown: Source = kept
        if review:
            passed = flow.review(
                key=f"review-{plane}",
                title=f"Are these {plane} slices fit?",
                image=kept,
            )
            shown = passed
        if pictures:
            drawn = flow.add(
                nodes.jpg,
                key=f"jpg-{plane}",
                image=shown,
                quality=quality,
                largest_px=largest_px,
            )
            flow.output(f"{plane}-pictures", drawn)
    return flow.build()


def _cut(
    flow: Builder, volume: Source, plane: str, central: int, convention: str
) -> Placed:
    from theatrum.nodes import catalog as nodes

    how: dict[str, Any] = {"choose": "all"}
    if central:
        how = {"choose": "central", "count": central}
    return flow.add(
        nodes.slices,
        key=plane,
        image=volume,
        plane=plane,
        convention=convention,
        **how,
    )


def bids_app(
    *, suffix: str = "T1w", orient_to: str = "RAS", review: bool = False
) -> Flow:
    """Return the template of a flow that runs a BIDS app on each image.

    Its placeholders are `container` (name@sha256:...), `arguments` and `memory_gb`.

    Parameters
    ----------
    suffix
        What the images are, by BIDS' words: T1w, FLAIR, bold, ...
    orient_to
        Where the axes of what the app gets lead to; "" leaves them as they are.
    review
        Let a person look at each image before the app gets it.
    """
    from theatrum.nodes import catalog as nodes

    flow = Builder("bids-app", version="1", title="BIDS app")
    image: Source = flow.input("image")
    if orient_to:
        image = flow.add(nodes.orient, key="orient", image=image, to=orient_to)
    if review:
        image = flow.review(title="Is this image fit?", image=image)
    app = flow.add(
        nodes.run_bids_app,
        key="app",
        images=image,
        container=flow.parameter("container", title="Image of the app, by its digest"),
        arguments=flow.parameter("arguments", [], "More words for the app"),
        suffixes=(suffix,),
        memory_gb=flow.parameter("memory_gb", 8.0, "Memory in GB"),
    )
    flow.output("images", app.images)
    flow.output("derivatives", app.derivatives)
    return flow.build()


RECIPES = {"brain-slices": brain_slices, "bids-app": bids_app}

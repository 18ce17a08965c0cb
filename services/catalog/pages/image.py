"""The page of one image: its planes, what is known of it, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.lineage import Made, Step, trace
from theatrum.catalog.query.spec import Q, Spec

from hub.signin import Visitor
from services.catalog.api import images, rights
from services.catalog.api.here import Here
from services.catalog.api.wire import OverTheWire
from services.catalog.pages.rendering import length, octets, page

router = APIRouter(include_in_schema=False)

PLANES = (("ax", "Axial"), ("cor", "Coronal"), ("sag", "Sagittal"))
_AXIS = {"ax": "S", "cor": "A", "sag": "R"}
_OPPOSITE = {"R": "R", "L": "R", "A": "A", "P": "A", "S": "S", "I": "S"}


@router.get("/images/{image_id}")
def image_page(
    request: Request, service: Here, visitor: Visitor, image_id: str
) -> Response:
    """One image, where the visitor may see it."""
    backend = rights.Right(visitor, rights.READ).backend(service)
    try:
        row = backend.whole("images", image_id)
    except CatalogError:
        return page(
            service,
            visitor,
            "absent.html",
            status=404,
            detail="There is nothing here, or you may not see it.",
        )
    (shown,) = images.presented(service, backend, [row])
    plane = request.query_params.get("plane", row["plane"] or "ax")
    if plane not in _AXIS:
        plane = "ax"
    depth = _depth(row, plane)
    return page(
        service,
        visitor,
        "image.html",
        image=shown,
        planes=PLANES if row["n_z"] and row["n_z"] > 1 else (),
        plane=plane,
        depth=depth,
        index=min(_number(request, "index", depth // 2), max(depth - 1, 0)),
        slices=f"{service.api}/images/{image_id}/slice.jpg",
        facts=_facts(backend, row),
        tags=_words(backend, image_id, "tag"),
        comments=_words(backend, image_id, "comment"),
        channels=backend.rows(
            Spec("channels", (Q(image_id=image_id),), order=("index",))
        ),
        measurements=backend.rows(
            Spec("measurements", (Q(image_id=image_id),), order=("name",), limit=100)
        ),
        way=[_line(step) for step in trace(backend, "image", image_id).way()],
        lineage=f"{service.api}/images/{image_id}/lineage",
        cell=f'from theatrum import catalog\n\nimage = catalog.images["{image_id}"]\n'
        "image.array",
    )


DEEPEST = 12
"""Steps that are set further in each; what lies further back stands below them."""


def _line(step: Step) -> dict[str, Any]:
    """A line of the way back: what it is, where it leads, who asked for it when."""
    said: dict[str, Any] = {"depth": min(step.depth, DEEPEST), "text": step.text}
    match step.of:
        case Made() as run:
            params = ", ".join(f"{name}={value}" for name, value in run.params.items())
            when = (run.ended_at or run.started_at or "").replace("T", " ")[:16]
            return said | {
                "kind": "run",
                "text": f"{run.node}({params})",
                "more": [
                    f"version {run.version}" if run.version else "",
                    f"for {run.requested_by}",
                    f"{when} UTC" if when else "",
                ],
                "image": "",
            }
        case (kind, key):
            name = step.text.partition(f"{kind.replace('_', ' ')} ")[2] or step.text
            image = key if kind == "image" else ""
            word = kind.replace("_", " ")
            return said | {"kind": word, "text": name, "more": [], "image": image}
    return said | {"kind": "", "more": [], "image": ""}


def _depth(row: RowData, plane: str) -> int:
    """How many planes there are of that kind."""
    sizes = {"x": row["n_x"], "y": row["n_y"], "z": row["n_z"]}
    codes = row["orientation"] or "RAS"
    for dim, code in zip("xyz", codes, strict=False):
        if _OPPOSITE.get(code) == _AXIS[plane]:
            return int(sizes[dim] or 1)
    return int(sizes[{"ax": "z", "cor": "y", "sag": "x"}[plane]] or 1)


def _number(request: Request, name: str, usual: int) -> int:
    said = request.query_params.get(name, "")
    return int(said) if said.isdigit() and len(said) < 7 else usual


def _facts(backend: OverTheWire, row: RowData) -> Sequence[tuple[str, str]]:
    """What people ask first, in words; what is not known is left out."""
    spec = Spec(
        "images",
        (Q(id=row["id"]),),
        values=(
            "project__name",
            "subject__label",
            "subject__diagnosis",
            "sample__name",
            "sample__stain",
            "sample__experiment__name",
            "acquisition__manufacturer",
            "acquisition__model",
            "acquisition__field_strength",
            "acquisition__body_part",
            "acquisition__acquired_at",
        ),
    )
    (around,) = backend.rows(spec)
    steps = [length(row[f"px_{dim}"]) for dim in "xyz" if row[f"px_{dim}"]]
    shape = [
        f"{dim} {size}" for dim, size in zip(row["dims"], row["shape"], strict=False)
    ]
    said: Sequence[tuple[str, Any]] = (
        ("Project", around["project__name"]),
        ("Experiment", around["sample__experiment__name"]),
        ("Subject", around["subject__label"]),
        ("Diagnosis", around["subject__diagnosis"]),
        ("Sample", around["sample__name"]),
        ("Stain", around["sample__stain"]),
        ("Modality", row["modality"]),
        ("Kind", row["kind"]),
        ("Size", ", ".join(shape)),
        ("Values", " ".join(filter(None, (row["dtype"], row["value_unit"])))),
        ("Spacing", " × ".join(steps)),
        ("Orientation", row["orientation"]),
        ("Maker", around["acquisition__manufacturer"]),
        ("Model", around["acquisition__model"]),
        ("Field strength", _unit(around["acquisition__field_strength"], "T")),
        ("Body part", around["acquisition__body_part"]),
        ("Format", row["format"]),
        ("On disk", octets(row["size_bytes"]) if row["size_bytes"] else None),
        ("Registered", f"{row['created_at']:%Y-%m-%d %H:%M} UTC"),
        ("Checksum", row["checksum"]),
    )
    return [(name, str(value)) for name, value in said if value]


def _unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:g} {unit}"


def _words(backend: OverTheWire, image_id: str, kind: str) -> list[RowData]:
    where = Q(target_kind="image", target_id=image_id, kind=kind)
    return backend.rows(Spec("annotations", (where,), limit=200))

"""Six saved queries to begin with: scans without and with a tumour, in three planes.

Healthy volumes are cut anew in each plane (their middle 50); those of patients are
taken as they were acquired, each slice of a series that lies in the plane.
"""

from __future__ import annotations

from typing import Any, Final

from theatrum.catalog.connection import Catalog
from theatrum.catalog.query.spec import Q
from theatrum.catalog.rows import Row

PLANES: Final = {"sag": "sagittal", "cor": "coronal", "ax": "axial"}
_TUMOUR: Final = ("tumour", "tumor", "glioma", "glioblastoma", "metasta", "meningioma")


def with_tumour() -> Q:
    """Scans of subjects whose diagnosis names one."""
    found = Q(subject__diagnosis__icontains=_TUMOUR[0])
    for word in _TUMOUR[1:]:
        found = found | Q(subject__diagnosis__icontains=word)
    return found


def keep_examples(catalog: Catalog, project: str) -> list[Row]:
    """Keep those of the six that the project does not have yet; the new ones."""
    known = {row.slug for row in catalog.saved_queries.filter(project=project)}
    scans = catalog.images.filter(
        project=project, modality="MR", kind__in=["original", "initial"]
    )
    kept = []
    for plane, name in PLANES.items():
        slices: dict[str, Any] = {
            "what": {"title": "What is downloaded", "default": "slices"},
            "planes": {"title": "Plane", "default": plane},
        }
        middle = {"central": {"title": "Slices around the middle", "default": 50}}
        six = {
            f"notumor_{plane}": (
                f"Healthy, {name}", scans.exclude(with_tumour()), slices | middle,
            ),
            f"tumor_{plane}": (
                f"With tumour, {name}",
                scans.filter(with_tumour(), plane=plane),
                slices,
            ),
        }  # fmt: skip
        kept += [
            catalog.keep_query(
                query, slug, project=project, title=title, parameters=parameters
            )
            for slug, (title, query, parameters) in six.items()
            if slug not in known
        ]
    return kept

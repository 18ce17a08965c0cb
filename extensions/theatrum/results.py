"""What an analysis found on an image of the catalogue, as a small value.

result = images["cases/case"].results[0]
result.numbers["index"]
SlideViewer(images["cases/case"], marks=result.marks)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class AnalysisResult:
    """A result with what it came from.

    Attributes
    ----------
    run
        The id of the run that found it.
    node, node_version, node_digest
        The analysis: its name, its version, and the digest of its code.
    numbers
        By name, in the units that the node's documentation says.
    marks
        GeoJSON FeatureCollection in level-0 pixels, as `SlideViewer` takes it.
    created
        The day on which it was found.
    """

    run: str
    title: str
    app: str
    node: str
    node_version: str
    node_digest: str = field(repr=False)
    numbers: Mapping[str, float]
    marks: Mapping[str, Any] = field(repr=False)
    created: datetime


def result_from_json(told: Mapping[str, Any]) -> AnalysisResult:
    """A result as the catalogue's route tells it."""
    node = told["node"]
    return AnalysisResult(
        run=told["run"],
        title=told["title"],
        app=told["app"],
        node=node["name"],
        node_version=node["version"],
        node_digest=node["digest"],
        numbers=told["numbers"],
        marks=told["marks"],
        created=datetime.fromisoformat(told["created"]),
    )

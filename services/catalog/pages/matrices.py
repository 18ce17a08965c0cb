"""What the page of a batch tells of its items: whose they are, what was made, why not.

An item is an image, or stands for all images of a subject, a sample, ...: whatever they
were put together by. A result that was found in the cache is that of an earlier run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session
from theatrum.catalog.tables import (
    Acquisition,
    Experiment,
    Image,
    Run,
    RunOutput,
    Sample,
    Subject,
    Visit,
)

from services.catalog.api.here import Service

LOOKED: Final = 5000
"""Failed runs whose reasons are counted."""
SHOWN: Final = 5
"""Reasons that are shown, the most frequent first."""
_GROUPS: Final = {
    "subject": (Subject.id, Subject.label),
    "visit": (Visit.id, Visit.label),
    "sample": (Sample.id, Sample.name),
    "experiment": (Experiment.id, Experiment.name),
    "acquisition": (Acquisition.id, Acquisition.description),
}


# Any: an item of the matrix, JSON
def told(service: Service, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items by their subjects and names; each cell with the images that it made."""
    keys = [item["item"] for item in items]
    runs = [cell["run"] for item in items for cell in item["steps"].values()]
    with service.database.reading() as session:
        query = (
            select(Image.id, Image.name, Subject.label)
            .outerjoin(Subject, Subject.id == Image.subject_id)
            .where(Image.id.in_(keys))
        )
        images = {row.id: (row.name, row.label or "") for row in session.execute(query)}
        others = _others(session, [key for key in keys if key not in images])
        made = _made(session, runs)
    named = [
        item
        | {
            "name": images.get(item["item"], ("", ""))[0],
            "subject": images.get(item["item"], ("", ""))[1],
            "other": others.get(item["item"], ""),
            "is_stopped": any(
                cell["state"] in ("failed", "cancelled")
                for cell in item["steps"].values()
            ),
            "steps": {
                step: cell | {"made": made.get(cell["run"], [])}
                for step, cell in item["steps"].items()
            },
        }
        for item in items
    ]
    return sorted(named, key=lambda item: (item["subject"], item["name"]))


def whys(service: Service, batch_id: str) -> list[tuple[str, str, int]]:
    """The most frequent reasons of failures: the step, the words, how many."""
    query = (
        select(Run.node_key, Run.error)
        .where(Run.batch_id == batch_id, Run.state == "failed")
        .limit(LOOKED)
    )
    with service.database.reading() as session:
        counted = Counter(
            (place.partition("#")[0], str((error or {}).get("message", "")))
            for place, error in session.execute(query)
        )
    return [(step, why, count) for (step, why), count in counted.most_common(SHOWN)]


def _others(session: Session, keys: Sequence[str]) -> dict[str, str]:
    """What an item stands for that is no image, in words."""
    found: dict[str, str] = {}
    for word, (key, name) in _GROUPS.items():
        if len(found) == len(keys):
            break
        query = select(key, name).where(key.in_(keys))
        found |= {
            row[0]: f"{word} {row[1] or row[0]}" for row in session.execute(query)
        }
    return found


def _made(session: Session, runs: Sequence[str]) -> Mapping[str, list[str]]:
    """The images that each run made, or found to be made already."""
    metrics = select(Run.id, Run.metrics).where(Run.id.in_(runs))
    origin = {
        row.id: str((row.metrics or {}).get("cached_from") or row.id)
        for row in session.execute(metrics)
    }
    query = select(RunOutput.run_id, RunOutput.object_id).where(
        RunOutput.run_id.in_(set(origin.values())), RunOutput.object_kind == "image"
    )
    outputs: dict[str, list[str]] = {}
    for run, image in session.execute(query):
        outputs.setdefault(run, []).append(image)
    return {run: outputs.get(source, []) for run, source in origin.items()}

"""What an item is beyond its pixels: whose, of which sample, in which experiment.

The names are those of queries: `subject__label`, `visit__label`, `sample__name`,
`sample__stain`, `experiment__name`, `group__name`, `modality`, `image__name`, ... A
rule says them; else BIDS names in the path and the pseudonym of a DICOM patient do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from theatrum.catalog.ingest.errors import BadRule
from theatrum.catalog.record import Book
from theatrum.catalog.tables import (
    CohortGroup,
    Experiment,
    Project,
    Sample,
    Subject,
    Visit,
)

Fields = Mapping[str, Any]
COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    "subject": frozenset({"label", "species", "sex", "birth_year", "diagnosis"}),
    "visit": frozenset({"label", "days_from_baseline"}),
    "sample": frozenset({"name", "kind", "stain", "marker"}),
    "experiment": frozenset({"name", "description"}),
    "group": frozenset({"name", "is_control"}),
    "image": frozenset({"name", "title", "kind"}),
}
PLAIN: Final = frozenset({"modality", "body_part", "laterality"})
_BIDS: Final = re.compile(r"(?:^|[/_])(sub|ses)-([A-Za-z0-9]+)(?=[/_.]|$)")
_SUFFIX: Final = re.compile(r"_([A-Za-z0-9]+)\.nii(?:\.gz)?$")
_MR: Final = frozenset(
    {
        *("T1w", "T2w", "FLAIR", "PDw", "T2star", "T2starw", "bold", "dwi", "sbref"),
        *("epi", "asl", "m0scan", "inplaneT1", "inplaneT2", "UNIT1", "angio"),
        *("MP2RAGE", "phasediff", "magnitude1", "magnitude2"),
    }
)

_USUAL: Final = re.compile(
    r"(?:^|[_.\- ])(t1w?|t2w?|t2star|flair|pdw?|mp2?rage|bold|dwi|dti|swi|asl|anat|mri)"
    r"(?:[_.\- ].*)?\.nii(?:\.gz)?$",
    re.IGNORECASE,
)
"""Words by which people call files of MR scans that lie in no data set of BIDS."""


def require_known(names: Mapping[str, Any] | set[str]) -> None:
    """Raise BadRule for a name that is none of the catalogue's."""
    for name in names:
        table, _, column = name.partition("__")
        if name in PLAIN or column in COLUMNS.get(table, ()):
            continue
        known = sorted(
            {*PLAIN, *(f"{t}__{c}" for t, columns in COLUMNS.items() for c in columns)}
        )
        raise BadRule(f"{name} is no field: use {', '.join(known)}.")


def of_name(name: str) -> dict[str, Any]:
    """What a path in the style of BIDS says; {} for others."""
    found: dict[str, Any] = {}
    for entity, value in _BIDS.findall(name):
        found["subject__label" if entity == "sub" else "visit__label"] = value
    suffix = _SUFFIX.search(name)
    if suffix is not None and "subject__label" in found:
        if suffix[1] in _MR:
            found["modality"] = "MR"
        elif suffix[1] == "pet":
            found["modality"] = "PT"
    return found


def guess_modality(scenes: Sequence[dict[str, Any]], name: str, said: Fields) -> None:
    """Put down what the usual word in a NIfTI file's name suggests, and warn of it.

    NIfTI does not know how it was acquired. What a sidecar, a rule or somebody says
    (`said`) goes before.
    """
    if "modality" in said or not _USUAL.search(name):
        return
    for scene in scenes:
        if scene["image"]["modality"] in ("", "OT", None):
            scene["image"]["modality"] = scene["acquisition"]["modality"] = "MR"
            scene["warnings"].append(
                "the file does not say its modality: MR is guessed from its name; say "
                "--modality where it is another"
            )


class Belonging:
    """The rows that an item's fields lead to, made where missing."""

    def __init__(self, book: Book, project: Project, fields: Fields) -> None:
        self.experiment: Experiment | None = None
        self.group: CohortGroup | None = None
        self.subject: Subject | None = None
        self.visit: Visit | None = None
        self.sample: Sample | None = None
        told = {
            table: {
                name.partition("__")[2]: value
                for name, value in fields.items()
                if name.partition("__")[0] == table and value not in (None, "")
            }
            for table in COLUMNS
        }
        if name := told["experiment"].pop("name", None):
            self.experiment = book.experiment(project, str(name), **told["experiment"])
        above: dict[str, Any] = {}
        if self.experiment is not None:
            above["experiment_id"] = self.experiment.id
        if name := told["group"].pop("name", None):
            self.group = book.group(
                project, str(name), self.experiment, **told["group"]
            )
            above["group_id"] = self.group.id
        if label := told["subject"].pop("label", None):
            self.subject = book.subject(project, str(label), **above, **told["subject"])
            above["subject_id"] = self.subject.id
            if visit := told["visit"].pop("label", None):
                self.visit = book.visit(self.subject, str(visit), **told["visit"])
                above["visit_id"] = self.visit.id
        if name := told["sample"].pop("name", None):
            self.sample = book.sample(project, str(name), **above, **told["sample"])
        self.image = told["image"]

    @property
    def keys(self) -> dict[str, str]:
        """The ids, as columns of an acquisition."""
        rows = {
            "subject_id": self.subject,
            "visit_id": self.visit,
            "sample_id": self.sample,
            "experiment_id": self.experiment,
        }
        return {name: row.id for name, row in rows.items() if row is not None}

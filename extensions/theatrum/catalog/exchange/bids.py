"""Scans as a BIDS data set (1.9.0): names, sidecars, participants.

    dataset_description.json, participants.tsv, participants.json, README
    sub-01/[ses-2/]anat/sub-01_[ses-2_]T1w.nii.gz   and the .json beside it
    sourcedata/...                                  what no suffix of BIDS fits

Which suffix a scan has follows from its name, description and protocol. What is not
told there is never guessed: such scans lie in `sourcedata`, which BIDS leaves free, and
the README lists them, as do those whose suffix demands more than is known here. The
participants are those who have a folder; scans of nobody are those of `sub-unknown`.
NIfTI originals are sent as they are, anything else is written as NIfTI when it is sent.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadRecord
from theatrum.catalog.exchange.zips import STEP, Member, of_bytes, of_file
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.spec import Q, Spec

BIDS_VERSION: Final = "1.9.0"
_SUFFIXES: Final = (
    # What the words of a scan say; the first that fits. BIDS wants more of diffusion
    # (directions) than is kept here, so that it is not among them.
    (re.compile(r"\bflair\b|dark.?fluid|\btirm\b"), "anat", "FLAIR"),
    (re.compile(r"\bt1|mp.?rage|\bspgr\b|\btfl\b"), "anat", "T1w"),
    (re.compile(r"\bt2.?star|\bt2\*|\bswi\b"), "anat", "T2starw"),
    (re.compile(r"\bt2"), "anat", "T2w"),
    (re.compile(r"\bpd\b|proton.?density"), "anat", "PDw"),
)
_SECONDS: Final[Mapping[str, str]] = {
    "echo_time_ms": "EchoTime",
    "repetition_time_ms": "RepetitionTime",
    "inversion_time_ms": "InversionTime",
}
_PLAIN: Final[Mapping[str, str]] = {
    "flip_angle_deg": "FlipAngle",
    "slice_thickness_mm": "SliceThickness",
    "slice_step_mm": "SpacingBetweenSlices",
    "phase_encoding": "PhaseEncodingDirection",
    "slice_timing_s": "SliceTiming",
    "sequence": "ScanningSequence",
    "sequence_name": "SequenceName",
    "acquisition_type": "MRAcquisitionType",
    "total_readout_time_s": "TotalReadoutTime",
    "effective_echo_spacing_s": "EffectiveEchoSpacing",
}
_DIRECTION: Final = re.compile(r"[ijk]-?")
UNKNOWN: Final = "unknown"
"""The participant of scans that are nobody's."""
_ABOUT_PEOPLE: Final[Mapping[str, Mapping[str, Any]]] = {
    "species": {"Description": "Species, in Latin or in English"},
    "sex": {
        "Description": "Sex",
        "Levels": {"F": "female", "M": "male", "O": "other"},
    },
    "diagnosis": {"Description": "Diagnosis, as the catalogue has it"},
}
_NOT_IN_LABEL: Final = re.compile(r"[^A-Za-z0-9]+")
_ROWS: Final = {
    "subject_id": "subjects",
    "acquisition_id": "acquisitions",
    "project_id": "projects",
}


def members(backend: LocalBackend, spec: Spec) -> list[Member]:
    """A data set of the scans that a question finds."""
    if spec.of != "images":
        raise BadRecord(f"what is exported are images, not {spec.of}")
    images = LocalBackend.rows(
        backend, Spec(spec.of, spec.where, spec.order, spec.offset, spec.limit)
    )
    known = {
        column: _by_id(backend, resource, {row[column] for row in images})
        for column, resource in _ROWS.items()
    }
    visits = {row["visit_id"] for row in known["acquisition_id"].values()}
    known["visit_id"] = _by_id(backend, "visits", visits)
    labels = _labels(known["subject_id"])
    listed: list[Member] = []
    aside: list[str] = []
    missing: list[str] = []
    taken: set[str] = set()
    present: set[str] = set()
    for row in images:
        project = known["project_id"][row["project_id"]]["name"]
        if not _can_be_nifti(row):
            missing.append(f"{project}/{row['name']}")
            continue
        acquisition = known["acquisition_id"].get(row["acquisition_id"], {})
        subject = labels.get(row["subject_id"], UNKNOWN)
        visit = known["visit_id"].get(acquisition.get("visit_id"))
        stem, is_aside = _stem(row, acquisition, subject, visit, taken)
        taken.add(stem)
        if is_aside:
            aside.append(stem)
        else:
            present.add(subject)
        listed.append(_nifti(backend, stem, row))
        sidecar = json.dumps(_sidecar(acquisition, row), indent=1, sort_keys=True)
        listed.append(of_bytes(f"{stem}.json", sidecar.encode()))
    about = {
        "dataset_description.json": _description([*known["project_id"].values()]),
        "participants.tsv": _participants(known["subject_id"], labels, present),
        "participants.json": json.dumps(_ABOUT_PEOPLE, indent=1),
        "README": _readme(len(listed) // 2, aside, missing),
    }
    return [
        *(of_bytes(name, text.encode()) for name, text in about.items()),
        *sorted(listed, key=lambda one: one.name),
    ]


def _can_be_nifti(row: RowData) -> bool:
    """Whether an image is there, and NIfTI has axes for it."""
    return Path(row["path"]).exists() and "c" not in (row["dims"] or [])


def _stem(
    row: RowData,
    acquisition: Mapping[str, Any],
    subject: str,
    visit: RowData | None,
    taken: set[str],
) -> tuple[str, bool]:
    """What a scan is called, without an ending; whether no suffix fits it."""
    entities = [f"sub-{subject}"]
    folder = f"sub-{subject}"
    if visit is not None:
        label = _label(visit["label"]) or "1"
        entities.append(f"ses-{label}")
        folder = f"{folder}/ses-{label}"
    kind, suffix, more = _classified(row, acquisition)
    if not suffix:
        stem = f"sourcedata/{folder}/{row['name']}"
        return _free(lambda n: stem if n == 1 else f"{stem}-{n}", taken), True

    def numbered(number: int) -> str:
        run = [] if number == 1 else [f"run-{number}"]
        name = "_".join([*entities, *more, *run, suffix])
        return f"{folder}/{kind}/{name}"

    return _free(numbered, taken), False


def _free(name: Callable[[int], str], taken: set[str]) -> str:
    number = 1
    while name(number) in taken:
        number += 1
    return name(number)


def _classified(
    row: RowData, acquisition: Mapping[str, Any]
) -> tuple[str, str, list[str]]:
    """Folder, suffix and further entities; an empty suffix where none fits."""
    modality = row["modality"] or acquisition.get("modality")
    protocol = acquisition.get("protocol") or {}
    if row["kind"] not in ("original", "initial"):
        return "", "", []
    if modality != "MR":
        return "", "", []  # BIDS wants more of PET (tracer, dose) than is kept here
    said = " ".join(
        str(one or "")
        for one in (
            acquisition.get("description"), protocol.get("protocol"), row["title"],
            row["name"],
        )
    ).lower()  # fmt: skip
    said = said.replace("_", " ").replace("-", " ")
    if (row["n_t"] or 1) > 1:
        task = _label(protocol.get("task") or "")
        # BIDS demands both of them.
        if not task or not _repetition_s(protocol, row):
            return "", "", []
        return "func", "bold", [f"task-{task}"]
    for pattern, folder, suffix in _SUFFIXES:
        if pattern.search(said):
            return folder, suffix, []
    return "", "", []


def _nifti(backend: LocalBackend, stem: str, row: RowData) -> Member:
    path = Path(row["path"])
    for ending in (".nii.gz", ".nii"):
        if path.name.endswith(ending) and path.is_file():
            return of_file(stem + ending, path)

    def blocks(begin: int) -> Iterator[bytes]:
        import nibabel

        from theatrum.nodes.catalog.nifti import nifti_image

        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, "made.nii.gz")
            nibabel.save(nifti_image(LocalBackend.array(backend, row, 0)), made)
            with made.open("rb") as file:
                file.seek(begin)
                while block := file.read(STEP):
                    yield block

    return Member(f"{stem}.nii.gz", None, blocks)


def _repetition_s(protocol: Mapping[str, Any], row: RowData) -> float | None:
    """The time between volumes as NIfTI's header says it, for these have to agree;
    None where two sources contradict each other."""
    told = protocol.get("repetition_time_ms")
    step = row["px_t"]
    if not isinstance(told, int | float) or isinstance(told, bool) or told <= 0:
        return float(step) if step else None
    if step and abs(step - told / 1000) > 1e-3 * step:
        return None
    return round(told / 1000, 9)


def _sidecar(acquisition: Mapping[str, Any], row: RowData) -> dict[str, Any]:
    protocol = acquisition.get("protocol") or {}
    said: dict[str, Any] = {
        "Modality": acquisition.get("modality"),
        "Manufacturer": acquisition.get("manufacturer"),
        "ManufacturersModelName": acquisition.get("model"),
        "MagneticFieldStrength": acquisition.get("field_strength"),
        "BodyPartExamined": acquisition.get("body_part"),
        "TaskName": protocol.get("task"),
    }
    for ours, name in _SECONDS.items():
        value = protocol.get(ours)
        if isinstance(value, int | float):
            said[name] = round(value / 1000, 9)
    for ours, name in _PLAIN.items():
        said[name] = protocol.get(ours)
    if (row["n_t"] or 1) > 1:
        said["RepetitionTime"] = _repetition_s(protocol, row)
    if not _fits(said.get("SliceTiming"), row["n_z"], said.get("RepetitionTime")):
        said.pop("SliceTiming", None)
    if not _DIRECTION.fullmatch(str(said.get("PhaseEncodingDirection"))):
        said.pop("PhaseEncodingDirection", None)
    if said.get("MRAcquisitionType") not in ("1D", "2D", "3D"):
        said.pop("MRAcquisitionType", None)
    return {name: value for name, value in said.items() if value not in (None, "")}


def _fits(timing: Any, slices: int | None, repetition_s: float | None) -> bool:
    """Whether there is a time for each slice, none after the next volume begins."""
    return (
        isinstance(timing, list)
        and len(timing) == slices
        and all(isinstance(one, int | float) and one >= 0 for one in timing)
        and (repetition_s is None or max(timing) <= repetition_s)
    )


def _labels(subjects: Mapping[str, RowData]) -> dict[str, str]:
    """Labels as BIDS allows them, letters and digits, no two alike."""
    labels: dict[str, str] = {}
    taken: set[str] = {UNKNOWN}
    for key, row in sorted(subjects.items(), key=lambda one: str(one[1]["label"])):
        label = _label(str(row["label"]).removeprefix("sub-")) or "x"
        number, free = 2, label
        while free.casefold() in taken:
            free, number = f"{label}n{number}", number + 1
        taken.add(free.casefold())
        labels[key] = free
    return labels


def _label(said: object) -> str:
    return _NOT_IN_LABEL.sub("", str(said))


def _participants(
    subjects: Mapping[str, RowData], labels: Mapping[str, str], present: set[str]
) -> str:
    """A row for each folder, and none for whom there is no folder."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(["participant_id", *_ABOUT_PEOPLE])
    rows = {label: subjects[key] for key, label in labels.items()}
    for label in sorted(present):
        row = rows.get(label, {})
        told = {name: row.get(name) or "n/a" for name in _ABOUT_PEOPLE}
        told["sex"] = told["sex"] if told["sex"] in ("F", "M", "O") else "n/a"
        plain = (" ".join(str(one).split()) or "n/a" for one in told.values())
        writer.writerow([f"sub-{label}", *plain])
    return out.getvalue()


def _description(projects: list[RowData]) -> str:
    said: dict[str, Any] = {
        "Name": ", ".join(sorted(row["title"] or row["name"] for row in projects))
        or "images",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "Theatrum"}],
    }
    licences = sorted({row["licence"] for row in projects if row["licence"]})
    if licences:
        said["License"] = ", ".join(licences)
    dois = sorted({row["doi"] for row in projects if row["doi"]})
    if dois:
        said["DatasetDOI"] = dois[0] if ":" in dois[0] else f"doi:{dois[0]}"
    return json.dumps(said, indent=1)


def _readme(count: int, aside: list[str], missing: list[str]) -> str:
    text = f"{count} scans, exported from a catalogue of Theatrum.\n"
    if aside:
        text += "\nNo suffix of BIDS fits these; they lie in sourcedata:\n"
        text += "".join(f"- {one}\n" for one in sorted(aside))
    if missing:
        text += "\nNot exported, for NIfTI cannot hold them or their file is gone:\n"
        text += "".join(f"- {one}\n" for one in sorted(missing))
    return text


def _by_id(backend: LocalBackend, resource: str, keys: set[Any]) -> dict[Any, RowData]:
    wanted = sorted((one for one in keys if one is not None), key=str)
    found: dict[Any, RowData] = {}
    for begin in range(0, len(wanted), 400):
        spec = Spec(resource, (Q(id__in=tuple(wanted[begin : begin + 400])),))
        found |= {row["id"]: row for row in LocalBackend.rows(backend, spec)}
    return found

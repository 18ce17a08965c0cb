"""Series taken from a DICOMweb server: found by QIDO-RS, fetched by WADO-RS.

What is here already is not fetched again, so that a retrieval that was cut off goes on
where it ended, and one that is repeated costs a look. A server's word is not taken for
what it sends: every object must name the study and the series that were asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.dicom_client.arrivals import Arrival
from services.dicom_client.dicomweb import (
    COUNT,
    INSTANCE,
    MODALITY,
    SERIES,
    STUDY,
    DicomWeb,
)
from services.dicom_client.dicomweb import value as json_value
from services.dicom_client.headers import Header, Unreadable, is_uid
from services.dicom_client.staging import Different, Staging


@dataclass(frozen=True)
class RemoteSeries:
    """A series that the server has."""

    study: str
    series: str
    modality: str
    instances: int | None
    """How many the server says there are."""


@dataclass(frozen=True)
class Fetched:
    """What a retrieval gave."""

    arrivals: list[Arrival] = field(default_factory=list)
    """All instances of the series that are here now, old and new."""
    new: int = 0
    missing: int = 0
    """Instances that the server lists and did not give."""
    refused: int = 0
    """Objects that were none, or of another series."""

    @property
    def complete(self) -> bool:
        """Whether everything that the server lists is here."""
        return bool(self.arrivals) and not self.missing


def find_series(
    web: DicomWeb, filters: Mapping[str, str], modalities: tuple[str, ...] = ()
) -> Iterator[RemoteSeries]:
    """Series that match, each once.

    Parameters
    ----------
    filters
        QIDO attributes by keyword or tag, such as `StudyDate: 20240101-`.
    modalities
        One query each; none asks for all.
    """
    seen: set[str] = set()
    for modality in modalities or ("",):
        query = {**filters, "includefield": COUNT}
        if modality:
            query["Modality"] = modality
        for one in web.search("series", query):
            study, series = json_value(one, STUDY), json_value(one, SERIES)
            if not (is_uid(study) and is_uid(series)) or series in seen:
                continue
            # Some servers ignore attributes that they do not know.
            kind = json_value(one, MODALITY)
            if modality and kind != modality:
                continue
            seen.add(series)
            count = json_value(one, COUNT)
            yield RemoteSeries(
                study, series, kind, int(count) if count.isdigit() else None
            )


def fetch(web: DicomWeb, remote: RemoteSeries, staging: Staging) -> Fetched:
    """Bring a series here, as far as it is not here yet.

    Raises
    ------
    PeerError
        The server cannot be reached or gives no sense; what came stays.
    staging.Full
        There is no room.
    OSError
        It cannot be written.
    """
    where = f"studies/{remote.study}/series/{remote.series}"
    listed = [json_value(one, INSTANCE) for one in web.search(f"{where}/instances", {})]
    wanted = {uid for uid in listed if is_uid(uid)}
    here = _here(remote, staging, wanted)
    refused = 0
    before = len(here)
    paths = _ways(where, sorted(wanted - here.keys()), whole=not here)
    for path, only in paths:
        if only is not None and only in here:
            continue
        for content in web.fetch(path):
            try:
                staging.room_for(0)
                arrival = staging.keep(content, _expected(remote, only or ""))
            except (Unreadable, Different):
                refused += 1
                continue
            here[arrival.header.sop_instance] = arrival
    return Fetched(
        arrivals=[here[uid] for uid in sorted(here)],
        new=len(here) - before,
        missing=len(wanted - here.keys()),
        refused=refused,
    )


def _ways(
    where: str, missing: list[str], *, whole: bool
) -> Iterator[tuple[str, str | None]]:
    """The series in one answer where nothing is here, then what is still missing."""
    if whole and missing:
        yield where, None
    for uid in missing:
        yield f"{where}/instances/{uid}", uid


def _here(
    remote: RemoteSeries, staging: Staging, wanted: set[str]
) -> dict[str, Arrival]:
    return {
        arrival.header.sop_instance: arrival
        for arrival in staging.of_series(remote.series)
        if arrival.header.sop_instance in wanted
    }


def _expected(remote: RemoteSeries, instance: str) -> Header:
    return Header(
        sop_class="",
        sop_instance=instance,
        study=remote.study,
        series=remote.series,
        modality="",
        expected=None,
    )

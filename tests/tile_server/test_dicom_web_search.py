"""Searching by DICOMweb (QIDO-RS): what matches, what is told, how much of it."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

from tests.dicom_slides import DicomSpec, write_dicom_slide
from tests.tile_server.dicom_web_service import (
    INSTANCE,
    SERIES,
    STUDY,
    Service,
    place_of,
    services,
)
from tile_server.errors import BadRequest
from tile_server.protocols.dicom_web_query import parse, wildcard


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    yield from services(lane=False)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM slide of two levels in two files each; nobody may change it."""
    folder = tmp_path_factory.mktemp("slide")
    return write_dicom_slide(folder, DicomSpec(parts=2), label=False)


def found(service: Service, slide: Path, rest: str) -> list[dict[str, Any]]:
    answer = service.get(service.address(slide) + rest)
    assert answer.status_code in (200, 204), answer.text
    if answer.status_code == 204:
        assert answer.content == b""
        return []
    assert answer.headers["Content-Type"] == "application/dicom+json"
    listed: list[dict[str, Any]] = answer.json()
    return listed


def key(keyword: str) -> str:
    return f"{tag_for_keyword(keyword):08X}"


@pytest.fixture(scope="module")
def places(service: Service, slide: Path) -> list[tuple[str, str, str]]:
    return [place_of(one) for one in found(service, slide, "/instances")]


def test_a_slide_is_one_study_of_one_series(
    service: Service, slide: Path, places: list[tuple[str, str, str]]
) -> None:
    (study,) = found(service, slide, "/studies")
    (series,) = found(service, slide, "/series")
    assert study[STUDY]["Value"] == [places[0][0]]
    assert study[key("NumberOfStudyRelatedInstances")]["Value"] == [4]
    assert study[key("NumberOfStudyRelatedSeries")]["Value"] == [1]
    assert study[key("ModalitiesInStudy")]["Value"] == ["SM"]
    assert study[key("RetrieveURL")]["Value"][0].endswith(f"/studies/{places[0][0]}")
    assert series[SERIES]["Value"] == [places[0][1]]
    assert series[STUDY]["Value"] == [places[0][0]]
    assert series[key("NumberOfSeriesRelatedInstances")]["Value"] == [4]
    assert len(set(places)) == 4


def test_every_level_of_the_path_finds_the_same(
    service: Service, slide: Path, places: list[tuple[str, str, str]]
) -> None:
    study, series, _ = places[0]
    everything = found(service, slide, "/instances")
    assert found(service, slide, f"/studies/{study}/instances") == everything
    within = f"/studies/{study}/series/{series}/instances"
    assert found(service, slide, within) == everything
    assert found(service, slide, f"/studies/{study}/series") == found(
        service, slide, "/series"
    )
    for rest in ("/studies/1.2/instances", f"/studies/{study}/series/1.2/instances"):
        assert found(service, slide, rest) == []


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 4),
        ("Modality=SM", 4),
        ("00080060=SM", 4),
        ("Modality=S*", 4),
        ("Modality=?M", 4),
        ("Modality=*", 4),
        ("Modality=", 4),
        ("Modality=CT", 0),
        ("Modality=sm", 0),
        ("SOPClassUID=1.2.840.10008.5.1.4.1.1.77.1.6", 4),
        ("SOPClassUID=1.2.3,1.2.840.10008.5.1.4.1.1.77.1.6", 4),
        ("SOPClassUID=1.2.840.*", 0),
        ("TotalPixelMatrixColumns=700", 2),
        ("TotalPixelMatrixColumns=700&Rows=64", 2),
        ("TotalPixelMatrixColumns=700&Rows=65", 0),
        ("ImageType=VOLUME", 4),
        ("ImageType=LABEL", 0),
        ("OpticalPathSequence.OpticalPathDescription=dye*", 4),
        ("00480105.00480106=path 1", 0),
        ("PatientName=Nobody*", 0),
        ("PatientID=*", 4),
        ("ContentDate=18991231-19000102", 4),
        ("ContentDate=-19000102", 4),
        ("ContentDate=19000102-", 0),
        ("StudyDate=20200101", 0),
        ("limit=3", 3),
        ("limit=3&offset=2", 2),
        ("offset=4", 0),
        ("limit=0", 0),
        ("fuzzymatching=false", 4),
    ],
)
def test_a_query_finds_what_matches(
    service: Service, slide: Path, query: str, count: int
) -> None:
    assert len(found(service, slide, f"/instances?{query}")) == count


def test_lists_of_identifiers_match_any_of_them(
    service: Service, slide: Path, places: list[tuple[str, str, str]]
) -> None:
    one, two = places[0][2], places[2][2]
    for query in (
        f"SOPInstanceUID={one},{two}",
        f"SOPInstanceUID={one}%5C{two}",
        f"SOPInstanceUID={one}&SOPInstanceUID={two}",
        f"{INSTANCE}={one},{two},1.2.3",
    ):
        listed = found(service, slide, f"/instances?{query}")
        assert [place_of(each)[2] for each in listed] == [one, two]
    # A study or a series is found by what one of its instances has.
    assert len(found(service, slide, f"/studies?SOPInstanceUID={one}")) == 1
    assert found(service, slide, "/series?SOPInstanceUID=1.2.3") == []


def test_more_attributes_are_told_where_they_are_asked_for(
    service: Service, slide: Path
) -> None:
    wanted = key("TotalPixelMatrixRows")
    (first, *_) = found(service, slide, "/instances")
    assert wanted not in first
    for query in (
        "includefield=TotalPixelMatrixRows,OpticalPathSequence",
        f"includefield={wanted}&includefield=00480105",
        "includefield=all",
        "TotalPixelMatrixRows=500&OpticalPathSequence=",
    ):
        (first, *_) = found(service, slide, f"/instances?{query}")
        assert first[wanted]["Value"] == [500]
        assert key("OpticalPathSequence") in first


def test_long_values_of_any_result_are_found_at_their_address(
    service: Service, tmp_path: Path
) -> None:
    profile = bytes(36) + b"acsp" + bytes(range(250)) * 40
    path = write_dicom_slide(tmp_path, DicomSpec(profile=profile), label=False)
    for level in ("studies", "series", "instances"):
        (first, *_) = found(service, path, f"/{level}?includefield=all")
        told = first[key("OpticalPathSequence")]["Value"][0][key("ICCProfile")]
        assert service.get(told["BulkDataURI"]).status_code == 200


def test_matching_by_sound_is_refused_in_a_warning(
    service: Service, slide: Path
) -> None:
    answer = service.get(f"{service.address(slide)}/studies?fuzzymatching=true")
    assert answer.status_code == 200
    assert "Only literal matching" in answer.headers["Warning"]


@pytest.mark.parametrize(
    "query",
    [
        "NoSuchThing=1",
        "0008006=SM",
        "GGGGGGGG=1",
        "limit=-1",
        "offset=x",
        "limit=" + "9" * 30,
        "fuzzymatching=perhaps",
        "includefield=NoSuchThing",
        "Modality=" + "x" * 2000,
        ".".join(["OpticalPathSequence"] * 9) + "=1",
    ],
)
def test_a_query_without_sense_is_400(
    service: Service, slide: Path, query: str
) -> None:
    answer = service.get(f"{service.address(slide)}/instances?{query}")
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:theatrum:tiles:bad-request"


def test_dicomweb_client_pages_through_results(service: Service, slide: Path) -> None:
    client = service.client(slide)
    everything = client.search_for_instances(limit=3, get_remaining=True)
    assert len(everything) == 4


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_wildcards_match_as_in_file_names(pattern: str, text: str) -> None:
    assert wildcard(pattern, text) == fnmatchcase(text, pattern)


def test_many_stars_take_no_time() -> None:
    assert not wildcard("*a" * 500 + "b", "a" * 1000)


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=4))
def test_any_query_is_understood_or_refused(arguments: list[tuple[str, str]]) -> None:
    try:
        query = parse(arguments)
    except BadRequest:
        return
    assert query.limit >= 0
    assert query.offset >= 0

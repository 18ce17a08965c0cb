"""Any request to the DICOMweb routes is answered, and never by a 500.

A few hundred requests always; a hundred thousand with `--fuzz`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dicom_slides import DicomSpec, write_dicom_slide
from tests.tile_server.dicom_web_service import Service, place_of, services
from tile_server.protocols.dicom_web_kept import KEPT

STATUSES = {200, 204, 304, 400, 404, 405, 406, 413, 422}


@dataclass(frozen=True)
class Target:
    """Two open slides, and the names that lead anywhere in them."""

    service: Service
    bases: tuple[str, str]
    places: tuple[tuple[str, str, str], ...]


@pytest.fixture(scope="module")
def target(
    made_slides: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    spec = DicomSpec(width=200, height=150, downsamples=(1,), sparse=True)
    dicom = write_dicom_slide(tmp_path_factory.mktemp("dicom"), spec)
    paths = made_slides["sparse"], dicom
    for service in services(lane=False):
        bases = tuple(service.address(path, label=True) for path in paths)
        places = tuple(
            place_of(one)
            for path in paths
            for one in service.client(path, label=True).search_for_instances()
        )
        yield Target(service, (bases[0], bases[1]), places)


def part(chance: random.Random, target: Target, depth: int) -> str:
    """One part of an address: mostly right, sometimes anything."""
    kind = chance.random()
    if kind < 0.8:
        return chance.choice(target.places)[depth]
    return chance.choice(["1.2.3", "0", ".", "..", "2.25." + "9" * 60, "%00", "a b"])


def address(chance: random.Random, target: Target) -> str:
    base = chance.choice(target.bases)
    ends = [
        "", "/metadata", "/rendered", "/thumbnail", "/studies", "/series", "/instances",
        "/frames/1", "/frames/1,2,3", "/frames/" + str(chance.randrange(300)),
        "/frames/1/rendered", "/frames/2/thumbnail", "/frames/,", "/frames/1,0",
        "/frames/1%2C2", "/bulkdata/00480105/1/00282000", "/bulkdata/7FE00010",
        "/bulkdata/00480105/1/00480106/1/00282000", "/bulkdata/////////", "/%E2%98%83",
    ]  # fmt: skip
    names = ("studies", "series", "instances")
    depth = chance.randrange(4)
    way = "".join(f"/{names[at]}/{part(chance, target, at)}" for at in range(depth))
    return base + way + chance.choice(ends) + query(chance, target)


def query(chance: random.Random, target: Target) -> str:
    if chance.random() < 0.5:
        return ""
    names = [
        "limit", "offset", "includefield", "fuzzymatching", "accept", "viewport",
        "style", "00080018", "00480105.00480106", "PixelData", *KEPT,
    ]  # fmt: skip
    values = [
        "", "*", "1", "-1", "all", "true", "SM", "18000101-", "nan", "1e999", "\0", "é",
        "20,20", "99999,1", "*/*", "image/png", "multipart/related", "A" * 50, "[",
        chance.choice(target.places)[2], "00080018,Rows", "inf", "0x10", "²", "\\",
    ]  # fmt: skip
    pairs = [
        f"{quote(chance.choice(names))}={quote(chance.choice(values))}"
        for _ in range(chance.randrange(1, 4))
    ]
    return "?" + "&".join(pairs)


ACCEPTS = [
    "", "*/*", "image/*", "image/jpeg", "image/png", "application/dicom+json",
    "application/dicom", "application/octet-stream", "multipart/related",
    'multipart/related; type="application/dicom"',
    'multipart/related; type="image/jpeg"; transfer-syntax=*',
    'multipart/related; type="', "text/html;q=", ";;;", ",", '"', "a/b;q=nan",
    "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1;q=0.1",
]  # fmt: skip


def shake(target: Target, cases: int, seed: int) -> set[int]:
    seen = set()
    for case in range(cases):
        chance = random.Random(f"{seed} {case}")  # noqa: S311 - no secret
        where, accept = address(chance, target), chance.choice(ACCEPTS)
        method = chance.choice(["GET", "GET", "GET", "HEAD", "OPTIONS"])
        answer = target.service.server.client.request(
            method, where, headers={"Accept": accept}
        )
        rest = where.split("/dicomweb/")[1].split("/", 1)[-1]
        assert answer.status_code in STATUSES, (case, method, rest, accept)
        seen.add(answer.status_code)
    return seen


def test_hundreds_of_odd_requests_are_answered(target: Target) -> None:
    assert {200, 204, 400, 404, 406} <= shake(target, cases=600, seed=0)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_odd_requests_are_answered(target: Target) -> None:
    shake(target, cases=100_000, seed=1)


def test_any_text_is_an_accept_header(target: Target) -> None:
    study, series, instance = target.places[0]
    place = f"/studies/{study}/series/{series}/instances/{instance}/frames/1"

    @settings(
        deadline=None,
        max_examples=60,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
    def check(accept: str) -> None:
        answer = target.service.get(target.bases[0] + place, Accept=accept.strip())
        assert answer.status_code in (200, 406)

    check()


def damage(path: Path, chance: random.Random) -> None:
    """Change a few bytes of a file's header."""
    raw = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 6)):
        raw[chance.randrange(132, min(len(raw), 2500))] = chance.randrange(256)
    path.write_bytes(raw)


def ask_everything(service: Service, path: Path) -> None:
    base = service.address(path)
    answer = service.get(f"{base}/instances?includefield=all")
    assert answer.status_code in (200, 204, 410, 422)
    if answer.status_code != 200:
        return
    for one in answer.json():
        try:
            study, series, instance = place_of(one)
        except KeyError:
            continue
        place = f"{base}/studies/{study}/series/{series}/instances/{instance}"
        for rest in ("/metadata", "/frames/1", "/rendered", "/frames/1/rendered", ""):
            # A header of a huge empty slide can take the time that a thumbnail has.
            assert service.get(place + rest).status_code in {*STATUSES, 503}, rest


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what it sees
def test_files_with_damaged_headers_are_refused_or_served(tmp_path: Path) -> None:
    shake_files(tmp_path, cases=40, seed=0)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_thousands_of_damaged_headers_are_refused_or_served(tmp_path: Path) -> None:
    shake_files(tmp_path, cases=5000, seed=1)


def shake_files(folder: Path, cases: int, seed: int) -> None:
    spec = DicomSpec(width=120, height=90, downsamples=(1,), channels=0, sparse=True)
    path = write_dicom_slide(folder, spec, label=False)
    dataset = pydicom.dcmread(path)
    dataset.PatientName = "Nobody"
    dataset.save_as(path)
    whole = path.read_bytes()
    # Probing starts a process for each file, and this is not about probing.
    for service in services(lane=False, probe=None):
        for case in range(cases):
            chance = random.Random(f"{seed} {case}")  # noqa: S311 - no secret
            path.write_bytes(whole)
            damage(path, chance)
            try:
                ask_everything(service, path)
            except AssertionError as error:
                error.add_note(f"seed {seed}, case {case}")
                raise

"""DICOMweb as HTTP: forms, refusals, conditions, other origins, searching."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import generate_frames

from tests import slides
from tests.dicom_slides import COLOUR, write_dicom_slide
from tests.tile_server.dicom_web_service import Service, place_of, services, way
from tile_server.protocols.dicom_web_pictures import MOST_FRAMES


@pytest.fixture(scope="module", params=["application", "lane"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    yield from services(request.param == "lane", cors_origins=("https://viewer.test",))


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A DICOM slide; nobody may change it."""
    folder = tmp_path_factory.mktemp("dicom")
    return {"full": write_dicom_slide(folder, COLOUR["full"])}


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "multipart/related"),
        ('multipart/related; type="image/jpeg"', "multipart/related"),
        ("multipart/related; type=image/*; transfer-syntax=*", "multipart/related"),
        ("image/jpeg", "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"),
        ("image/*", "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"),
        (
            "application/octet-stream",
            "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1",
        ),
        (
            "application/octet-stream; transfer-syntax=*",
            "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.50",
        ),
        ("image/jp2, image/jpeg;q=0.3", "image/jpeg; "),
    ],
)
def test_a_frame_leaves_in_the_form_that_is_accepted(
    service: Service, dicom: dict[str, Path], accept: str, form: str
) -> None:
    path = dicom["full"]
    (one, *_) = service.client(path).search_for_instances()
    answer = service.get(service.address(path) + way(one) + "/frames/1", Accept=accept)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(form)
    assert "Accept" in answer.headers["Vary"]


@pytest.mark.parametrize(
    ("accept", "rest"),
    [
        ('multipart/related; type="image/jp2"', "/frames/1"),
        ("image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.70", "/frames/1"),
        ("image/jpeg", "/frames/1,2"),
        ("text/html", "/frames/1"),
        ('multipart/related; type="application/dicom+xml"', "/metadata"),
        ("application/pdf", "/rendered"),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2.4.90", ""),
        ("*/*;q=0", "/frames/1"),
    ],
)
def test_what_is_not_accepted_is_406(
    service: Service, dicom: dict[str, Path], accept: str, rest: str
) -> None:
    path = dicom["full"]
    (one, *_) = service.client(path).search_for_instances()
    answer = service.get(service.address(path) + way(one) + rest, Accept=accept)
    assert answer.status_code == 406
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_accept_parameter_goes_before_the_header(
    service: Service, dicom: dict[str, Path]
) -> None:
    path = dicom["full"]
    (one, *_) = service.client(path).search_for_instances()
    address = service.address(path) + way(one)
    answer = service.get(f"{address}/frames/1?accept=image/jpeg", Accept="text/html")
    assert answer.headers["Content-Type"].startswith("image/jpeg")


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ("/frames/0", 404),
        ("/frames/89", 404),
        ("/frames/1,,2", 400),
        ("/frames/" + "1," * MOST_FRAMES + "1", 413),
        ("/frames/1,2/rendered", 400),
        ("/rendered?viewport=0,0", 400),
        ("/bulkdata/00282000", 404),
        ("/bulkdata/00480105/9/00282000", 404),
        ("/nothing", 404),
    ],
)
def test_impossible_requests_are_problems(
    service: Service, dicom: dict[str, Path], rest: str, status: int
) -> None:
    path = dicom["full"]
    (one, *_) = service.client(path).search_for_instances()
    answer = service.get(service.address(path) + way(one) + rest)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_a_wrong_token_and_a_wrong_study_tell_nothing(
    service: Service, dicom: dict[str, Path]
) -> None:
    path = dicom["full"]
    base = service.address(path)
    wrong = base.rsplit("/", 1)[0] + "/AAAA"
    assert service.get(f"{wrong}/studies").status_code == 403
    for rest in (
        "/studies/1.2.3/metadata",
        "/studies/1.2.3",
        "/studies/1.2.3/rendered",
    ):
        assert service.get(base + rest).status_code == 404
    assert service.get(f"{base}/studies/1.2.3/series").status_code == 204


def test_a_damaged_frame_is_a_problem_and_a_hole_in_the_file(
    service: Service, tmp_path: Path
) -> None:
    path = slides.write_slide(tmp_path / "one.tiff", slides.YCBCR)
    slides.damage_tile(path, 0, 5)
    client = service.client(path)
    (one, *_) = client.search_for_instances()
    answer = service.get(service.address(path) + way(one) + "/frames/6")
    assert answer.status_code == 422
    assert client.retrieve_instance_frames(*place_of(one), [5])
    dataset = client.retrieve_instance(*place_of(one))
    frames = list(generate_frames(dataset.PixelData, number_of_frames=176))
    assert np.ptp(np.asarray(Image.open(io.BytesIO(frames[5])))) == 0


@pytest.mark.parametrize(
    "rest",
    ["/metadata", "/frames/1", "/frames/1,2", "/rendered", "/thumbnail", ""],
)
def test_answers_have_the_manners_of_http(
    service: Service, dicom: dict[str, Path], rest: str
) -> None:
    path = dicom["full"]
    (one, *_) = service.client(path).search_for_instances()
    address = service.address(path) + way(one) + rest
    answer = service.get(address, Origin="https://viewer.test")
    assert answer.status_code == 200
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["Access-Control-Allow-Origin"] == "https://viewer.test"
    if rest:
        assert "total;dur=" in answer.headers["Server-Timing"]
    etag = answer.headers["ETag"]
    again = service.get(address, **{"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    head = service.server.client.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["ETag"] == etag
    assert head.headers["Content-Type"] == answer.headers["Content-Type"]


def test_a_browser_may_ask_for_parts_from_a_named_origin(
    service: Service, dicom: dict[str, Path]
) -> None:
    (one, *_) = service.client(dicom["full"]).search_for_instances()
    address = service.address(dicom["full"]) + way(one) + "/frames/1"
    asked = {"Access-Control-Request-Method": "GET"}
    answer = service.server.client.options(
        address, headers=asked | {"Origin": "https://viewer.test"}
    )
    assert answer.status_code == 204
    assert "Accept" in answer.headers["Access-Control-Allow-Headers"]
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    other = service.server.client.options(
        address, headers=asked | {"Origin": "https://else.test"}
    )
    assert "Access-Control-Allow-Headers" not in other.headers
    assert service.server.client.post(address).status_code == 405

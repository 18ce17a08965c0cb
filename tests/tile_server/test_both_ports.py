"""Every route answers at the lane's port as it does at the application's own.

The addresses below hold one for each pattern of the route table, or a test fails: who
adds a route adds an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests import stacks
from tests.tile_server.lane_client import ask, request
from tests.tile_server.random_requests import routes_of
from tests.tile_server.test_icc import PROFILE, write_tiff
from tests.tile_server.test_lane import BASE, Both, same, serve_both
from tile_server import tokens
from tile_server.application import make_application
from tile_server.lane import Limits
from tile_server.service import TileService, TileSettings

STYLE = "style=" + quote('{"channels":[{"index":1}],"projection":"max"}')
# Below a slide's prefix; {token} where the address holds it elsewhere.
SLIDE = [
    *("3/1/1", "3/4/3", "2/0/0", "0/0/0", "3/1/1.png", "2/0/0.webp", "3/4/3.jpg"),
    *("3/1/1?icc=1", "2/0/0?icc=srgb", "view.json", "icc", "thumbnail?size=64"),
    *("thumbnail.webp", "region.png?x=1&y=2&width=30&height=20"),
    *("region?unit=um&x=0&y=0&width=9&height=9", "region?x=1"),
    *("statistics", "statistics?channel=2", "histogram?bins=9", "pixel?x=5&y=6"),
    *("dzi/slide.dzi", "dzi/slide_files/9/1_1.jpg", "dzi/slide_files/9/4_3.jpeg"),
    *("dzi/slide_files/0/0_0.jpg", "dzi/slide_files/99/0_0.jpg"),
    *("zarr/zarr.json", "zarr/0/zarr.json", "zarr/0/c/0/0/0/1/1", "zarr/0/0/0/0/1/1"),
    *("zarr2/.zgroup", "zarr2/.zattrs", "zarr2/0/.zarray", "zarr2/0/0/0/0/1/1"),
    *("zarr/0/c/0/0/0/99/0", "associated/label", "associated/none.png"),
]
IIIF = [
    *("", "/info.json", "/full/max/0/default.jpg", "/64,64,64,64/64,/0/default.jpg"),
    *("/square/50,/90/gray.png", "/full/^400,/!0/default.webp", "/full/0,0/0/x.jpg"),
]
STACK = [
    *(f"0/0/0?{STYLE}", "0/0/0.png?bits=16&channel=1&z=2", f"region?x=0&{STYLE}"),
    *(f"thumbnail?size=50&{STYLE}", "statistics?channel=1&z=2", "pixel?x=4&y=4&z=1"),
    *("histogram?channel=1&t=9", "zarr/0/c/0/1/2/0/0", "zarr2/0/0/1/2/0/0"),
]
DICOM = "dicom"


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    yield from serve_both(TileSettings(tokens.new_key(), BASE), Limits())


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiff(tmp_path_factory.mktemp("both") / "slide.tiff", PROFILE)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = stacks.StackSpec(width=300, height=200, channels=2, depths=3, levels=2)
    path = tmp_path_factory.mktemp("both") / "stack.ome.tiff"
    return stacks.write_ome_tiff(path, spec)


def agree(both: Both, target: str) -> int:
    """Both ports agree about an address, however it is asked for; gives the status."""
    status = same(both, request(target))
    same(both, request(target, method="HEAD"), bare=True)
    same(both, request(target, method="OPTIONS"))
    same(both, request(target, "Range: bytes=3-9", "Accept: image/webp"))
    etag = ask(both.plain, request(target)).header("etag")
    if etag is not None:
        for tags in (etag, f"W/{etag}", f'"x", {etag}'):
            assert same(both, request(target, f"If-None-Match: {tags}")) == 304
    return status


@pytest.mark.parametrize("rest", SLIDE)
def test_an_address_of_a_slide_is_answered_alike(
    both: Both, slide: Path, rest: str
) -> None:
    status = agree(both, both.target(both.server.seal(slide), rest))
    assert status in (200, 400, 404)


@pytest.mark.parametrize("rest", IIIF)
@pytest.mark.parametrize("version", ["2", "3"])
def test_an_address_of_iiif_is_answered_alike(
    both: Both, slide: Path, rest: str, version: str
) -> None:
    token = both.server.seal(slide)
    assert agree(both, f"{BASE}iiif/{version}/{token}{rest}") in (200, 303, 400)


@pytest.mark.parametrize("rest", STACK)
def test_an_address_of_planes_is_answered_alike(
    both: Both, stack: Path, rest: str
) -> None:
    assert agree(both, both.target(both.server.seal(stack), rest)) in (200, 400)


def test_every_route_is_asked_for_here() -> None:
    service = TileService(replace(TileSettings(tokens.new_key()), probe=None))
    patterns = routes_of(make_application(service))
    service.stop()
    addresses = [
        *(f"/s/token/{rest}" for rest in [*SLIDE, *STACK]),
        *(f"/iiif/3/token{rest}" for rest in IIIF),
        *("/health", "/ready"),
    ]
    paths = [urlsplit(address).path for address in addresses]
    unasked = [
        pattern
        for pattern in patterns
        # DICOMweb has tests of its own.
        if DICOM not in pattern and not any(re.fullmatch(pattern, one) for one in paths)
    ]
    assert unasked == []


@pytest.mark.parametrize("name", ["health", "ready", "nowhere", ""])
def test_what_is_no_slides_is_answered_alike(both: Both, name: str) -> None:
    assert agree(both, BASE + name) in (200, 404)

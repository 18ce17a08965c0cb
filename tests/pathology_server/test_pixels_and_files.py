"""Pixels and files: points 6, 7 and 18 of what the server must do."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import replace
from email import policy
from email.parser import BytesParser
from pathlib import Path

import httpx
import numpy as np
import openslide
import pytest
from PIL import Image

from tests import slides as generated

from . import (
    ArrayPicture,
    FilePart,
    PathologyServer,
    Pyramid,
    Slide,
    SlideFiles,
    Stall,
    Truncate,
    WrongLength,
    dicom_like,
    single,
    slide_of_file,
    synthetic_slide,
)
from .client import Client
from .deepzoom import Box, Rounding, parse_tile


def pixels_of(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))


def stitched(client: Client, slide: Slide, level: int, form: str = "png") -> np.ndarray:
    """A whole level, from its tiles."""
    pyramid = slide.pyramid
    width, height = pyramid.size(level)
    whole = np.zeros((height, width, 3), np.uint8)
    columns, rows = pyramid.grid(level)
    for column in range(columns):
        for row in range(rows):
            path = f"images/{slide.slide_id}_files/{level}/{column}_{row}.{form}"
            part = pixels_of(client.get(path))
            x, y = column * pyramid.tile_width, row * pyramid.tile_height
            whole[y : y + part.shape[0], x : x + part.shape[1]] = part
    return whole


# 7. Tiles.


def test_deep_zoom_levels_are_those_of_the_shared_vectors(shared_api: Path) -> None:
    vectors = json.loads((shared_api / "dzi_vectors.json").read_text())["images"]
    roundings: tuple[Rounding, ...] = ("ceil", "floor")
    for image in vectors:
        for rounding in roundings:
            side = image["tileSize"]
            pyramid = Pyramid(image["width"], image["height"], side, side, rounding)
            assert pyramid.max_level == image["maxLevel"]
            for level in image["levels"]:
                number, wanted = level["level"], level[rounding]
                assert pyramid.downsample(number) == level["downsample"]
                assert pyramid.size(number) == (wanted["width"], wanted["height"])
                columns, rows = pyramid.grid(number)
                assert (columns, rows) == (wanted["cols"], wanted["rows"])
                last = pyramid.box(number, columns - 1, rows - 1)
                assert last is not None
                assert last.width == wanted["lastTileWidth"]
                assert last.height == wanted["lastTileHeight"]


def test_tile_paths_are_read_as_the_shared_vectors_say(shared_api: Path) -> None:
    vectors = json.loads((shared_api / "tile_path_vectors.json").read_text())
    for one in vectors["vectors"]:
        _, folder, level, file = one["path"].split("/")
        seen = parse_tile(folder, level, file)
        assert seen is not None
        assert seen.slide_id == one["slideId"]
        assert (seen.level, seen.column, seen.row) == (
            one["level"],
            one["col"],
            one["row"],
        )
        assert (seen.focal_plane, seen.extension) == (one["focalPlane"], one["ext"])


@pytest.mark.parametrize("rounding", ["ceil", "floor"])
def test_stitched_tiles_are_the_picture(rounding: Rounding) -> None:
    slide = synthetic_slide(
        "sl_odd_z", width=1025, height=701, tile=(240, 200), rounding=rounding
    )
    with PathologyServer([slide]) as server, Client(server) as client:
        for level in (slide.pyramid.max_level, slide.pyramid.max_level - 1, 3, 0):
            width, height = slide.pyramid.size(level)
            wanted = slide.picture.region(
                slide.pyramid.downsample(level), Box(0, 0, width, height), "0|"
            )
            assert np.array_equal(stitched(client, slide, level), wanted)


def test_jpeg_tiles_show_the_same_picture(client: Client) -> None:
    slide = client.server.slides["sl-portrait"]
    level = slide.pyramid.max_level
    seen = stitched(client, slide, level, "jpeg").astype(int)
    assert np.abs(seen - stitched(client, slide, level)).mean() < 3


def test_no_two_tiles_of_a_slide_are_alike(client: Client) -> None:
    slide = client.server.slides["sl-0001"]
    seen = set()
    asked = 0
    for level in range(5, slide.pyramid.max_level + 1):
        columns, rows = slide.pyramid.grid(level)
        for column in range(columns):
            for row in range(rows):
                path = f"images/sl-0001_files/{level}/{column}_{row}.png"
                seen.add(client.get(path).content)
                asked += 1
    assert len(seen) == asked


@pytest.mark.parametrize(
    "tile",
    [
        "11/6_0.jpg",
        "11/0_5.jpg",
        "12/0_0.jpg",
        "11/0_0.tif",
        "11/0_0_7.jpg",
        "11/a_0.jpg",
    ],
)
def test_a_tile_outside_the_grid_or_of_no_format_is_404(
    client: Client, tile: str
) -> None:
    assert client.get("images/sl-0001_files/11/0_0.jpg").status_code == 200
    assert client.get(f"images/sl-0001_files/{tile}").status_code == 404


def test_rounding_decides_whether_the_last_column_is_there() -> None:
    for rounding, status in (("ceil", 200), ("floor", 404)):
        slide = synthetic_slide("sl-1", width=1025, height=1024, rounding=rounding)
        with PathologyServer([slide]) as server, Client(server) as client:
            answer = client.get("images/sl-1_files/10/2_0.jpg")
            assert answer.status_code == status


def test_a_slide_that_is_not_streamable_has_no_tiles(client: Client) -> None:
    assert client.get("slides/sl-files-only/info").json()["isStreamable"] is False
    assert client.get("images/sl-files-only_files/0/0_0.jpg").status_code == 404
    assert client.get("slides/sl-files-only/files").status_code == 200


def test_focal_planes_and_optical_paths_show_different_pixels(client: Client) -> None:
    folder = "images/sl_0002_z_files/10"
    planes = [
        client.get(f"{folder}/0_0_{plane}.png").content for plane in ["-1", "0", "1"]
    ]
    assert len(set(planes)) == 3
    # Without a plane it is the one in focus.
    assert client.get(f"{folder}/0_0.png").content == planes[1]
    tile = "images/sl-fluorescence_files/10/0_0.png"
    paths = [
        client.get(tile, params={name: path}).content
        for name, path in (
            ("opticalPath", "DAPI"),
            ("opticalPath", "FITC"),
            ("opticalPath", "TRITC"),
            ("channels", "Cy5"),
        )
    ]
    assert len(set(paths)) == 4
    assert client.get(f"{tile}?opticalPath=none").status_code == 404


# Real slides.


def assert_served_as_stored(path: Path, client: Client, slide: Slide) -> None:
    pyramid = slide.pyramid
    with openslide.OpenSlide(path) as held:
        assert held.dimensions == (pyramid.width, pyramid.height)
        level = pyramid.max_level
        column, row = (count // 2 for count in pyramid.grid(level))
        box = pyramid.box(level, column, row)
        assert box is not None
        wanted = held.read_region((box.x, box.y), 0, (box.width, box.height))
        tile = client.get(f"images/{slide.slide_id}_files/{level}/{column}_{row}.png")
        assert np.array_equal(pixels_of(tile), np.asarray(wanted.convert("RGB")))
        # A level below is the mean of four pixels, up to what its file stores.
        level -= 1
        whole = stitched(client, slide, level).astype(int)
        full = held.read_region((0, 0), 0, held.dimensions).convert("RGB")
        small = np.asarray(full.resize(whole.shape[1::-1], Image.Resampling.BOX))
        assert np.abs(whole - small).mean() < 6


def test_a_slide_made_in_code_is_served_tile_by_tile_and_as_a_file(
    tmp_path: Path,
) -> None:
    path = generated.write_slide(tmp_path / "made.svs", generated.YCBCR)
    slide = slide_of_file("sl-real", path)
    assert slide.mpp == pytest.approx(generated.YCBCR.mpp)
    with PathologyServer([slide]) as server, Client(server) as client:
        assert_served_as_stored(path, client, slide)
        answer = client.get("slides/sl-real/files")
        assert answer.content == path.read_bytes()
        assert 'filename="made.svs"' in answer.headers["content-disposition"]


def test_a_real_slide_is_served_tile_by_tile_and_as_a_file(shared_data: Path) -> None:
    path = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    slide = slide_of_file("sl-real", path)
    parts = SlideFiles((FilePart("i0000,0000b.svs", path),))
    with (
        PathologyServer(
            [slide, replace(slide, slide_id="sl-2", files=parts)]
        ) as server,
        Client(server) as client,
    ):
        assert_served_as_stored(path, client, slide)
        assert client.get("slides/sl-real/files").content == path.read_bytes()
        message = _parsed(client.get("slides/sl-2/files"))
        assert message == {"i0000,0000b.svs": path.read_bytes()}


def test_a_picture_in_memory_is_served_as_it_is() -> None:
    pixels = np.random.default_rng(5).integers(0, 255, (300, 401, 3), np.uint8)
    slide = Slide("sl-1", ArrayPicture(pixels))
    with PathologyServer([slide]) as server, Client(server) as client:
        assert np.array_equal(stitched(client, slide, 9), pixels)
        assert stitched(client, slide, 8).shape == (150, 201, 3)


# 6. Files.


def _parsed(answer: httpx.Response) -> dict[str, bytes]:
    """Files by name; the standard library's own parser reads the multipart body."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=policy.HTTP).parsebytes(head + answer.content)
    return {
        str(part.get_filename()): part.get_payload(decode=True)  # type: ignore[misc]
        for part in message.iter_parts()  # type: ignore[attr-defined]
    }


def gather(answer: httpx.Response, seen: bytearray) -> None:
    for piece in answer.iter_raw():
        seen += piece


def served(files: SlideFiles) -> PathologyServer:
    return PathologyServer([synthetic_slide("sl-1", files=files)])


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"quoted_boundary": True, "more_parameters": 'start="x"'},
        {"preamble": b"ignore me", "epilogue": b"and me"},
        {"closing_crlf": False},
        {"lower_case_headers": True, "quoted_names": False},
        {"utf8_names": True},
        {"lf_headers": True},
        {"chunked": True, "chunk_bytes": 7},
    ],
    ids=str,
)
def test_every_shape_of_a_multipart_body_holds_the_files(
    shape: dict[str, object],
) -> None:
    files = replace(dicom_like(3, 500), **shape)  # type: ignore[arg-type]
    with served(files) as server, Client(server) as client:
        answer = client.get("slides/sl-1/files")
        assert answer.content == b"".join(files.chunks())
        assert ("transfer-encoding" in answer.headers) == files.chunked
        for part in files.parts:
            assert isinstance(part.content, bytes)
            assert part.content in answer.content
        # The library ends an unquoted name at the comma, and knows no bare LF.
        if files.quoted_names and not files.lf_headers:
            assert set(_parsed(answer)) == {part.name for part in files.parts}


def test_real_part_names_hold_commas_and_gaps() -> None:
    names = [part.name for part in dicom_like(3, 10).parts]
    assert names == ["i0000,0000b.dcm", "i0003,0000b.dcm", "i0006,0000b.dcm"]


def test_hostile_names_are_sent_as_they_are(shared_api: Path) -> None:
    vectors = json.loads((shared_api / "filename_vectors.json").read_text())["vectors"]
    parts = tuple(FilePart(one["in"], b"x") for one in vectors)
    with served(SlideFiles(parts)) as server, Client(server) as client:
        body = client.get("slides/sl-1/files").content
        for one in vectors:
            assert f'filename="{one["in"]}"'.encode() in body


def test_the_shared_multipart_bodies_are_sent_byte_by_byte(shared_api: Path) -> None:
    vectors = json.loads((shared_api / "multipart_vectors.json").read_text())["vectors"]
    for one in vectors:
        body = base64.b64decode(one["bodyBase64"])
        files = SlideFiles(raw=(one["contentType"], body), chunk_bytes=64)
        with served(files) as server, Client(server) as client:
            answer = client.get("slides/sl-1/files")
            assert answer.headers["content-type"] == one["contentType"]
            assert answer.content == body


def test_a_truncated_file_ends_the_connection_before_its_length() -> None:
    files = replace(single("a.svs", bytes(5000)), fault=Truncate(1234))
    with served(files) as server, Client(server) as client:
        seen = bytearray()
        with client.http.stream("GET", "slides/sl-1/files") as answer:
            assert answer.headers["content-length"] == "5000"
            with pytest.raises(httpx.RemoteProtocolError):
                gather(answer, seen)
        assert len(seen) == 1234


@pytest.mark.parametrize("by_bytes", [100, -100])
def test_a_wrong_length_is_announced(by_bytes: int) -> None:
    files = replace(single("a.svs", bytes(5000)), fault=WrongLength(by_bytes))
    with served(files) as server, Client(server) as client:
        if by_bytes > 0:
            with pytest.raises(httpx.RemoteProtocolError):
                client.get("slides/sl-1/files")
        else:
            # The client believes the header: only a checksum would tell.
            assert len(client.get("slides/sl-1/files").content) == 4900


def test_a_stalled_download_waits_until_the_client_leaves() -> None:
    with served(single("a.svs", bytes(5000))) as server, Client(server) as client:
        server.faults.plan("slides.files", Stall(after_bytes=1000))
        with pytest.raises(httpx.ReadTimeout):
            client.get("slides/sl-1/files", timeout=0.3)
        assert len(client.get("slides/sl-1/files").content) == 5000


def test_a_large_file_is_streamed_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    block = bytes(range(256)) * 4096
    with path.open("wb") as target:
        for _ in range(40):
            target.write(block)
    with served(single("large.tif", path)) as server, Client(server) as client:
        seen = hashlib.sha256()
        with client.http.stream("GET", "slides/sl-1/files") as answer:
            for chunk in answer.iter_raw():
                seen.update(chunk)
        assert seen.hexdigest() == hashlib.sha256(block * 40).hexdigest()


# 18. The case.


def test_the_case_holds_every_kind_of_slide(client: Client) -> None:
    listed = client.get("slides/sl-0001/request/images/info").json()
    told = {one["id"]: client.get(f"slides/{one['id']}/info").json() for one in listed}
    assert len(told) == 7
    rejected = [
        one
        for one in told.values()
        if one.get("qualityControl", {}).get("status") == "Rejected"
    ]
    assert len(rejected) == 1
    assert len([one for one in told.values() if not one["isStreamable"]]) == 1
    sizes = [one["imageSize"] for one in told.values()]
    assert len([one for one in sizes if one["height"] > one["width"]]) == 1
    assert sorted(len(one["focalPlanes"]) for one in told.values())[-2:] == [1, 3]
    assert sorted(len(one["opticalPaths"]) for one in told.values())[-2:] == [0, 4]
    texts = [one["block"]["displayName"] for one in told.values()]
    assert "../B 2" in texts
    assert any("ø" in one["staining"]["displayName"] for one in told.values())
    assert any(
        "/" in (one.get("specimen") or {}).get("description", "")
        for one in told.values()
    )

"""Styles, statistics and histograms over a real socket."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import slides, stacks
from tests.tile_server.conftest import Server, decoded, serve
from tile_server import tokens
from tile_server.folder import SlideFolder
from tile_server.probing import Prober
from tile_server.readers import open_slide
from tile_server.service import TileSettings

SPEC = stacks.CONFOCAL
TRUTH = stacks.numbers(SPEC)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("styles")
    return stacks.write_ome_tiff(folder / "cells.ome.tiff", SPEC)


@pytest.fixture(scope="module")
def token(server: Server, path: Path) -> str:
    return server.seal(path)


def styled(style: dict[str, Any]) -> str:
    return "style=" + json.dumps(style).replace("#", "%23")


def region(server: Server, token: str, style: dict[str, Any]) -> Any:
    address = f"region?x=20&y=10&width=100&height=80&{styled(style)}"
    answer = server.get(token, address)
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content))


def shown(plane: Any, low: float, high: float) -> Any:
    return np.rint(255 * np.clip((plane.astype(float) - low) / (high - low), 0, 1))


def test_the_view_tells_channels_depths_times_and_type(
    server: Server, token: str
) -> None:
    view = server.get(token, "view.json").json()
    assert (view["z"], view["t"], view["dtype"]) == (4, 2, "uint16")
    assert (view["z_step_um"], view["unit"]) == (2.0, "")
    assert [one["name"] for one in view["channels"]] == ["dye 0", "dye 1", "dye 2"]
    assert view["channels"][1]["color"] == "#0ac81e"
    low, high = view["channels"][0]["window"]
    assert TRUTH[0, 0].min() <= low < high <= TRUTH[0, 0].max()


def test_the_view_of_a_colour_slide_has_three_plain_channels(
    server: Server, made_slides: dict[str, Path]
) -> None:
    view = server.get(server.seal(made_slides["ycbcr"]), "view.json").json()
    assert [one["color"] for one in view["channels"]] == [
        "#ff0000",
        "#00ff00",
        "#0000ff",
    ]
    assert (view["z"], view["t"], view["dtype"]) == (1, 1, "uint8")


@pytest.mark.parametrize(("z", "t", "channel"), [(0, 0, 0), (3, 1, 2), (2, 0, 1)])
def test_a_style_shows_the_plane_it_names(
    server: Server, token: str, z: int, t: int, channel: int
) -> None:
    one = {"index": channel, "color": "#ffffff", "window": [50, 900]}
    seen = region(server, token, {"channels": [one], "z": z, "t": t})
    wanted = shown(TRUTH[t, channel, z, 10:90, 20:120], 50, 900)
    assert np.array_equal(seen[:, :, 1], wanted)


def test_a_projection_shows_the_maximum(server: Server, token: str) -> None:
    one = {"index": 1, "color": "#00ff00", "window": [0, 1100]}
    seen = region(server, token, {"channels": [one], "projection": "max", "t": 1})
    wanted = shown(TRUTH[1, 1].max(axis=0)[10:90, 20:120], 0, 1100)
    assert np.array_equal(seen[:, :, 1], wanted)
    assert not seen[:, :, 0].any()


def test_tiles_of_two_styles_are_two_tiles(server: Server, token: str) -> None:
    view = server.get(token, "view.json").json()
    finest = view["levels"][0]["z"]
    red = styled({"channels": [{"index": 0, "color": "#ff0000"}]})
    blue = styled({"channels": [{"index": 0, "color": "#0000ff"}]})
    answers = [server.get(token, f"{finest}/0/0?{one}") for one in (red, blue)]
    assert answers[0].headers["etag"] != answers[1].headers["etag"]
    first, second = (decoded(answer.content) for answer in answers)
    # JPEG keeps colours coarsely: at sharp edges a little of each leaks.
    assert first[:, :, 2].mean() < 3 < first[:, :, 0].mean()
    assert second[:, :, 0].mean() < 3 < second[:, :, 2].mean()
    again = server.get(
        token, f"{finest}/0/0?{red}", **{"If-None-Match": answers[0].headers["etag"]}
    )
    assert again.status_code == 304


def test_every_tile_of_every_level_is_there_in_a_style(
    server: Server, token: str
) -> None:
    style = styled({"channels": [{"index": 2}], "z": 1})
    for level in server.get(token, "view.json").json()["levels"]:
        for x in range(-(-level["width"] // level["tile_width"])):
            answer = server.get(token, f"{level['z']}/{x}/0?{style}")
            assert answer.status_code == 200


def test_a_composed_level_lies_in_its_place(server: Server, tmp_path: Path) -> None:
    spec = stacks.StackSpec(width=1500, height=1100, dtype="uint8")
    truth = slides.picture(1500, 1100)[:, :, :2].mean(axis=2).astype(np.uint8)
    path = tmp_path / "deep.ome.tiff"
    stacks.write_array(path, truth)
    token = server.seal(path)
    view = server.get(token, "view.json").json()
    assert spec.width == view["width"]
    style = styled({"channels": [{"index": 0, "color": "#ffffff", "window": [0, 255]}]})
    level = view["levels"][1]
    tile = decoded(server.get(token, f"{level['z']}/0/0?{style}").content)
    wanted = slides.shrunken(np.stack([truth] * 3, axis=2), 2)
    edge = level["tile_width"]
    assert slides.displacement(tile, wanted[:edge, :edge]) == (0, 0)


def test_a_plain_style_leaves_a_stored_tile_undecoded(
    server: Server, made_slides: dict[str, Path]
) -> None:
    token = server.seal(made_slides["ycbcr"])
    plain = server.get(token, "4/1/1")
    same = server.get(token, "4/1/1?style={}")
    assert same.content == plain.content
    assert same.headers["server-timing"].startswith("stored")


def test_a_colour_slide_can_be_styled(
    server: Server, made_slides: dict[str, Path]
) -> None:
    path = made_slides["deflate"]
    token = server.seal(path)
    one = {"index": 0, "color": "#ffffff", "window": [255, 0]}
    seen = region(server, token, {"channels": [one]})
    with open_slide(path) as reader:
        red = reader.read(0, 20, 10, (100, 80))[:, :, 0]
    assert np.array_equal(seen[:, :, 2], 255 - red)


def test_a_thumbnail_has_the_style(server: Server, token: str) -> None:
    style = styled({"channels": [{"index": 0, "color": "#ff0000"}]})
    answer = server.get(token, f"thumbnail?size=100&{style}")
    image = Image.open(io.BytesIO(answer.content))
    assert max(image.size) == 100
    assert np.asarray(image)[:, :, 2].mean() < 8


@pytest.mark.parametrize(
    "style",
    ["{", "[]", '{"z":99}', '{"t":2}', '{"channels":[{"index":3}]}', '{"what":1}'],
)
@pytest.mark.parametrize(
    "rest", ["0/0/0?", "region?x=0&y=0&width=9&height=9&", "thumbnail?"]
)
def test_a_wrong_style_is_a_bad_request(
    server: Server, token: str, rest: str, style: str
) -> None:
    answer = server.get(token, f"{rest}style={style}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_statistics_are_those_of_the_plane(server: Server, token: str) -> None:
    answer = server.get(token, "statistics?channel=1&z=3&t=1")
    told = answer.json()
    level = told["level"]
    plane = stacks.pyramid(TRUTH, SPEC.levels)[level][1, 1, 3]
    assert told["pixels"] == plane.size
    assert told["mean"] == pytest.approx(plane.mean())
    assert (told["minimum"], told["maximum"]) == (plane.min(), plane.max())
    assert (told["channel"], told["z"], told["t"]) == (1, 3, 1)
    again = server.get(
        token,
        "statistics?channel=1&z=3&t=1",
        **{"If-None-Match": answer.headers["etag"]},
    )
    assert again.status_code == 304


def test_a_histogram_has_the_bins_that_were_asked_for(
    server: Server, token: str
) -> None:
    told = server.get(token, "histogram?channel=2&bins=16").json()
    assert len(told["counts"]) == 16
    assert (
        sum(told["counts"])
        == server.get(token, "statistics?channel=2").json()["pixels"]
    )


def test_a_colour_slide_has_statistics_too(
    server: Server, made_slides: dict[str, Path]
) -> None:
    token = server.seal(made_slides["deflate"])
    told = server.get(token, "statistics?channel=2").json()
    assert 0 <= told["minimum"] < told["mean"] < told["maximum"] <= 255


@pytest.mark.parametrize(
    "rest",
    ["statistics?channel=3", "statistics?z=4", "histogram?t=-1", "histogram?bins=0"],
)
def test_a_plane_that_is_not_there_is_a_bad_request(
    server: Server, token: str, rest: str
) -> None:
    assert server.get(token, rest).status_code == 400


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "z": st.integers(-1, 5),
            "t": st.integers(-1, 3),
            "projection": st.sampled_from(["max", "min", None]),
            "channels": st.lists(
                st.fixed_dictionaries(
                    {"index": st.integers(0, 4)},
                    optional={
                        "window": st.just("auto")
                        | st.lists(st.floats(allow_nan=False), min_size=2, max_size=2),
                        "gamma": st.floats(0, 200),
                        "color": st.sampled_from(["#ff00ff", "ff", 3]),
                    },
                ),
                max_size=4,
            ),
        },
    )
)
def test_any_style_is_shown_or_a_bad_request(
    server: Server, token: str, style: dict[str, Any]
) -> None:
    answer = server.get(token, f"0/0/0?{styled(style)}")
    assert answer.status_code in (200, 400), answer.text


def test_a_zarr_folder_is_one_image_of_its_folder(tmp_path: Path) -> None:
    stacks.write_zarr(tmp_path / "below" / "cells.ome.zarr", SPEC)
    stacks.write_ome_tiff(tmp_path / "cells.ome.tiff", SPEC)
    with Prober() as prober:
        images = SlideFolder(tmp_path, prober).images()
    assert [image.name for image in images] == [
        "below/cells.ome.zarr",
        "cells.ome.tiff",
    ]


def test_a_plain_picture_is_imported_by_the_process_that_probes_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(slides.picture(700, 600)).save(path)
    cache = tmp_path / "cache"
    service = serve(TileSettings(tokens.new_key(), cache_folder=cache))
    server = next(service)
    seen = server.get(server.seal(path), "region?x=5&y=6&width=90&height=80")
    service.close()
    assert np.array_equal(
        np.load(io.BytesIO(seen.content)), slides.picture(700, 600)[6:86, 5:95]
    )
    assert len(list((cache / "imports").iterdir())) == 1

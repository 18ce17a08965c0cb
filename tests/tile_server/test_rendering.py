"""Planes shown in a style: windows, colours, gamma, projection, and styles as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tile_server.errors import BadRequest
from tile_server.pixels import Colour
from tile_server.readers.chunks import ChunkedPlanes
from tile_server.readers.planes import Channel, Plane, PlaneFacts, Window
from tile_server.readers.protocol import Level, SlideFacts
from tile_server.readers.rendering import Rendered, planes_of
from tile_server.readers.statistics import automatic_window, histogram, statistics
from tile_server.readers.style import LONGEST_TEXT, ChannelStyle, Style, parse

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
SIZE = (90, 70)


def stack(numbers: npt.NDArray[Any], *channels: tuple[Colour, Window | None]) -> Any:
    """Planes of an array (channel, z, t, y, x), in chunks of 32 pixels."""

    def chunk(_: int, plane: Plane, t_x: int, t_y: int) -> npt.NDArray[Any]:
        whole = numbers[plane.channel, plane.z, plane.t]
        return whole[t_y * 32 : t_y * 32 + 32, t_x * 32 : t_x * 32 + 32]

    count, depths, times, height, width = numbers.shape
    given = channels or ((GREY, None),) * count
    return ChunkedPlanes(
        path=Path("made.tiff"),
        levels=(Level(width, height, 32, 32, encoded=False),),
        facts=SlideFacts("made", None, None, None, (9, 9, 9), ()),
        planes=PlaneFacts(
            tuple(Channel("", colour, window) for colour, window in given),
            depths,
            times,
            numbers.dtype.name,
        ),
        chunk=chunk,
        release=lambda: None,
    )


def ramp(dtype: str, low: float, high: float) -> npt.NDArray[Any]:
    """One plane that goes from `low` to `high` along x."""
    row = np.linspace(low, high, SIZE[0]).astype(dtype)
    return np.broadcast_to(row, (1, 1, 1, SIZE[1], SIZE[0]))


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]
)
def test_a_window_maps_its_ends_to_black_and_full_colour(dtype: str) -> None:
    numbers = ramp(dtype, 0, 100)
    with Rendered(stack(numbers, (GREEN, (20, 80)))) as shown:
        seen = shown.read(0, 0, 0, SIZE)
    row = numbers[0, 0, 0, 0].astype(float)
    wanted = np.rint(255 * np.clip((row - 20) / 60, 0, 1))
    assert np.array_equal(seen[0, :, 1], wanted.astype(np.uint8))
    assert not seen[:, :, [0, 2]].any()


def test_a_window_upside_down_shows_large_numbers_dark() -> None:
    with Rendered(stack(ramp("int16", -50, 50), (GREY, (50.0, -50.0)))) as shown:
        seen = shown.read(0, 0, 0, SIZE)
    assert tuple(seen[0, 0]) == GREY
    assert tuple(seen[0, -1]) == (0, 0, 0)


def test_channels_are_added_and_stop_at_white() -> None:
    numbers = np.full((3, 1, 1, 70, 90), 200, np.uint8)
    window = (0.0, 255.0)
    colours = ((RED, window), (GREEN, window), ((100, 0, 255), window))
    with Rendered(stack(numbers, *colours)) as shown:
        seen = shown.read(0, 3, 4, (5, 5))
    assert np.all(seen == (255, 200, 200))


def test_a_gamma_above_one_darkens_the_middle() -> None:
    planes = stack(ramp("uint16", 0, 60000), (GREY, (0.0, 60000.0)))
    style = Style(channels=(ChannelStyle(0, gamma=2.0),))
    with Rendered(planes) as plain:
        middle = plain.read(0, 45, 0, (1, 1))[0, 0, 0]
        darker = plain.restyled(style).read(0, 45, 0, (1, 1))[0, 0, 0]
    assert abs(int(darker) - round(255 * (int(middle) / 255) ** 2)) <= 1


def test_what_is_no_number_is_shown_dark() -> None:
    numbers = ramp("float32", 0, 1).copy()
    numbers[..., 40:] = np.nan
    numbers[..., 50:] = np.inf
    with Rendered(stack(numbers, (GREY, (0.0, 1.0)))) as shown:
        seen = shown.read(0, 0, 0, SIZE)
    assert tuple(seen[0, 45]) == (0, 0, 0)
    assert tuple(seen[0, 55]) == GREY


def test_a_projection_is_the_maximum_over_all_depths() -> None:
    numbers = np.random.default_rng(7).integers(0, 255, (2, 5, 2, 70, 90), np.uint8)
    window = (0.0, 255.0)
    with Rendered(stack(numbers, (RED, window), (GREEN, window))) as shown:
        seen = shown.restyled(Style(t=1, projection=True)).read(0, 0, 0, SIZE)
        middle = shown.read(0, 0, 0, SIZE)
        last = shown.restyled(Style(z=4)).read(0, 0, 0, SIZE)
    assert np.array_equal(seen[:, :, 0], numbers[0, :, 1].max(axis=0))
    assert np.array_equal(seen[:, :, 1], numbers[1, :, 1].max(axis=0))
    assert np.array_equal(middle[:, :, 0], numbers[0, 2, 0])
    assert np.array_equal(last[:, :, 1], numbers[1, 4, 0])


def test_outside_of_the_planes_is_background_whatever_the_window() -> None:
    with Rendered(stack(ramp("int16", -9, 9), (GREY, (-1000.0, -100.0)))) as shown:
        seen = shown.read(0, -10, -5, (110, 90))
    inside = np.zeros((90, 110), bool)
    inside[5:75, 10:100] = True
    assert np.all(seen[~inside] == (9, 9, 9))
    assert np.all(seen[inside] == 255)


def test_an_automatic_window_leaves_single_hot_pixels_out() -> None:
    numbers = np.tile(np.arange(1000, dtype=np.uint16), (1, 1, 1, 100, 1))
    numbers[0, 0, 0, 50, 500] = 65535
    low, high = automatic_window(stack(numbers), 0)
    assert 0 <= low <= 20
    assert 980 <= high <= 1000


def test_an_empty_channel_has_a_window_all_the_same() -> None:
    low, high = automatic_window(stack(np.zeros((1, 1, 1, 9, 9), np.float32)), 0)
    assert low < high


def test_statistics_are_those_of_numpy() -> None:
    numbers = np.random.default_rng(1).normal(5, 2, (2, 3, 1, 70, 90))
    seen = statistics(stack(numbers), Plane(1, 2, 0))
    plane = numbers[1, 2, 0]
    assert seen.pixels == plane.size
    assert seen.minimum == plane.min()
    assert seen.maximum == plane.max()
    assert seen.mean == pytest.approx(plane.mean())
    assert seen.deviation == pytest.approx(plane.std())
    assert seen.percentiles["50"] == pytest.approx(np.median(plane))


@pytest.mark.parametrize("bins", [1, 7, 256, 1000])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_histogram_counts_every_pixel_once(dtype: str, bins: int) -> None:
    numbers = ramp(dtype, 3, 120)
    seen = histogram(stack(numbers), Plane(), bins)
    assert len(seen.counts) == bins
    assert sum(seen.counts) == numbers.size
    assert seen.minimum <= 3
    assert seen.maximum >= 120


def test_a_large_level_is_sampled_and_not_read_whole() -> None:
    read = []

    def chunk(_: int, plane: Plane, t_x: int, t_y: int) -> npt.NDArray[Any]:
        read.append((t_x, t_y))
        return np.full((256, 256), 7, np.uint8)

    huge = stack(np.zeros((1, 1, 1, 9, 9), np.uint8))
    level = Level(200_000, 90_000, 256, 256, encoded=False)
    planes = ChunkedPlanes(
        huge.path, (level,), huge.facts, huge.planes, chunk, lambda: None
    )
    assert statistics(planes, Plane()).mean == 7
    assert 8 <= len(read) <= 256


def test_the_planes_of_a_rendered_picture_are_its_numbers() -> None:
    numbers = ramp("uint16", 0, 40000)
    with Rendered(stack(numbers)) as shown:
        seen = planes_of(shown).read_plane(0, 5, 6, (20, 10), plane=Plane())
    assert np.array_equal(seen, numbers[0, 0, 0, 6:16, 5:25])


def test_styles_that_mean_the_same_have_one_key() -> None:
    first = parse('{"channels":[{"index":1,"color":"#FF0000","window":[0,10]}]}')
    second = parse(
        '{ "t": 0, "channels": [ {"window": [0.0, 10.0], "color": "ff0000",'
        ' "gamma": 1, "index": 1} ] }'
    )
    assert first == second
    assert first.key == second.key
    assert first.key != parse('{"channels":[{"index":1}]}').key
    assert parse('{"projection":"max","z":3}') == parse('{"projection":"max"}')


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be JSON"),
        ("[" * 4000, "must be JSON|object"),
        ("x" * (LONGEST_TEXT + 1), "at most"),
        ("[]", "JSON object"),
        ('{"colour":1}', "has no 'colour'"),
        ('{"z":-1}', "z must be"),
        ('{"z":true}', "z must be"),
        ('{"t":1.5}', "t must be"),
        ('{"projection":"min"}', "projection"),
        ('{"channels":[]}', "channels must be"),
        ('{"channels":[{}]}', "index must be"),
        ('{"channels":[{"index":0,"gamma":0}]}', "gamma must be"),
        ('{"channels":[{"index":0,"window":[1,1]}]}', "two different"),
        ('{"channels":[{"index":0,"window":[1]}]}', "window must be"),
        ('{"channels":[{"index":0,"window":[NaN,1]}]}', "out of range"),
        ('{"channels":[{"index":0,"window":[0,1e99]}]}', "out of range"),
        ('{"channels":[{"index":0,"color":"red"}]}', "hexadecimal"),
        ('{"channels":[{"index":0,"color":7}]}', "hexadecimal"),
    ],
)
def test_a_wrong_style_is_refused_with_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        parse(text)


@pytest.mark.parametrize(
    "style",
    [Style(z=5), Style(t=1), Style(channels=(ChannelStyle(0), ChannelStyle(1)))],
)
def test_a_style_that_names_what_the_image_lacks_is_refused(style: Style) -> None:
    planes = stack(np.zeros((1, 5, 1, 9, 9), np.uint8))
    with Rendered(planes) as shown, pytest.raises(BadRequest, match="There is no"):
        shown.restyled(style)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["index", "color", "window", "gamma", "z", "t", "channels"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_json | st.dictionaries(st.sampled_from(["channels", "z", "t"]), _json))
def test_any_json_is_a_style_or_a_bad_request(value: Any) -> None:
    text = json.dumps(value)
    try:
        style = parse(text)
    except BadRequest:
        return
    assert len(style.key) == 16

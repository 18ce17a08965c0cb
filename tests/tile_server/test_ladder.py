"""The ladder's geometry holds for every size of slide and every set of levels."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tile_server import ladder
from tile_server.errors import OutsideTheGrid
from tile_server.readers.protocol import Level

sides = st.integers(1, 300_000)
grids = st.sampled_from([64, 240, 256, 512, 1024])


@st.composite
def stored_levels(draw: st.DrawFn) -> list[Level]:
    """Levels as scanners write them: sizes divided and rounded one way or another."""
    width, height, tile = draw(sides), draw(sides), draw(grids)
    downsamples = draw(st.lists(st.sampled_from([2, 3, 4, 8, 16, 32]), unique=True))
    rounding = draw(st.sampled_from([math.floor, math.ceil, round]))
    levels = [Level(width, height, tile, tile, encoded=True)]
    for downsample in sorted(downsamples):
        size = rounding(width / downsample), rounding(height / downsample)
        levels.append(Level(max(1, size[0]), max(1, size[1]), tile, tile, encoded=True))
    return levels


@given(stored_levels())
def test_each_rung_halves_the_one_before(levels: list[Level]) -> None:
    rungs = ladder.build(levels).rungs
    full = rungs[0]
    assert (full.width, full.height) == (levels[0].width, levels[0].height)
    for k, rung in enumerate(rungs):
        assert rung.downsample == 2**k
        assert rung.width == math.ceil(full.width / 2**k)
        assert rung.height == math.ceil(full.height / 2**k)


@given(stored_levels())
def test_only_the_last_rung_fits_one_tile(levels: list[Level]) -> None:
    rungs = ladder.build(levels).rungs
    assert (rungs[-1].columns, rungs[-1].rows) == (1, 1)
    assert all(rung.columns > 1 or rung.rows > 1 for rung in rungs[:-1])


@given(stored_levels())
def test_the_tiles_cover_a_rung_and_no_more(levels: list[Level]) -> None:
    built = ladder.build(levels)
    for rung in built.rungs:
        assert (rung.columns - 1) * built.tile < rung.width <= rung.columns * built.tile
        assert (rung.rows - 1) * built.tile < rung.height <= rung.rows * built.tile


@given(stored_levels())
def test_a_serving_level_is_within_one_pixel_at_every_corner(
    levels: list[Level],
) -> None:
    full = levels[0]
    for rung in ladder.build(levels).rungs:
        if rung.level is None:
            continue
        level = levels[rung.level]
        assert abs(full.width / rung.downsample - level.width) <= 1
        assert abs(full.height / rung.downsample - level.height) <= 1


@given(stored_levels())
def test_z_and_rung_are_each_others_inverse(levels: list[Level]) -> None:
    built = ladder.build(levels)
    assert built.rung(built.n).k == 0
    for rung in built.rungs:
        assert built.rung(built.z(rung)) is rung


@given(stored_levels())
def test_every_missing_rung_has_a_finer_source_within_reach(
    levels: list[Level],
) -> None:
    built = ladder.build(levels)
    for longest in (2, 3):
        for rung in built.rungs[1:]:
            source = built.source(rung, longest)
            assert 1 <= rung.k - source.k <= longest


@given(stored_levels(), st.integers(-2, 40), st.integers(-2, 9), st.integers(-2, 9))
def test_a_tile_outside_the_grid_is_refused(
    levels: list[Level], z: int, t_x: int, t_y: int
) -> None:
    built = ladder.build(levels)
    inside = 0 <= z <= built.n
    if inside:
        rung = built.rung(z)
        inside = 0 <= t_x < rung.columns and 0 <= t_y < rung.rows
    if inside:
        assert built.tile_rung(z, t_x, t_y).k == built.n - z
    else:
        with pytest.raises(OutsideTheGrid):
            built.tile_rung(z, t_x, t_y)


def test_a_level_of_another_tile_size_is_not_stored_tiles() -> None:
    levels = [
        Level(1000, 800, 240, 240, encoded=True),
        Level(500, 400, 256, 256, encoded=True),
    ]
    rung = ladder.build(levels).rungs[1]
    assert rung.level == 1
    assert not rung.stored


def test_a_level_that_drifts_serves_no_rung() -> None:
    levels = [
        Level(6000, 4500, 240, 240, encoded=True),
        Level(1498, 1125, 240, 240, encoded=True),
    ]
    assert ladder.build(levels).rungs[2].level is None

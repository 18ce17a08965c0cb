import numpy as np
import pytest
from theatrum.structures import OPERATIONS, StructureError, run

SPACING = (2.0, 1.0, 1.0)
Z, Y, X = np.mgrid[:21, :41, :41]


def ball(radius_mm, centre=(10, 20, 20)):
    z, y, x = centre
    away = ((Z - z) * 2.0) ** 2 + (Y - y) ** 2 + (X - x) ** 2
    return away <= radius_mm**2


BODY = ball(18)
MASKS = {"Tumour": ball(6), "Body": BODY, "Cord": ball(3, (10, 20, 33))}


def made(kind, *names, **parameters):
    step = {"type": kind, "structures": names or ("Tumour",), "parameters": parameters}
    return run([step], MASKS, SPACING)


def test_a_margin_is_the_same_in_every_direction():
    assert np.array_equal(made("expand", margin_mm=0), MASKS["Tumour"])
    grown = made("expand", margin_mm=4)
    assert np.abs(grown ^ ball(10)).sum() / ball(10).sum() < 0.15
    along = np.flatnonzero(grown[10, 20]), np.flatnonzero(grown[:, 20, 20])
    assert (len(along[0]) - 1) / 2 == 10
    assert (len(along[1]) - 1) / 2 * 2 == 10


def test_contracting_undoes_expanding():
    shrunk = made("contract", margin_mm=2)
    assert shrunk.sum() < MASKS["Tumour"].sum()
    assert not (shrunk & ~MASKS["Tumour"]).any()
    assert np.array_equal(made("margin", margin_mm=-2), shrunk)
    assert np.array_equal(made("margin", margin_mm=2), made("expand", margin_mm=2))


def test_other_margins_on_other_sides():
    grown = made("anisotropic_margin", left_mm=5, superior_mm=4)
    x = np.flatnonzero(grown[10, 20])
    z = np.flatnonzero(grown[:, 20, 20])
    assert (x[0], x[-1]) == (14, 31)
    assert (z[0], z[-1]) == (7, 15)
    assert (grown | ~MASKS["Tumour"]).all()


def test_structures_are_joined_cut_and_taken_away():
    tumour, body = MASKS["Tumour"], MASKS["Body"]
    assert np.array_equal(made("union", "Tumour", "Body"), tumour | body)
    assert np.array_equal(made("intersection", "Tumour", "Body"), tumour & body)
    assert np.array_equal(made("subtract", "Body", "Tumour"), body & ~tumour)
    ring = made("subtract", "Body", "Tumour", margin_mm=3)
    assert not (ring & made("expand", margin_mm=3)).any()


def test_a_structure_is_kept_off_a_boundary():
    grown = run(
        [
            {
                "type": "expand",
                "structures": ["tumour"],
                "parameters": {"margin_mm": 15},
            },
            {
                "type": "crop_to_boundary",
                "structures": ["Body"],
                "parameters": {"margin_mm": 3},
            },
        ],
        MASKS,
        SPACING,
    )
    assert not (grown & ~BODY).any()
    assert np.array_equal(grown & BODY, grown)
    assert grown.sum() < BODY.sum()


def test_parts_are_kept_or_dropped_by_their_size():
    both = {"Both": MASKS["Tumour"] | MASKS["Cord"]}
    step = {"type": "keep_largest", "structures": ["Both"]}
    assert np.array_equal(run([step], both, SPACING), MASKS["Tumour"])
    step = {
        "type": "remove_small_components",
        "structures": ["Both"],
        "parameters": {"volume_ml": 0.5},
    }
    assert np.array_equal(run([step], both, SPACING), MASKS["Tumour"])


def test_holes_gaps_and_protrusions():
    hollow = {"H": BODY & ~MASKS["Tumour"]}
    assert np.array_equal(
        run([{"type": "fill_holes", "structures": ["H"]}], hollow, SPACING), BODY
    )
    whisker = BODY.copy()
    whisker[10, 20, :] = True
    step = {
        "type": "remove_protrusions",
        "structures": ["W"],
        "parameters": {"margin_mm": 2},
    }
    cleaned = run([step], {"W": whisker}, SPACING)
    assert not cleaned[10, 20, :2].any()
    assert cleaned.sum() > 0.97 * BODY.sum()
    slit = BODY.copy()
    slit[:, 20, :] = False
    step = step | {"type": "close_gaps"}
    assert run([step], {"W": slit}, SPACING)[10, 20, 20]


def test_smoothing_keeps_the_volume_of_a_ball():
    assert made("smooth", "Body").sum() == pytest.approx(BODY.sum(), rel=0.05)


@pytest.mark.parametrize("kind", sorted(OPERATIONS))
def test_every_operation_works_on_a_structure_that_is_empty(kind):
    nothing = {"A": np.zeros_like(BODY), "B": np.zeros_like(BODY)}
    step = {
        "type": kind,
        "structures": ["A", "B"],
        "parameters": {"margin_mm": 3, "volume_ml": 1},
    }
    result = run([step], nothing, SPACING)
    assert result.shape == BODY.shape
    assert result.dtype == bool


@pytest.mark.parametrize(
    ("pipeline", "why"),
    [
        ([], "at least one"),
        ([{"type": "grow", "structures": ["Tumour"]}], "no operation"),
        ([{"type": "expand", "structures": ["Tumour"]}], "margin_mm"),
        ([{"type": "union", "structures": ["Heart"]}], "no structure"),
        ([{"type": "union"}], "name a structure"),
        (
            [
                {
                    "type": "expand",
                    "structures": ["Tumour"],
                    "parameters": {"margin_mm": 1e9},
                }
            ],
            "a margin is",
        ),
    ],
)
def test_a_pipeline_that_makes_no_sense_is_refused_by_its_step(pipeline, why):
    with pytest.raises(StructureError, match=why):
        run(pipeline, MASKS, SPACING)

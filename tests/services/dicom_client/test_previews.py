"""Pictures and measures of a case, for the pages."""

import io
import json
from datetime import UTC, datetime

import numpy as np
import PIL.Image
import pytest
from theatrum.structures import (
    BadStructures,
    Drawn,
    StructureSet,
    series_geometry,
    structure_set,
)
from theatrum.structures.structure_set import Roi

from services.dicom_client.overlap import overlaps, paired
from services.dicom_client.previews import Case, preview
from tests.extensions.structures.series import ct_series
from tests.services.dicom_client.test_packaging import put

AT = datetime(2026, 3, 17, tzinfo=UTC)


@pytest.fixture
def case(tmp_path):
    """Files of a series, and two structure sets on it."""
    pixels = np.full((8, 40, 50), -500)
    pixels[2:7, 10:30, 10:40] = 40
    images = ct_series(slices=8, pixels=pixels)
    files = [put(one, tmp_path / f"{at}.dcm") for at, one in enumerate(images)]
    geometry = series_geometry(images)
    box = pixels == 40
    shifted = np.roll(box, 2, axis=2)
    written = []
    for name, drawn in (
        ("result.dcm", [Drawn("Lung_L", box, (255, 0, 0)), Drawn("Heart", ~box)]),
        ("manual.dcm", [Drawn("Left lung", shifted), Drawn("Liver", box)]),
    ):
        made = structure_set(
            drawn, images, geometry, label="x", series_description="x", made_at=AT
        )
        made.save_as(tmp_path / name, enforce_file_format=True)
        written.append(tmp_path / name)
    return files, images, *written


def test_three_planes_through_a_structure_are_small_pngs_with_its_outline(case):
    files, _, result, _ = case
    made = preview(files, result, "Lung_L")
    assert made.structures == ("Lung_L", "Heart")
    for content in (made.axial, made.coronal, made.sagittal):
        assert len(content) < 50_000
        with PIL.Image.open(io.BytesIO(content)) as opened:
            pixels = np.asarray(opened)
        assert max(pixels.shape) == 384
        assert (pixels == (255, 0, 0)).all(axis=2).any()


def test_a_case_without_structures_is_shown_through_its_middle(case):
    files, *_ = case
    made = Case(files, None).preview(size_px=100, window=(0, 100))
    assert made.structures == ()
    assert made.window == (0, 100)
    assert made.axial.startswith(b"\x89PNG")


def test_a_structure_that_is_not_there_is_told(case):
    files, _, result, _ = case
    with pytest.raises(BadStructures, match="Lung_L"):
        preview(files, result, "Spleen")


def test_a_result_is_measured_against_what_a_person_drew(case):
    _, images, result, manual = case
    (measured,) = overlaps(result, manual, images)
    assert (measured.structure, measured.reference) == ("Lung_L", "Left lung")
    said = measured.as_json()
    assert said["dice"] == pytest.approx(28 / 30)
    # Two columns of 1.1 mm.
    assert said["hausdorff_95_mm"] == pytest.approx(2.2)
    assert said["surface_dice"] == 1.0
    json.dumps(said)


def test_pairs_may_be_chosen_and_an_empty_structure_has_no_distance(case):
    _, images, result, manual = case
    pairs = {"Lung_L": "Liver", "Heart": "Left lung"}
    first, second = overlaps(result, manual, images, pairs=pairs)
    assert first.comparison.dice == 1.0
    assert second.comparison.dice < 0.5
    with pytest.raises(BadStructures, match="Spleen"):
        overlaps(result, manual, images, pairs={"Lung_L": "Spleen"})


def test_a_reference_on_other_images_is_refused(case, tmp_path):
    _, _, result, manual = case
    with pytest.raises(BadStructures, match="another frame of reference"):
        overlaps(result, manual, ct_series(slices=8))


def test_names_pair_by_what_they_mean():
    def named(*names):
        rois = tuple(Roi(at, name) for at, name in enumerate(names))
        return StructureSet("", rois, (), ())

    ours = named("Lung_L", "LUNG RIGHT", "Heart", "Cord", "cord")
    theirs = named("Left Lung", "Rt Lung", "Heart2", "Cord")
    assert paired(ours, theirs) == {"Lung_L": "Left Lung", "LUNG RIGHT": "Rt Lung"}

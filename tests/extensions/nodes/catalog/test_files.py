"""What nodes write, read back by other programs."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import xarray as xr
from PIL import Image as Pillow
from theatrum.node import BadValue, Context, Table, affine_of, spacing_of
from theatrum.nodes.catalog import (
    jpg,
    merge_channels,
    profile_report,
    slices,
    thumbnail,
    to_bids,
    to_excel,
    to_nifti,
    to_ome_tiff,
    to_ome_zarr,
)

from tests.extensions.nodes.catalog.phantoms import head, plane


def test_nifti_has_the_same_voxels_in_the_same_place(tmp_path: Path) -> None:
    file = to_nifti(head(), context=Context(folder=tmp_path))
    back = nibabel.load(file.path)
    assert np.array_equal(np.asarray(back.dataobj).transpose(2, 1, 0), head().values)
    assert np.allclose(back.affine, affine_of(head()))
    assert back.get_data_dtype() == np.int16
    assert back.header["sform_code"] == 1


def test_nifti_keeps_time_and_tells_an_unknown_place_as_such(tmp_path: Path) -> None:
    bare = head().assign_attrs(affine=None)
    series = xr.concat([bare, bare + 1], dim="t").assign_coords(t=[0.0, 2.5])
    file = to_nifti(series.astype(np.int64), context=Context(folder=tmp_path))
    back = nibabel.load(file.path)
    assert back.shape == (28, 24, 20, 2)
    assert back.header.get_zooms()[3] == 2.5
    assert back.header["sform_code"] == 0
    assert back.get_data_dtype() == np.int32
    with pytest.raises(BadValue, match="no axis c"):
        to_nifti(merge_channels([plane(), plane()]), context=Context(folder=tmp_path))


def test_numbers_of_half_length_become_nifti_of_32_bits(tmp_path: Path) -> None:
    file = to_nifti((head() / 7).astype(np.float16), context=Context(folder=tmp_path))
    back = nibabel.load(file.path)
    assert back.get_data_dtype() == np.float32
    wanted = (head() / 7).astype(np.float16).values.transpose(2, 1, 0)
    assert np.array_equal(np.asarray(back.dataobj), wanted)


def test_bids_has_the_layout_that_the_standard_asks_for(tmp_path: Path) -> None:
    scan = head().assign_attrs(protocol={"repetition_time_ms": 2300.0})
    file = to_bids(
        scan, subject="01", session="a", run=2, context=Context(folder=tmp_path)
    )
    folder = file.path / "sub-01" / "ses-a" / "anat"
    assert (folder / "sub-01_ses-a_run-02_T1w.nii.gz").is_file()
    sidecar = json.loads((folder / "sub-01_ses-a_run-02_T1w.json").read_text())
    assert sidecar == {"Modality": "MR", "RepetitionTime": 2.3}
    described = json.loads((file.path / "dataset_description.json").read_text())
    assert {"Name", "BIDSVersion"} <= set(described)
    with pytest.raises(BadValue, match="task"):
        to_bids(scan, subject="1", suffix="bold", context=Context(folder=tmp_path))


def test_the_protocol_of_a_file_comes_through_to_bids(tmp_path: Path) -> None:
    from theatrum.catalog.arrays import open_array
    from theatrum.catalog.zarr_store import write_image

    source = tmp_path / "scan.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), source)
    told = {"EchoTime": 0.0045, "RepetitionTime": 2.3, "MagneticFieldStrength": 3}
    source.with_suffix(".json").write_text(json.dumps(told))
    # What was made of it, kept and opened again, was taken in the same way.
    made = write_image(tmp_path / "a.ome.zarr", open_array(source) * 2).path
    file = to_bids(open_array(made), subject="1", context=Context(folder=tmp_path))
    sidecar = json.loads(next(file.path.glob("sub-1/anat/*.json")).read_text())
    assert {name: sidecar[name] for name in told} == told


def test_ome_tiff_tells_scale_and_channels(tmp_path: Path) -> None:
    import tifffile

    image = merge_channels([plane(0), plane(1)]).astype(np.uint16)
    image = image.assign_attrs(channels=["DAPI", "GFP"])
    file = to_ome_tiff(image, context=Context(folder=tmp_path))
    with tifffile.TiffFile(file.path) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == "CYX"
        assert np.array_equal(tiff.asarray(), image.values)
        assert 'PhysicalSizeX="500.0"' in tiff.ome_metadata
        assert 'Name="GFP"' in tiff.ome_metadata


def test_a_jpeg_is_the_slices_pixels_without_frame_or_axes(tmp_path: Path) -> None:
    cut = slices(head(), count=3)
    files = jpg(cut, format="png", exact=True, context=Context(folder=tmp_path))
    assert [one.path.name for one in files] == [f"ax-{at:04d}.png" for at in (8, 9, 10)]
    values = cut.values.astype(float)
    want = np.rint((values - values.min()) / (values.max() - values.min()) * 255)
    for at, file in enumerate(files):
        assert np.array_equal(np.asarray(Pillow.open(file.path)), want[at])


def test_bytes_are_rendered_as_they_are(tmp_path: Path) -> None:
    image = xr.DataArray(np.arange(64, dtype=np.uint8).reshape(8, 8), dims=("y", "x"))
    (file,) = jpg(image, format="png", context=Context(folder=tmp_path))
    assert np.array_equal(np.asarray(Pillow.open(file.path)), image.values)


def test_pixels_that_are_not_square_are_shown_true_in_shape(tmp_path: Path) -> None:
    cut = slices(head(), plane="ax", count=1)  # 2 mm by 3 mm
    (file,) = jpg(cut, context=Context(folder=tmp_path))
    with Pillow.open(file.path) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (28, 36)
    (small,) = jpg(cut, largest_px=18, context=Context(folder=tmp_path))
    with Pillow.open(small.path) as picture:
        assert max(picture.size) == 18


def test_a_jpeg_is_as_pillow_writes_it_at_that_quality(tmp_path: Path) -> None:
    from io import BytesIO

    image = xr.DataArray(
        np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8),
        dims=("y", "x"),
    )
    (file,) = jpg(image, quality=75, context=Context(folder=tmp_path))
    want = BytesIO()
    Pillow.fromarray(image.values).save(want, "JPEG", quality=75, subsampling=0)
    assert file.path.read_bytes() == want.getvalue()


def test_a_constant_image_is_rendered_black(tmp_path: Path) -> None:
    (file,) = jpg(plane() * 0 + 9, format="png", context=Context(folder=tmp_path))
    assert not np.asarray(Pillow.open(file.path)).any()


def test_a_thumbnail_shows_the_middle_small(tmp_path: Path) -> None:
    file = thumbnail(head(), edge_px=16, context=Context(folder=tmp_path))
    assert file.role == "thumbnail"
    with Pillow.open(file.path) as picture:
        assert max(picture.size) == 16
    colours = merge_channels([plane(0), plane(1), plane(2), plane(3)])
    file = thumbnail(colours, context=Context(folder=tmp_path / "b"))
    with Pillow.open(file.path) as picture:
        assert picture.mode == "RGB"


TABLE = Table(
    {
        "name": ["a<b", "=1+1", None, "a<b"],
        "area": [1.5, None, 3.0, 4.5],
        "count": [1, 2, 3, 4],
        "good": [True, False, True, True],
    },
    {"area": "mm2"},
)


def test_a_workbook_is_read_back_cell_by_cell(tmp_path: Path) -> None:
    import zipfile

    from defusedxml import ElementTree

    file = to_excel(TABLE, name="areas", context=Context(folder=tmp_path))
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(file.path) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            ElementTree.fromstring(archive.read(name))  # each part is XML
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    cells = {one.get("r"): "".join(one.itertext()) for one in sheet.iter(f"{space}c")}
    kinds = {one.get("r"): one.get("t") for one in sheet.iter(f"{space}c")}
    assert cells["B1"] == "area [mm2]"
    assert cells["A2"] == "a<b"
    assert cells["A3"] == "=1+1"
    assert kinds["A3"] == "inlineStr"  # a text, no formula
    assert "A4" not in cells
    assert "B3" not in cells
    assert float(cells["B5"]) == 4.5
    assert (kinds["D2"], cells["D2"], cells["D3"]) == ("b", "1", "0")


def test_a_report_describes_each_column(tmp_path: Path) -> None:
    file = profile_report(TABLE, title="Areas", context=Context(folder=tmp_path))
    page = file.path.read_text()
    assert "a&lt;b" in page
    assert "<script" not in page
    assert "3 of 4" in page
    assert "<dt>Median</dt><dd>3 mm2</dd>" in page
    assert np.corrcoef([1.5, 3, 4.5], [1, 3, 4])[0, 1] == pytest.approx(0.98, abs=0.01)
    assert "<td>0.98</td>" in page


def test_ome_zarr_keeps_voxels_place_and_channels(tmp_path: Path) -> None:
    from theatrum.catalog.arrays import open_array

    file = to_ome_zarr(head(), context=Context(folder=tmp_path))
    back = open_array(file.path)
    assert np.array_equal(back, head())
    assert np.allclose(affine_of(back), affine_of(head()))
    assert spacing_of(back) == {"x": 2.0, "y": 3.0, "z": 4.0}

"""Originals, BIDS and slices: what other programs take."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
from theatrum.catalog import picture
from theatrum.catalog.connection import Catalog, connect
from theatrum.catalog.errors import BadQuery, BadRecord
from theatrum.catalog.exchange.examples import keep_examples
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.record import recording


def exported(catalog: Catalog, folder: Path, what: str, **options: object) -> Path:
    return catalog.export(
        catalog.images.filter(project="mice"), folder / "out", what, **options
    )


def files(folder: Path) -> list[str]:
    return sorted(
        one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()
    )


def test_originals_are_byte_for_byte_and_derived_ones_whole_groups(
    catalog: Catalog, tmp_path: Path
) -> None:
    out = exported(catalog, tmp_path, "originals")
    scan = catalog.images.get(name="scan", project="mice")
    assert (out / "mice/scan/scan.nii").read_bytes() == Path(scan.path).read_bytes()
    assert any(name.startswith("mice/half/") for name in files(out))
    listed = (out / "images.csv").read_text().splitlines()
    assert len(listed) == 3
    assert "CC-BY-4.0" in (out / "LICENCE.txt").read_text()


def test_a_scan_in_bids_has_its_name_its_place_and_its_times(
    catalog: Catalog, tmp_path: Path
) -> None:
    out = exported(catalog, tmp_path, "bids")
    stem = "sub-m1/ses-day2/anat/sub-m1_ses-day2_T1w"
    scan = catalog.images.get(name="scan", project="mice")
    assert (out / f"{stem}.nii").read_bytes() == Path(scan.path).read_bytes()
    sidecar = json.loads((out / f"{stem}.json").read_text())
    assert sidecar["EchoTime"] == 0.0025
    assert sidecar["RepetitionTime"] == 2.3
    people = (out / "participants.tsv").read_text().splitlines()
    assert people[0].split("\t")[0] == "participant_id"
    assert people[1].split("\t") == ["sub-m1", "n/a", "F", "n/a"]
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["Name"] == "Mice"
    assert about["BIDSVersion"]


def test_what_no_suffix_of_bids_fits_is_never_given_one(
    catalog: Catalog, tmp_path: Path
) -> None:
    out = exported(catalog, tmp_path, "bids")
    (half,) = (name for name in files(out) if name.endswith(".nii.gz"))
    assert half == "sourcedata/sub-m1/ses-day2/half.nii.gz"
    assert "half" in (out / "README").read_text()


def test_what_is_written_as_nifti_has_the_same_voxels_and_affine(
    catalog: Catalog, tmp_path: Path
) -> None:
    out = exported(catalog, tmp_path, "bids")
    (name,) = (one for one in files(out) if one.endswith(".nii.gz"))
    read = nibabel.load(out / name)
    original = nibabel.load(catalog.images.get(name="scan", project="mice").path)
    whole = np.asarray(original.dataobj)
    np.testing.assert_array_equal(np.asarray(read.dataobj), whole[:, :, 2:])
    half = catalog.images.get(name="half", project="mice").array
    np.testing.assert_allclose(read.affine, half.attrs["affine"])


def test_central_slices_are_those_around_the_middle(
    catalog: Catalog, tmp_path: Path
) -> None:
    out = exported(catalog, tmp_path, "slices", planes="ax", central=2)
    scans = [name for name in files(out) if name.startswith("mice/scan/")]
    assert scans == ["mice/scan/ax_0001.jpg", "mice/scan/ax_0002.jpg"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, [0, 1, 2, 3]),
        ({"every": 2}, [0, 2]),
        ({"mm": "2.5,6.5"}, [1, 2]),
        ({"central": 100}, [0, 1, 2, 3]),
    ],
)
def test_slices_are_chosen_and_none_is_lost(
    catalog: Catalog, tmp_path: Path, options: dict[str, object], found: list[int]
) -> None:
    out = exported(catalog, tmp_path, "slices", **options)
    scans = [name for name in files(out) if name.startswith("mice/scan/")]
    assert scans == [f"mice/scan/ax_{number:04d}.jpg" for number in found]
    table = (out / "slices.csv").read_text().splitlines()
    assert sum(line.startswith("mice/scan,") for line in table) == len(found)


@pytest.mark.parametrize("plane", ["ax", "cor", "sag"])
def test_a_slice_is_the_drawn_plane_and_no_plot(
    catalog: Catalog, tmp_path: Path, plane: str
) -> None:
    out = exported(catalog, tmp_path, "slices", planes=plane, window="0,200")
    array = catalog.images.get(name="scan", project="mice").array
    drawn = picture.draw(array, plane=plane, at=1, window=(0.0, 200.0))
    with PIL.Image.open(out / f"mice/scan/{plane}_0001.jpg") as saved:
        assert saved.size == drawn.size
        again = io.BytesIO()
        drawn.save(again, "JPEG", quality=90)
        expected = np.asarray(PIL.Image.open(again))
        np.testing.assert_array_equal(np.asarray(saved), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"planes": "oblique"}, {"central": 2, "every": 2}, {"central": "many"},
        {"mm": "5"}, {"mm": "5,1"}, {"window": "bright"}, {"colour": "red"},
    ],
)  # fmt: skip
def test_words_that_choose_nothing_are_refused(
    catalog: Catalog, tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(BadQuery):
        exported(catalog, tmp_path, "slices", **options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_kind_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(BadRecord):
        exported(catalog, tmp_path, "paper")


def test_the_six_examples_are_kept_once_and_find_what_they_say(
    catalog: Catalog,
) -> None:
    kept = keep_examples(catalog, "mice")
    assert sorted(row.slug for row in kept) == [
        f"{kind}_{plane}"
        for kind in ("notumor", "tumor")
        for plane in ("ax", "cor", "sag")
    ]
    assert keep_examples(catalog, "mice") == []
    assert catalog.saved("notumor_ax").count() == 1
    assert catalog.saved("tumor_ax").count() == 0
    assert isinstance(catalog.backend, LocalBackend)
    with recording(catalog.backend.database, "erika") as book:
        project = book.project("mice")
        book.subject(project, "m-1", diagnosis="High-grade glioma")
    assert catalog.saved("notumor_ax").count() == 0
    scan = catalog.images.get(name="scan", project="mice")
    scan.change(plane="ax")
    assert catalog.saved("tumor_ax").count() == 1


def test_originals_are_the_files_that_came_not_the_copy_that_is_shown(
    tmp_path: Path,
) -> None:
    values = np.arange(8 * 9 * 10, dtype=np.int16).reshape(10, 9, 8)
    came = tmp_path / "stack.nrrd"
    header = "NRRD0004\ntype: int16\ndimension: 3\nsizes: 8 9 10\nencoding: raw\n"
    header += "endian: little\nspace: left-posterior-superior\n"
    header += "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    came.write_bytes(header.encode() + values.tobytes())
    catalog = connect(tmp_path / "home", user="erika")
    catalog.ingest(came, project="mice")
    (image,) = catalog.images
    assert image.kind == "initial"  # what is shown is a copy
    image.derive("half", lambda array: array.isel(z=slice(2))).save("half")
    out = exported(catalog, tmp_path, "originals")
    assert (out / "mice/stack/stack.nrrd").read_bytes() == came.read_bytes()
    assert [one for one in files(out) if one.startswith("mice/stack/")] == [
        "mice/stack/stack.nrrd"
    ]
    assert any(one.startswith("mice/half/") and "zarr" in one for one in files(out))
    catalog.close()


def mixed(folder: Path) -> Catalog:
    """A project with scans of somebody, of nobody, and of what BIDS has no name for."""
    catalog = connect(folder / "home", user="erika")
    source = folder / "src"
    source.mkdir()
    values = np.random.default_rng(0).integers(0, 99, (8, 9, 10)).astype(np.int16)

    def scan(name: str, **about: object) -> None:
        other = values + sum(name.encode())  # equal bytes would be one image
        nibabel.save(nibabel.Nifti1Image(other, np.eye(4)), source / f"{name}.nii.gz")
        if about:
            (source / f"{name}.json").write_text(json.dumps(about))

    scan("sub-01_T1w", EchoTime=0.003, RepetitionTime=2.3, SliceTiming=[0, 9])
    scan("sub-02_FLAIR", PhaseEncodingDirection="ROW", Modality="MR")
    scan("sub-03_scout", Modality="MR")
    scan("T2w", Modality="MR")
    scan("T1w", Modality="MR")
    scan("thorax", Modality="CT")
    scan("brain", Modality="PT")
    for name, step in (("sub-02_task-rest_bold", 2.0), ("sub-04_task-x_bold", 3.0)):
        image = nibabel.Nifti1Image(np.stack([values] * 4, -1), np.eye(4))
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((1, 1, 1, step))
        nibabel.save(image, source / f"{name}.nii.gz")
        about = {"RepetitionTime": 2.0, "TaskName": "rest", "SliceTiming": [0, 1]}
        (source / f"{name}.json").write_text(json.dumps(about))
    report = catalog.ingest(source, project="mice")
    assert not report.refused, report.refused
    return catalog


def test_a_mixed_project_is_valid_bids(tmp_path: Path) -> None:
    catalog = mixed(tmp_path)
    out = exported(catalog, tmp_path, "bids")
    catalog.close()
    folders = {one.name for one in out.iterdir() if one.name.startswith("sub-")}
    people = [
        line.split("\t")[0]
        for line in (out / "participants.tsv").read_text().splitlines()[1:]
    ]
    # Who has no folder has no row, and whose folder there is has one.
    assert sorted(folders) == people == ["sub-01", "sub-02", "sub-unknown"]
    named = files(out)
    assert {one for one in named if one.startswith("sub-unknown/")} == {
        f"sub-unknown/anat/sub-unknown_{suffix}.{ending}"
        for suffix in ("T1w", "T2w")
        for ending in ("nii.gz", "json")
    }
    assert "sub-02/func/sub-02_task-rest_bold.nii.gz" in named
    # Two times between volumes contradict each other: nobody knows which is right.
    assert not any(one.startswith("sub-04/") for one in named)
    for one in out.glob("sub-*/**/*.json"):
        told = json.loads(one.read_text())
        assert not {"SliceTiming", "PhaseEncodingDirection"} & told.keys()
    validator = shutil.which("bids-validator-deno") or shutil.which("bids-validator")
    if validator is None:
        return  # the rules above are those that it found broken
    told = subprocess.run(
        [validator, "--json", str(out)], capture_output=True, text=True, check=False
    )
    issues = json.loads(told.stdout)["issues"]["issues"]
    errors = [one for one in issues if one.get("severity") == "error"]
    assert not errors, errors

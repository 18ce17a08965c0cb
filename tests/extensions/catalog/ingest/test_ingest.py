"""From files to images of a project, end to end."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
from sqlalchemy import select
from theatrum.catalog.arrays import open_array
from theatrum.catalog.ingest import Step, Wishes, Workers, ingest
from theatrum.catalog.ingest import pipeline as pipeline_module
from theatrum.catalog.ingest.items import files_below
from theatrum.catalog.tables import (
    Acquisition,
    Asset,
    Image,
    PlaneTable,
    Run,
    RunOutput,
    SourceFile,
    Subject,
    Visit,
)

from hub.durable.database import Database
from hub.home import Home
from tests import stacks
from tests.extensions.catalog.formats import scans
from tests.extensions.catalog.ingest.conftest import TakeIn
from tile_server.readers import open_slide


def rows(database: Database, table):
    with database.reading() as session:
        return list(session.scalars(select(table).order_by(table.id)))


def test_a_folder_of_everything_becomes_images_and_reasons(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    source = tmp_path / "source"
    scans.write_series(source / "patient" / "dicom")
    stacks.write_ome_tiff(source / "cells.ome.tif", stacks.CONFOCAL)
    scans.write_mosaic(source / "fmri" / "mosaic.dcm")
    (source / "notes.txt").write_text("nothing to see")
    (source / "cut.nii").write_bytes(b"\x5c\x01\0\0" + bytes(400))
    report = take_in(source)
    found = {one.files[0]: one for one in report.entries}
    assert set(found) == {
        "patient/dicom/000.dcm", "cells.ome.tif", "fmri/mosaic.dcm", "notes.txt",
        "cut.nii",
    }  # fmt: skip
    assert report.counts == {"taken": 3, "known": 0, "waiting": 0, "refused": 2}
    assert "no image format" in found["notes.txt"].reason
    for image in rows(catalogue, Image):
        assert image.state == "ready"
        array = open_array(image.path, image.scene)
        assert list(array.shape) == image.shape
        # The viewer opens it at the address where the catalogue says it is.
        with open_slide(Path(image.path)) as reader:
            assert reader.levels[0].width == image.n_x == image.geometry["width"]
    scan = next(one for one in rows(catalogue, Image) if one.format == "dicom")
    assert (scan.modality, scan.plane, scan.orientation) == ("MR", "ax", "RAS")
    assert scan.spacing == pytest.approx(3.0)
    assert np.allclose(scan.affine, scans.ras_affine())


def test_what_the_tile_service_cannot_show_gets_a_copy_made_by_a_run(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    path = scans.write_mosaic(tmp_path / "mosaic.dcm")
    take_in(path)
    (image,) = rows(catalogue, Image)
    assert image.path.endswith(".ome.zarr")
    assert (image.kind, image.format) == ("initial", "ome-zarr")
    array = open_array(image.path).transpose("x", "y", "z")
    found = scans.to_ras(array.values, np.asarray(array.attrs["affine"]))
    assert np.array_equal(found, scans.phantom())
    (run,) = rows(catalogue, Run)
    assert (run.requested_by, run.id) == ("ann", image.run_id)
    with catalogue.reading() as session:
        assert len(list(session.scalars(select(RunOutput)))) == 1
    (original,) = rows(catalogue, SourceFile)
    assert original.uri == str(path)


def test_a_second_run_changes_nothing_and_knows_everything(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    source = tmp_path / "source"
    scans.write_series(source / "a")
    stacks.write_nifti(source / "b.nii.gz", stacks.VOLUME)
    first = take_in(source)
    before = [one.id for one in rows(catalogue, Image)]
    shutil.copytree(source, tmp_path / "elsewhere")
    again, moved = take_in(source), take_in(tmp_path / "elsewhere")
    assert again.counts["known"] == moved.counts["known"] == 2
    assert sorted(again.images) == sorted(moved.images) == sorted(first.images)
    assert [one.id for one in rows(catalogue, Image)] == before


def test_a_series_that_grew_is_taken_in_whole_and_that_is_told(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    files = scans.write_series(tmp_path / "whole")
    part = tmp_path / "part"
    part.mkdir()
    for file in files:
        if file not in files[2:]:
            shutil.copy(file, part)
    first, second = take_in(part), take_in(tmp_path / "whole")
    assert not any("grown" in text for text in first.entries[0].warnings)
    (told,) = (text for text in second.entries[0].warnings if "grown" in text)
    assert first.images[0].split("/")[1] in told
    assert [len(one.shape) for one in rows(catalogue, Image)] == [3, 3]
    again = take_in(tmp_path / "whole")
    assert again.counts["known"] == 1


def test_series_that_share_a_folder_are_told_apart(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    source = tmp_path / "mixed"
    for number in (1, 2):
        for file in scans.write_series(
            tmp_path / str(number), SeriesInstanceUID=f"1.2.{number}"
        ):
            source.mkdir(exist_ok=True)
            shutil.copy(file, source / f"{number}-{file.name}")
    report = take_in(source)
    assert report.counts["taken"] == 2
    first, second = rows(catalogue, Image)
    assert Path(first.path).parent != Path(second.path).parent
    for image in (first, second):
        # The tile service opens a scan by a folder with its files and no others.
        assert len(list(Path(image.path).iterdir())) == 4
    assert len({one.series_uid for one in rows(catalogue, Acquisition)}) == 2


def test_a_subject_is_a_pseudonym_and_nothing_names_the_person(
    tmp_path: Path, take_in: TakeIn, home: Home, catalogue: Database
) -> None:
    scans.write_series(tmp_path / "a", SeriesInstanceUID="1.1")
    scans.write_series(tmp_path / "b", SeriesInstanceUID="1.2")
    take_in(tmp_path / "a", tmp_path / "b")
    (subject,) = rows(catalogue, Subject)
    assert len(subject.label) == 12
    content = home.catalog_db.read_bytes()
    wal = home.catalog_db.with_name(home.catalog_db.name + "-wal")
    content += wal.read_bytes() if wal.exists() else b""
    assert b"Jane" not in content
    assert b"4711" not in content


def test_bids_names_and_sidecars_are_taken_over(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    folder = tmp_path / "bids" / "sub-01" / "ses-02" / "anat"
    folder.mkdir(parents=True)
    stem = "sub-01_ses-02_T1w"
    image = nibabel.Nifti1Image(scans.phantom(), scans.ras_affine())
    nibabel.save(image, folder / f"{stem}.nii.gz")
    fields = {"MagneticFieldStrength": 3, "EchoTime": 0.003, "PatientName": "Jane"}
    (folder / f"{stem}.json").write_text(json.dumps(fields))
    report = take_in(tmp_path / "bids")
    (entry,) = report.entries
    assert len(entry.files) == 2
    (row,) = rows(catalogue, Image)
    assert row.modality == "MR"
    assert [one.label for one in rows(catalogue, Subject)] == ["01"]
    assert [one.label for one in rows(catalogue, Visit)] == ["02"]
    (acquisition,) = rows(catalogue, Acquisition)
    assert acquisition.field_strength == 3
    assert acquisition.protocol == {"echo_time_ms": 3.0}
    assert [one.role for one in rows(catalogue, Asset)] == ["sidecar"]


def test_facts_of_planes_lie_in_parquet(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    import pandas as pd

    scans.write_series(tmp_path / "a")
    take_in(tmp_path / "a")
    (table,) = rows(catalogue, PlaneTable)
    (asset,) = rows(catalogue, Asset)
    frame = pd.read_parquet(asset.uri)
    assert table.n_planes == len(frame) == 4
    assert list(frame["position_z_mm"]) == [30.0, 33.0, 36.0, 39.0]


def test_deidentified_series_are_new_files_without_the_person(
    tmp_path: Path, take_in: TakeIn, home: Home, catalogue: Database
) -> None:
    scans.write_series(tmp_path / "Doe_Jane")
    (tmp_path / "Doe_Jane" / "Jane.txt").write_text("hello")
    report = take_in(tmp_path / "Doe_Jane", profile="basic")
    assert report.counts["taken"] == 1, report.entries
    assert "Jane" not in json.dumps(report.to_json())
    (image,) = rows(catalogue, Image)
    assert Path(image.path).is_relative_to(home.images)
    for file in Path(image.path).iterdir():
        assert b"Jane" not in file.read_bytes()
    assert all(one.deidentified for one in rows(catalogue, SourceFile))
    again = take_in(tmp_path / "Doe_Jane", profile="basic")
    assert again.counts["known"] == 1


def test_an_interruption_keeps_what_is_done_and_the_rest_follows(
    tmp_path: Path, catalogue: Database, home: Home, workers: Workers
) -> None:
    for number in range(4):
        path = tmp_path / "source" / f"{number}.nii"
        path.parent.mkdir(exist_ok=True)
        image = nibabel.Nifti1Image(scans.phantom() + number, scans.ras_affine())
        nibabel.save(image, path)

    def press_ctrl_c(step: Step) -> None:
        if step.phase == "take" and step.done == 2:
            raise KeyboardInterrupt

    wishes = Wishes("study", "ann")
    source = [str(tmp_path / "source")]
    first = ingest(
        catalogue, home, source, wishes, progress=press_ctrl_c, workers=workers
    )
    assert first.interrupted
    assert first.counts["taken"] == 2 == len(rows(catalogue, Image))
    assert not list((home.images / pipeline_module.STAGING).iterdir())
    second = ingest(catalogue, home, source, wishes, workers=workers)
    assert second.counts == {"taken": 2, "known": 2, "waiting": 0, "refused": 0}


def test_originals_are_copied_where_wanted(
    tmp_path: Path, take_in: TakeIn, home: Home, catalogue: Database
) -> None:
    path = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    take_in(path, copy=True)
    path.unlink()
    (file,) = rows(catalogue, SourceFile)
    assert Path(file.uri).is_relative_to(home.images)
    assert file.sha256 in file.uri


def test_hidden_files_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "seen.txt").touch()
    (tmp_path / "a" / ".hidden").touch()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "one").touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "a" / "file").symlink_to(tmp_path / "secret" / "one")
    found = files_below(tmp_path / "a")
    assert [one.name for one in found] == ["seen.txt"]


def test_a_source_that_is_not_there_is_refused_and_the_next_is_taken(
    tmp_path: Path, take_in: TakeIn
) -> None:
    path = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    report = take_in(tmp_path / "nowhere", path)
    assert report.counts["refused"] == report.counts["taken"] == 1


def test_every_real_file_is_taken_in_or_refused_with_a_reason(
    shared_data: Path, take_in: TakeIn, catalogue: Database
) -> None:
    report = take_in(shared_data)
    told = [name for one in report.entries for name in one.files]
    there = [
        one.relative_to(shared_data).as_posix() for one in files_below(shared_data)
    ]
    assert sorted(told) == sorted(there)
    assert all(one.reason for one in report.refused)
    assert report.counts["taken"] >= 45
    for image in rows(catalogue, Image):
        with open_slide(Path(image.path)) as reader:
            assert reader.levels[0].width == image.n_x


def test_a_name_that_is_no_text_does_not_stop_the_rest(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    odd = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME).read_bytes()
    name = os.fsdecode(b"m\xfcller.nii")
    (source / name).write_bytes(odd)
    stacks.write_nifti(source / "z.nii", stacks.SIGNED)
    report = take_in(source)
    assert report.counts["taken"] == 2, report.entries
    json.dumps(report.to_json()).encode()
    for image in rows(catalogue, Image):
        assert open_array(image.path).size


def test_two_ingests_at_once_register_everything_once(
    tmp_path: Path, catalogue: Database, home: Home, workers: Workers
) -> None:
    source = tmp_path / "source"
    for number in range(3):
        scans.write_series(source / str(number), SeriesInstanceUID=f"1.2.{number}")
    reports = []

    def run(mine: Workers | None) -> None:
        wishes = Wishes("study", "ann")
        done = ingest(catalogue, home, [str(source)], wishes, workers=mine)
        reports.append(done)

    threads = [threading.Thread(target=run, args=(one,)) for one in (workers, None)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(not one.refused for one in reports), reports
    assert len(rows(catalogue, Image)) == 3
    assert len(rows(catalogue, SourceFile)) == 12


def test_files_that_were_moved_are_the_same_images_in_their_new_place(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    scans.write_series(tmp_path / "before")
    take_in(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    report = take_in(tmp_path / "after")
    assert report.images == ["study/t1-mprage"]
    (image,) = rows(catalogue, Image)
    assert image.path == str(tmp_path / "after")
    assert all(Path(one.uri).exists() for one in rows(catalogue, SourceFile))


def test_both_kinds_of_database_take_the_same_in(
    tmp_path: Path, database: Database, home: Home, workers: Workers
) -> None:
    scans.write_series(tmp_path / "source" / "a")
    scans.write_mosaic(tmp_path / "source" / "b" / "mosaic.dcm")
    wishes, source = Wishes("study", "ann"), [str(tmp_path / "source")]
    first = ingest(database, home, source, wishes, workers=workers)
    assert first.counts["taken"] == 2, first.entries
    again = ingest(database, home, source, wishes, workers=workers)
    assert again.counts["known"] == 2
    assert len(rows(database, Image)) == 2

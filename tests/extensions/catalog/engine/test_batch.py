"""Batches on one machine: runs, results, failures, the cache, cancelling, retrying."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import xarray as xr
from theatrum.catalog.engine import Engine, map_query, open_batch, using
from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Image
from theatrum.nodes.catalog import (
    gauss,
    merge_channels,
    project,
    split_channels,
    straighten_line,
)

from tests.extensions.catalog.engine import study as nodes
from tests.extensions.catalog.engine.study import study
from tile_server.versions import file_version


def until(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


@pytest.mark.parametrize("address", ["sync", "threads"])
def test_a_node_runs_on_every_image_that_a_query_finds(
    tmp_path: Path, address: str
) -> None:
    catalog = study(tmp_path, 6)
    some = catalog.images.filter(name__lt="scan-0004")
    batch = map_query(some, project, how="max", along="z", engine=address).wait(60)
    assert batch.state == "succeeded"
    assert batch.counts == {"succeeded": 4}
    assert batch.results.count() == 4
    for image in batch.results:
        source = catalog.images.get(id=image.run.inputs.first().object_id)
        assert np.array_equal(image.array, source.array.max("z"))
        assert image.kind == "derived"
        assert image.name.startswith(source.name)


def test_every_run_has_a_human_root_and_every_result_one_run(tmp_path: Path) -> None:
    catalog = study(tmp_path, 3)
    batch = map_query(catalog.images.all(), gauss, sigma=1.0, engine="sync").wait(60)
    assert {run.requested_by for run in batch.runs} == {"erika"}
    makers = [image.run_id for image in batch.results]
    assert len(set(makers)) == 3
    run = batch.runs.first()
    assert run.node.name == "gauss"
    assert run.node.version == "1.0.0"
    assert run.params == {"sigma": 1.0, "within": "yx"}
    assert run.env_hash
    assert run.metrics["cpu_s"] >= 0


def test_an_original_that_was_written_over_is_computed_anew(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    scans = catalog.images.all()
    original = Path(scans.first().path)
    with recording(catalog.backend.database, "erika") as book:
        row = book.get(Image, scans.first().id)
        digest = hashlib.sha256(original.read_bytes()).hexdigest()
        book.change(row, version=file_version(original), checksum=digest)
    first = map_query(scans, nodes.brightest, engine="sync").wait(60)
    assert first.counts == {"succeeded": 1}
    again = original.read_bytes()
    other = np.full((5, 4, 3), 77, np.int16)
    nibabel.save(nibabel.Nifti1Image(other, np.diag([1, 2, 3, 1])), original)
    second = map_query(scans, nodes.brightest, engine="sync").wait(60)
    assert second.counts == {"succeeded": 1}
    assert second.runs.first().metrics["numbers"] == {"result": 77}
    assert second.runs.first().input_hash != first.runs.first().input_hash
    original.write_bytes(again)  # the same bytes at another time are the same
    third = map_query(scans, nodes.brightest, engine="sync").wait(60)
    assert third.counts == {"cached": 1}


def test_a_region_goes_into_a_run_and_stands_in_its_lineage(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    flat = catalog.images.first().derive(
        "top", lambda array: array.isel(z=0, drop=True)
    )
    image = flat.save("top")
    drawn = image.add_roi("line", [[0, 1], [4, 1]], name="edge")
    batch = map_query(
        catalog.images.filter(name="top"),
        straighten_line,
        line=drawn,
        width=1,
        engine="sync",
    ).wait(60)
    assert batch.counts == {"succeeded": 1}
    (made,) = batch.results
    row = image.array.isel(y=1).values
    assert np.allclose(made.array.values.ravel(), row)
    used = {one.object_kind: one.object_id for one in made.run.inputs}
    assert used == {"image": image.id, "roi": drawn.id}
    assert ("roi", drawn.id) in made.lineage.things
    dot = image.add_roi("point", [1, 1])
    with pytest.raises(BadBatch, match="no line and no area"):
        map_query(catalog.images.all(), straighten_line, line=dot, engine="sync")


def test_a_cube_keeps_its_depth(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    scan = catalog.images.first()
    cube = scan.add_roi("cube", [[1, 1, 1], [4, 3, 2]], name="part")
    assert cube.axes == ["x", "y", "z"]
    assert (cube.z0, cube.z1) == (1, 2)
    assert scan.crop("part").array.sizes == {"z": 1, "y": 2, "x": 3}
    flat = scan.add_roi("line", [[0, 1], [4, 1]])
    assert (flat.axes, flat.z0) == (["x", "y"], None)


def test_channels_by_themselves_are_called_and_coloured_like_before(
    tmp_path: Path,
) -> None:
    catalog = study(tmp_path, 1)
    scan = catalog.images.first()
    stains = np.arange(32, dtype=np.uint16).reshape(2, 4, 4)
    array = xr.DataArray(stains, dims=("c", "y", "x"), coords={"c": ["DAPI", "Cy5"]})
    scan.save(array, "cells")
    cells = catalog.images.filter(name="cells")
    batch = map_query(cells, split_channels, engine="sync").wait(60)
    made = {image.name: image for image in batch.results}
    assert sorted(made) == ["cells-cy5", "cells-dapi"]
    (channel,) = made["cells-dapi"].channels
    assert (channel.name, channel.color) == ("DAPI", "#0000ff")
    assert np.array_equal(made["cells-cy5"].array.values, stains[1])


def test_numbers_files_and_texts_are_kept_with_the_image(tmp_path: Path) -> None:
    catalog = study(tmp_path, 2)
    batch = map_query(catalog.images.all(), nodes.brightest, engine="sync").wait(60)
    assert sorted(one["result"] for one in batch.numbers()) == [1000, 1001]
    image = catalog.images.get(name="scan-0001")
    assert [one.value for one in image.measurements] == [1001.0]
    map_query(catalog.images.all(), nodes.writes, engine="sync").wait(60)
    asset = catalog.assets.filter(owner_id=image.id, role="report").one()
    assert Path(asset.uri).read_text() == "1001"
    assert "staging" not in asset.uri


def test_a_second_run_of_the_same_executes_nothing(tmp_path: Path) -> None:
    catalog = study(tmp_path, 5)
    marks = tmp_path / "marks"
    marks.mkdir()
    images = catalog.images.filter(kind="original")
    first = map_query(images, nodes.counted, folder=str(marks), engine="sync").wait(60)
    assert len(list(marks.iterdir())) == 5
    again = map_query(images, nodes.counted, folder=str(marks), engine="sync").wait(60)
    assert len(list(marks.iterdir())) == 5
    assert again.counts == {"cached": 5}
    assert {one.id for one in again.results} == {one.id for one in first.results}
    anew = map_query(
        images, nodes.counted, folder=str(marks), engine="sync", refresh=True
    ).wait(60)
    assert anew.counts == {"succeeded": 5}
    assert len(list(marks.iterdir())) == 10


def test_other_parameters_or_another_file_are_not_found_in_the_cache(
    tmp_path: Path,
) -> None:
    catalog = study(tmp_path, 1)
    images = catalog.images.filter(kind="original")
    map_query(images, gauss, sigma=1.0, engine="sync").wait(60)
    other = map_query(images, gauss, sigma=2.0, engine="sync").wait(60)
    assert other.counts == {"succeeded": 1}
    path = Path(images.one().path)
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))
    changed = map_query(images, gauss, sigma=1.0, engine="sync").wait(60)
    assert changed.counts == {"succeeded": 1}


def test_a_result_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    import shutil

    catalog = study(tmp_path, 1)
    images = catalog.images.filter(kind="original")
    first = map_query(images, gauss, engine="sync").wait(60)
    shutil.rmtree(first.results.one().path)
    again = map_query(images, gauss, engine="sync").wait(60)
    assert again.counts == {"succeeded": 1}


def test_a_bad_item_stops_nothing_and_says_why(tmp_path: Path) -> None:
    catalog = study(tmp_path, 12, bad=2)
    batch = map_query(catalog.images.all(), nodes.brightest, engine="threads").wait(60)
    assert batch.state == "succeeded"
    assert batch.counts == {"succeeded": 10, "failed": 2}
    for failure in batch.failures:
        assert failure["message"]
        assert failure["attempt"] == 1


def test_a_batch_stops_at_the_first_failure_if_told(tmp_path: Path) -> None:
    catalog = study(tmp_path, 30)
    batch = map_query(
        catalog.images.order_by("name"), nodes.picky, engine="sync", on_error="stop"
    ).wait(60)
    assert batch.state == "failed"
    assert batch.counts["failed"] >= 1
    assert sum(batch.counts.values()) < 30


def test_a_batch_stops_when_a_share_failed(tmp_path: Path) -> None:
    catalog = study(tmp_path, 80)
    batch = map_query(
        catalog.images.order_by("name"),
        nodes.picky,
        engine="sync",
        on_error="threshold",
        threshold=0.3,
    ).wait(60)
    assert batch.state == "failed"
    assert 20 <= sum(batch.counts.values()) < 80


def test_only_what_passes_by_itself_is_tried_again(tmp_path: Path) -> None:
    catalog = study(tmp_path, 2)
    folder = tmp_path / "tries"
    folder.mkdir()
    batch = map_query(
        catalog.images.all(), nodes.flaky, folder=str(folder), fails=2, engine="sync"
    ).wait(60)
    assert batch.counts == {"succeeded": 2}
    assert {run.attempt for run in batch.runs} == {3}
    hopeless = map_query(
        catalog.images.all(), nodes.flaky, folder=str(folder), fails=99, engine="sync"
    ).wait(60)
    assert hopeless.counts == {"failed": 2}
    assert {one["class"] for one in hopeless.failures} == {"ConnectionResetError"}
    never = map_query(catalog.images.all(), nodes.picky, engine="sync").wait(60)
    assert {one["attempt"] for one in never.failures} == {1}


def test_a_running_node_stops_within_two_seconds_of_a_cancel(tmp_path: Path) -> None:
    catalog = study(tmp_path, 8)
    started = tmp_path / "started"
    batch = map_query(
        catalog.images.all(),
        nodes.waits,
        started=str(started),
        engine=Engine("threads", workers=2),
    )
    until(started.exists)
    began = time.monotonic()
    batch.cancel()
    batch.wait(10)
    assert time.monotonic() - began < 2
    assert batch.state == "cancelled"
    assert set(batch.counts) == {"cancelled"}


def test_a_stuck_node_is_killed_in_its_own_process(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    started = tmp_path / "started"
    batch = map_query(
        catalog.images.all(),
        nodes.stuck,
        started=str(started),
        engine=Engine("threads", workers=1),
        isolate=True,
    )
    until(lambda: started.exists() and started.read_text())
    pid = int(started.read_text())
    began = time.monotonic()
    batch.cancel()
    batch.wait(10)
    assert time.monotonic() - began < 2
    assert batch.counts == {"cancelled": 1}
    until(lambda: not Path(f"/proc/{pid}").exists(), 5)


def test_a_run_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    started = tmp_path / "started"
    batch = map_query(
        catalog.images.all(),
        nodes.stuck,
        started=str(started),
        engine="threads",
        isolate=True,
        timeout_s=4.0,
    ).wait(60)
    assert batch.failures[0]["class"] == "TimeoutError"
    assert batch.failures[0]["attempt"] == 1


def test_an_item_that_kills_its_process_is_left_out_and_told(tmp_path: Path) -> None:
    catalog = study(tmp_path, 3)
    batch = map_query(
        catalog.images.all(),
        nodes.deadly,
        victim="scan-0001",
        engine=Engine("threads", workers=2),
        isolate=True,
        retries=1,
    ).wait(120)
    assert batch.counts == {"succeeded": 2, "failed": 1}
    (failure,) = batch.failures
    assert failure["poison"] is True
    assert "SIGKILL" in failure["message"]
    assert failure["attempt"] == 2


def test_what_failed_is_done_once_more_by_retry(tmp_path: Path) -> None:
    catalog = study(tmp_path, 4, bad=1)
    batch = map_query(catalog.images.all(), nodes.brightest, engine="sync").wait(60)
    (failure,) = batch.failures
    bad = Path(catalog.images.get(id=failure["item"]).path)
    good = Path(catalog.images.get(name="scan-0000").path)
    bad.write_bytes(good.read_bytes())
    ends = {run.id: run.ended_at for run in batch.runs.filter(state="succeeded")}
    batch.retry("sync").wait(60)
    assert batch.counts == {"succeeded": 4}
    for run in batch.runs.filter(id__in=list(ends)):
        assert run.ended_at == ends[run.id]


def test_images_of_a_group_go_in_together(tmp_path: Path) -> None:
    catalog = study(tmp_path, 4)
    for image in catalog.images.all():
        image.change(plane="ax" if image.name < "scan-0003" else "cor")
    flat = map_query(catalog.images.all(), project, engine="sync").wait(60).results
    for image in flat:
        image.change(plane="ax" if image.name < "scan-0003" else "cor")
    batch = map_query(flat, merge_channels, by="plane", engine="sync").wait(60)
    assert sorted(image.n_c for image in batch.results) == [1, 3]
    run = batch.results.get(n_c=3).run
    assert run.inputs.count() == 3


def test_what_a_batch_cannot_do_is_told_before_it_begins(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    with pytest.raises(BadBatch, match="'how': input should be"):
        map_query(catalog.images.all(), project, how="mode")
    with pytest.raises(BadBatch, match="finds projects"):
        map_query(catalog.projects.all(), project)
    with pytest.raises(BadBatch, match="no image"):
        map_query(catalog.images.filter(name="none"), project)
    with pytest.raises(BadBatch, match="on_error"):
        map_query(catalog.images.all(), project, on_error="panic")
    assert not (tmp_path / "home" / "batches").exists()


def test_a_plain_function_runs_with_a_warning_and_its_source_is_kept(
    tmp_path: Path,
) -> None:
    catalog = study(tmp_path, 2)

    def halved(image):  # type: ignore[no-untyped-def]
        return image / 2

    with pytest.warns(UserWarning, match="no node"):
        batch = map_query(catalog.images.all(), halved, engine="sync").wait(60)
    assert batch.counts == {"succeeded": 2}
    assert "return image / 2" in batch.runs.first().node.source


def test_an_engine_that_is_set_around_is_taken(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    with using("sync"):
        batch = map_query(catalog.images.all(), nodes.brightest).wait(60)
    assert catalog.batches.get(id=batch.id).engine["address"] == "sync"


def test_a_batch_is_opened_by_its_id_and_only_by_who_may_see_it(tmp_path: Path) -> None:
    from theatrum.catalog import connect
    from theatrum.catalog.errors import NotFound

    catalog = study(tmp_path, 1)
    batch = map_query(catalog.images.all(), nodes.brightest, engine="sync").wait(60)
    assert open_batch(catalog.backend, batch.id).counts == {"succeeded": 1}
    stranger = connect(tmp_path / "home", user="bob", projects=["other"])
    with pytest.raises(NotFound):
        open_batch(stranger.backend, batch.id)


def test_a_batch_shows_how_far_it_is(tmp_path: Path) -> None:
    catalog = study(tmp_path, 3, bad=1)
    batch = map_query(catalog.images.all(), nodes.brightest, engine="sync").wait(60)
    assert batch.progress == 1.0
    shown = batch._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    from theatrum.catalog.engine.progress import bar, sentence

    assert sentence(batch) == "ended: 2 of 3 done, 1 failed"
    box = bar(batch)
    (failure,) = batch.failures
    name = catalog.images[failure["item"]].name
    assert box.children[1].value.startswith(f"<b>{name}</b>: ")
    assert box.children[0].children[0].bar_style == "warning"
    assert box.children[0].children[0].value == 1.0
    assert box.children[0].children[2].disabled

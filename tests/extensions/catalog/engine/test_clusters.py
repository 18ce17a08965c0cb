"""Clusters: two workers on two TCP addresses, kills, resuming, TLS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from theatrum.catalog.engine import Engine, map_query, open_batch
from theatrum.catalog.engine.errors import NoCluster
from theatrum.nodes.catalog import project

from tests.extensions.catalog.engine import study as nodes
from tests.extensions.catalog.engine.peers import ROOT, Cluster, certificate, until
from tests.extensions.catalog.engine.study import study


def test_two_workers_on_two_addresses_give_what_this_machine_gives(
    tmp_path: Path, cluster: Cluster
) -> None:
    catalog = study(tmp_path, 12)
    images = catalog.images.filter(kind="original")
    with Engine(cluster.address) as engine:
        engine.client.wait_for_workers(2)
        addresses = set(engine.client.scheduler_info(n_workers=-1)["workers"])
        assert len(addresses) == 2
        assert all(one.startswith("tcp://127.0.0.1:") for one in addresses)
        far = map_query(images, project, how="max", engine=engine).wait(120)
    assert far.counts == {"succeeded": 12}
    with Engine("local", workers=2) as engine:
        near = map_query(images, project, how="max", engine=engine, refresh=True).wait(
            120
        )
    assert near.counts == {"succeeded": 12}
    for one, two in zip(
        far.results.order_by("name"), near.results.order_by("name"), strict=True
    ):
        assert np.array_equal(one.array, two.array)
        assert one.checksum == two.checksum


def test_no_scheduler_at_an_address_is_told_with_the_address(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    engine = Engine("tcp://127.0.0.1:9", patience_s=0)
    batch = map_query(catalog.images.all(), project, engine=engine)
    with pytest.raises(NoCluster, match="no Dask scheduler answers"):
        batch.wait(60)
    told = catalog.batches.get(id=batch.id)
    assert told.state == "failed"
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in told.reason
    assert "Retry it when the engine runs" in told.reason
    assert told.engine["address"] == "tcp://127.0.0.1:9"
    batch.retry("sync").wait(60)
    assert (batch.state, batch.reason) == ("succeeded", "")


def test_while_nobody_answers_the_batch_says_so_and_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from theatrum.catalog.engine import clusters
    from theatrum.catalog.engine.progress import sentence

    monkeypatch.setattr(clusters, "TIMEOUT_S", 1)
    catalog = study(tmp_path, 1)
    engine = Engine("tcp://127.0.0.1:9", patience_s=600)
    batch = map_query(catalog.images.all(), project, engine=engine)
    until(lambda: "Waiting for the engine tcp://127.0.0.1:9" in batch.reason)
    assert batch.state == "queued"
    until(lambda: "tried 1 time; tried again at" in batch.reason)
    assert "given up at" in batch.reason
    assert "No Dask scheduler answers" in sentence(batch)
    assert "No Dask scheduler answers" in repr(batch)
    batch.cancel()
    assert batch.state == "cancelled"
    assert batch.wait(60).state == "cancelled"


def test_a_scheduler_without_workers_is_told_until_one_comes(tmp_path: Path) -> None:
    catalog = study(tmp_path, 2)
    lonely = Cluster(tmp_path / "cluster")
    try:
        batch = map_query(catalog.images.all(), project, engine=lonely.address)
        until(lambda: "has no worker" in batch.reason)
        assert batch.state == "running"
        lonely.add()
        batch.wait(120)
        assert (batch.counts, batch.reason) == ({"succeeded": 2}, "")
    finally:
        lonely.close()


DRIVER = """
import sys
from pathlib import Path
from theatrum.catalog import connect
from theatrum.catalog.engine import map_query, open_batch, Engine
from tests.extensions.catalog.engine import study as nodes
home, address, marks, batch_id = sys.argv[1:5]
catalog = connect(home, user="erika")
with Engine(address) as engine:
    engine.client.wait_for_workers(1)
    if batch_id == "new":
        images = catalog.images.filter(kind="original")
        batch = map_query(images, nodes.counted, folder=marks, engine=engine)
        Path(marks).with_name("batch").write_text(batch.id)
    else:
        batch = open_batch(catalog.backend, batch_id).resume(engine)
    batch.wait()
"""


def _driver(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/extensions"},
        stderr=subprocess.DEVNULL,
    )


def survives(tmp_path: Path, cluster: Cluster, count: int, bad: int) -> None:
    """Kill a worker and twice the driver in the middle; nothing is lost or doubled."""
    catalog = study(tmp_path, count, bad)
    marks = tmp_path / "marks"
    marks.mkdir()
    home = str(tmp_path / "home")

    def ended() -> int:
        return catalog.runs.filter(state__in=["succeeded", "failed"]).count()

    driver = _driver(home, cluster.address, str(marks), "new")
    until(lambda: ended() >= count // 5, 240)
    os.killpg(cluster.workers[0].pid, signal.SIGKILL)
    cluster.add()
    until(lambda: ended() >= count // 3, 240)
    driver.kill()
    driver.wait()
    batch_id = (tmp_path / "batch").read_text()
    driver = _driver(home, cluster.address, str(marks), batch_id)
    until(lambda: ended() >= 2 * count // 3, 240)
    driver.kill()
    driver.wait()
    with Engine(cluster.address) as engine:
        batch = open_batch(catalog.backend, batch_id).resume(engine).wait(600)
    assert batch.state == "succeeded"
    assert batch.counts == {"succeeded": count - bad, "failed": bad}
    # One run an item, one image a good one, none of a bad one.
    items = [run.item_key for run in batch.runs]
    assert len(items) == len(set(items)) == count
    makers = list(catalog.images.filter(kind="derived").values("run_id", "path"))
    assert len(makers) == len({one["run_id"] for one in makers}) == count - bad
    assert all(Path(one["path"]).is_dir() for one in makers)
    folders = list((catalog.backend.files / "derived").glob("*.ome.zarr"))
    assert len(folders) == count - bad
    # What ended before a kill was not done again: only what was under way may be.
    assert len(list(marks.iterdir())) <= count - bad + 3 * 4 * 3
    sample = batch.results.order_by("name").first()
    source = catalog.images.get(id=sample.run.inputs.first().object_id)
    assert np.array_equal(sample.array, source.array * 2)


def test_a_batch_survives_the_death_of_a_worker_and_of_its_driver(
    tmp_path: Path, cluster: Cluster
) -> None:
    survives(tmp_path, cluster, 90, 3)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_thousand_items_survive_the_death_of_a_worker_and_of_the_driver(
    tmp_path: Path, cluster: Cluster
) -> None:
    survives(tmp_path, cluster, 1000, 30)


@pytest.mark.long
def test_an_item_that_kills_its_workers_is_left_out_and_the_rest_is_done(
    tmp_path: Path,
) -> None:
    catalog = study(tmp_path, 6)
    with Engine("local", workers=2) as engine:
        batch = map_query(
            catalog.images.all(), nodes.deadly, victim="scan-0002", engine=engine
        ).wait(180)
    assert batch.counts == {"succeeded": 5, "failed": 1}
    (failure,) = batch.failures
    assert failure["poison"] is True
    assert failure["item"] == catalog.images.get(name="scan-0002").id


def test_the_scheduler_never_sees_more_than_the_window(tmp_path: Path) -> None:
    catalog = study(tmp_path, 60)
    most = [0]
    with Engine("local", workers=2) as engine:
        pool = engine.pool
        plain = pool.submit

        def counted(*words: object) -> None:
            plain(*words)  # type: ignore[arg-type]
            most[0] = max(most[0], len(pool._futures))  # type: ignore[attr-defined]

        pool.submit = counted  # type: ignore[method-assign, assignment]
        batch = map_query(catalog.images.all(), nodes.brightest, engine=engine).wait(
            120
        )
    assert batch.counts == {"succeeded": 60}
    assert 2 <= most[0] <= 8


def test_progress_of_a_worker_reaches_the_notebook(
    tmp_path: Path, cluster: Cluster
) -> None:
    catalog = study(tmp_path, 1)
    with Engine(cluster.address) as engine:
        batch = map_query(
            catalog.images.all(),
            nodes.waits,
            started=str(tmp_path / "started"),
            engine=engine,
        )
        until(lambda: any(text == "waiting" for _, text in batch.live.values()))
        began = time.monotonic()
        batch.cancel()
        batch.wait(10)
        assert time.monotonic() - began < 2
    assert batch.counts == {"cancelled": 1}


@pytest.mark.long
def test_a_cluster_is_reached_by_tls_and_only_with_its_certificate(
    tmp_path: Path,
) -> None:
    cert, key = certificate(tmp_path)
    tls = ["--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key]
    cluster = Cluster(tmp_path / "cluster", *tls, "--protocol", "tls")
    try:
        cluster.add()
        assert cluster.address.startswith("tls://")
        catalog = study(tmp_path, 2)
        safe = {"ca_file": cert, "cert_file": cert, "key_file": key}
        with Engine(cluster.address, **safe) as engine:
            batch = map_query(catalog.images.all(), nodes.brightest, engine=engine)
            batch.wait(60)
        assert batch.counts == {"succeeded": 2}
        (tmp_path / "other").mkdir()
        wrong, wrong_key = certificate(tmp_path / "other")
        bad = {"ca_file": wrong, "cert_file": wrong, "key_file": wrong_key}
        from theatrum.catalog.engine import clusters

        before, clusters.TIMEOUT_S = clusters.TIMEOUT_S, 2
        try:
            with Engine(cluster.address, **bad) as engine, pytest.raises(NoCluster):
                engine.pool  # noqa: B018  (opening it is what is tested)
        finally:
            clusters.TIMEOUT_S = before
    finally:
        cluster.close()


@pytest.mark.long
def test_one_giant_image_is_spread_over_all_workers(tmp_path: Path) -> None:
    import nibabel
    from theatrum.catalog.record import recording

    catalog = study(tmp_path, 1)
    path = tmp_path / "giant.nii"
    values = np.random.default_rng(3).integers(0, 900, (40, 300, 300)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    with recording(catalog.backend.database, "erika") as book:
        book.image(book.project("mice"), path=str(path), name="giant", kind="original")
    giant = catalog.images.filter(name="giant")
    with Engine("local", workers=2) as engine:
        before = engine.client.run(lambda dask_worker: dask_worker.state.executed_count)
        deep = giant.map(project, how="max", engine=engine, mode="deep").wait(120)
        after = engine.client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert deep.counts == {"succeeded": 1}
    assert sum(after.values()) > sum(before.values())
    array = deep.results.one().array
    assert np.array_equal(array, values.transpose(2, 1, 0).max(axis=0))


@pytest.mark.long
def test_a_batch_whose_scheduler_went_away_is_gone_on_with_elsewhere(
    tmp_path: Path, cluster: Cluster
) -> None:
    catalog = study(tmp_path, 30)
    marks = tmp_path / "marks"
    marks.mkdir()
    engine = Engine(cluster.address)
    images = catalog.images.filter(kind="original")
    batch = map_query(images, nodes.counted, folder=str(marks), engine=engine)
    until(lambda: batch.counts.get("succeeded", 0) >= 3, 120)
    cluster.close()
    until(lambda: not batch.running, 200)
    with pytest.raises(Exception, match=r"cluster|scheduler|closed|connect"):
        batch.wait()
    assert batch.state == "failed"
    left = open_batch(catalog.backend, batch.id)
    left.resume("sync").wait(120)
    if left.counts != {"succeeded": 30}:  # what was tried too often says so
        assert {one["class"] for one in left.failures} == {"NoCluster"}
        left.retry("sync").wait(120)
    assert left.counts == {"succeeded": 30}

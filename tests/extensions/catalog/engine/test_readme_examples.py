"""What the READMEs of BINARY and Bergen show, by our API.

Bergen: find images by their experiment, look at one lazily, send a chain of filters and
a maximum projection over z to a Dask cluster, keep the results. BINARY: named queries
whose slices are downloaded as pictures, made by a cluster from many subjects' scans.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import tifffile
from PIL import Image as Pillow
from theatrum.catalog import connect
from theatrum.catalog.connection import Catalog
from theatrum.catalog.engine import Engine
from theatrum.catalog.flows import Builder
from theatrum.catalog.flows.recipes import brain_slices
from theatrum.catalog.record import recording
from theatrum.nodes.catalog import prewitt, project

from tests.extensions.catalog.engine.peers import Cluster


def microscopy(folder: Path) -> Catalog:
    """Two experiments; stacks of two channels in OME-TIFF."""
    catalog = connect(folder / "home", user="erika")
    rng = np.random.default_rng(4)
    with recording(catalog.backend.database, "erika") as book:
        axons = book.project("axons")
        for at, name in enumerate(["Animal 1", "Animal 2", "Culture 1"]):
            experiment = book.experiment(axons, name)
            sample = book.sample(axons, f"slice {at}", experiment_id=experiment.id)
            path = folder / f"{at}.ome.tif"
            values = rng.integers(0, 4000, (5, 2, 24, 20)).astype(np.uint16)
            names = {"Channel": {"Name": ["DAPI", "Ankyrin"]}, "axes": "ZCYX"}
            scale = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
            tifffile.imwrite(path, values, ome=True, metadata={**names, **scale})
            book.image(
                axons,
                path=str(path),
                name=f"stack-{at}",
                kind="initial",
                modality="FM",
                sample_id=sample.id,
                channels=[{"name": "DAPI"}, {"name": "Ankyrin"}],
            )
    return catalog


def test_bergens_example_runs_on_two_workers_at_two_addresses(
    tmp_path: Path, cluster: Cluster
) -> None:
    catalog = microscopy(tmp_path)
    stacks = catalog.images.filter(
        sample__experiment__name__startswith="Animal", kind="initial"
    )
    first = stacks.first()
    assert first is not None
    assert first.array.chunks is not None  # nothing is read yet
    assert [one.name for one in first.channels] == ["DAPI", "Ankyrin"]

    with Engine(cluster.address) as engine:
        engine.client.wait_for_workers(2)
        workers = engine.client.scheduler_info(n_workers=-1)["workers"]
        assert len({one.rpartition(":")[2] for one in workers}) == 2
        batch = stacks.map(project, how="max", along="z", engine=engine).wait(250)
        assert batch.counts == {"succeeded": 2}
        chain = Builder("edges")
        edges = chain.add(prewitt, image=chain.input())
        chain.output("projection", chain.add(project, image=edges, how="max"))
        edged = stacks.apply(chain.build(), engine=engine).wait(250)
        assert edged.counts == {"succeeded": 4}

    for image in batch.results:
        source = catalog.images.get(id=image.run.inputs.first().object_id)
        assert image.array.dims == ("c", "y", "x")
        assert np.array_equal(image.array, source.array.max("z"))
        assert image.sample.experiment.name.startswith("Animal")
    pandas = batch.results.to_pandas()
    assert list(pandas["kind"]) == ["derived", "derived"]
    bag = batch.results.to_bag()
    assert sorted(bag.map(lambda array: int(array.max())).compute(scheduler="sync"))


def heads(folder: Path) -> Catalog:
    """Scans of subjects with and without a tumour, lying in two orientations."""
    catalog = connect(folder / "home", user="erika")
    with recording(catalog.backend.database, "erika") as book:
        brains = book.project("brains")
        for at, diagnosis in enumerate(["healthy", "healthy", "tumour"]):
            group = book.group(brains, diagnosis)
            subject = book.subject(brains, f"sub-{at}")
            sample = book.sample(brains, f"head {at}", group_id=group.id)
            z, y, x = np.mgrid[:20, :24, :22]
            values = 100 + 400 * (((x - 11) ** 2 + (y - 12) ** 2 + (z - 10) ** 2) < 64)
            values = values.astype(np.int16)
            affine = np.diag([-1.0 if at else 1.0, 1.0, 1.2, 1.0])
            path = folder / f"{at}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), path)
            book.image(
                brains,
                path=str(path),
                name=f"t1-{at}",
                kind="original",
                modality="MR",
                subject_id=subject.id,
                sample_id=sample.id,
            )
    return catalog


def test_binarys_example_gives_pictures_of_named_queries(tmp_path: Path) -> None:
    catalog = heads(tmp_path)
    healthy = catalog.images.filter(sample__group__name="healthy", kind="original")
    catalog.keep_query(
        # What the recipe keeps at its end; the steps before keep theirs, too.
        catalog.images.filter(
            sample__group__name="healthy", plane="ax", run__node_key="store-ax"
        ),
        "notumor-ax",
        project="brains",
        title="Healthy, axial",
    )
    batch = healthy.apply(brain_slices(central=6), engine="threads").wait(250)
    assert batch.state == "succeeded", batch.failures
    assert not batch.failures
    stacks = catalog.saved("notumor-ax")
    assert stacks.count() == 2
    stack = stacks.first()
    assert (stack.n_z, stack.plane) == (6, "ax")
    run = batch.runs.filter(node_key="jpg-ax").first()
    pictures = catalog.assets.filter(run_id=run.id)
    assert pictures.count() == 6
    with Pillow.open(pictures.first().uri) as picture:
        assert picture.size == (22, 24)
        assert picture.mode == "L"

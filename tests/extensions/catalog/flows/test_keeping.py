"""Arrays in between that a flow does not keep: gone, explained, made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from theatrum.catalog.connection import Catalog
from theatrum.catalog.engine.batch import Batch
from theatrum.catalog.flows import Builder, Flow, run_flow
from theatrum.catalog.flows.graph import BadFlow
from theatrum.catalog.flows.keeping import late, temporary
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Image
from theatrum.nodes.catalog import clip_percentile, gauss, minmax, project

from tests.extensions.catalog.engine.study import study
from tests.extensions.catalog.flows.test_flows import mean_of_all


def chain(keep: str | tuple[str, ...] = "outputs", how: str = "max") -> Flow:
    """Three steps behind each other, and one whose result nobody takes."""
    flow = Builder("chain", keep=keep)
    image = flow.input()
    smooth = flow.add(gauss, image=image, sigma=1.0)
    even = flow.add(minmax, image=smooth)
    flow.add(clip_percentile, image=smooth)
    flow.output("flat", flow.add(project, image=even, how=how))
    return flow.build()


def made(batch: Batch) -> list[str]:
    return sorted(one.run.node_key for one in batch.results)


def folders(catalog: Catalog) -> int:
    return len(list((catalog.backend.files / "derived").glob("*.ome.zarr")))


def test_what_a_flow_is_for_stays_and_what_lies_between_goes(tmp_path: Path) -> None:
    catalog = study(tmp_path, 3)
    images = catalog.images.filter(kind="original")
    batch = run_flow(images, chain(), engine="sync").wait(120)
    assert batch.counts == {"succeeded": 12}
    assert made(batch) == ["clip-percentile"] * 3 + ["project"] * 3
    assert folders(catalog) == 6
    one = batch.results.filter(run__node_key="project").first()
    source = catalog.images.get(id=one.run.item_key)
    assert one.array.shape == source.array.max("z").shape
    # The lineage still reaches the original, over what was not kept.
    tree = str(one.lineage)
    assert "gauss (not kept)" in tree
    assert "minmax (not kept)" in tree
    assert source.name in tree
    assert [key for _, key in one.lineage.originals()] == [source.id]


def test_a_second_run_executes_nothing_though_the_steps_between_were_not_kept(
    tmp_path: Path,
) -> None:
    catalog = study(tmp_path, 2)
    images = catalog.images.filter(kind="original")
    first = run_flow(images, chain(), engine="sync").wait(120)
    again = run_flow(images, chain(), engine="sync").wait(120)
    assert again.counts == {"cached": 8}
    assert {one.id for one in again.results} == {one.id for one in first.results}


def test_what_was_not_kept_is_made_again_where_something_new_needs_it(
    tmp_path: Path,
) -> None:
    catalog = study(tmp_path, 2)
    images = catalog.images.filter(kind="original")
    run_flow(images, chain(), engine="sync").wait(120)
    other = run_flow(images, chain(how="mean"), engine="sync").wait(120)
    # Both steps before the new one are done once more; the fourth is found.
    assert other.counts == {"cached": 2, "succeeded": 6}
    plain = run_flow(images, chain("all", how="mean"), engine="sync", refresh=True)
    kept = {one.run.item_key: one for one in plain.wait(120).results.filter(
        run__node_key="project")}  # fmt: skip
    for one in other.results.filter(run__node_key="project"):
        assert np.array_equal(one.array, kept[one.run.item_key].array)
    assert made(other) == ["clip-percentile"] * 2 + ["project"] * 2


def test_steps_that_are_named_are_kept_as_well(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    images = catalog.images.filter(kind="original")
    batch = run_flow(images, chain(), keep=("gauss",), engine="sync").wait(120)
    assert made(batch) == ["clip-percentile", "gauss", "project"]
    assert Flow.from_json(chain(("gauss",)).to_json()) == chain(("gauss",))
    assert "keep" not in chain("all").to_json()
    with pytest.raises(BadFlow, match=r"`keep` names 'gausss'.*gauss"):
        chain(("gausss",))
    with pytest.raises(BadFlow, match="`keep` is all, outputs"):
        Flow.from_json(chain("all").to_json() | {"keep": "nothing"})


def test_an_item_that_failed_keeps_what_it_came_to(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    flow = Builder("fails", keep="outputs")
    smooth = flow.add(gauss, image=flow.input())
    flow.add(project, image=smooth, along="t")  # there is no such axis
    batch = run_flow(catalog.images.all(), flow.build(), engine="sync").wait(120)
    assert batch.counts == {"succeeded": 1, "failed": 1}
    assert made(batch) == ["gauss"]


def test_what_somebody_marked_stays(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    flow = Builder("looked-at", keep="outputs")
    smooth = flow.add(gauss, image=flow.input())
    passed = flow.review(title="Fit?", image=smooth)
    flow.add(project, image=passed)
    built = flow.build()
    assert temporary(built) == {"gauss"}
    batch = run_flow(catalog.images.all(), built, engine="sync").wait(120)
    assert made(batch) == ["gauss"]  # somebody has to look at it
    (review,) = batch.reviews
    (image,) = review["inputs"]["image"]
    with recording(catalog.backend.database, "erika") as book:
        book.tag(book.get(Image, image), "for the lecture")
    batch.review(review["run"], approve=True)
    batch.resume("sync").wait(120)
    assert made(batch) == ["gauss", "project"]


def test_what_all_items_need_together_goes_at_the_end(tmp_path: Path) -> None:
    catalog = study(tmp_path, 3)
    flow = Builder("together", keep="outputs")
    smooth = flow.add(gauss, image=flow.input())
    flat = flow.add(project, image=smooth)
    flow.add(mean_of_all, over="items", images=flat)
    built = flow.build()
    assert (temporary(built), late(built)) == ({"gauss", "project"}, {"project"})
    batch = run_flow(catalog.images.all(), built, engine="sync").wait(120)
    assert batch.counts == {"succeeded": 7}
    assert made(batch) == ["mean-of-all"]
    assert folders(catalog) == 1

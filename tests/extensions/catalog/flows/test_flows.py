"""Flows: JSON, problems, fan-out, reduce, conditions, going on from a step, people."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from theatrum.catalog.flows import (
    Builder,
    Flow,
    load_flow,
    problems,
    run_flow,
    save_flow,
)
from theatrum.catalog.flows.external import LeaseLost, lease, serve
from theatrum.catalog.flows.graph import BadFlow
from theatrum.catalog.flows.picture import picture
from theatrum.catalog.flows.watching import Live
from theatrum.node import Array, Measure, node
from theatrum.nodes.catalog import gauss, label, project, threshold

from tests.extensions.catalog.engine.study import study


@node(version="1.0.0", name="planes")
def planes(image: Array) -> Sequence[Array]:
    """Give each plane by itself."""
    return [image.isel(z=at, drop=True) for at in range(image.sizes["z"])]


@node(version="1.0.0", name="brightest")
def brightest(image: Array) -> Annotated[float, Measure()]:
    """Tell the brightest pixel."""
    return float(image.max())


@node(version="1.0.0", name="stacked")
def stacked(images: Sequence[Array]) -> Array:
    """Lay them over each other again."""
    import xarray as xr

    return xr.concat(list(images), dim="z").transpose("z", ...)


@node(version="1.0.0", name="mean-of-all")
def mean_of_all(images: Sequence[Array]) -> Array:
    """Mean of all of them."""
    return sum(image.astype(float) for image in images) / len(images)


@node(version="1.0.0", name="needs-small")
def needs_small(image: Array) -> Array:
    """Refuse bright images."""
    if float(image.max()) > 1002:
        raise ValueError("too bright")
    return image


def built() -> Flow:
    flow = Builder("parts", title="Parts")
    image = flow.input("image")
    each = flow.add(planes, image=image)
    smooth = flow.add(gauss, image=each, sigma=flow.parameter("sigma", 1.0))
    top = flow.add(brightest, image=smooth)
    again = flow.add(stacked, images=smooth)
    everything = flow.add(mean_of_all, over="items", images=again)
    flow.output("stack", again)
    flow.output("mean", everything)
    flow.output("top", top)
    return flow.build()


def test_a_flow_is_equal_to_its_json() -> None:
    flow = built()
    again = Flow.from_json(json.loads(json.dumps(flow.to_json())))
    assert again == flow
    assert again.def_hash == flow.def_hash
    assert flow.placeholders == {"sigma"}


def test_a_list_fans_out_and_is_gathered_again(tmp_path: Path) -> None:
    catalog = study(tmp_path, 2)
    batch = run_flow(catalog.images.all(), built(), engine="sync").wait(120)
    assert batch.state == "succeeded", batch.failures
    # 2 items: planes 1, gauss 3, brightest 3, stacked 1 each; and one mean over both.
    assert batch.counts == {"succeeded": 17}
    sources = catalog.images.filter(kind="original").order_by("name")
    for source in sources:
        run = batch.runs.filter(item_key=source.id, node_key="stacked").one()
        stack = catalog.images.get(run_id=run.id)
        want = np.stack([gauss(source.array.isel(z=at)) for at in range(3)])
        assert np.allclose(stack.array, want, atol=1e-4)
    mean = batch.runs.filter(node_key="mean-of-all").one()
    assert mean.item_key == "all items"
    both = [one.array.values for one in batch.results.filter(name__contains="stacked")]
    found = catalog.images.get(run_id=mean.id)
    assert np.allclose(found.array, np.mean(both, axis=0), atol=1e-4)


def test_all_problems_of_a_flow_are_told_at_once() -> None:
    said = {
        "name": "bad",
        "steps": [
            {
                "key": "a",
                "node": "theatrum.nodes.catalog:gauss@0.9.0",
                "params": {"sigma": -1},
            },
            {"key": "a", "node": "theatrum.nodes.catalog:nothing"},
            {"key": "flat", "node": "theatrum.nodes.catalog:thumbnail"},
            {"key": "cut", "node": "theatrum.nodes.catalog:slices"},
            {
                "key": "sum",
                "node": "theatrum.nodes.catalog:clusters",
                "when": ["cut.result", "~", 1],
            },
        ],
        "edges": [
            ["$picture", "a.image"],
            ["flat.result", "cut.image"],
            ["cut.results", "sum.image"],
            ["a.result", "nowhere.image"],
            ["sum.labels", "sum.image"],
        ],
        "outputs": {"x": "gone.result"},
    }
    found = " | ".join(problems(Flow.from_json(said)))
    for part in (
        "two steps are called 'a'",
        "has no 'nothing'",
        "no input 'picture'",
        "gives file, and cut.image takes array",
        "'cut' gives no 'results'. Did you mean result?",
        "no step 'nowhere'",
        "'image' of 'flat' is fed by nothing",
        "'image' of 'sum' is fed 2 times",
        "wait for each other",
        "the output 'x': there is no step 'gone'",
        "compares by '~'",
        "cut.result is no number but array",
    ):
        assert part in found, part


def test_ports_that_promise_something_else_are_told() -> None:
    flow = Builder("clash")
    image = flow.input()
    mask = flow.add(threshold, image=image)
    flow.add(gauss, key="of-mask", image=mask)  # whole numbers are numbers: fine
    parts = flow.add(label, mask=mask)
    assert flow.build().step("label")
    smooth = flow.add(gauss, image=image)
    flow.add(label, key="of-floats", mask=smooth)
    del parts
    with pytest.raises(BadFlow, match="gives float values, but whole is needed"):
        flow.build()


def test_json_that_is_no_flow_is_refused() -> None:
    with pytest.raises(BadFlow, match=r"no name.*no steps"):
        Flow.from_json({})
    with pytest.raises(BadFlow, match="has no 'nodes'"):
        Flow.from_json({"name": "x", "steps": [{"key": "a", "nodes": 1}]})


def test_placeholders_are_filled_or_told(tmp_path: Path) -> None:
    flow = built()
    assert flow.filled(sigma=3.0).step("gauss").params == {"sigma": 3.0}
    assert flow.filled().step("gauss").params == {"sigma": 1.0}
    with pytest.raises(BadFlow, match=r"no placeholder 'sgma'.*sigma"):
        flow.filled(sgma=1)
    catalog = study(tmp_path, 1)
    with pytest.raises(BadFlow, match="sigma"):
        run_flow(catalog.images.all(), flow, sigma=-4.0)


def test_what_failed_skips_what_follows_and_nothing_else(tmp_path: Path) -> None:
    catalog = study(tmp_path, 5)
    flow = Builder("careful")
    image = flow.input()
    small = flow.add(needs_small, image=image)
    smooth = flow.add(gauss, image=small)
    flow.add(project, image=smooth)
    batch = run_flow(catalog.images.all(), flow.build(), engine="sync").wait(120)
    assert batch.counts == {"succeeded": 9, "failed": 2, "skipped": 4}
    skipped = batch.runs.filter(state="skipped").first()
    assert skipped.error["message"] == "needs-small gave nothing"


def test_a_step_runs_only_where_its_condition_holds(tmp_path: Path) -> None:
    catalog = study(tmp_path, 4)
    flow = Builder("choosy")
    image = flow.input()
    top = flow.add(brightest, image=image)
    flow.add(gauss, image=image, when=(top, ">", 1001))
    batch = run_flow(catalog.images.all(), flow.build(), engine="sync").wait(120)
    assert batch.runs.filter(node_key="brightest").count() == 4
    done = batch.runs.filter(node_key="gauss")
    names = {catalog.images.get(id=run.item_key).name for run in done}
    assert names == {"scan-0002", "scan-0003"}


def test_a_second_run_finds_every_step_in_the_cache(tmp_path: Path) -> None:
    catalog = study(tmp_path, 2)
    images = catalog.images.filter(kind="original")
    run_flow(images, built(), engine="sync").wait(120)
    again = run_flow(images, built(), engine="sync").wait(120)
    assert again.counts == {"cached": 17}


def test_a_flow_is_done_again_from_a_step_on(tmp_path: Path) -> None:
    catalog = study(tmp_path, 2)
    first = run_flow(catalog.images.all(), built(), engine="sync").wait(120)
    again = first.rerun("gauss", engine="sync", sigma=2.0).wait(120)
    assert again.counts == {"cached": 2, "succeeded": 15}
    assert {run.node_key for run in again.runs.filter(state="cached")} == {"planes"}
    same = first.rerun("stacked", engine="sync").wait(120)
    assert same.counts["succeeded"] == 3  # both stacks and the mean, nothing before


def test_an_item_waits_for_a_person_and_the_others_go_on(tmp_path: Path) -> None:
    catalog = study(tmp_path, 3)
    flow = Builder("looked-at")
    image = flow.input()
    smooth = flow.add(gauss, image=image)
    passed = flow.review(title="Fit?", image=smooth)
    flow.add(project, image=passed)
    batch = run_flow(catalog.images.all(), flow.build(), engine="sync").wait(120)
    assert batch.state == "waiting"
    assert batch.counts == {"succeeded": 3, "waiting": 3}
    yes, no, _ = batch.reviews
    (looked_at,) = (key for keys in yes["inputs"].values() for key in keys)
    assert "gauss" in catalog.images[looked_at].name
    batch.review(yes["run"], approve=True)
    batch.review(no["run"], approve=False, comment="moved")
    batch.resume("sync").wait(120)
    assert batch.state == "waiting"
    assert batch.counts["waiting"] == 1
    projected = batch.runs.filter(node_key="project", state="succeeded").one()
    assert projected.item_key == yes["item"]
    source = catalog.images.get(id=projected.inputs.first().object_id)
    assert "gauss" in source.name
    refused = batch.runs.get(id=no["run"])
    assert refused.metrics["review"] == {
        "by": "erika",
        "approved": False,
        "comment": "moved",
    }


def external_flow() -> Flow:
    flow = Builder("by-hand")
    image = flow.input()
    found = flow.external("double", gives={"result": "array"}, image=image)
    flow.add(project, image=found)
    return flow.build()


def test_a_notebook_serves_a_step_and_the_flow_goes_on(tmp_path: Path) -> None:
    catalog = study(tmp_path, 3)
    batch = run_flow(catalog.images.all(), external_flow(), engine="sync").wait(120)
    assert batch.counts == {"waiting": 3}

    def double(work: Any) -> dict[str, Any]:
        if work.inputs["image"].name == "scan-0002":
            raise ValueError("not this one")
        return {"result": work.inputs["image"] * 2}

    assert serve(catalog.backend, "double", double, holder="me") == 2
    batch.resume("sync").wait(120)
    assert batch.runs.filter(node_key="project", state="succeeded").count() == 2
    assert [one["message"] for one in batch.failures] == ["not this one"]
    made = batch.results.filter(name="scan-0000-double").one()
    source = catalog.images.get(name="scan-0000")
    assert np.array_equal(made.array, source.array * 2)


def test_a_lease_is_one_servers_until_it_runs_out(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    run_flow(catalog.images.all(), external_flow(), engine="sync").wait(120)
    first = lease(catalog.backend, "double", "one")
    assert first is not None
    assert lease(catalog.backend, "double", "two") is None
    first.renew(-1)  # its time is over: its notebook was closed
    second = lease(catalog.backend, "double", "two")
    assert second is not None
    with pytest.raises(LeaseLost):
        first.renew()
    with pytest.raises(LeaseLost):
        first.finish(result=first.inputs["image"])
    second.finish(result=second.inputs["image"])
    assert lease(catalog.backend, "double", "one") is None


def test_new_images_go_through_a_live_flow_once(tmp_path: Path) -> None:
    catalog = study(tmp_path, 2)
    flow = Builder("live")
    flow.add(gauss, image=flow.input())
    live = Live(catalog.images.filter(kind="original"), flow.build(), engine="sync")
    first = live.poll()
    assert first is not None
    assert first.wait(60).counts == {"succeeded": 2}
    assert live.poll() is None
    study(tmp_path / "more", 1)
    from theatrum.catalog.record import recording

    with recording(catalog.backend.database, "erika") as book:
        path = tmp_path / "more" / "files-mice" / "0000.nii"
        made = book.project("mice")
        book.image(made, path=str(path), name="late", kind="original", modality="MR")
    stop = threading.Event()
    for batch in live.run(stop, 0.01):
        assert batch.counts == {"succeeded": 1}
        stop.set()


def test_a_flow_is_kept_in_versions(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    flow = Builder("kept")
    flow.add(gauss, image=flow.input(), sigma=flow.parameter("sigma", 1.0))
    made = flow.build()
    key = save_flow(catalog.backend, made, project="mice")
    assert save_flow(catalog.backend, made, project="mice") == key
    assert load_flow(catalog.backend, "kept") == made
    assert catalog.flows.get(id=key).is_template
    other = made.with_params("gauss", sigma=9.0)
    with pytest.raises(BadFlow, match="count its version up"):
        save_flow(catalog.backend, other, project="mice")


def test_the_picture_names_every_step_and_runs_no_script() -> None:
    drawn = built()._repr_html_()
    assert drawn.startswith("<div")
    # Beside JSON a JupyterLab would show that and no picture.
    assert not hasattr(Flow, "_repr_mimebundle_")
    for key in ("planes", "gauss", "brightest", "stacked", "mean-of-all", "image"):
        assert f">{key}<" in drawn
    assert "<script" not in drawn
    assert "style" not in picture(built()), "no page takes inline styles"
    from defusedxml import ElementTree

    ElementTree.fromstring(drawn)


def test_a_flow_is_gone_on_with_after_what_failed_was_mended(tmp_path: Path) -> None:
    catalog = study(tmp_path, 3, bad=1)
    flow = Builder("mended")
    image = flow.input()
    smooth = flow.add(gauss, image=image)
    top = flow.add(project, image=smooth)
    flow.add(mean_of_all, over="items", images=top)
    batch = run_flow(catalog.images.all(), flow.build(), engine="sync").wait(120)
    assert batch.counts == {"succeeded": 5, "failed": 1, "skipped": 1}
    bad = Path(catalog.images.get(id=batch.failures[0]["item"]).path)
    bad.write_bytes(Path(catalog.images.get(name="scan-0000").path).read_bytes())
    batch.retry("sync").wait(120)
    counts = batch.counts
    assert "failed" not in counts
    assert "skipped" not in counts
    assert sum(counts.values()) == 7

"""Batches and flows over HTTP, done by the catalogue's worker."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
from theatrum.catalog import connect
from theatrum.nodes.catalog import to_nifti

from hub.settings import load
from services.catalog import worker
from tests.services.catalog.running import Site, until

pytestmark = pytest.mark.usefixtures("scans")
SCANS = 4
QUERY = {"of": "images", "where": [{"field": "project", "value": "work"},
                                   {"field": "kind", "value": "original"}]}  # fmt: skip


def test_a_node_is_done_on_all_that_a_query_finds(
    site: Site, wes: httpx.Client, working: None
) -> None:
    order = {"node": "project", "query": QUERY, "params": {"how": "max"}}
    answer = wes.post("batches", json=order)
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert answer.headers["location"].endswith(f"/batches/{batch['id']}")
    done = until(lambda: wes.get(f"batches/{batch['id']}").json(), "succeeded")
    assert done["requested_by"] == "wes"
    told = wes.get(f"batches/{batch['id']}/matrix").json()
    states = [item["steps"][""]["state"] for item in told["items"]]
    assert sorted(states) == ["failed", "succeeded", "succeeded", "succeeded"]
    (failed,) = wes.get(
        "runs", params={"batch_id": batch["id"], "state": "failed"}
    ).json()["items"]
    assert failed["error"]["message"]
    assert "traceback" not in failed["error"]
    # Who asked over HTTP gets the results like any other image.
    made = connect(site.url, token="wes").images.filter(run__batch=batch["id"])
    assert sorted(int(one.array.max()) for one in made) == [10, 11, 12]
    lineage = wes.get(f"images/{made[0].id}/lineage").json()
    assert lineage["runs"][0]["requested_by"] == "wes"
    assert lineage["runs"][0]["on_behalf_of"] == "catalog"
    # Each run tells what happened, and how to do it again.
    run = told["items"][0]["steps"][""]["run"]
    assert wes.get(f"runs/{run}/events").json()["items"]
    program = wes.get(f"runs/{run}/reproduce").json()["python"]
    assert "from theatrum.nodes.catalog.projections import project\n" in program


def test_what_failed_can_be_done_once_more(wes: httpx.Client, working: None) -> None:
    order = {"node": "histogram", "query": QUERY}
    batch = wes.post("batches", json=order).json()
    address = f"batches/{batch['id']}"
    until(lambda: wes.get(address).json(), "succeeded")
    before = wes.get(f"{address}/matrix").json()
    assert wes.post(f"{address}/retry").status_code == 202
    until(lambda: wes.get(address).json(), "succeeded")
    after = wes.get(f"{address}/matrix").json()
    assert [one["steps"][""]["run"] for one in after["items"]] == [
        one["steps"][""]["run"] for one in before["items"]
    ]


def test_a_batch_that_is_cancelled_is_not_begun(wes: httpx.Client) -> None:
    order = {"node": "project", "query": QUERY, "params": {"how": "min"}}
    batch = wes.post("batches", json=order).json()
    assert wes.post(f"batches/{batch['id']}/cancel").status_code == 202
    assert wes.get(f"batches/{batch['id']}").json()["state"] == "cancelled"


def test_a_batch_says_over_http_that_its_engine_does_not_answer(
    site: Site, wes: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PATIENCE_S", 0.0)
    batch = wes.post("batches", json={"node": "minmax", "query": QUERY}).json()
    assert (batch["state"], batch["reason"]) == ("queued", "")
    nobody = {"THEATRUM_CATALOG_ENGINE": "tcp://127.0.0.1:9"}
    settings = load({"THEATRUM_HOME": str(site.home.root)} | nobody)
    stop = threading.Event()
    thread = threading.Thread(target=worker.work, args=(settings, stop))
    thread.start()
    try:
        address = f"batches/{batch['id']}"
        told = until(lambda: wes.get(address).json(), "failed")
    finally:
        stop.set()
        thread.join(60)
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in told["reason"]
    assert told["engine"]["address"] == "tcp://127.0.0.1:9"
    assert wes.post(f"{address}/retry").json()["state"] == "queued"
    wes.post(f"{address}/cancel")


def test_a_flow_is_kept_and_run(wes: httpx.Client, working: None) -> None:
    graph = {
        "name": "edges",
        "version": "1",
        "inputs": {"image": "array"},
        "steps": [
            {
                "key": "smooth",
                "node": "theatrum.nodes.catalog:gauss",
                "params": {"sigma": {"$": "sigma"}},
            },
            {"key": "flat", "node": "theatrum.nodes.catalog:project"},
        ],
        "edges": [["$image", "smooth.image"], ["smooth.result", "flat.image"]],
        "outputs": {"result": "flat.result"},
        "parameters": {"sigma": {"title": "Sigma", "default": 1.0}},
    }
    wrong = graph | {"edges": [["$image", "smooth.nothing"], ["x.y", "flat.image"]]}
    problems = wes.post("flows/check", json=wrong).json()["problems"]
    assert len(problems) >= 2
    assert wes.post("flows/check", json=graph).json() == {"problems": []}
    kept = wes.post("flows", json={"project": "work", "graph": graph})
    assert kept.status_code == 201, kept.text
    order = {"query": QUERY, "params": {"sigma": 2.0}}
    batch = wes.post(f"flows/{kept.json()['id']}/run", json=order)
    assert batch.status_code == 202, batch.text
    address = f"batches/{batch.json()['id']}"
    until(lambda: wes.get(address).json(), "succeeded")
    told = wes.get(f"{address}/matrix").json()
    assert told["steps"] == ["smooth", "flat"]
    assert len(told["items"]) == SCANS


def test_parameters_may_be_called_like_words_of_the_order(
    site: Site, wes: httpx.Client, working: None
) -> None:
    order = {"node": "to_nifti", "query": QUERY, "params": {"name": "far"}}
    batch = wes.post("batches", json=order | {"name": "To NIfTI"})
    assert batch.status_code == 202, batch.text
    assert batch.json()["name"] == "To NIfTI"
    address = f"batches/{batch.json()['id']}"
    until(lambda: wes.get(address).json(), "succeeded")
    runs = wes.get("runs", params={"batch_id": batch.json()["id"]}).json()["items"]
    assert {run["params"]["name"] for run in runs} == {"far"}
    here = connect(site.home.root, user="wes").images.filter(
        project="work", name="scan-0"
    )
    near = here.map(
        to_nifti, name="To NIfTI", parameters={"name": "near"}, engine="sync"
    ).wait(60)
    (run,) = near.runs
    assert (run.batch.name, run.params) == ("To NIfTI", {"name": "near"})


@pytest.mark.parametrize("wrong", ["hwo", "alonx"])
def test_a_misspelt_parameter_is_told_with_the_one_that_was_meant(
    wes: httpx.Client, wrong: str
) -> None:
    order = {"node": "project", "query": QUERY, "params": {wrong: "max"}}
    answer = wes.post("batches", json=order)
    assert answer.status_code == 422
    meant = {"hwo": "how", "alonx": "along"}[wrong]
    assert f"did you mean {meant}" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"node": "project", "query": {"of": "subjects"}}, 422),
        ({"node": "project", "query": {"of": "images", "where": "x"}}, 422),
        ({"node": "nothing", "query": QUERY}, 404),
        ({"node": "run_notebook", "query": QUERY}, 404),
        ({"node": "project", "query": QUERY, "params": {"how": "guess"}}, 422),
        ({"node": "project", "query": QUERY, "project": "mri"}, 404),
        ({"node": "project", "query": QUERY, "on_error": "laugh"}, 422),
        ({"node": "to_nifti", "query": QUERY, "params": {"name": "../x"}}, 422),
        ({"node": "project", "query": QUERY, "params": {"engine": "tcp://x:1"}}, 422),
        ({"node": "project", "query": QUERY, "params": {"parameters": {}}}, 422),
        ({"node": "merge_channels", "query": QUERY, "by": "path"}, 422),
        (
            {
                "node": "project",
                "query": {
                    "of": "images",
                    "where": [{"field": "path__startswith", "value": "/"}],
                },
            },
            422,
        ),
    ],
)
def test_an_order_that_cannot_be_is_refused(
    wes: httpx.Client, said: dict, status: int
) -> None:
    before = len(wes.get("batches").json()["items"])
    answer = wes.post("batches", json=said)
    assert answer.status_code == status, answer.text
    assert len(wes.get("batches").json()["items"]) == before


@pytest.mark.parametrize(
    "node",
    [
        "os:system",
        "theatrum.nodes.catalog:run_notebook",
        "theatrum.nodes.catalog.programs:run_container",
        "theatrum.nodes.catalog:__import__",
        "theatrum.nodes.catalog/../../{folder}/mine.py:project",
        "theatrum.nodes.catalog.masks.mine:project",
        "",
    ],
)
def test_no_code_but_ours_is_run_or_even_looked_for(
    wes: httpx.Client, node: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('it ran')\n")
    up = "../" * len(Path.cwd().parts)
    node = node.replace("{folder}", f"{up}{tmp_path}")
    graph = {"name": "bad", "steps": [{"key": "a", "node": node}], "edges": []}
    answer = wes.post("flows", json={"project": "work", "graph": graph})
    assert answer.status_code == 422, answer.text
    assert "palette" in answer.json()["detail"]


def test_who_only_reads_orders_nothing(dan: httpx.Client) -> None:
    assert dan.get("images", params={"project": "work"}).json()["items"]
    answer = dan.post("batches", json={"node": "project", "query": QUERY})
    assert answer.status_code == 403


def test_the_palette_tells_ports_and_parameters(wes: httpx.Client) -> None:
    palette = {one["name"]: one for one in wes.get("palette").json()["items"]}
    assert palette["gauss"]["parameters"]["properties"]["sigma"]
    assert palette["gauss"]["inputs"]["image"]["kind"] == "array"
    assert "run_notebook" not in palette

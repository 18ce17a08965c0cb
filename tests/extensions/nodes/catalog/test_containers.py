"""Containers: what they may, what they leave, and that they end when they are told to.

All of it on a strict double of Docker, and on Podman where it runs.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from theatrum.node import BadInputs, BadValue, Cancelled, Context
from theatrum.node.arrays import File
from theatrum.nodes.catalog import run_bids_app, run_container
from theatrum.nodes.catalog.containers import Folders, Limits, command, filled

from tests.extensions.nodes.catalog.phantoms import head
from tests.extensions.nodes.catalog.runtimes import Runtime, double, podman


@pytest.fixture(scope="module", params=["double", "podman"])
def runtime(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runtime]:
    """A runtime, alone on PATH with what tests need of the host."""
    folder = tmp_path_factory.mktemp("runtime")
    before = dict(os.environ)
    told: dict[str, str] = {}
    made = double(folder) if request.param == "double" else podman(folder, told)
    try:
        if isinstance(made, str):
            pytest.skip(made)
        if not made.real:
            os.environ["PATH"] = f"{folder / 'bin'}"
        yield made
    finally:
        os.environ.clear()
        os.environ.update(before)


def script(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


def test_a_container_reads_an_image_and_leaves_images_and_files(
    runtime: Runtime, tmp_path: Path
) -> None:
    image = head()
    done = run_container.run(
        {"image": image},
        {
            "container": runtime.plain,
            "command": script(
                "echo working; mkdir /out/deep; cp {image} /out/deep/twin.nii.gz; "
                "ls /in > /out/deep/saw.txt; ls /in > /out/saw.txt"
            ),
        },
        Context(folder=tmp_path),
    )
    (twin,) = done["images"]
    assert np.array_equal(twin.values, image.transpose("z", "y", "x").values)
    assert twin.attrs["file"] == "deep/twin.nii.gz"
    assert [one.path.name for one in done["files"]] == ["deep-saw.txt", "saw.txt"]
    # Its input is told by no name of the host's.
    assert done["files"][1].path.read_text() == "image.nii.gz\n"
    assert done["log"].path.read_text() == "working\n"
    assert runtime.left() == []


def test_an_image_goes_in_as_ome_zarr_and_a_folder_beside_it(
    runtime: Runtime, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights.txt").write_text("7")
    done = run_container.run(
        {"image": head(), "folder": File(model, "application/x-model")},
        {
            "container": runtime.plain,
            "command": script(
                "cp {image}/zarr.json /out/said.json; cp {folder}/weights.txt /out/"
            ),
            "form": "ome-zarr",
        },
        Context(folder=tmp_path / "run"),
    )
    said, weights = done["files"]
    assert "multiscales" in said.path.read_text()
    assert weights.path.read_text() == "7"


def test_a_container_has_no_network_no_rights_and_cannot_change_its_input(
    runtime: Runtime, tmp_path: Path
) -> None:
    if not runtime.real:
        pytest.skip("the double checks what it is asked, and isolates nothing")
    done = run_container.run(
        {"image": head()},
        {
            "container": runtime.plain,
            "command": script(
                "id -u > /out/user.txt; ip -o link > /out/network.txt; "
                "touch /in/mine /bin/mine || echo refused; touch /work/mine; "
                "test -e " + str(tmp_path) + " || echo alone"
            ),
        },
        Context(folder=tmp_path),
    )
    network, user = (one.path.read_text() for one in done["files"])
    assert user.strip() != "0"
    assert "lo:" in network
    assert len(network.splitlines()) == 1
    log = done["log"].path.read_text()
    assert "refused" in log
    assert "Read-only file system" in log
    assert "alone" in log


def test_a_container_gets_no_more_memory_than_it_was_given(
    runtime: Runtime, tmp_path: Path
) -> None:
    if not runtime.real:
        pytest.skip("the double checks what it is asked, and limits nothing")
    with pytest.raises(BadValue, match="137"):
        run_container(
            head(),
            container=runtime.plain,
            command=script("head -c 200000000 /dev/zero | tail -c 199999999 > /work/a"),
            memory_gb=0.03,
            context=Context(folder=tmp_path),
        )


def test_a_container_that_fails_says_so_with_the_end_of_its_log(
    runtime: Runtime, tmp_path: Path
) -> None:
    with pytest.raises(BadValue, match=r"(?s)failed with code 3: .*no brain found"):
        run_container(
            head(),
            container=runtime.plain,
            command=script("echo no brain found; exit 3"),
            context=Context(folder=tmp_path),
        )
    with pytest.raises(BadValue, match="left nothing"):
        run_container(
            head(),
            container=runtime.plain,
            command=script("true || echo"),
            context=Context(folder=tmp_path / "other"),
        )


def test_a_cancelled_container_is_killed_within_two_seconds(
    runtime: Runtime, tmp_path: Path
) -> None:
    wanted = threading.Event()
    wanted.set()
    context = Context(is_cancelled=lambda: not wanted.is_set(), folder=tmp_path)
    ended: list[BaseException] = []

    def work() -> None:
        try:
            run_container(
                head(),
                container=runtime.plain,
                command=script("echo here; sleep 300"),
                context=context,
            )
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 60
    log = tmp_path / "log.txt"
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert runtime.left() != []
    wanted.clear()
    thread.join(60)
    assert [type(one) for one in ended] == [Cancelled]
    assert runtime.left() == []


def test_a_container_that_takes_too_long_is_stopped(
    runtime: Runtime, tmp_path: Path
) -> None:
    with pytest.raises(BadValue, match="took longer than 1 s, and was stopped"):
        run_container(
            head(),
            container=runtime.plain,
            command=script("sleep 300"),
            timeout_s=1,
            context=Context(folder=tmp_path),
        )
    assert runtime.left() == []


def test_links_that_a_container_leaves_show_nothing_of_the_host(
    runtime: Runtime, tmp_path: Path
) -> None:
    done = run_container(
        head(),
        container=runtime.plain,
        command=script("ln -s /etc/passwd /out/taken.txt; echo 1 > /out/mine.txt"),
        context=Context(folder=tmp_path),
    )
    assert [one.path.name for one in done.files] == ["mine.txt"]


def test_a_bids_app_gets_a_data_set_and_its_output_is_kept(
    runtime: Runtime, tmp_path: Path
) -> None:
    image = head()
    done = run_bids_app.run(
        {"images": [image, image]},
        {
            "container": runtime.bids,
            "suffixes": ("T1w", "T2w"),
            "arguments": ("--work-dir", "{work}"),
        },
        Context(folder=tmp_path),
    )
    files = sorted(one.attrs["file"] for one in done["images"])
    assert files == [
        "sub-01/anat/sub-01_desc-copy_T1w.nii.gz",
        "sub-01/anat/sub-01_desc-copy_T2w.nii.gz",
    ]
    assert np.array_equal(
        done["images"][0].values, image.transpose("z", "y", "x").values
    )
    assert done["derivatives"].media_type == "application/x-bids"
    assert (done["derivatives"].path / "dataset_description.json").is_file()
    log = done["log"].path.read_text()
    assert "participant --participant-label 01 --work-dir" in log
    assert "sub-01" in log
    assert '"BIDSVersion"' in log


@pytest.mark.parametrize("name", ["tool:1", "tool:latest", "-v", "tool@sha256:1"])
def test_only_what_is_named_by_its_digest_is_run(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputs, match="'container'"):
        run_container.run(
            {}, {"container": name, "command": ("id",)}, Context(folder=tmp_path)
        )


def test_where_no_container_runs_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInputs, match="No container runtime"):
        run_container(
            head(),
            container="sha256:" + "0" * 64,
            command=("id",),
            context=Context(folder=tmp_path / "run"),
        )


def test_a_command_that_names_what_is_not_there_is_refused() -> None:
    assert filled(["{image}", "a{{b}}", "--out={out}"], {"image": "i", "out": "o"}) == [
        "i",
        "a{b}",
        "--out=o",
    ]
    with pytest.raises(BadValue, match="names model, which is not given"):
        filled(["{model}"], {"image": "i"})


def test_apptainer_gets_folders_limits_and_an_image_that_was_checked(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tool.sif"
    file.write_bytes(b"an image")
    digest = hashlib.sha256(b"an image").hexdigest()
    folders = Folders(Path("/a"), Path("/b"), Path("/c"))
    limits = Limits(2_000_000_000, 1.5, 60)
    told = command(
        "apptainer", f"{file}@sha256:{digest}", ["x"], folders, limits, name="n"
    )
    text = " ".join(told)
    assert told[:2] == ["apptainer", "run"]
    for part in ("--containall", "--network none", "--no-privs", "--memory 2000000000",
                 "--cpus 1.5", "--bind /a:/in:ro", "--bind /b:/out"):  # fmt: skip
        assert part in text, part
    assert told[-2:] == [str(file), "x"]
    named = command("apptainer", f"tool@sha256:{digest}", [], folders, limits, name="n")
    assert named[-1] == f"docker://tool@sha256:{digest}"
    with pytest.raises(BadInputs, match="is another than was named"):
        command("apptainer", f"{file}@sha256:{'0' * 64}", [], folders, limits, name="n")

"""One task: what travels, what is refused, and what becomes of an error."""

from __future__ import annotations

import pickle
from pathlib import Path

import cloudpickle
import nibabel
import numpy as np
from theatrum.catalog.engine.isolation import perform_apart
from theatrum.catalog.engine.keys import def_hash, given, input_hash
from theatrum.catalog.engine.work import Ref, Task, failure_of, perform
from theatrum.node import Line, Node, node
from theatrum.nodes.catalog import gauss

from tests.extensions.catalog.engine import study as nodes


def task(folder: Path, used: Node[..., object], **more: object) -> Task:
    path = folder / "image.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), path)
    ref = Ref("image", "abc", str(path), name="image")
    return Task(
        "run",
        used,
        {},
        {"image": ref},
        folder / "staging",
        folder / "cancelled",
        **more,  # type: ignore[arg-type]
    )


def test_a_task_and_its_answer_travel(tmp_path: Path) -> None:
    asked = cloudpickle.loads(cloudpickle.dumps(task(tmp_path, gauss)))
    done = cloudpickle.loads(pickle.dumps(perform(asked)))
    assert done.state == "succeeded"
    assert done.outputs[0].facts["shape"] == [4, 4, 4]
    assert done.outputs[0].path.is_dir()


def test_what_cannot_fit_into_a_workers_memory_is_refused(tmp_path: Path) -> None:
    done = perform(task(tmp_path, gauss, memory_bytes=100))
    assert done.state == "failed"
    assert done.failure is not None
    assert done.failure.kind == "MemoryError"
    assert 'mode="deep"' in done.failure.message


def test_a_task_that_is_not_wanted_any_more_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "cancelled").touch()
    assert perform(task(tmp_path, gauss)).state == "cancelled"
    assert not (tmp_path / "staging").exists()


def test_a_process_of_its_own_gives_the_same(tmp_path: Path) -> None:
    apart = perform_apart(task(tmp_path, nodes.brightest))
    here = perform(task(tmp_path, nodes.brightest))
    assert apart.state == "succeeded", apart.failure
    assert [one.value for one in apart.outputs] == [one.value for one in here.outputs]
    assert apart.env_hash == here.env_hash


def test_only_errors_that_pass_are_called_passing() -> None:
    assert failure_of(ConnectionResetError("x")).passing
    assert failure_of(OSError(5, "input/output error")).passing
    assert not failure_of(FileNotFoundError(2, "gone")).passing
    assert not failure_of(ValueError("odd")).passing

    class Busy(Exception):
        pass

    assert failure_of(Busy(), (Busy,)).passing


def test_another_code_is_another_definition() -> None:
    @node(version="1.0.0", name="same")
    def one(*, by: int = 1) -> int:
        """Give it."""
        return by

    @node(version="1.0.1", name="same")
    def two(*, by: int = 1) -> int:
        """Give it."""
        return by

    assert def_hash(one) != def_hash(two)
    assert def_hash(one) == def_hash(one)


def test_equal_values_have_equal_checksums() -> None:
    line = given(Line([(0, 0), (1, 2)]))
    same = given(Line([(0, 0), (1, 2)]))
    other = given(Line([(0, 0), (1, 3)]))
    assert input_hash({"line": line}) == input_hash({"line": same})
    assert input_hash({"line": line}) != input_hash({"line": other})

"""A file that harms its reader ends a worker process, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from theatrum.catalog.formats import Damaged
from theatrum.catalog.ingest.look import Limits, Looker

from tests import stacks


def test_a_worker_that_ends_is_replaced_and_the_file_refused(tmp_path: Path) -> None:
    path = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    with Looker() as looker:
        looker.describe([path], "nifti", planes=tmp_path)
        worker = looker._worker
        assert worker is not None
        os.kill(worker._process.pid, 9)
        worker._process.wait()
        # Nobody notices: the next question goes to a fresh one.
        (scene,) = looker.describe([path], "nifti", planes=tmp_path)
        assert scene["image"]["n_z"] == 5


def test_a_file_that_takes_for_ever_is_refused_in_time(tmp_path: Path) -> None:
    path = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    with Looker(Limits(seconds=1e-6)) as looker, pytest.raises(Damaged, match="after"):
        looker.describe([path], "nifti", planes=tmp_path)

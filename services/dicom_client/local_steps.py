"""The same way for a local engine: nothing leaves, and the states stay the same.

The engine gets the de-identified images, as the server would: what it logs or keeps
tells of nobody, and its structure set is checked and given back like any other.
"""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime

from services.dicom_client import local_engine
from services.dicom_client.errors import LocalEngineFailed
from services.dicom_client.running import Ended, Run, Told
from services.dicom_client.sending import deidentified

_ANOTHER_TIME = frozenset({"crash", "memory"})
"""What may work on another day or machine."""


def pack(run: Run) -> Told:
    """There is no package; the images are looked at once more."""
    deidentified(run)
    run.to("packed", "a local engine")
    return None


def hand_over(run: Run) -> Told:
    run.to("uploading", "a local engine")
    return None


def take_over(run: Run) -> Told:
    """Nothing was sent anywhere: no doubt can be."""
    run.to("submitted", "a local engine", submitted=time.time())
    return None


def begin(run: Run) -> Told:
    run.to("processing", "a local engine")
    return None


def work(run: Run) -> Told:
    """Let the engine work in a process of its own; its progress stands in the row."""
    settings = run.bench.settings()
    images = deidentified(run).files()
    target = run.folder.path / "engine"
    target.mkdir(mode=0o700, exist_ok=True)
    begun = datetime.fromtimestamp(run.job.submitted or run.job.created, UTC)
    try:
        local_engine.run(
            images,
            run.template,
            folder=target,
            job=run.job.job_id,
            made_at=begun,
            limits=_limits(run),
            progress=run.progress,
            check=run.check,
        )
    except LocalEngineFailed as err:
        if err.code in _ANOTHER_TIME and run.job.attempt + 1 < settings.attempts:
            raise
        run.to("server_failed", err.code, server_status=str(err)[:100])
        return Ended()
    run.to("ready", "a local engine")
    return None


def _limits(run: Run) -> local_engine.Limits:
    settings = run.bench.settings()
    return local_engine.Limits(settings.engine_timeout_s, settings.engine_bytes)


def fetch(run: Run) -> Told:
    """The engine's result, kept as a server's would be."""
    made = run.folder.path / "engine" / local_engine.RESULT
    if not made.is_file():
        # On another machine: the engine makes the same file again.
        run.folder.make()
        local_engine.run(
            deidentified(run).files(),
            run.template,
            folder=made.parent,
            job=run.job.job_id,
            made_at=datetime.fromtimestamp(run.job.submitted or 0.0, UTC),
            limits=_limits(run),
            progress=run.progress,
            check=run.check,
        )
    staged = run.folder.result.with_name(".rtstruct.part")
    shutil.copyfile(made, staged)
    staged.replace(run.folder.result)
    run.to("downloaded", "a local engine", verified=True)
    return None

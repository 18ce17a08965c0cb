"""A package leaves once: what is known of one that was cut off, and who finds it so.

The contract with the server has no question whether a package arrived. What is certain
is that it did not where its last bytes never left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.durable.liveness import own_columns
from services.dicom_client import packaging, sending
from services.dicom_client.draw_server import Tokens
from services.dicom_client.errors import Transient
from services.dicom_client.leases import Leases
from services.dicom_client.models import Worker
from services.dicom_client.running import Bench, Later, Run, Stops
from services.dicom_client.transitions import Lost
from tests.draw_server import DrawServer

from .client_site import patient_series
from .test_whose_series import Looks


class Sender:
    """A job that is packed, and workers that may have it."""

    def __init__(self, looks: Looks) -> None:
        self.service = looks.service
        self.leases = Leases(self.service.database, self.service.settings)
        looks.drop(patient_series(slices=6), "one")
        (job,) = looks.jobs()
        self.job_id = job.job_id
        run = self.run("first")
        sending.deidentify(run)
        sending.pack(run)
        self.leases.put_off(self.job_id, "first", 0.0)

    def run(self, worker: str) -> Run:
        """The job as a worker has it that takes it now."""
        self.leases.renew(Worker(**{**own_columns(), "worker_id": worker}))
        service, job = self.service, self.service.jobs.get(self.job_id)
        bench = Bench(
            jobs=service.jobs,
            keeper=service.keeper,
            leases=self.leases,
            folders=service.folders,
            servers=service.servers,
            profiles=service.profiles,
            settings=service.settings,
            worker=worker,
            stopping=lambda: False,
        )
        return Run(bench, self.leases.claim(self.job_id, job.run, worker))

    def died(self, worker: str) -> None:
        assert self.leases.take_back({worker}) == [self.job_id]


@pytest.fixture
def server() -> Iterator[DrawServer]:
    with DrawServer() as running:
        yield running


@pytest.fixture
def sender(tmp_path: Path, server: DrawServer) -> Iterator[Sender]:
    looks = Looks(tmp_path, server={"base_url": server.url}, min_free_bytes=0)
    tokens = Tokens(server.access_token, server.refresh_token)
    looks.service.keeper.put_tokens(tokens, "test")
    yield Sender(looks)
    looks.service.close()


def test_a_package_that_was_cut_off_is_sent_again_and_nobody_is_asked(
    sender: Sender, server: DrawServer
) -> None:
    """Until it was tried as often as any step is."""
    run = sender.run("first")
    file = run.folder.package / packaging.PACKAGE
    whole = file.read_bytes()
    # More than the buffers between two programs hold.
    large = os.urandom(1 << 20) * 48
    file.write_bytes(large)
    run.keep(package_sha256=hashlib.sha256(large).hexdigest())
    server.script(upload_drop_after_bytes=100_000)
    for attempt in (1, 2):
        with pytest.raises(Transient) as raised:
            sending.send(run)
        assert run.job.state == "packed"
        assert not sender.leases.failed(sender.job_id, "first", raised.value.code)
        run = sender.run("first")
        assert (run.job.attempt, run.job.last_error_code) == (attempt, "unreachable")
    server.script(upload_drop_after_bytes=0)
    file.write_bytes(whole)
    run.keep(package_sha256=hashlib.sha256(whole).hexdigest())
    assert isinstance(sending.send(run), Later)
    assert (run.job.state, run.job.attempt) == ("submitted", 0)
    assert [one.uploads for one in server.tasks.values()] == [1]


def test_an_upload_whose_worker_died_before_its_last_bytes_never_arrived(
    sender: Sender,
) -> None:
    sender.run("first").to("uploading")
    sender.died("first")
    second = sender.run("second")
    assert sending.find_out(second) is None
    # The deaths are counted on: a package that kills workers stops at some time.
    assert (second.job.state, second.job.crashes) == ("packed", 1)


def test_of_one_whose_last_bytes_had_left_a_person_is_asked(sender: Sender) -> None:
    first = sender.run("first")
    first.to("uploading")
    first.upload_leaves()
    sender.died("first")
    assert sending.find_out(sender.run("second")) == Stops("upload-unknown", "packed")
    # Whoever dies before the job rests leaves the question open.
    sender.died("second")
    third = sender.run("third")
    assert third.job.state == "uploading"
    assert sending.find_out(third) == Stops("upload-unknown", "packed")
    sender.leases.stop(sender.job_id, "third", "upload-unknown", state="packed")
    job = sender.service.jobs.get(sender.job_id)
    assert (job.state, job.stopped) == ("packed", "upload-unknown")
    assert sender.leases.due() == []


def test_a_worker_that_was_taken_for_dead_sends_no_last_bytes(
    sender: Sender, server: DrawServer
) -> None:
    slow = sender.run("slow")
    slow.watch = lambda _share: sender.died("slow")  # type: ignore[method-assign]
    with pytest.raises(Lost):
        sending.send(slow)
    assert server.tasks == {}
    other = sender.run("other")
    assert sending.find_out(other) is None
    assert isinstance(sending.send(other), Later)
    assert [one.uploads for one in server.tasks.values()] == [1]

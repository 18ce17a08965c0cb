"""An association's threads wait for each other, and miss nothing while they do."""

import threading
import time

from pydicom.uid import CTImageStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from tests.dcmtk import until
from tests.extensions.structures.series import ct_series
from tests.services.dicom_client.received import receiving


def associated(scp):
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context(CTImageStorage)
    entity.add_requested_context(Verification)
    return entity.associate("127.0.0.1", scp.port, ae_title="THEATRUM")


def test_an_association_in_which_nothing_happens_asks_for_nothing(tmp_path):
    with receiving(tmp_path / "in") as scp:
        association = associated(scp)
        (ours,) = until(lambda: scp._server.active_associations)
        asked = threading.Semaphore(0)
        for owner, name in ((ours.dul, "_is_transport_event"), (ours.dimse, "get_msg")):
            setattr(owner, name, counting(getattr(owner, name), asked))
        began = time.monotonic()
        for _ in range(20):
            assert asked.acquire(timeout=30)
        # Two threads, each once in 50 ms; by polling this took some 10 ms.
        assert time.monotonic() - began > 0.25
        association.release()


def counting(call, asked):
    def counted(*given, **named):
        asked.release()
        return call(*given, **named)

    return counted


def test_many_small_messages_one_after_the_other_are_all_answered(tmp_path):
    with receiving(tmp_path / "in") as scp:
        association = associated(scp)
        images = ct_series(slices=30, rows=4, columns=4)
        answers = []
        for image in images:
            answers.append(association.send_c_store(image).Status)
            answers.append(association.send_c_echo().Status)
        association.release()
        (facts,) = until(lambda: scp.notes.ended)
    assert answers == [0] * 60
    assert (facts.stored, facts.how) == (30, "released")


def test_nothing_of_an_association_is_left_open_when_it_has_ended(tmp_path):
    with receiving(tmp_path / "in") as scp:
        before = {thread.name for thread in threading.enumerate()}
        for way in ("release", "abort"):
            association = associated(scp)
            (ours,) = until(lambda: scp._server.active_associations)
            getattr(association, way)()
            until(lambda one=ours: not one.is_alive() and not one.dul.is_alive())
        until(lambda: {thread.name for thread in threading.enumerate()} <= before)

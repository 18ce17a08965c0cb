import concurrent.futures
import contextlib
import random
import shutil
import socket
import struct
import subprocess

import imagecodecs
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    RTDoseStorage,
    RTPlanStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE

from services.dicom_client.association_server import is_allowed
from services.dicom_client.staging import Quota, Staging
from services.dicom_client.store_scp import (
    DUPLICATE,
    MISMATCH,
    NOT_UNDERSTOOD,
    OUT_OF_RESOURCES,
)
from services.dicom_client.tls import ServerTls
from tests.certificates import self_signed
from tests.dcmtk import echoscu, storescu, tool, until
from tests.extensions.structures.series import ct_series
from tests.services.dicom_client.received import Notes, receiving, write_series


@contextlib.contextmanager
def sender(
    scp, sop_class=CTImageStorage, syntax=ExplicitVRLittleEndian, title="SCANNER"
):
    """An association of pynetdicom's to our service."""
    entity = AE(ae_title=title)
    entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", scp.port, ae_title="THEATRUM")
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def datasets(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.glob("*/*.dcm"))]


def test_dcmtk_sends_a_series_that_lies_on_disk_whole_and_is_told_so(tmp_path):
    files = write_series(tmp_path / "scan", slices=7)
    with receiving(tmp_path / "in") as scp:
        assert storescu(scp.port, files=files).returncode == 0
        until(lambda: scp.notes.ended)
    wanted = {pydicom.dcmread(file).SOPInstanceUID for file in files}
    assert scp.notes.instances() == wanted
    kept = datasets(tmp_path / "in")
    assert {one.SOPInstanceUID for one in kept} == wanted
    assert {one.PixelData for one in kept} == {
        pydicom.dcmread(file).PixelData for file in files
    }
    facts = scp.notes.ended[0]
    assert (facts.how, facts.stored, facts.refused) == ("released", 7, 0)
    assert facts.calling_ae_title == "STORESCU"
    assert facts.peer == "127.0.0.1"
    assert list(facts.series.values()) == [7]


def test_no_name_in_the_staging_folder_holds_a_uid_or_a_patient(tmp_path):
    files = write_series(tmp_path / "scan", slices=1)
    with receiving(tmp_path / "in") as scp:
        storescu(scp.port, files=files)
    header = pydicom.dcmread(files[0])
    names = " ".join(str(path) for path in (tmp_path / "in").rglob("*"))
    for value in (header.SOPInstanceUID, header.SeriesInstanceUID, header.PatientID):
        assert value not in names


def test_dcmtk_gets_an_answer_to_its_echo(tmp_path):
    with receiving(tmp_path / "in") as scp:
        assert echoscu(scp.port).returncode == 0


def test_who_calls_us_by_another_title_is_rejected(tmp_path):
    with receiving(tmp_path / "in") as scp:
        answer = echoscu(scp.port, title="SOMEBODY")
        assert answer.returncode
        assert "Called AE Title Not Recognized" in answer.stderr


def test_only_listed_titles_may_send(tmp_path):
    with receiving(tmp_path / "in", calling_ae_titles=("CT1",)) as scp:
        assert echoscu(scp.port, "-aet", "CT1").returncode == 0
        answer = echoscu(scp.port, "-aet", "CT2")
        assert "Calling AE Title Not Recognized" in answer.stderr


def test_only_listed_addresses_may_send(tmp_path):
    with receiving(tmp_path / "in", networks=("10.1.0.0/16",)) as scp:
        assert echoscu(scp.port).returncode
    with receiving(tmp_path / "in", networks=("127.0.0.0/8",)) as scp:
        assert echoscu(scp.port).returncode == 0


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.2.3", False),
        ("fe80::1%eth0", True),
        ("fd00::1", False),
    ],
)
def test_an_address_is_looked_up_in_networks_of_both_kinds(address, allowed):
    assert is_allowed(address, ["10.1.0.0/16", "fe80::/10"]) is allowed


@pytest.mark.parametrize(
    ("option", "sop_class"),
    [
        ("rtstruct", RTStructureSetStorage),
        ("rtplan", RTPlanStorage),
        ("rtdose", RTDoseStorage),
        ("sc", SecondaryCaptureImageStorage),
        ("ct", CTImageStorage),
    ],
)
def test_a_kind_of_object_is_taken_only_where_the_settings_say_so(
    tmp_path, option, sop_class
):
    image = ct_series(slices=1, rows=4, columns=4)[0]
    image.SOPClassUID = sop_class
    with (
        receiving(tmp_path / "in", storage=(option,)) as scp,
        sender(scp, sop_class) as association,
    ):
        assert association.send_c_store(image).Status == 0
    with (
        receiving(tmp_path / "in", storage=("pet",)) as scp,
        sender(scp, sop_class) as association,
    ):
        assert not association.is_established or not association.accepted_contexts


ENCODERS = {
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: lambda pixels: imagecodecs.jpeg2k_encode(
        pixels, codecformat="j2k", reversible=True
    ),
}


@pytest.mark.parametrize(
    ("syntax", "option"),
    [
        (RLELossless, "-xr"),
        (JPEGLSLossless, "-xt"),
        (JPEG2000Lossless, "-xv"),
        (JPEGLosslessSV1, "-xs"),
    ],
)
def test_compressed_pixels_pass_through_as_they_are(tmp_path, syntax, option):
    source = tmp_path / "compressed.dcm"
    image = ct_series(slices=1, rows=16, columns=16)[0]
    image.save_as(source, enforce_file_format=True)
    if syntax == JPEGLosslessSV1:
        subprocess.run([tool("dcmcjpeg"), "+e1", source, source], check=True)
    elif syntax == RLELossless:
        image.compress(syntax, generate_instance_uid=False)
        image.save_as(source, enforce_file_format=True)
    else:
        pixels = ENCODERS[syntax](image.pixel_array)
        image.PixelData = encapsulate([pixels])
        image["PixelData"].is_undefined_length = True
        image.file_meta.TransferSyntaxUID = syntax
        image.save_as(source, enforce_file_format=True)
    with receiving(tmp_path / "in") as scp:
        assert storescu(scp.port, option, files=[source]).returncode == 0
    (kept,) = datasets(tmp_path / "in")
    assert kept.file_meta.TransferSyntaxUID == syntax
    assert kept.PixelData == pydicom.dcmread(source).PixelData


def test_an_instance_that_comes_twice_is_kept_once_and_both_times_told_so(tmp_path):
    image = ct_series(slices=1)[0]
    with receiving(tmp_path / "in") as scp, sender(scp) as association:
        assert association.send_c_store(image).Status == 0
        assert association.send_c_store(image).Status == 0
    assert len(datasets(tmp_path / "in")) == 1


def test_another_object_of_a_known_uid_never_replaces_the_first(tmp_path):
    image = ct_series(slices=1)[0]
    with receiving(tmp_path / "in") as scp, sender(scp) as association:
        association.send_c_store(image)
        image.PatientID = "P-2"
        assert association.send_c_store(image).Status == DUPLICATE
    assert [one.PatientID for one in datasets(tmp_path / "in")] == ["P-1"]


def test_a_full_staging_folder_refuses_for_lack_of_room_and_goes_on_later(tmp_path):
    first, second = ct_series(slices=2)
    with (
        receiving(tmp_path / "in", quota=Quota(most_bytes=6000, free_bytes=0)) as scp,
        sender(scp) as association,
    ):
        assert association.send_c_store(first).Status == 0
        assert association.send_c_store(second).Status == OUT_OF_RESOURCES
        shutil.rmtree(scp.staging.folder)
        scp.staging.folder.mkdir()
        scp.staging._counted = -60.0  # as if it had been counted long ago
        assert association.send_c_store(second).Status == 0


def test_a_nearly_full_disk_refuses_for_lack_of_room(tmp_path):
    with (
        receiving(tmp_path / "in", quota=Quota(free_bytes=1 << 60)) as scp,
        sender(scp) as association,
    ):
        status = association.send_c_store(ct_series(slices=1)[0]).Status
        assert status == OUT_OF_RESOURCES


def without_series(image):
    del image.SeriesInstanceUID


def of_another_class(image):
    image.SOPClassUID = RTPlanStorage


@pytest.mark.parametrize(
    ("spoil", "status"),
    [(without_series, NOT_UNDERSTOOD), (of_another_class, MISMATCH)],
)
def test_a_bad_data_set_is_refused_and_the_next_one_taken(tmp_path, spoil, status):
    bad, good = ct_series(slices=2)
    spoil(bad)
    with receiving(tmp_path / "in") as scp, sender(scp) as association:
        assert send_bytes(association, bad) == status
        assert association.send_c_store(good).Status == 0
    assert len(datasets(tmp_path / "in")) == 1
    assert not list((tmp_path / "in").glob("*.part"))


def test_a_data_set_that_is_cut_off_is_refused(tmp_path):
    bad, good = ct_series(slices=2)
    with receiving(tmp_path / "in") as scp, sender(scp) as association:
        assert send_bytes(association, bad, cut=-100) == NOT_UNDERSTOOD
        assert association.send_c_store(good).Status == 0


def send_bytes(association, image, cut=None, sop_class=CTImageStorage):
    """Send a data set's very bytes under the association's context."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    request = C_STORE()
    request.MessageID = 9
    request.Priority = 2
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = image.SOPInstanceUID
    body = image if isinstance(image, bytes) else encode(image, False, True)
    request.DataSet = BytesIO(body[:cut])
    context = association.accepted_contexts[0].context_id
    association._reactor_checkpoint.clear()
    until(lambda: association._is_paused)
    association.dimse.send_msg(request, context)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return None if answer is None else answer.Status


def test_success_is_told_only_after_the_instance_was_noted(tmp_path):
    class Failing(Notes):
        def instance(self, arrival, _facts):
            assert arrival.path.exists()
            raise RuntimeError("the database is gone")

    image = ct_series(slices=1)[0]
    with (
        receiving(tmp_path / "in", Failing()) as scp,
        sender(scp) as association,
    ):
        assert association.send_c_store(image).Status == OUT_OF_RESOURCES
    # The process may end between the file's name and its note: it is found again.
    again = list(Staging(tmp_path / "in", Quota()).staged())
    assert [one.header.sop_instance for one in again] == [image.SOPInstanceUID]
    with receiving(tmp_path / "in") as scp, sender(scp) as association:
        assert association.send_c_store(image).Status == 0
    assert scp.notes.instances() == {image.SOPInstanceUID}


def test_parallel_senders_of_several_series_lose_and_mix_nothing(tmp_path):
    scans = [write_series(tmp_path / f"scan{n}", slices=12) for n in range(6)]
    with (
        receiving(tmp_path / "in") as scp,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        sent = pool.map(lambda files: storescu(scp.port, files=files), scans)
        assert [one.returncode for one in sent] == [0] * 6
        until(lambda: len(scp.notes.ended) == 6)
    assert len(datasets(tmp_path / "in")) == 72
    assert sorted(n for one in scp.notes.ended for n in one.series.values()) == [12] * 6


def test_two_senders_of_one_series_at_once_are_both_answered(tmp_path):
    files = write_series(tmp_path / "scan", slices=20)
    with (
        receiving(tmp_path / "in") as scp,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        sent = pool.map(lambda _n: storescu(scp.port, files=files), range(4))
        assert [one.returncode for one in sent] == [0] * 4
    assert len(datasets(tmp_path / "in")) == 20


def test_too_many_associations_are_rejected_and_the_others_go_on(tmp_path):
    with (
        receiving(tmp_path / "in", associations=1) as scp,
        sender(scp) as first,
        sender(scp) as second,
    ):
        assert first.is_established
        assert second.is_rejected
        assert first.send_c_store(ct_series(slices=1)[0]).Status == 0


def test_an_aborted_association_is_told_from_a_released_one(tmp_path):
    with receiving(tmp_path / "in") as scp:
        with sender(scp) as association:
            association.send_c_store(ct_series(slices=1)[0])
            association.abort()
        (facts,) = until(lambda: scp.notes.ended)
        assert (facts.how, facts.stored) == ("aborted", 1)


def test_a_lost_connection_counts_as_aborted(tmp_path):
    with receiving(tmp_path / "in") as scp:
        with sender(scp) as association:
            association.dul.socket.socket.close()
            (facts,) = until(lambda: scp.notes.ended)
        assert facts.how == "aborted"


def test_an_object_that_weighs_too_much_ends_its_association_only(tmp_path):
    large = ct_series(slices=1, rows=1500, columns=1500)[0]
    with receiving(tmp_path / "in", largest_bytes=1 << 20) as scp:
        with sender(scp) as association:
            assert "Status" not in association.send_c_store(large)
        with sender(scp) as association:
            assert association.send_c_store(ct_series(slices=1)[0]).Status == 0


def test_an_announced_piece_of_gigabytes_is_not_waited_for(tmp_path):
    with receiving(tmp_path / "in", largest_bytes=1 << 20) as scp:
        with socket.create_connection(("127.0.0.1", scp.port)) as peer:
            peer.settimeout(30)
            peer.sendall(struct.pack(">BBL", 4, 0, 0xFFFFFFF0) + bytes(64))
            assert ends(peer)
        assert echoscu(scp.port).returncode == 0


def ends(peer):
    """Whether the other side closes the connection."""
    try:
        while peer.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_stopping_lets_an_open_association_end_in_order(tmp_path):
    image = ct_series(slices=1)[0]
    with receiving(tmp_path / "in") as scp, sender(scp) as association:
        until(scp.open_associations)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            stopped = pool.submit(scp.stop, 30)
            assert association.send_c_store(image).Status == 0
            association.release()
            stopped.result(30)
    assert [one.how for one in scp.notes.ended] == ["released"]


def test_stopping_aborts_who_does_not_end(tmp_path):
    with receiving(tmp_path / "in") as scp, sender(scp) as association:
        until(scp.open_associations)
        scp.stop(grace_s=0)
        until(lambda: association.is_aborted)


def test_rubbish_on_the_line_harms_nobody(tmp_path):
    random_bytes = random.Random(5)  # noqa: S311
    with receiving(tmp_path / "in") as scp:
        for _ in range(20):
            damage_line(scp.port, random_bytes)
        assert echoscu(scp.port).returncode == 0


@pytest.mark.fuzz
def test_thousands_of_pieces_of_rubbish_on_the_line_harm_nobody(tmp_path):
    random_bytes = random.Random(6)  # noqa: S311
    with receiving(tmp_path / "in", associations=50) as scp:
        for _ in range(5000):
            damage_line(scp.port, random_bytes)
        until(lambda: echoscu(scp.port).returncode == 0)


def damage_line(port, source):
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), 10) as peer,
    ):
        kind = source.choice([1, 2, 3, 4, 5, 6, 7, 22, 71])
        body = source.randbytes(source.randrange(400))
        length = source.choice([len(body), 0, 5, 1 << 20, 0xFFFFFFFF])
        peer.sendall(struct.pack(">BBL", kind, 0, length) + body)


def spoilt(source, image):
    """A data set with a few bytes changed, or cut off."""
    from pynetdicom.dsutils import encode

    body = bytearray(encode(image, False, True))
    for _ in range(source.randrange(1, 6)):
        body[source.randrange(min(len(body), 700))] = source.randrange(256)
    return bytes(body[: source.randrange(20, len(body))])


def send_spoilt(folder, times, seed):
    source = random.Random(seed)  # noqa: S311
    image = ct_series(slices=1, rows=8, columns=8)[0]
    with receiving(folder) as scp, sender(scp) as association:
        for _ in range(times):
            body = Spoilt(spoilt(source, image), image.SOPInstanceUID)
            status = send_bytes(association, body)
            assert status in (0, DUPLICATE, MISMATCH, NOT_UNDERSTOOD)
        good = ct_series(slices=1)[0]
        assert association.send_c_store(good).Status == 0


class Spoilt(bytes):
    """Bytes that are announced under a UID."""

    def __new__(cls, body, uid):
        made = super().__new__(cls, body)
        made.SOPInstanceUID = uid
        return made


def test_damaged_data_sets_are_answered_and_harm_nobody(tmp_path):
    send_spoilt(tmp_path / "in", 40, seed=1)


@pytest.mark.fuzz
def test_thousands_of_damaged_data_sets_are_answered_and_harm_nobody(tmp_path):
    send_spoilt(tmp_path / "in", 5000, seed=2)


def test_dcmtk_sends_over_tls_and_plain_senders_are_turned_away(tmp_path):
    bundle, _ = self_signed(tmp_path)
    files = write_series(tmp_path / "scan", slices=3)
    key = tmp_path / "key.pem"
    trusting = ("+tla", "-ic", "+cf", bundle)
    with receiving(tmp_path / "in", tls=ServerTls(bundle, key)) as scp:
        assert storescu(scp.port, *trusting, files=files).returncode == 0
        assert echoscu(scp.port).returncode
        until(lambda: scp.notes.ended)
    assert scp.notes.ended[0].tls
    assert len(datasets(tmp_path / "in")) == 3


def test_a_sender_without_a_certificate_of_ours_is_turned_away(tmp_path):
    bundle, _ = self_signed(tmp_path)
    key = tmp_path / "key.pem"
    tls = ServerTls(bundle, key, senders_ca=bundle)
    with receiving(tmp_path / "in", tls=tls) as scp:
        assert echoscu(scp.port, "+tla", "+cf", bundle).returncode
        known = echoscu(scp.port, "+tls", key, bundle, "+cf", bundle)
        assert known.returncode == 0, known.stderr


def test_a_peer_that_is_silent_over_tls_keeps_nobody_out(tmp_path):
    bundle, _ = self_signed(tmp_path)
    tls = ServerTls(bundle, tmp_path / "key.pem")
    with (
        receiving(tmp_path / "in", tls=tls) as scp,
        socket.create_connection(("127.0.0.1", scp.port)),
    ):
        assert echoscu(scp.port, "+tla", "-ic", "+cf", bundle).returncode == 0

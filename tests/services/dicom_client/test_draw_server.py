"""The client of the segmentation server, against the double on a real socket."""

import hashlib
import io
import os
import zipfile
from datetime import UTC, datetime

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from services.dicom_client import draw_server
from services.dicom_client.draw_server import (
    DrawServer,
    DrawSettings,
    Progress,
    Tokens,
    check_address,
    progress_of,
)
from services.dicom_client.errors import (
    BadDownload,
    BadRequest,
    NotReady,
    Refused,
    Transient,
    Unanswered,
    Unauthorized,
    UnknownTask,
)
from services.dicom_client.servers import is_unknown
from services.dicom_client.templates import (
    Model,
    Structure,
    Template,
    models_of_server,
    to_yaml,
)
from services.dicom_client.transitions import Lost
from tests import draw_server as double
from tests.draw_server import Scenario
from tests.extensions.structures.series import ct_series

TEMPLATE = Template(
    "Pelvis",
    (
        Model(
            720,
            "PelvisMaleOAR",
            "3d_fullres",
            "nnUNetTrainer",
            None,
            (Structure(1, "Bladder"), Structure(3, "Femur_Head_L")),
        ),
    ),
)


def package(tmp_path, change=lambda _image: None, template=None, more=()):
    file = tmp_path / "package.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for at, image in enumerate(ct_series(slices=4)):
            image.PatientName, image.PatientID = "DRAW^1", "1"
            image.StudyDate = image.StudyTime = image.StudyID = ""
            image.PatientIdentityRemoved = "YES"
            code = pydicom.Dataset()
            code.CodeValue = "113100"
            image.DeidentificationMethodCodeSequence = Sequence([code])
            change(image)
            image.file_meta = FileMetaDataset()
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            image.file_meta.MediaStorageSOPClassUID = CTImageStorage
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            written = io.BytesIO()
            image.save_as(written, enforce_file_format=True)
            archive.writestr(f"{at}.dcm", written.getvalue())
        archive.writestr("template.yml", template or to_yaml(TEMPLATE))
        for name, content in more:
            archive.writestr(name, content)
    return file, hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def running():
    with double.DrawServer() as server:
        yield server


def client(server, *, access=None, keep=lambda _tokens: None, **settings):
    given = {"client_id": "theatrum", "upload_timeout_s": 0.5} | settings
    tokens = Tokens(access or server.access_token, server.refresh_token)
    return DrawServer(DrawSettings(server.url, **given), tokens, keep)


def finished(mine, task):
    for _ in range(10):
        state, _word = mine.status(task)
        if state is Progress.READY:
            return
    raise AssertionError("it never became ready")


def test_a_package_goes_up_and_its_structure_set_comes_down(running, tmp_path):
    mine = client(running)
    assert mine.health()
    task = mine.upload(*package(tmp_path))
    with pytest.raises(NotReady):
        mine.download(task, tmp_path / "early.dcm")
    finished(mine, task)
    found = mine.download(task, tmp_path / "rt.dcm")
    assert found.verified
    assert found.path.stat().st_mode & 0o077 == 0
    names = [one.ROIName for one in pydicom.dcmread(found.path).StructureSetROISequence]
    assert names == ["Bladder", "Femur_Head_L"]
    mine.confirm(task)
    mine.confirm(task)
    assert running.tasks[task].confirmed == 1
    assert mine.status(task)[0] is Progress.GONE
    with pytest.raises(UnknownTask):
        mine.download(task, tmp_path / "late.dcm")
    assert running.leaks == []


def test_the_models_are_told(running):
    assert len(models_of_server(client(running).models())) == 3


@pytest.mark.parametrize("name", ["transaction_token", "task_id"])
def test_a_token_is_understood_under_both_names(running, tmp_path, name):
    running.script(token_name=name)
    assert client(running).upload(*package(tmp_path)) in running.tasks


@pytest.mark.parametrize(
    "text",
    [
        *("SEGMENTATION COMPLETED", "SEGMENTATION COMPLETE", "SEGMENTATION RETRIEVED"),
        *("segmentation completed", " Segmentation_Completed \n"),
    ],
)
def test_every_spelling_of_ready_is_understood(text):
    assert progress_of(text) is Progress.READY


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("FAILED", Progress.FAILED),
        ("Segmentation failed", Progress.FAILED),
        ("server error", Progress.FAILED),
        ("Delivered to Client", Progress.GONE),
        ("Transfer Completed", Progress.GONE),
        ("SEGMENTATION STARTED", Progress.WORKING),
        ("", Progress.WORKING),
    ],
)
def test_every_other_status_is_understood(text, meaning):
    assert progress_of(text) is meaning


@given(st.text(max_size=80))
def test_any_status_has_a_meaning(text):
    assert progress_of(text) in Progress


def test_a_server_that_is_busy_says_no_to_packages_only(running):
    running.script(health_503_n=1)
    assert not client(running).health()
    assert client(running).health()


@pytest.mark.parametrize("switch", ["upload_500_n", "upload_reset_n", "upload_stall_n"])
def test_an_upload_that_fails_may_be_sent_again(running, tmp_path, switch):
    running.script(**{switch: 1})
    mine = client(running)
    sent = package(tmp_path)
    with pytest.raises(Transient):
        mine.upload(*sent)
    assert running.tasks == {}
    mine.upload(*sent)
    assert len(running.tasks) == 1


def test_an_upload_whose_answer_is_lost_is_known_to_a_server_that_is_asked_again(
    running, tmp_path
):
    running.script(upload_drop_n=1)
    mine = client(running)
    sent = package(tmp_path)
    with pytest.raises(Transient):
        mine.upload(*sent)
    task = mine.upload(*sent)
    assert list(running.tasks) == [task]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda one: setattr(one, "SOPInstanceUID", "1.2.3"), "twice"),
        (
            lambda one: setattr(one, "SeriesInstanceUID", generate_uid()),
            "more than one",
        ),
    ],
)
def test_a_package_that_is_no_series_is_refused(running, tmp_path, change, why):
    with pytest.raises(Refused, match="400"):
        client(running).upload(*package(tmp_path, change))
    assert running.tasks == {}
    assert why


@pytest.mark.parametrize("name", ["../evil.dcm", "a/b.dcm", "/x.dcm"])
def test_a_package_with_a_path_is_refused(running, tmp_path, name):
    with pytest.raises(Refused):
        client(running).upload(*package(tmp_path, more=[(name, b"x")]))


def test_a_package_with_another_checksum_is_refused(running, tmp_path):
    file, _ = package(tmp_path)
    with pytest.raises(Refused):
        client(running).upload(file, "0" * 64)


def test_a_template_with_a_key_too_many_is_refused(running, tmp_path):
    wrong = to_yaml(TEMPLATE).replace("config:", "extra: 1\n    config:")
    with pytest.raises(Refused):
        client(running).upload(*package(tmp_path, template=wrong))


@pytest.mark.parametrize(
    ("change", "leak"),
    [
        (lambda one: setattr(one, "StudyComments", "seen by Dr Doe"), "Doe"),
        (lambda one: one.add_new(0x00190010, "LO", "X"), "private"),
        (lambda one: setattr(one, "PatientIdentityRemoved", "NO"), "not YES"),
        (lambda one: delattr(one, "StudyID"), "StudyID"),
    ],
)
def test_what_must_not_leave_is_found_in_a_package(tmp_path, change, leak):
    with double.DrawServer(canaries=["doe"]) as server:
        client(server).upload(*package(tmp_path, change))
        assert any(leak.casefold() in one.casefold() for one in server.leaks)


@pytest.mark.parametrize("way", ["v1", "v2"])
@pytest.mark.parametrize("setting", ["auto", "own"])
def test_an_ended_token_is_renewed_in_both_ways(tmp_path, way, setting):
    kept = []
    scenario = Scenario(token_expired=True, refresh_way=way, refresh_rotates=True)
    with double.DrawServer(scenario) as server:
        mine = client(
            server, keep=kept.append, refresh=way if setting == "own" else "auto"
        )
        task = mine.upload(*package(tmp_path))
        assert mine.status(task)[0] is Progress.WORKING
        assert len(kept) == 1
        assert kept[0].access == server.access_token
        assert kept[0].refresh == server.refresh_token
        assert kept[0].expires > datetime.now(UTC)
        assert server.access_token not in repr(kept[0])


def test_a_token_that_is_known_to_end_is_renewed_before(running):
    ended = Tokens("old", running.refresh_token, datetime(2020, 1, 1, tzinfo=UTC))
    mine = DrawServer(DrawSettings(running.url, "theatrum"), ended)
    with pytest.raises(UnknownTask):
        mine.status("nothing")
    assert running.count("refresh_v2") == 1
    assert running.count("status") == 1


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(token_expired=True, refresh_fails=True),
        Scenario(token_expired=True, refresh_way="none"),
    ],
)
def test_a_token_that_cannot_be_renewed_waits_for_a_person(tmp_path, scenario):
    with (
        double.DrawServer(scenario) as server,
        pytest.raises(Unauthorized, match="paste"),
    ):
        client(server).upload(*package(tmp_path))


def ready(server, tmp_path, **switches):
    server.script(polls=0, **switches)
    mine = client(server)
    task = mine.upload(*package(tmp_path))
    finished(mine, task)
    return mine, task


def test_a_wrong_checksum_leaves_no_file(running, tmp_path):
    mine, task = ready(running, tmp_path, download_bad_checksum_n=1)
    target = tmp_path / "out" / "rt.dcm"
    target.parent.mkdir()
    with pytest.raises(BadDownload):
        mine.download(task, target)
    assert list(target.parent.iterdir()) == []
    assert mine.download(task, target).verified


def test_a_truncated_result_is_fetched_again(running, tmp_path):
    mine, task = ready(running, tmp_path, download_truncated_n=1)
    with pytest.raises(Transient):
        mine.download(task, tmp_path / "rt.dcm")
    assert not (tmp_path / "rt.dcm").exists()
    assert mine.download(task, tmp_path / "rt.dcm").verified


@pytest.mark.parametrize(
    ("switch", "verified"),
    [("download_no_checksum", False), ("download_upper_checksum", True)],
)
def test_a_checksum_may_be_missing_or_in_capitals(running, tmp_path, switch, verified):
    mine, task = ready(running, tmp_path, **{switch: True})
    assert mine.download(task, tmp_path / "rt.dcm").verified is verified


@pytest.mark.parametrize("switch", ["confirm_500_n", "confirm_other_text_n"])
def test_a_confirmation_that_was_not_heard_is_sent_again(running, tmp_path, switch):
    mine, task = ready(running, tmp_path, **{switch: 1})
    with pytest.raises(Transient):
        mine.confirm(task)
    mine.confirm(task)
    assert running.tasks[task].confirmed == 1


def test_a_server_that_asks_for_patience_says_how_long(running, tmp_path):
    running.script(rate_limit_429_after=1)
    mine = client(running)
    mine.health()
    with pytest.raises(Transient) as caught:
        mine.status("x")
    assert caught.value.retry_after_s == 1


@pytest.mark.parametrize(
    "address",
    [
        *("http://draw.example.org/", "ftp://x/", "https://", "file:///etc/passwd"),
        *("https://name:secret@host/", "http://127.0.0.1.example.org/", ""),
    ],
)
def test_images_never_go_to_an_address_without_encryption(address):
    with pytest.raises(BadRequest):
        check_address(address)


@pytest.mark.parametrize(
    "address", ["https://draw.example.org/", "http://127.0.0.1:9/", "http://localhost/"]
)
def test_encrypted_addresses_and_this_machine_are_taken(address):
    check_address(address)


@pytest.mark.parametrize(
    "task", ["../../admin", "a/b", "", ".", "..", "a?b", "x" * 300]
)
def test_a_token_never_changes_the_path(running, task):
    with pytest.raises(BadRequest):
        client(running).status(task)
    assert running.log == []


def large(tmp_path):
    """More than the buffers between two programs hold."""
    file = tmp_path / "large.zip"
    file.write_bytes(os.urandom(1 << 20) * 48)
    return file, "0" * 64


def test_the_server_cannot_have_what_is_cut_off_before_its_last_bytes(
    running, tmp_path
):
    running.script(upload_drop_after_bytes=100_000)
    ends = []
    with pytest.raises(Transient):
        client(running).upload(
            *large(tmp_path), before_the_end=lambda: ends.append(len(running.uploads))
        )
    assert ends == []
    running.script(upload_drop_after_bytes=0)
    file, sha256 = package(tmp_path)
    client(running).upload(
        file, sha256, before_the_end=lambda: ends.append(len(running.uploads))
    )
    # Told once, before the server had it.
    assert ends == [0]
    assert [one.taken for one in running.uploads] == [True]


def test_what_is_raised_before_the_last_bytes_keeps_the_package_here(running, tmp_path):
    def taken_over():
        raise Lost("another worker has the job")

    with pytest.raises(Lost):
        client(running).upload(*package(tmp_path), before_the_end=taken_over)
    assert not running.tasks
    client(running).upload(*package(tmp_path))
    assert len(running.tasks) == 1


@pytest.mark.parametrize("switch", ["upload_html_n", "upload_504_n"])
def test_an_answer_without_sense_does_not_tell_whether_a_package_arrived(
    running, tmp_path, switch
):
    running.script(**{switch: 1})
    with pytest.raises(Unanswered) as raised:
        client(running).upload(*package(tmp_path))
    assert is_unknown(raised.value)
    assert len(running.tasks) == 1


def test_a_result_that_never_ends_is_given_up(running, tmp_path, monkeypatch):
    mine, task = ready(running, tmp_path)
    monkeypatch.setattr(draw_server, "RESULT_S", 0.0)
    with pytest.raises(Transient):
        mine.download(task, tmp_path / "rt.dcm")
    assert not (tmp_path / "rt.dcm").exists()

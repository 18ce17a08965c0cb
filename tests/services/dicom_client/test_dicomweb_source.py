import contextlib
import http.server
import json
import random
import threading

import pydicom
import pytest

from services.dicom_client.dicomweb import DicomWeb, DicomWebServer
from services.dicom_client.dicomweb_source import RemoteSeries, fetch, find_series
from services.dicom_client.errors import BadRequest, PeerError
from services.dicom_client.multipart import parts
from services.dicom_client.staging import Quota, Staging
from tests.orthanc import orthanc
from tests.services.dicom_client.received import write_series


@pytest.fixture
def staging(tmp_path):
    return Staging(tmp_path / "in", Quota())


def test_a_series_comes_from_orthanc_once_and_whole(tmp_path, staging):
    files = write_series(tmp_path / "scan", slices=9)
    with orthanc(dicomweb=True) as pacs:
        pacs.upload(files + write_series(tmp_path / "other", slices=2))
        with DicomWeb(DicomWebServer(pacs.dicomweb)) as web:
            found = list(find_series(web, {}, ("CT", "MR")))
            assert sorted(one.instances for one in found) == [2, 9]
            scan = next(one for one in found if one.instances == 9)
            got = fetch(web, scan, staging)
            assert (got.new, got.missing, got.complete) == (9, 0, True)
            # Two were lost here: only they come again.
            for arrival in got.arrivals[:2]:
                arrival.path.unlink()
            again = fetch(web, scan, staging)
            assert (again.new, len(again.arrivals)) == (2, 9)
            assert fetch(web, scan, staging).new == 0
    wanted = {pydicom.dcmread(file).SOPInstanceUID for file in files}
    assert {one.header.sop_instance for one in got.arrivals} == wanted
    kept = pydicom.dcmread(got.arrivals[-1].path)
    assert kept.PixelData == next(
        one.PixelData
        for one in map(pydicom.dcmread, files)
        if one.SOPInstanceUID == kept.SOPInstanceUID
    )


def test_orthanc_finds_only_what_the_filter_asks_for(tmp_path):
    files = write_series(tmp_path / "old", slices=1)
    for file, date in zip(
        files + write_series(tmp_path / "new", slices=1),
        ("20200101", "20250101"),
        strict=True,
    ):
        image = pydicom.dcmread(file)
        image.StudyDate = date
        image.save_as(file)
    with orthanc(dicomweb=True) as pacs:
        pacs.upload(sorted(tmp_path.glob("*/*.dcm")))
        with DicomWeb(DicomWebServer(pacs.dicomweb)) as web:
            found = list(find_series(web, {"StudyDate": "20240101-"}))
            assert [one.series for one in found] == [image.SeriesInstanceUID]
            assert list(find_series(web, {}, ("PT",))) == []


# Servers that do not do as they should


@contextlib.contextmanager
def server(answers):
    """A DICOMweb server; `answers(path)` gives status, content type and body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, kind, body = answers(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) + (status == 299)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    asked = []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{running.server_address[1]}/web"
        with DicomWeb(DicomWebServer(address, timeout_s=10)) as web:
            yield web, asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def multipart(files, boundary=b"XX"):
    body = b"".join(
        b"--"
        + boundary
        + b"\r\nContent-Type: application/dicom\r\n\r\n"
        + one
        + b"\r\n"
        for one in files
    )
    return body + b"--" + boundary + b"--\r\n"


RELATED = 'multipart/related; type="application/dicom"; boundary=XX'


def listing(headers):
    return json.dumps(
        [{"00080018": {"vr": "UI", "Value": [one.SOPInstanceUID]}} for one in headers]
    ).encode()


@pytest.fixture
def scan(tmp_path):
    files = write_series(tmp_path / "scan", slices=4)
    headers = [pydicom.dcmread(file) for file in files]
    remote = RemoteSeries(
        headers[0].StudyInstanceUID, headers[0].SeriesInstanceUID, "CT", 4
    )
    return remote, headers, [file.read_bytes() for file in files]


def test_an_answer_that_is_cut_off_keeps_what_came_and_goes_on_later(scan, staging):
    remote, headers, files = scan
    whole = multipart(files)

    def cut(path):
        if path.split("?")[0].endswith("/instances"):
            return 200, "application/dicom+json", listing(headers)
        return 299, RELATED, whole[: len(whole) * 2 // 3]

    def good(path):
        if path.split("?")[0].endswith("/instances"):
            return 200, "application/dicom+json", listing(headers)
        uid = path.rsplit("/", 1)[1]
        at = [one.SOPInstanceUID for one in headers].index(uid)
        return 200, RELATED, multipart([files[at]])

    with server(cut) as (web, _), pytest.raises(PeerError) as refused:
        fetch(web, remote, staging)
    assert refused.value.code == "unreachable"
    came = len(list(staging.staged()))
    assert 0 < came < 4
    with server(good) as (web, asked):
        got = fetch(web, remote, staging)
    assert (got.new, got.complete) == (4 - came, True)
    assert len(asked) == 1 + 4 - came
    assert not list(staging.folder.glob("*.part"))


def test_objects_of_another_series_are_refused(scan, staging, tmp_path):
    remote, headers, files = scan
    (stranger,) = write_series(tmp_path / "stranger", slices=1)

    def answers(path):
        if path.split("?")[0].endswith("/instances"):
            return 200, "application/dicom+json", listing(headers)
        if "/instances/" in path:
            return 404, "text/plain", b""
        return 200, RELATED, multipart([*files[:3], stranger.read_bytes(), b"rubbish"])

    with server(answers) as (web, _):
        got = fetch(web, remote, staging)
    assert (got.new, got.refused, got.missing) == (3, 2, 1)
    assert not got.complete


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((401, "text/plain", b""), "unauthorized"),
        ((503, "text/plain", b""), "unreachable"),
        ((302, "text/html", b""), "refused"),
        ((200, "text/html", b"<html>"), "answer"),
        ((200, "application/json", b'{"a": 1}'), "answer"),
        ((200, "application/json", b"[" * 100_000), "answer"),
    ],
)
def test_an_answer_that_makes_no_sense_has_a_code(answer, code):
    with (
        server(lambda _path: answer) as (web, _),
        pytest.raises(PeerError) as refused,
    ):
        list(find_series(web, {}))
    assert refused.value.code == code


def test_a_server_that_ignores_pages_does_not_go_on_for_ever():
    page = json.dumps(
        [
            {
                "0020000D": {"Value": ["1.2.3"]},
                "0020000E": {"Value": [f"1.2.3.{n}"]},
            }
            for n in range(1, 501)
        ]
    ).encode()
    with server(lambda _path: (200, "application/json", page)) as (web, asked):
        assert len(list(find_series(web, {}))) == 500
    assert len(asked) == 2


def test_a_uid_that_is_none_gets_into_no_address():
    strange = [
        {
            "0020000D": {"Value": ["../../admin"]},
            "0020000E": {"Value": ["1.2"]},
        },
        {"0020000D": "?", "0020000E": {"Value": []}},
    ]
    answer = (200, "application/json", json.dumps(strange).encode())
    with server(lambda _path: answer) as (web, _):
        assert list(find_series(web, {})) == []
        with pytest.raises(PeerError):
            web.holds("1.2", "../x", "1.3")


def test_images_go_to_no_plain_address_of_another_machine():
    with pytest.raises(BadRequest):
        DicomWeb(DicomWebServer("http://pacs.example.org/dicom-web"))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_parts_are_the_same_however_their_bytes_come(step):
    source = random.Random(step)  # noqa: S311
    bodies = [source.randbytes(n) for n in (0, 1, 500, 3000)]
    bodies.append(b"\r\n--XY\r\n--X\r\n")
    whole = b"prologue\r\n" + multipart(bodies)
    pieces = (whole[at : at + step] for at in range(0, len(whole), step))
    assert [b"".join(one) for one in parts(RELATED, pieces, 1 << 20)] == bodies


def test_a_part_may_not_weigh_more_than_it_may():
    with pytest.raises(PeerError):
        list(map(list, parts(RELATED, iter([multipart([bytes(5000)])]), 4999)))


def parts_of_rubbish(times, seed):
    source = random.Random(seed)  # noqa: S311
    whole = multipart([b"abc", bytes(100), b"\r\n--X"])
    for _ in range(times):
        spoilt = bytearray(whole)
        for _ in range(source.randrange(1, 6)):
            spoilt[source.randrange(len(spoilt))] = source.choice(b"\r\n-X\0a")
        step = source.randrange(1, 60)
        body = bytes(spoilt[: source.randrange(len(spoilt))])
        pieces = (body[at : at + step] for at in range(0, len(body), step))
        with contextlib.suppress(PeerError):
            list(map(list, parts(RELATED, pieces, 1000)))


def test_damaged_answers_end_with_an_error_and_never_hang():
    parts_of_rubbish(300, seed=1)


@pytest.mark.fuzz
def test_many_damaged_answers_end_with_an_error_and_never_hang():
    parts_of_rubbish(100_000, seed=2)

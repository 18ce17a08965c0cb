"""Images from elsewhere; every peer here is a real one on a port of this machine."""

from __future__ import annotations

import contextlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from theatrum.catalog.ingest.errors import SourceFailed
from theatrum.catalog.ingest.fetched import Arriving, shown_address
from theatrum.catalog.ingest.manifests import prefixes_of, series_of
from theatrum.catalog.ingest.receiver import LEFT_BEHIND, receiving
from theatrum.catalog.ingest.remote import fetch
from theatrum.catalog.ingest.watch import Watched

from tests import dcmtk, stacks
from tests.extensions.catalog.formats import scans
from tests.extensions.catalog.ingest.conftest import TakeIn
from tests.orthanc import orthanc


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks S3, with the bucket `images`; its address."""
    server_module = pytest.importorskip("moto.server")
    import boto3

    server = server_module.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="images")
    yield address
    server.stop()


def _put(address: str, name: str, content: bytes) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=address)
    client.put_object(Bucket="images", Key=name, Body=content)


def test_a_prefix_of_an_s3_store_is_taken_in(
    s3: str, tmp_path: Path, take_in: TakeIn
) -> None:
    for file in scans.write_series(tmp_path / "a"):
        _put(s3, f"study/series/{file.name}", file.read_bytes())
    _put(s3, "study/note.txt", b"hello")
    _put(s3, "other/one.txt", b"not asked for")
    report = take_in("s3://images/study")
    assert report.counts["taken"] == 1, report.entries
    assert [one.files for one in report.refused] == [("note.txt",)]
    assert report.entries[0].source == "s3://images/study"
    again = take_in("s3://images/study")
    assert again.counts["known"] == 1


def test_a_bucket_that_is_not_there_is_refused(s3: str, take_in: TakeIn) -> None:
    report = take_in("s3://nowhere/study")
    assert report.counts["refused"] == 1
    assert "s3://nowhere/study" in report.entries[0].reason


def test_an_idc_manifest_names_prefixes_of_a_store(
    s3: str, tmp_path: Path, take_in: TakeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in scans.write_series(tmp_path / "a"):
        _put(s3, f"abc/{file.name}", file.read_bytes())
    manifest = tmp_path / "cohort.s5cmd"
    manifest.write_text("# made by IDC\ncp s3://images/abc/* .\n")
    monkeypatch.setenv("THEATRUM_IDC_ENDPOINT", s3)
    report = take_in(manifest)
    assert report.counts["taken"] == 1, report.entries


class _Tcia(http.server.BaseHTTPRequestHandler):
    series: dict[str, bytes] = {}  # noqa: RUF012 - of one test

    def do_GET(self) -> None:
        uid = parse_qs(urlsplit(self.path).query).get("SeriesInstanceUID", [""])[0]
        content = self.series.get(uid)
        self.send_response(200 if content else 404)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_series_of_a_tcia_manifest_are_fetched_as_zips(
    tmp_path: Path, take_in: TakeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in scans.write_series(tmp_path / "a"):
            archive.write(file, file.name)
    _Tcia.series = {"1.2.3.4": packed.getvalue()}
    manifest = tmp_path / "cart.tcia"
    manifest.write_text(
        "downloadServerUrl=https://nowhere.invalid/servlet\nincludeAnnotation=true\n"
        "ListOfSeriesToDownload=\n1.2.3.4\n"
    )
    with _serving(_Tcia) as address:
        monkeypatch.setenv("THEATRUM_TCIA_SERVER", address)
        report = take_in(manifest)
        assert report.counts["taken"] == 1, report.entries
        manifest.write_text("ListOfSeriesToDownload=\n1.2.3.9\n")
        report = take_in(manifest)
    assert "1.2.3.9" in report.entries[0].reason


def test_manifests_that_are_none_are_refused() -> None:
    with pytest.raises(SourceFailed, match="no series"):
        series_of("hello\n")
    with pytest.raises(SourceFailed, match="no series"):
        series_of("ListOfSeriesToDownload=\n../../etc/passwd\n")
    with pytest.raises(SourceFailed, match="cp s3"):
        prefixes_of("rm -rf /\n")


def test_an_archive_at_a_web_address_is_unpacked(
    tmp_path: Path, take_in: TakeIn
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME), "a.nii")

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Files) as address:
        report = take_in(f"{address}/a.zip")
    assert report.counts["taken"] == 1, report.entries


def test_series_are_found_and_fetched_by_dicomweb(
    tmp_path: Path, take_in: TakeIn
) -> None:
    files = scans.write_series(tmp_path / "a")
    files += scans.write_series(
        tmp_path / "b", SeriesInstanceUID="1.2.3.7", EchoTime=9.0, Modality="CT"
    )
    with orthanc(dicomweb=True) as archive:
        archive.upload(files)
        base = "dicomweb+" + archive.dicomweb
        found = take_in(f"{base}?Modality=CT")
        assert found.counts["taken"] == 1, found.entries
        study = take_in(f"{base}/studies/1.2.3")
        assert (study.counts["taken"], study.counts["known"]) == (1, 1)
        none = take_in(f"{base}/studies/1.2.99")
        assert none.counts["refused"] == 1


def test_what_a_node_sends_is_taken_in_together(
    tmp_path: Path, take_in: TakeIn
) -> None:
    files = scans.write_series(tmp_path / "a")
    with receiving(tmp_path / "staging") as receiver:
        done = dcmtk.storescu(receiver.port, files=files)
        assert done.returncode == 0, done.stderr
        folder, sender = receiver.arrived.get(timeout=30)
    assert sender == "STORESCU"
    report = take_in(folder, copy=True, received_from=f"C-STORE from {sender}")
    assert report.counts["taken"] == 1, report.entries


def test_what_a_receiver_left_is_handed_on_by_the_next_one_alone(
    tmp_path: Path,
) -> None:
    left = tmp_path / "staging" / "association-1"
    scans.write_series(left)
    (left / "000009.part").write_bytes(b"cut off")
    with (
        receiving(tmp_path / "staging") as first,
        receiving(tmp_path / "staging") as second,
    ):
        assert first.arrived.get(timeout=30) == (left, LEFT_BEHIND)
        assert second.arrived.empty()
    assert not list(left.glob("*.part"))
    with receiving(tmp_path / "staging") as third:
        assert third.arrived.qsize() == 1


def test_a_sender_that_is_not_named_is_turned_away(tmp_path: Path) -> None:
    files = scans.write_series(tmp_path / "a")
    with receiving(tmp_path / "staging", senders=("SCANNER",)) as receiver:
        done = dcmtk.storescu(receiver.port, files=files)
        assert done.returncode != 0
        done = dcmtk.storescu(receiver.port, "-aet", "SCANNER", files=files)
        assert done.returncode == 0


def test_a_watched_folder_waits_until_all_files_lie_still(tmp_path: Path) -> None:
    now = [0.0]
    watched = Watched(tmp_path, settled_s=5, clock=lambda: now[0])
    (tmp_path / "a").mkdir()
    first, second = tmp_path / "a" / "1.dcm", tmp_path / "a" / "2.dcm"
    first.write_bytes(b"1")
    assert watched.settled() == []
    now[0] = 4
    second.write_bytes(b"2")
    assert watched.settled() == []
    now[0] = 6  # the first lies still, the series does not
    assert watched.settled() == []
    second.write_bytes(b"22")
    now[0] = 10
    assert watched.settled() == []
    now[0] = 15
    assert watched.settled() == [first, second]
    watched.taken([first, second])
    assert watched.settled() == []
    first.write_bytes(b"changed")
    assert watched.settled() == []
    now[0] = 21
    assert watched.settled() == [first]


def test_an_address_is_told_without_its_secrets(tmp_path: Path) -> None:
    assert shown_address("https://me:secret@host:8/a?token=1#x") == "https://host:8/a"
    with pytest.raises(SourceFailed, match="environment"):
        fetch("https://me:secret@host/a", tmp_path)
    with pytest.raises(SourceFailed, match="no source"):
        fetch("gopher://host/a", tmp_path)


def test_names_that_come_over_the_network_stay_in_their_folder(tmp_path: Path) -> None:
    arriving = Arriving(tmp_path / "in", bytes=10, files=2)
    written = arriving.write("/../../etc/./passwd", [b"12"])
    assert written == tmp_path / "in" / "etc" / "passwd"
    with pytest.raises(SourceFailed, match="more bytes"):
        arriving.write("b", [b"12345", b"67890"])
    with pytest.raises(SourceFailed, match="more than 2 files"):
        arriving.write("c", [])

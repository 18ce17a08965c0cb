"""The client of the pathology server, against the double on a real socket."""

import hashlib
import logging
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import ClassVar

import httpx
import numpy as np
import pytest

from services.ia_api import download, results, tiles, versions
from services.ia_api.download import DownloadLimits
from services.ia_api.errors import (
    Conflict,
    DiskFull,
    Gone,
    HostileName,
    Permanent,
    TooManyBytes,
    Transient,
    Truncated,
    Unauthorized,
)
from services.ia_api.pathology_server import (
    Callback,
    Credentials,
    PathologyServer,
    Transport,
    TransportSettings,
    find_own,
    retry_after_s,
)
from services.ia_api.slide_info import slide_info
from tests import pathology_server as double
from tests.certificates import self_signed

APP = "theatrum-tissue"
REGISTRATION = {
    "applicationId": APP,
    "displayName": "Tissue",
    "manufacturer": "Theatrum",
    "url": "http://127.0.0.1:1/apps/tissue",
    "inputTemplate": {"type": "wholeSlide"},
    "context": {},
}


@pytest.fixture
def server():
    slide = double.synthetic_slide("sl_1/a", width=1000, height=1500)
    with double.PathologyServer([slide], trailing_slash=True) as running:
        running.add_application(APP, REGISTRATION)
        yield running


@pytest.fixture
def transport():
    made = Transport(TransportSettings(software_version="1.2.3", read_timeout_s=0.5))
    yield made
    made.close()


def caller(server, transport, version=versions.NEWEST, **token):
    info = server.callback_info(APP, **token)
    callback = Callback(info["url"], APP, info["token"])
    return PathologyServer(transport, callback, version)


def first_result(client, job="job-1"):
    slide = client.slide("sl_1/a")
    return client.create_result(
        results.new_result(
            results.working(slide),
            slide,
            job_id=job,
            version=versions.NEWEST,
            application_version="1.2.3",
        )
    )


def test_a_result_is_stored_changed_and_found_again(server, transport):
    client = caller(server, transport)
    assert client.info() == versions.parse("1.10")
    stored = first_result(client)
    slide = client.slide("sl_1/a")
    changed = results.updated(
        stored,
        results.working(slide, 50),
        slide,
        job_id="job-1",
        version=versions.NEWEST,
        application_version="1.2.3",
    )
    fresh = client.update_result(changed)
    assert fresh["versionId"] != stored["versionId"]
    assert client.result(stored["id"]) == fresh
    assert find_own(client.results_of("sl_1/a"), "job-1") == fresh
    assert find_own(client.results_of("sl_1/a"), "job-2") is None
    with pytest.raises(Conflict):
        client.update_result(changed)
    server.record.assert_headers("X-Sectra-ApiVersion", "X-Sectra-SoftwareVersion")
    server.record.assert_no_phi_requested()


def test_a_stale_version_is_seen_also_where_it_is_answered_by_400(transport):
    slide = double.synthetic_slide("sl_1/a")
    with double.PathologyServer([slide], conflict_status=400) as server:
        server.add_application(APP, REGISTRATION)
        client = caller(server, transport)
        stored = first_result(client)
        client.update_result(stored)
        with pytest.raises(Conflict):
            client.update_result(stored)


def test_what_a_person_deleted_is_gone(server, transport):
    client = caller(server, transport)
    with pytest.raises(Gone):
        client.result(4711)
    with pytest.raises(Gone):
        client.slide("no-such-slide")


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_has_run_out_says_so(server, transport, status):
    client = caller(server, transport)
    server.faults.plan("slides.info", double.Status(status))
    with pytest.raises(Unauthorized):
        client.slide("sl_1/a")


def test_with_credentials_a_token_is_renewed_once(server):
    credentials = Credentials(double.USER, double.PASSWORD)
    settings = TransportSettings("1.2.3", credentials=credentials)
    transport = Transport(settings)
    client = caller(server, transport)
    server.tokens.revoke_all()
    assert client.slide("sl_1/a").size == (1000, 1500)
    assert client.slide("sl_1/a").size == (1000, 1500)
    server.record.assert_count("token", 1)
    assert double.PASSWORD not in repr(settings)
    assert client.callback.token not in repr(client.callback)
    transport.close()


def test_what_may_pass_is_told_from_what_will_not(server, transport):
    client = caller(server, transport)
    server.faults.plan(
        "slides.info",
        double.Status(503, retry_after_s=7),
        double.Status(429),
        double.Reset(),
        double.Stall(),
        double.Status(400),
    )
    with pytest.raises(Transient) as caught:
        client.slide("sl_1/a")
    assert caught.value.retry_after_s == 7
    for _ in range(3):
        with pytest.raises(Transient):
            client.slide("sl_1/a")
    with pytest.raises(Permanent, match="400"):
        client.slide("sl_1/a")
    assert client.slide("sl_1/a").size == (1000, 1500)


def test_a_server_that_is_not_there_may_come_back(transport):
    nowhere = Callback("http://127.0.0.1:1/x", APP, "secret-token")
    with pytest.raises(Transient) as caught:
        PathologyServer(transport, nowhere).slide("sl-1")
    assert "secret" not in str(caught.value)


def test_a_redirect_is_not_followed(server, transport):
    client = caller(server, transport)
    server.faults.plan("slides.info", double.Status(302))
    with pytest.raises(Permanent, match="302"):
        client.slide("sl_1/a")


def test_nothing_secret_reaches_the_log(server, transport, caplog):
    caplog.set_level(logging.DEBUG, logger="theatrum.ia_api")
    client = caller(server, transport)
    first_result(client)
    server.faults.plan("slides.info", double.Status(500, text="Doe^Jane"))
    with pytest.raises(Transient) as caught:
        client.slide("sl_1/a")
    ours = [line for line in caplog.records if line.name == "theatrum.ia_api"]
    assert client.callback.token not in "".join(line.getMessage() for line in ours)
    assert "Jane" not in str(caught.value)


def test_quality_control_is_written_where_the_slide_has_it(server, transport):
    client = caller(server, transport)
    client.set_quality(client.slide("sl_1/a"), "Rejected", "1.2.3")
    assert client.slide("sl_1/a").quality_status == "Rejected"
    old, slide = caller(server, transport, versions.CASES), client.slide("sl_1/a")
    with pytest.raises(Permanent, match=r"1\.10"):
        old.set_quality(slide, "Rejected", "1.2.3")


def test_a_server_without_the_call_speaks_the_first_version(server, transport):
    server.faults.plan("info", double.Status(404))
    assert caller(server, transport).info() is None


def test_a_missing_label_is_no_error(server, transport):
    assert caller(server, transport).label("sl_1/a") is None


@pytest.mark.parametrize("rounding", ["ceil", "floor"])
def test_a_thumbnail_shows_the_slide_whichever_way_the_server_rounds(
    transport, rounding
):
    slide = double.synthetic_slide(
        "t",
        width=1501,
        height=1003,
        tile=(240, 240),
        rounding=rounding,
        formats=("png",),
    )
    with double.PathologyServer([slide]) as server:
        client = caller(server, transport)
        seen = client.slide("t")
        picture = tiles.thumbnail(client, seen, um_per_pixel=0.5)
        assert picture.size == (751, 502)
        # Both roundings have every pixel but the last column or row.
        assert np.asarray(picture)[:500, :749].reshape(-1, 3).std(axis=0).min() > 1
        assert tiles.thumbnail(client, seen, um_per_pixel=64).size == (6, 4)


def test_a_slide_that_cannot_be_streamed_says_to_use_its_files(transport):
    slide = double.synthetic_slide("n", streamable=False)
    with double.PathologyServer([slide]) as server:
        client = caller(server, transport)
        with pytest.raises(Permanent, match="use its files"):
            tiles.thumbnail(client, client.slide("n"))


def fetched(server, transport, folder, **options):
    return download.download(caller(server, transport), "sl_1/a", folder, **options)


def with_files(server, files):
    server.slides["sl_1/a"] = replace(server.slides["sl_1/a"], files=files)


def test_all_files_of_a_slide_come_whole(server, transport, tmp_path):
    told = []
    files = fetched(
        server, transport, tmp_path / "j", progress=lambda *at: told.append(at)
    )
    assert [one.name for one in files] == [
        "i0000,0000b.dcm",
        "i0003,0000b.dcm",
        "i0006,0000b.dcm",
    ]
    for stored in files:
        assert (tmp_path / "j" / stored.name).stat().st_size == stored.size
        assert (tmp_path / "j" / stored.name).stat().st_mode & 0o077 == 0
    assert {path.name for path in (tmp_path / "j").iterdir()} == {
        *(one.name for one in files),
        download.MANIFEST,
    }
    assert told[-1][0] == 12_000


def test_a_complete_download_is_not_fetched_again(server, transport, tmp_path):
    first = fetched(server, transport, tmp_path)
    assert fetched(server, transport, tmp_path) == first
    server.record.assert_count("slides.files", 1)


@pytest.mark.parametrize("at", [10, 300, 4_500, 12_300])
def test_a_download_that_breaks_leaves_no_manifest_and_goes_on(
    server, transport, tmp_path, at
):
    server.faults.plan("slides.files", double.Truncate(at))
    with pytest.raises(Truncated):
        fetched(server, transport, tmp_path)
    assert download.manifest(tmp_path) is None
    files = fetched(server, transport, tmp_path)
    assert len(files) == 3
    for stored in files:
        assert (tmp_path / stored.name).stat().st_size == 4_000


def test_a_slide_that_changed_between_two_tries_begins_anew(
    server, transport, tmp_path
):
    server.faults.plan("slides.files", double.Truncate(9_000))
    with pytest.raises(Truncated):
        fetched(server, transport, tmp_path)
    parts = server.slides["sl_1/a"].files.parts
    changed = (replace(parts[0], content=b"other"), *parts[1:])
    with_files(server, double.SlideFiles(changed))
    with pytest.raises(Transient, match="anew"):
        fetched(server, transport, tmp_path)
    files = fetched(server, transport, tmp_path)
    assert (tmp_path / files[0].name).read_bytes() == b"other"


def test_a_status_is_looked_at_before_the_headers(server, transport, tmp_path):
    server.faults.plan("slides.files", double.Status(401))
    with pytest.raises(Unauthorized):
        fetched(server, transport, tmp_path)


@pytest.mark.parametrize(
    "name", ["../../evil.dcm", "..\\..\\evil.dcm", "/tmp/evil.dcm"]
)
def test_a_hostile_name_stays_in_the_folder(server, transport, tmp_path, name):
    for files in (
        double.single(name, b"1"),
        double.SlideFiles((double.FilePart(name, b"1"),)),
    ):
        with_files(server, files)
        folder = tmp_path / "in" / files.form
        (stored,) = fetched(server, transport, folder)
        assert stored.name == "evil.dcm"
        assert {path.name for path in tmp_path.rglob("*evil*")} == {"evil.dcm"}


def test_a_name_that_is_none_ends_the_job(server, transport, tmp_path):
    with_files(server, double.SlideFiles((double.FilePart("..", b"1"),)))
    with pytest.raises(HostileName):
        fetched(server, transport, tmp_path)


def test_files_of_one_name_all_come(server, transport, tmp_path):
    parts = tuple(double.FilePart("a.dcm", bytes([65 + at])) for at in range(3))
    with_files(server, double.SlideFiles(parts))
    files = fetched(server, transport, tmp_path)
    assert sorted((tmp_path / one.name).read_bytes() for one in files) == [
        b"A",
        b"B",
        b"C",
    ]


def test_a_file_called_as_the_manifest_does_not_take_its_place(
    server, transport, tmp_path
):
    with_files(server, double.single(download.MANIFEST, b'{"files": []}'))
    (stored,) = fetched(server, transport, tmp_path)
    assert download.manifest(tmp_path) == (stored,)
    assert (tmp_path / stored.name).read_bytes() == b'{"files": []}'


def test_a_slide_larger_than_allowed_is_refused_early(server, transport, tmp_path):
    for chunked in (False, True):
        files = replace(double.dicom_like(3, 50_000), chunked=chunked)
        with_files(server, files)
        with pytest.raises(TooManyBytes):
            fetched(
                server,
                transport,
                tmp_path / str(chunked),
                limits=DownloadLimits(slide_bytes=60_000, free_bytes=0),
            )


def test_a_full_disk_is_waited_for(server, transport, tmp_path):
    with pytest.raises(DiskFull):
        fetched(
            server,
            transport,
            tmp_path,
            limits=DownloadLimits(free_bytes=1 << 62),
        )
    server.record.assert_count("slides.files", 0)


def test_a_download_can_be_stopped(server, transport, tmp_path):
    class Stopped(Exception):
        pass

    def check():
        raise Stopped

    with pytest.raises(Stopped):
        fetched(server, transport, tmp_path, check=check)
    assert download.manifest(tmp_path) is None


class _Resuming(BaseHTTPRequestHandler):
    """A server that breaks off once, and can give the rest of a file."""

    content, etag, asked, breaks = bytes(range(256)) * 2000, '"v1"', [], 1

    def do_GET(self):
        cls = type(self)
        start = self.headers.get("Range", "")
        cls.asked.append((start, self.headers.get("If-Range")))
        same = self.headers.get("If-Range") == cls.etag
        begin = int(start[6:-1]) if start and same else 0
        self.send_response(206 if begin else 200)
        self.send_header("ETag", cls.etag)
        self.send_header("Content-Disposition", 'attachment; filename="a.svs"')
        self.send_header("Content-Length", str(len(cls.content) - begin))
        if begin:
            whole = len(cls.content)
            self.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        self.end_headers()
        end = 300_000 if cls.breaks else len(cls.content)
        cls.breaks = 0
        self.wfile.write(cls.content[begin:end])

    def log_message(self, *_arguments):
        pass


@pytest.mark.parametrize("changed", [False, True])
def test_a_single_file_goes_on_where_it_stopped_if_it_is_still_the_same(
    transport, tmp_path, changed
):
    class Handler(_Resuming):
        asked: ClassVar[list] = []

    with HTTPServer(("127.0.0.1", 0), Handler) as site:
        Thread(target=site.serve_forever, daemon=True).start()
        callback = Callback(f"http://127.0.0.1:{site.server_port}", APP, "t")
        client = PathologyServer(transport, callback)
        with pytest.raises(Truncated):
            download.download(client, "s", tmp_path)
        if changed:
            Handler.etag, Handler.content = '"v2"', b"other" * 1000
        (stored,) = download.download(client, "s", tmp_path)
        site.shutdown()
    assert Handler.asked == [("", None), ("bytes=300000-", '"v1"')]
    assert (tmp_path / stored.name).read_bytes() == Handler.content
    assert stored.sha256 == hashlib.sha256(Handler.content).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {"a.svs", download.MANIFEST}


def test_a_certificate_that_is_not_trusted_is_no_reason_to_try_again(tmp_path):
    _, context = self_signed(tmp_path)
    with double.PathologyServer(tls=context) as server:
        settings = TransportSettings("1", ca_bundle=None)
        transport = Transport(settings)
        callback = Callback(server.url, APP, "t")
        with pytest.raises(Permanent, match="ca_bundle"):
            PathologyServer(transport, callback).info()
        transport.close()


@pytest.mark.parametrize(
    "shape",
    [
        {"quoted_boundary": True, "more_parameters": "start=x"},
        {"preamble": b"hello\r\n", "epilogue": b"bye"},
        {"closing_crlf": False},
        {"lower_case_headers": True, "quoted_names": False},
        {"utf8_names": True},
        {"lf_headers": True},
        {"chunk_bytes": 1, "chunked": True},
    ],
    ids=lambda shape: next(iter(shape)),
)
def test_every_shape_of_answer_is_read(server, transport, tmp_path, shape):
    parts = (double.FilePart("a.dcm", b"\r\n--x"), double.FilePart("b.dcm", b""))
    with_files(server, double.SlideFiles(parts, **shape))
    files = fetched(server, transport, tmp_path)
    assert [(one.name, one.size) for one in files] == [("a.dcm", 5), ("b.dcm", 0)]


def test_a_rewrite_of_the_settings_changes_where_is_called(server):
    settings = TransportSettings("1", rewrites={"https://sps.invalid": server.origin})
    transport = Transport(settings)
    there = server.callback_info(APP)
    url = there["url"].replace(server.origin, "https://sps.invalid")
    client = PathologyServer(transport, Callback(url, APP, there["token"]))
    assert client.info() == versions.parse("1.10")
    transport.close()


def test_retry_after_is_read_as_seconds_and_as_a_date():
    assert retry_after_s("7") == 7
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


@pytest.mark.parametrize(
    "said",
    [{}, {"id": "a"}, {"id": "a", "imageSize": {"width": 0, "height": 1}}],
)
def test_a_slide_info_without_a_size_is_refused(said):
    with pytest.raises(Permanent):
        slide_info(said)


def test_a_slide_info_with_nothing_but_the_size_is_enough():
    seen = slide_info(
        {
            "id": 5,
            "imageSize": {"width": 10, "height": 20},
            "micronsPerPixel": None,
            "focalPlanes": None,
            "opticalPaths": [None],
            "staining": None,
            "stationName": 7,
            "qualityControl": "x",
        }
    )
    assert (seen.id, seen.size, seen.um_per_pixel) == ("5", (10, 20), None)
    assert seen.focal_plane is None
    assert seen.texts == {}


def test_the_nearest_focal_plane_is_taken():
    seen = slide_info(
        {
            "id": "a",
            "imageSize": {"width": 10, "height": 20},
            "focalPlanes": [
                {"id": "a", "offsetUm": -2.0},
                {"id": "b", "offsetUm": 0.5},
                {"id": "c", "offsetUm": 3},
            ],
        }
    )
    assert seen.focal_plane == "b"


def test_the_double_is_reached_without_any_proxy_of_the_environment(
    server, transport, monkeypatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert caller(server, transport).info() is not None
    assert httpx.Client().trust_env

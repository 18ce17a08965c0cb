"""The command line: registering, refusing, fetching, granting."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from services.catalog.fetch_demo import FetchError, fetch
from services.cli import app
from tests.dicom_slides import DicomSpec, write_dicom_slide
from tests.extensions.structures.series import ct_series
from tests.slides import YCBCR, write_slide, write_truncated
from tests.stacks import StackSpec, write_zarr
from tests.tile_server.test_dicom_series import written

runner = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("THEATRUM_HOME", "THEATRUM_MODE", "THEATRUM_PORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def test_bad_files_are_named_with_the_reason_and_the_rest_is_added(
    home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    write_slide(folder / "good.svs", YCBCR)
    write_truncated(folder / "cut.svs", YCBCR, 0.3)
    (folder / "text.svs").write_text("hello")
    said = _run("images", "add", str(folder), "--collection=c", home=home)
    assert said.exit_code == 1
    assert 'good.svs: images["c/good"]' in said.output
    assert "refused: cut.svs" in said.output
    assert "refused: text.svs" in said.output
    assert "1 registered in c, 2 refused." in said.output
    assert str(tmp_path) not in said.output


@pytest.mark.long
def test_every_malformed_file_of_the_shared_data_is_refused_by_name(
    home: Path, shared_data: Path
) -> None:
    folder = shared_data / "malformed"
    said = _run("images", "add", str(folder), "--collection=c", home=home)
    for name in (
        "truncated.svs",
        "unreadable.svs",
        "not_a_tiff.svs",
        "text_named.dcm",
        "empty.dcm",
        "truncated.nii.gz",
        "truncated_pixels.dcm",
        "rtstruct_missing_reference.dcm",
    ):
        assert f"refused: {name} " in said.output
    # It opens; only its damaged tiles fail.
    assert 'images["c/damaged_tiles"]' in said.output


def test_a_file_that_is_not_there_is_refused_by_name(home: Path) -> None:
    said = _run("images", "add", "/nowhere/a.svs", "--collection=c", home=home)
    assert said.exit_code == 1
    assert "refused: a.svs: no such file or directory" in said.output


def test_a_collection_that_nobody_may_see_is_told_with_the_remedy(
    home: Path, tmp_path: Path
) -> None:
    slide = write_slide(tmp_path / "a.svs", YCBCR)
    said = _run("images", "add", str(slide), "--collection=c", home=home)
    assert "theatrum collections grant c GROUP" in said.output
    _run("collections", "grant", "c", "students", "teachers", home=home)
    listed = _run("collections", "list", home=home)
    assert "students, teachers" in listed.output
    _run("collections", "revoke", "c", "students", home=home)
    listed = _run("collections", "list", home=home)
    assert "students" not in listed.output


def test_a_bad_collection_name_says_what_is_allowed(home: Path) -> None:
    said = _run("collections", "grant", "My Slides", "students", home=home)
    assert said.exit_code == 2
    assert "small letters" in said.output


def test_a_right_taken_from_a_misspelt_collection_is_an_error(home: Path) -> None:
    said = _run("collections", "revoke", "slidse", "students", home=home)
    assert said.exit_code == 2
    assert "there is no collection 'slidse'" in said.output


def test_a_wrong_setting_ends_the_command_with_its_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEATRUM_PORT", "eighty")
    said = _run("collections", "list", home=home)
    assert said.exit_code == 2
    assert "THEATRUM_PORT" in said.output


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server with one file, `CMU-1.svs`."""
    folder = tmp_path / "web"
    folder.mkdir()
    write_slide(folder / "CMU-1.svs", YCBCR)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/CMU-1.svs"
        running.shutdown()
        thread.join()


def test_the_demonstration_slide_is_fetched_whole(server: str, tmp_path: Path) -> None:
    content = (tmp_path / "web" / "CMU-1.svs").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    target = tmp_path / "CMU-1.svs"
    fetch(target, Console(quiet=True), address=server, sha256=digest)
    assert target.read_bytes() == content


def test_a_download_with_another_digest_is_not_kept(
    server: str, tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match="nothing was kept"):
        fetch(tmp_path / "a.svs", Console(quiet=True), address=server, sha256="0" * 64)
    assert [path.name for path in tmp_path.iterdir()] == ["web"]


def test_without_a_connection_it_says_so_and_what_else_there_is(
    tmp_path: Path,
) -> None:
    nobody = "http://127.0.0.1:9/CMU-1.svs"
    with pytest.raises(FetchError, match="Without internet"):
        fetch(tmp_path / "a.svs", Console(quiet=True), address=nobody)
    assert list(tmp_path.iterdir()) == []


# The runner's result; Typer does not export its type.
def _run(*arguments: str, home: Path):  # type: ignore[no-untyped-def]
    return runner.invoke(app, [*arguments, f"--home={home}"])


def test_a_dicom_slide_of_many_files_is_one_image(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    write_dicom_slide(folder, DicomSpec())
    assert len(list(folder.rglob("*.dcm"))) > 2
    said = _run("images", "add", str(folder), "--collection=c", home=home)
    assert "1 registered in c, 0 refused." in said.output


@pytest.mark.parametrize("within", [False, True])
def test_a_zarr_folder_is_one_image(home: Path, tmp_path: Path, within: bool) -> None:
    write_zarr(tmp_path / "all" / "a.ome.zarr", StackSpec())
    named = tmp_path / "all" if within else tmp_path / "all" / "a.ome.zarr"
    said = _run("images", "add", str(named), "--collection=c", home=home)
    assert "1 registered in c, 0 refused." in said.output


def test_a_folder_of_a_scan_is_one_image(home: Path, tmp_path: Path) -> None:
    written(tmp_path / "all" / "CT", ct_series(slices=5))
    (tmp_path / "all" / "CT" / "notes.txt").write_text("not an image")
    write_slide(tmp_path / "all" / "good.svs", YCBCR)
    said = _run("images", "add", str(tmp_path / "all"), "--collection=c", home=home)
    assert 'CT: images["c/ct"]' in said.output
    assert "2 registered in c, 0 refused." in said.output

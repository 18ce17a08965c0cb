"""`theatrum catalog export`, `import` and `example-queries` as a person calls them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from theatrum.catalog.connection import connect
from typer.testing import CliRunner

from services.cli import app
from tests.extensions.catalog.exchange.conftest import study


def _run(*arguments: object):
    return CliRunner().invoke(app, ["catalog", *map(str, arguments)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the projects `mice` and `secret`."""
    folder = tmp_path_factory.mktemp("study")
    study(folder).backend.close()
    return folder / "home"


def _exported(home: Path, target: Path, *more: object):
    return _run("export", target, "--project", "mice", "--home", home, *more)


def test_a_bundle_is_written_by_default_and_comes_back_elsewhere(
    home: Path, tmp_path: Path
) -> None:
    target, other = tmp_path / "mice.zip", tmp_path / "other"
    done = _exported(home, target)
    assert done.exit_code == 0, done.output
    assert "images in" in done.output
    assert "mice.zip" in done.output
    into = ("import", target, "--project", "copied", "--home", other)
    first, second = _run(*into), _run(*into)
    assert first.exit_code == second.exit_code == 0, first.output
    assert first.output.split()[0] == done.output.split()[0]
    assert second.output.startswith("0 new images; 0 rows written")
    catalog = connect(other)
    names = {row.project.name for row in catalog.images}
    scan = catalog.images.get(name="scan")
    assert scan.array.shape == (4, 6, 8)
    catalog.backend.close()
    assert names == {"copied"}


@pytest.mark.parametrize(
    ("what", "wanted"),
    [("originals", "scan.nii"), ("slices", "slices.csv"), ("bids", "participants.tsv")],
)
def test_each_kind_is_written_as_a_zip_and_as_a_folder(
    home: Path, tmp_path: Path, what: str, wanted: str
) -> None:
    zipped, folder = tmp_path / "out.zip", tmp_path / "out"
    for target in (zipped, folder):
        done = _exported(home, target, "--what", what)
        assert done.exit_code == 0, done.output
    with zipfile.ZipFile(zipped) as archive:
        assert archive.testzip() is None
        inside = {one for one in archive.namelist() if not one.endswith("/")}
        there = {
            one.relative_to(folder).as_posix()
            for one in folder.rglob("*")
            if one.is_file()
        }
        assert inside == there
        assert any(Path(one).name == wanted for one in inside), inside
        assert not any("secret" in one for one in inside)
        for one in inside:
            assert archive.read(one) == (folder / one).read_bytes()
    for scan in folder.rglob("*T1w.nii*"):
        assert np.asanyarray(nibabel.load(scan).dataobj).shape == (8, 6, 4)


def test_a_wrong_call_says_why_and_writes_nothing(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.zip"
    unknown = _exported(home, target, "--what", "everything")
    assert unknown.exit_code == 2
    assert "one exports" in unknown.output
    absent = _run("export", target, "--project", "rats", "--home", home)
    assert absent.exit_code == 2
    assert not target.exists()
    target.write_text("mine")
    taken = _exported(home, target)
    assert taken.exit_code == 2
    assert "is there already" in taken.output
    assert target.read_text() == "mine"
    no_bundle = _run("import", target, "--project", "mice", "--home", home)
    assert no_bundle.exit_code == 2
    assert [one.name for one in tmp_path.iterdir()] == ["out.zip"]


def test_example_queries_are_kept_once(home: Path) -> None:
    asked = ("example-queries", "--project", "mice", "--home", home)
    first, second = _run(*asked), _run(*asked)
    assert first.exit_code == second.exit_code == 0, first.output
    assert len(first.output.splitlines()) == 6
    assert "has them already" in second.output

"""What leaves as a bundle comes back as it was, and twice is once (T11)."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from theatrum.catalog.connection import Catalog, connect
from theatrum.catalog.errors import BadArray, BadRecord, CatalogError, NotFound
from theatrum.catalog.exchange.gathering import TABLES, gather, plain
from theatrum.catalog.exchange.importing import BadBundle
from theatrum.catalog.exchange.places import PLACED
from theatrum.catalog.ingest.errors import HostileArchive
from theatrum.catalog.local import LocalBackend

Another = Callable[[str], Catalog]
OURS = {"project_id", *PLACED.values()}
"""Columns that say where a row is, not what it is."""


@pytest.fixture
def bundle(catalog: Catalog, tmp_path: Path) -> Path:
    """All images of `mice` as a zip."""
    return catalog.export(catalog.images.filter(project="mice"), tmp_path / "mice.zip")


def rows(catalog: Catalog, project: str) -> dict[str, list[dict[str, Any]]]:
    """All that belongs to a project's images, without where it is."""
    assert isinstance(catalog.backend, LocalBackend)
    found = gather(catalog.backend, catalog.images.filter(project=project).spec)
    return {
        table: [
            {name: value for name, value in plain(row).items() if name not in OURS}
            for row in found.of(table)
        ]
        for table in TABLES
        if table != "project"
    }


def test_an_imported_export_has_equal_rows(
    catalog: Catalog, bundle: Path, another: Another
) -> None:
    there = another("there")
    done = there.import_bundle(bundle, project="mice")
    assert done.ids == {}
    assert done.missing == ()
    before, after = rows(catalog, "mice"), rows(there, "mice")
    assert all(before[table] for table in ("image", "run", "roi", "annotation"))
    assert after == before


def test_an_imported_export_has_equal_checksums_and_pixels(
    catalog: Catalog, bundle: Path, another: Another
) -> None:
    from theatrum.catalog.zarr_store import verify

    there = another("there")
    there.import_bundle(bundle, project="mice")
    for name in ("scan", "half"):
        old = catalog.images.get(name=name, project="mice")
        new = there.images.get(name=name)
        assert new.path != old.path
        np.testing.assert_array_equal(new.array.to_numpy(), old.array.to_numpy())
    assert verify(Path(new.path)) == old.checksum
    file = there.files.one()
    assert hashlib.sha256(Path(file.uri).read_bytes()).hexdigest() == file.sha256


def test_an_imported_export_has_equal_lineage(
    catalog: Catalog, bundle: Path, another: Another
) -> None:
    there = another("there")
    there.import_bundle(bundle, project="mice")
    old = catalog.images.get(name="half", project="mice").lineage
    new = there.images.get(name="half").lineage
    assert new.to_json() == old.to_json()
    assert new.people() == ["erika"]
    assert [kind for kind, _ in new.originals()] == ["source_file"]


def test_an_import_again_writes_nothing(bundle: Path, another: Another) -> None:
    there = another("there")
    first = there.import_bundle(bundle, project="mice")
    before = rows(there, "mice")
    again = there.import_bundle(bundle, project="mice")
    assert again.new == {}
    assert again.known == first.new
    assert rows(there, "mice") == before


def test_an_import_beside_its_source_maps_ids_and_is_found_again(
    catalog: Catalog, bundle: Path
) -> None:
    done = catalog.import_bundle(bundle, project="copy")
    assert sum(table == "image" for table, _ in done.ids) == 2
    assert sum(table == "run" for table, _ in done.ids) == 2
    half = catalog.images.get(name="half", project="copy")
    assert half.id != catalog.images.get(name="half", project="mice").id
    traced = half.lineage.to_json()
    mine = {row["id"] for row in catalog.images.filter(project="copy").values("id")}
    assert {one["id"] for one in traced["things"] if one["kind"] == "image"} <= mine
    assert half.acquisition.subject.label == "m-1"
    again = catalog.import_bundle(bundle, project="copy")
    assert again.new == {}


def test_an_import_into_a_project_that_knows_the_subject_adds_to_it(
    bundle: Path, another: Another
) -> None:
    from theatrum.catalog.record import recording

    there = another("there")
    assert isinstance(there.backend, LocalBackend)
    with recording(there.backend.database, "karl") as book:
        known = book.subject(book.project("mice"), "m-1").id
    done = there.import_bundle(bundle, project="mice")
    assert there.subjects.one().id == known
    assert there.images.get(name="half").acquisition.subject_id == known
    assert list(done.ids.values()) == [known]


def test_a_bundle_holds_nothing_of_another_project(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as read:
        for name in read.namelist():
            assert b"hidden-1" not in read.read(name), name
            assert b"secret" not in read.read(name), name


def test_no_place_of_this_machine_is_in_a_bundle(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as read:
        for name in read.namelist():
            assert "private place" not in name
            assert str(tmp_path).encode() not in read.read(name), name


def test_a_bundle_of_an_image_brings_what_it_was_made_of(
    catalog: Catalog, another: Another, tmp_path: Path
) -> None:
    query = catalog.images.filter(name="half", project="mice")
    there = another("there")
    there.import_bundle(catalog.export(query, tmp_path / "half.zip"), project="m")
    assert sorted(there.images.values("name").to_pandas()["name"]) == ["half", "scan"]


def test_equal_catalogues_make_equal_bytes(catalog: Catalog, tmp_path: Path) -> None:
    query = catalog.images.filter(project="mice")
    one = catalog.export(query, tmp_path / "one.zip").read_bytes()
    two = catalog.export(query, tmp_path / "two.zip").read_bytes()
    assert one == two


def test_sha256sum_checks_a_bundle(catalog: Catalog, tmp_path: Path) -> None:
    folder = catalog.export(catalog.images.filter(project="mice"), tmp_path / "out")
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("sha256sum is not installed")
    run = subprocess.run(
        [tool, "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stdout


def test_the_crate_names_licence_people_and_every_file(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = catalog.export(catalog.images.filter(project="mice"), tmp_path / "out")
    crate = json.loads((folder / "ro-crate-metadata.json").read_text())
    graph = {one["@id"]: one for one in crate["@graph"]}
    assert graph["ro-crate-metadata.json"]["conformsTo"]["@id"].endswith("crate/1.1")
    root = graph["./"]
    assert graph[root["license"][0]["@id"]]["name"] == "CC-BY-4.0"
    assert [graph[one["@id"]]["name"] for one in root["author"]] == ["erika"]
    named = {one["@id"] for one in root["hasPart"]}
    files = {
        one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()
    }
    assert named == files - {"ro-crate-metadata.json"}
    for name in named - {"SHA256SUMS"}:
        content = (folder / name).read_bytes()
        assert graph[name]["sha256"] == hashlib.sha256(content).hexdigest(), name
        assert graph[name]["contentSize"] == str(len(content))


def test_a_missing_file_is_told_and_stops_nothing(
    catalog: Catalog, another: Another, tmp_path: Path
) -> None:
    Path(catalog.images.get(name="scan", project="mice").path).unlink()
    path = catalog.export(catalog.images.filter(project="mice"), tmp_path / "m.zip")
    there = another("there")
    done = there.import_bundle(path, project="mice")
    assert done.missing == ("scan",)
    assert there.images.get(name="scan").state == "missing"
    assert there.images.get(name="half").array.sizes["z"] == 2


def test_who_may_not_write_a_project_imports_nothing_into_it(
    bundle: Path, another: Another, tmp_path: Path
) -> None:
    another("there").import_bundle(bundle, project="mice")
    narrowed = connect(tmp_path / "there", user="eve", projects=["other"])
    with pytest.raises(NotFound):
        narrowed.import_bundle(bundle, project="mice")
    narrowed.close()


def test_what_is_there_is_never_overwritten(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "taken.zip").write_text("mine")
    with pytest.raises(BadArray):
        catalog.export(catalog.images, tmp_path / "taken.zip")


def test_only_images_are_exported(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(BadRecord):
        catalog.export(catalog.subjects, tmp_path / "x.zip")


def changed(bundle: Path, name: str, content: bytes | None, *, sums: bool) -> Path:
    """The bundle with another file in it, with or without its checksum."""
    path = bundle.with_name("changed.zip")
    with zipfile.ZipFile(bundle) as read:
        files = {one: read.read(one) for one in read.namelist()}
    if content is None:
        del files[name]
    else:
        files[name] = content
    if sums:
        files["SHA256SUMS"] = "".join(
            f"{hashlib.sha256(held).hexdigest()}  {one}\n"
            for one, held in sorted(files.items())
            if one != "SHA256SUMS"
        ).encode()
    with zipfile.ZipFile(path, "w") as write:
        for one, held in files.items():
            write.writestr(one, held)
    return path


def edited(bundle: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """The bundle with other rows, all checksums right."""
    with zipfile.ZipFile(bundle) as read:
        told = json.loads(read.read("catalog.json"))
    edit(told["rows"])
    return changed(bundle, "catalog.json", json.dumps(told).encode(), sums=True)


def refused(there: Catalog, path: Path, error: type[CatalogError] = BadBundle) -> None:
    with pytest.raises(error):
        there.import_bundle(path, project="mice")
    assert there.projects.count() == 0
    assert isinstance(there.backend, LocalBackend)
    folder = there.backend.files / "imported"
    assert not [one for one in folder.iterdir() if one.name.endswith(".partial")]


def test_a_damaged_file_is_refused(bundle: Path, another: Another) -> None:
    with zipfile.ZipFile(bundle) as read:
        name = next(one for one in read.namelist() if one.endswith("scan.nii"))
    path = changed(bundle, name, b"other bytes", sums=False)
    refused(another("there"), path)


def test_a_file_without_checksum_is_refused(bundle: Path, another: Another) -> None:
    refused(another("there"), changed(bundle, "data/more", b"x", sums=False))


def test_a_missing_list_is_refused(bundle: Path, another: Another) -> None:
    refused(another("there"), changed(bundle, "SHA256SUMS", None, sums=False))


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "data/../../../etc", "data\\x", "catalog.json", "data/no"]
)
def test_a_row_that_names_a_file_elsewhere_is_refused(
    bundle: Path, another: Another, path: str
) -> None:
    def edit(tables: dict[str, Any]) -> None:
        tables["image"][0]["path"] = path

    refused(another("there"), edited(bundle, edit))


def test_a_row_with_an_unknown_column_is_refused(
    bundle: Path, another: Another
) -> None:
    def edit(tables: dict[str, Any]) -> None:
        tables["image"][0]["password"] = "x"

    refused(another("there"), edited(bundle, edit))


def test_rows_that_are_their_own_parents_are_refused(
    bundle: Path, another: Another
) -> None:
    def edit(tables: dict[str, Any]) -> None:
        sample = tables["sample"][0]
        sample["parent_id"] = sample["id"]

    refused(another("there"), edited(bundle, edit))


def test_roles_do_not_come_with_a_bundle(bundle: Path, another: Another) -> None:
    def edit(tables: dict[str, Any]) -> None:
        tables["project_group"] = [{"project_id": 1, "group": "@eve", "role": "editor"}]

    refused(another("there"), edited(bundle, edit))


def test_a_name_that_leads_out_is_refused(bundle: Path, another: Another) -> None:
    path = changed(bundle, "../out", b"x", sums=True)
    refused(another("there"), path, HostileArchive)


def test_something_else_than_a_bundle_is_refused(
    another: Another, tmp_path: Path
) -> None:
    path = tmp_path / "text.zip"
    path.write_text("no zip at all")
    refused(another("there"), path, HostileArchive)

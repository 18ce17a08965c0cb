"""The house itself: what the repository promises of its own files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_conda_environment_installs_the_very_lock_file() -> None:
    wanted = [
        line.strip().removeprefix("- ")
        for line in (ROOT / "environment.yml").read_text().splitlines()
        if line.strip().startswith("- ")
    ]
    assert wanted == [
        "conda-forge",
        "python=3.11",
        "nodejs>=20",
        "pip",
        "pip:",
        "-r requirements.lock",
    ]


def test_the_lock_pins_every_dependency_within_its_range() -> None:
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.MULTILINE):
        pins.setdefault(canonicalize_name(name), []).append(version)
    declared = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["dependency-groups"]["dev"],
    ]
    for text in declared:
        requirement = Requirement(text)
        versions = pins.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is not in requirements.lock"
        assert all(requirement.specifier.contains(one) for one in versions), text


def test_every_pin_has_a_hash() -> None:
    entries = re.split(r"\n(?=\w)", LOCK)
    assert [entry[:40] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", ["requirements.lock", "environment.yml"])
def test_no_lock_file_names_an_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.findall(r"https?://\S+|--\w*index\S*|--find-links", text) == []


def test_the_proxys_lock_names_no_address() -> None:
    text = (ROOT / "hub" / "node_proxy" / "package-lock.json").read_text()
    assert '"resolved"' not in text


def test_imports_point_one_way() -> None:
    allowed = {
        "hub": {"hub"},
        "tile_server": {"tile_server", "hub"},
        "tile_server/readers": {"tile_server"},
        # Of the notebook library only what the next test names.
        "services": {"services", "hub", "tile_server", "theatrum"},
        "extensions/theatrum": {"theatrum", "tile_server"},
        # The catalogue's library is what its service serves: one database for both.
        "extensions/theatrum/catalog": {"theatrum", "tile_server", "hub"},
    }
    ours = {"hub", "tile_server", "services", "theatrum", "jupyterhub_config"}
    pattern = re.compile(r"^\s*(?:from|import) ([\w]+)", re.MULTILINE)
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for folder, names in allowed.items()
        for file in (ROOT / folder).rglob("*.py")
        # Read by Jupyter in people's servers: wiring, as the hub's own file is.
        if "jupyter" not in file.relative_to(ROOT).parts
        if not (folder == "extensions/theatrum" and "catalog" in file.parts)
        for name in pattern.findall(file.read_text())
        if name in ours - names
    ]
    assert wrong == []


def test_services_import_only_what_is_shared_of_the_notebook_library() -> None:
    shared = re.compile(r"theatrum\.(node|nodes|deidentify|structures|catalog)\b")
    pattern = re.compile(r"^\s*(?:from|import) (theatrum[\w.]*)", re.MULTILINE)
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / "services").rglob("*.py")
        for name in pattern.findall(file.read_text())
        if not shared.match(name)
    ]
    assert wrong == []


def test_the_catalogue_imports_only_databases_and_homes_of_the_hub() -> None:
    pattern = re.compile(r"^\s*(?:from|import) (hub[\w.]*)", re.MULTILINE)
    shared = {"hub.database", "hub.durable.database", "hub.home"}
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / "extensions" / "theatrum" / "catalog").rglob("*.py")
        for name in pattern.findall(file.read_text())
        if name not in shared
    ]
    assert wrong == []


def test_services_never_import_each_other() -> None:
    # The command line and the demo put all of them together, as the hub does.
    parts = [path for path in (ROOT / "services").iterdir() if path.is_dir()]
    pattern = re.compile(r"^\s*(?:from|import) services\.(\w+)", re.MULTILINE)
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for part in parts
        for file in part.rglob("*.py")
        for name in pattern.findall(file.read_text())
        if name != part.name
    ]
    assert wrong == []


def test_no_page_or_widget_names_another_origin() -> None:
    kinds = {".html", ".css", ".js", ".svg"}
    wrong = [
        f"{file.relative_to(ROOT)}: {address}"
        for file in _tracked()
        if file.suffix in kinds and "node_modules" not in file.parts
        for address in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", file.read_text())
        if address != "http://www.w3.org"  # the name space of SVG, not an address
    ]
    assert wrong == []


def test_notebooks_are_kept_without_outputs() -> None:
    notebooks = [file for file in _tracked() if file.suffix == ".ipynb"]
    assert notebooks
    for notebook in notebooks:
        assert re.findall(r'"outputs": \[\s*[^\s\]]', notebook.read_text()) == []


def test_no_module_holds_more_than_600_lines() -> None:
    long = [
        str(file.relative_to(ROOT))
        for file in _tracked()
        if file.suffix == ".py" and len(file.read_text().splitlines()) > 600
    ]
    assert long == []


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [
        ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()
    ]

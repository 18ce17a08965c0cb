"""The documentation names what there is: settings, commands, routes, public names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import theatrum
from theatrum import quiz

from hub.settings import Settings
from services import cli
from services.catalog.api import (
    about,
    bundles,
    engine,
    exports,
    images,
    inbox,
    leases,
    live,
    me,
    pixels,
    projects,
    queries,
    resources,
    rows,
    runs,
    search,
    tables,
    uploads,
    versions,
    work,
)

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ALL = "\n".join(file.read_text() for file in sorted(DOCS.rglob("*.md")))


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    text = (DOCS / "administrator.md").read_text()
    assert f"`{name}`" in text
    assert f"`THEATRUM_{name.upper()}`" in text


def test_every_command_is_documented() -> None:
    text = (DOCS / "administrator.md").read_text()
    groups = {"images": cli.images, "collections": cli.collections}
    for group, commands in groups.items():
        for command in commands.registered_commands:
            assert f"theatrum {group} {command.name}" in text


def test_every_route_of_the_catalogue_is_documented() -> None:
    text = (DOCS / "catalog_api.md").read_text()
    for module in (
        about,
        bundles,
        engine,
        exports,
        images,
        inbox,
        leases,
        live,
        me,
        pixels,
        projects,
        queries,
        runs,
        search,
        tables,
        uploads,
        versions,
        work,
    ):
        for route in module.router.routes:
            assert f"{route.path}`" in text  # type: ignore[attr-defined]
    assert rows.router().routes
    for resource in resources.listed():
        assert f"`/{resource}`" in text


@pytest.mark.parametrize("name", sorted(theatrum.__all__))
def test_every_public_name_of_the_library_is_documented(name: str) -> None:
    assert re.search(rf"\b{name}\b", ALL)


@pytest.mark.parametrize(
    "name", ["choice", "click", "outline", "grade", "answered", "Inside", "Near"]
)
def test_every_question_and_reference_is_documented(name: str) -> None:
    assert hasattr(quiz, name)
    assert f"quiz.{name}" in ALL


def test_links_between_the_documents_lead_somewhere() -> None:
    for file in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|/)([^)#]+)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"

"""The atlas as the kernel has it: what the page is given, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from theatrum import SlideViewer
from theatrum.atlas import _extent, atlas
from theatrum.atlas.grid import Grid

from tests import slides
from tests.extensions.contract_catalog import TOKEN, Catalog, running_catalog

Sent = list[tuple[dict[str, Any], list[bytes]]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    folder = tmp_path_factory.mktemp("catalogue")
    with running_catalog() as catalog:
        for collection, name in (("demo", "ihc"), ("exam", "twin")):
            path = folder / f"{name}.svs"
            catalog.add(collection, slides.write_slide(path, slides.YCBCR))
        yield catalog


@pytest.fixture
def catalog(service: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("THEATRUM_CATALOG_URL", service.url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", TOKEN)
    return service


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What the kernel sends to the grid in the browser."""
    messages: Sent = []

    def send(_grid: Grid, content: dict[str, Any], buffers: Any = None) -> None:
        messages.append((content, list(buffers or [])))

    monkeypatch.setattr(Grid, "send", send)
    return messages


def tell(grid: Grid, **message: str) -> None:
    """What the browser says."""
    grid._handle_custom_msg(message, [])


def text(page: ipywidgets.Widget) -> str:
    """All that a page says in HTML."""
    if isinstance(page, ipywidgets.HTML):
        return str(page.value)
    return " ".join(text(child) for child in getattr(page, "children", ()))


def test_grid_gets_every_slide_with_its_size(catalog: Catalog) -> None:
    (grid,) = atlas().children
    assert [slide["name"] for slide in grid.slides] == ["demo/ihc", "exam/twin"]
    assert grid.slides[0]["size"].endswith("1\u202f000 × 700 px · 0.50 × 0.35 mm")
    (grid,) = atlas("exam").children
    assert [slide["name"] for slide in grid.slides] == ["exam/twin"]


def test_tile_in_view_gets_its_thumbnail_and_a_missing_one_none(
    catalog: Catalog, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    (grid,) = atlas().children
    tell(grid, kind="thumbnail", id="img-0")
    ((content, (jpeg,)),) = sent
    assert content == {"kind": "thumbnail", "id": "img-0"}
    assert jpeg.startswith(b"\xff\xd8")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "another")
    tell(grid, kind="thumbnail", id="img-1")
    assert sent[1] == ({"kind": "thumbnail", "id": "img-1"}, [])


def test_picked_slide_is_shown_with_its_facts_and_left_again(
    catalog: Catalog, sent: Sent
) -> None:
    page = atlas()
    (grid,) = page.children
    tell(grid, kind="open", id="img-0")
    assert grid.opened == "img-0"
    _, opened = page.children
    back, _, viewer = opened.children
    assert isinstance(viewer, SlideViewer)
    assert viewer.image is not None
    assert viewer.image.id == "img-0"
    assert "0.5 µm" in text(opened)
    assert "20×" in text(opened)
    tell(grid, kind="open", id="img-1")  # a second click while the first one loads
    assert page.children[1] is opened
    back.click()
    assert page.children == (grid,)
    assert grid.opened == ""
    assert sent == [({"kind": "focus", "id": "img-0"}, [])]


def test_slide_that_cannot_be_had_is_told_on_its_page(
    catalog: Catalog, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = atlas()
    (grid,) = page.children
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "another")
    tell(grid, kind="open", id="img-0")
    assert 'role="alert"' in text(page)
    page.children[1].children[0].click()
    assert page.children == (grid,)


@pytest.mark.usefixtures("catalog", "sent")
def test_slide_that_the_page_was_not_given_is_not_opened() -> None:
    page = atlas("exam")
    (grid,) = page.children
    tell(grid, kind="open", id="img-0")
    assert page.children == (grid,)


def test_title_is_shown_as_text(catalog: Catalog, sent: Sent, tmp_path: Path) -> None:
    name = "<b>&amp;"
    catalog.add("odd", slides.write_slide(tmp_path / f"{name}.svs", slides.YCBCR))
    page = atlas("odd")
    (grid,) = page.children
    tell(grid, kind="open", id=grid.slides[0]["id"])
    assert name in grid.slides[0]["title"]
    assert "&lt;b&gt;&amp;amp;" in text(page)
    catalog.slides.popitem()


def test_without_a_catalogue_the_page_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("THEATRUM_CATALOG_URL", raising=False)
    (grid,) = atlas().children
    assert grid.slides == []
    assert grid.problem["title"] == "No catalogue is known."


def test_size_is_in_millimetres_only_where_pixels_have_a_size() -> None:
    assert (
        _extent(20480, 15360, 0.5, 0.5)
        == "20\u202f480 × 15\u202f360 px · 10.2 × 7.7 mm"
    )
    assert _extent(900, 700, None, None) == "900 × 700 px"

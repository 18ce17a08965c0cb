"""The catalogue's images in Python, asked for over sockets with the kernel's token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from theatrum import SlideViewer, images, open_image
from theatrum.errors import FileMissing, NoSuchImage, NotAllowed, Replaced, Unreachable

from tests import slides
from tests.extensions.contract_catalog import TOKEN, Catalog, running_catalog


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    folder = tmp_path_factory.mktemp("catalogue")
    with running_catalog() as catalog:
        for collection, name in (("demo", "ihc"), ("demo", "twin"), ("exam", "ihc")):
            path = folder / collection / f"{name}.svs"
            path.parent.mkdir(exist_ok=True)
            catalog.add(collection, slides.write_slide(path, slides.YCBCR))
        yield catalog


@pytest.fixture
def catalog(service: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """The environment of a kernel in a hub."""
    monkeypatch.setenv("THEATRUM_CATALOG_URL", service.url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", TOKEN)
    # A proxy that answers nothing: the kernel must not ask it.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    return service


def test_an_image_is_had_by_collection_and_name_or_by_id(catalog: Catalog) -> None:
    image = images["demo/ihc"]
    assert (image.id, image.name, image.width, image.height) == (
        "img-0",
        "ihc",
        1000,
        700,
    )
    assert (image.mpp_x, image.objective, len(image.levels)) == (0.5, 20.0, 5)
    assert image.tiles.startswith("/hub/services/tiles/s/")
    assert image.tiles.endswith("/{z}/{x}/{y}")
    assert images["img-2"].id == open_image("exam/ihc").id == "img-2"
    assert SlideViewer("demo/ihc").image.id == "img-0"  # type: ignore[union-attr]


def test_results_of_an_image_are_values_whose_marks_a_viewer_shows(
    catalog: Catalog,
) -> None:
    ring = [[1.0, 2.0], [30.0, 2.0], [30.0, 40.0], [1.0, 2.0]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"kind": "polygon", "colour": "#0B6E99"},
    }
    catalog.results["img-1"] = [
        {
            "run": "job1",
            "title": "Tissue area",
            "app": "tissue",
            "node": {"name": "tissue-area", "version": "1.0.0", "digest": "d"},
            "numbers": {"area": 2.0},
            "marks": {"type": "FeatureCollection", "features": [feature]},
            "created": "2026-01-02T00:00:00+00:00",
        }
    ]
    (result,) = images["demo/twin"].results
    assert (result.node, result.numbers["area"]) == ("tissue-area", 2.0)
    viewer = SlideViewer("demo/twin", marks=result.marks)
    assert viewer.marks["features"][0]["geometry"]["coordinates"] == [ring]
    assert images["demo/ihc"].results == ()


def test_the_catalogue_can_be_listed_and_looped_over(catalog: Catalog) -> None:
    assert [entry.name for entry in images.list("demo")] == ["ihc", "twin"]
    assert [entry.id for entry in images] == ["img-0", "img-1", "img-2"]
    assert len(images) == 3
    assert images.list("demo")[1].open().name == "twin"
    assert "demo/twin" in repr(images)


def test_the_html_form_holds_its_pictures_and_asks_for_none(catalog: Catalog) -> None:
    shown = images._repr_html_()
    assert shown.count('src="data:image/jpeg;base64,') == 3
    assert shown.count("src=") == 3
    assert "Slide twin" in shown


def test_regions_and_thumbnails_come_from_the_tile_service(catalog: Catalog) -> None:
    image = images["demo/ihc"]
    region = image.region(64, 128, 96, 80)
    truth = slides.picture(1000, 700)[128:208, 64:160]
    assert abs(region.values.astype(int) - truth).mean() < 3
    assert max(image.thumbnail(100).size) == 100


def test_an_expired_capability_is_renewed_once(catalog: Catalog) -> None:
    catalog.lives_s[:] = [-5]
    image = images["demo/ihc"]
    expired = image.tiles
    assert image.region(0, 0, 10, 10).shape == (10, 10, 3)
    assert image.tiles != expired
    catalog.lives_s[:] = [-5, -5]
    with pytest.raises(NotAllowed, match="expired"):
        images["demo/ihc"].region(0, 0, 10, 10)


@pytest.mark.parametrize("key", ["demo/absent", "absent/ihc", "img-77", "../x"])
def test_an_image_that_is_not_there_is_told_in_one_sentence(
    catalog: Catalog, key: str
) -> None:
    with pytest.raises(NoSuchImage):
        images[key]
    viewer = SlideViewer(key)
    assert viewer.map is None
    assert viewer.image is None
    assert 'role="alert"' in viewer.children[0].value
    viewer.fit()
    viewer.undo()
    assert viewer.marks["features"] == []


def test_a_wrong_token_and_a_missing_file_have_their_own_errors(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = slides.write_slide(tmp_path / "gone.svs", slides.YCBCR)
    image_id = catalog.add("lost", gone)
    image = images[image_id]
    slides.write_slide(gone, slides.RGB_ODD)
    with pytest.raises(Replaced, match="Run this cell again"):
        image.renew()
    gone.unlink()
    try:
        with pytest.raises(FileMissing, match="gone"):
            images[image_id]
        assert "file is gone" in SlideViewer(image_id).children[0].value
    finally:
        catalog.slides.popitem()
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "another")
    with pytest.raises(NotAllowed, match="Sign in"):
        images["demo/ihc"]


def test_a_catalogue_that_does_not_answer_is_told_without_its_address(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEATRUM_CATALOG_URL", "http://127.0.0.1:9/services/catalog")
    with pytest.raises(Unreachable) as error:
        images["demo/ihc"]
    assert "127.0.0.1" not in str(error.value)


def test_without_a_hub_there_is_no_catalogue_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("THEATRUM_CATALOG_URL", raising=False)
    with pytest.raises(Unreachable, match="SlideViewer"):
        images["demo/ihc"]
    assert "No catalogue" in repr(images)
    assert "No catalogue" in images._repr_html_()

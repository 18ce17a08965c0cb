"""From the viewer's click to the number: what is stored is what a notebook gets.

The pathology server serves a slide tile by tile and as files; an app of each way runs
the same shipped node; and the node, called as the plain function that it is on the same
file in a notebook, has to say the same. On a real slide, and on a generated one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from theatrum import open_image
from theatrum.node import Node, Polygon
from theatrum.nodes import count_nuclei, ki67, tissue_area

from tests.extensions.nodes.pictures import section
from tests.pathology_server import PathologyServer, Slide, slide_of_file

from .running_site import Site

APPS: dict[str, Node[..., Any]] = {
    "ki67": ki67,
    "count-nuclei": count_nuclei,
    "tissue-area": tissue_area,
}
# Corners of the user's region, as shares of the slide's width and height.
CORNERS = ((0.2, 0.2), (0.6, 0.25), (0.55, 0.6), (0.25, 0.5))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with the shipped apps, each once by tiles and once by files."""
    folder = tmp_path_factory.mktemp("real")
    with (
        PathologyServer() as server,
        Site(folder, server, shipped_apps=True) as made,
    ):
        with (made.home / "theatrum.toml").open("a") as config:
            for name in APPS:
                for needs in ("tiles", "files"):
                    config.write(
                        f"[ia_api.apps.{name}-by-{needs}]\n"
                        f'node = "theatrum.nodes:{name.replace("-", "_")}"\n'
                        f'needs = "{needs}"\n'
                    )
        made.serve()
        made.worker()
        yield made


@pytest.fixture(scope="module")
def generated(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Slide]:
    """A section with nuclei drawn in code, as a lossless tiled TIFF."""
    path = tmp_path_factory.mktemp("drawn") / "section.tif"
    return path, _served(site, "sl-generated", _drawn(path))


@pytest.fixture(scope="module")
def real(site: Site, shared_data: Path) -> tuple[Path, Slide]:
    path = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    return path, _served(site, "sl-real", path)


def _served(site: Site, slide_id: str, path: Path) -> Slide:
    # PNG: what comes is exactly what the server drew.
    slide = slide_of_file(slide_id, path, formats=("png",))
    site.server.add(slide)
    return slide


def _drawn(path: Path) -> Path:
    drawn = section().image
    pixels = np.asarray(drawn.region(0, 0, drawn.width, drawn.height))
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        resolution=(1e4 / 0.5, 1e4 / 0.5),
        resolutionunit="CENTIMETER",
    )
    return path


def _agrees(site: Site, app: str, needs: str, place: tuple[Path, Slide]) -> None:
    path, slide = place
    node = APPS[app]
    asked = f"{app}-by-{needs}"
    image = open_image(path)
    points = [(x * image.width, y * image.height) for x, y in CORNERS]
    if "polygon" in node.inputs:
        wanted = node(image, Polygon(points))
        content = {
            "polygon": {
                "points": [
                    {"x": x / image.width, "y": y / image.width} for x, y in points
                ]
            }
        }
    else:
        wanted = node(image)
        content = None
    created = site.viewer(asked).create(slide.slide_id, content)
    final = site.wait_final(created.result_id)

    assert final["data"]["context"]["phase"] == "done", final["displayResult"]
    told = final["data"]["context"]["numbers"]
    ours = {
        field.name: getattr(wanted, field.name)
        for field in dataclasses.fields(wanted)
        if field.name in told
    }
    assert ours
    # The server draws its coarse tiles from the slide by a way of its own, so an edge
    # of tissue may fall a pixel of 8 um beside; at full resolution pixels are the same.
    coarse = app == "tissue-area" and needs == "tiles"
    share = 0.01 if coarse else 1e-9
    assert {name: pytest.approx(value, share) for name, value in ours.items()} == told
    if "nuclei" in {field.name for field in dataclasses.fields(wanted)}:
        # A count of nothing would agree with anything.
        assert len(wanted.nuclei) > 5
        patches = final["data"]["result"]["content"]["patches"]
        assert len(patches) == len(wanted.nuclei)
    # And nothing else was fetched than the app asks for.
    routes = "slides.files" if needs == "files" else "tiles"
    assert site.server.record.of(routes, slide_id=slide.slide_id)


@pytest.mark.parametrize("needs", ["tiles", "files"])
@pytest.mark.parametrize("app", APPS)
def test_the_stored_numbers_are_the_notebooks_own_on_a_generated_slide(
    site: Site, generated: tuple[Path, Slide], app: str, needs: str
) -> None:
    _agrees(site, app, needs, generated)


@pytest.mark.parametrize("needs", ["tiles", "files"])
@pytest.mark.parametrize("app", APPS)
def test_the_stored_numbers_are_the_notebooks_own_on_a_real_slide(
    site: Site, real: tuple[Path, Slide], app: str, needs: str
) -> None:
    _agrees(site, app, needs, real)

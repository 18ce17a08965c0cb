"""From the hospital's right-click to a teacher's notebook, without the patient."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import ROOT
from tests.hub_process import running_hub, wait_for
from tests.identified_slides import write_identified_svs
from tests.pathology_server import PathologyServer, Viewer
from tests.pathology_server.slides import slide_of_file

pytestmark = [pytest.mark.hub, pytest.mark.long]

IMAGES = "services/catalog/api/v1/images"
SLIDE = "SECRETSLIDE-99131"


def test_an_analysed_slide_opens_deidentified_for_the_collections_teachers(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    planted = write_identified_svs(tmp_path / "Muster_Erika.svs")
    app = {"node": "theatrum.nodes:tissue_area", "publish": "cases"}
    with PathologyServer() as server:
        server.add(slide_of_file(SLIDE, planted.path))
        table = {
            "enabled": True,
            "min_free_bytes": 0,
            "progress_interval_s": 0,
            "allow_callback": [server.origin],
            "apps": {"tissue": app},
        }
        variables = {"THEATRUM_IA_API": json.dumps(table)}
        with running_hub(home, **variables) as hub:
            _command(home, "collections", "grant", "cases", "formgrade-histology101")
            url = f"{hub.url}services/ia-api/apps/tissue"
            with Viewer(server, url) as viewer:
                viewer.register()
                viewer.create(SLIDE)
            with hub.api("teacher") as teacher, hub.api("student1") as student:
                route = f"{IMAGES}?collection=cases"
                told = wait_for(teacher, route, lambda said: said["items"], 120)
                (image,) = told["items"]
                assert (image["width"], image["height"]) == (1000, 700)
                found = f"{IMAGES}/{image['id']}/results"
                (result,) = wait_for(teacher, found, lambda said: said["results"])[
                    "results"
                ]
                assert result["node"]["name"] == "tissue-area"
                assert result["numbers"]
                seen = teacher.post(f"{IMAGES}/{image['id']}/view").json()
                assert seen["associated"] == []
                tile = seen["tiles"].format(z=0, x=0, y=0)
                assert teacher.get(tile.lstrip("/")).status_code == 200
                for path in ("", "/results"):
                    answer = student.get(f"{IMAGES}/{image['id']}{path}")
                    assert answer.status_code == 404
            everything = _below(home / "images" / "ia_api") + _below(home / "catalog")
    assert planted.found_in(everything) == []
    for word in (SLIDE.encode(), b"Muster", b"Erika"):
        assert word not in everything


def _command(home: Path, *arguments: str) -> None:
    subprocess.run(
        [Path(sys.executable).with_name("theatrum"), *arguments, f"--home={home}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )


def _below(folder: Path) -> bytes:
    """Every name and every byte below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return b"\n".join(path.name.encode() + path.read_bytes() for path in paths)

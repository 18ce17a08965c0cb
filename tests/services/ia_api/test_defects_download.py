"""Defects 12 to 16 of the published example: restarts, and downloads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.pathology_server import (
    FilePart,
    Slide,
    SlideFiles,
    Stall,
    Status,
    Truncate,
    case_scenario,
    single,
)

from .running_site import Site, running_site, wait

FILLER = bytes(range(256)) * 800


def in_parts(slide: Slide, *names: str) -> Slide:
    """The slide's file as the last of several, whose others are no slides."""
    content = slide.files.parts[0].content
    fillers = [FilePart(name, FILLER) for name in names]
    files = SlideFiles((*fillers, FilePart("i0009,0000b.svs", content)))
    return replace(slide, files=files)


def pixel_of(run: str) -> str:
    return run.partition(" ")[2]


def undisturbed_pixel(site: Site) -> str:
    """What the node sees of a slide that came without a fault."""
    slide = site.file_slide()
    site.viewer("probe-files").create(slide.slide_id)
    site.wait_done(slide, "probe-files")
    return pixel_of(site.runs(slide)[-1])


# 12. "Already downloaded" means "the folder is not empty".


@pytest.mark.parametrize("form", ["single", "multipart"])
def test_a_truncated_slide_is_never_analysed(ia_api_site: Site, form: str) -> None:
    slide = ia_api_site.file_slide()
    if form == "multipart":
        slide = in_parts(slide, "i0000,0000b.dcm", "i0004,0000b.dcm")
        ia_api_site.server.add(slide)
    whole = slide.files.length
    ia_api_site.server.faults.plan(
        "slides.files",
        Truncate(whole // 2),
        Truncate(whole - 40),
        slide_id=slide.slide_id,
    )
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.wait_done(slide, "probe-files")
    runs = ia_api_site.runs(slide)
    assert [pixel_of(one) for one in runs] == [undisturbed_pixel(ia_api_site)]
    asked = ia_api_site.server.record.of("slides.files", slide_id=slide.slide_id)
    assert len(asked) == 3


def test_a_chunked_slide_that_ends_too_early_is_never_analysed(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.file_slide()
    slide = replace(slide, files=replace(slide.files, chunked=True))
    ia_api_site.server.add(slide)
    ia_api_site.server.faults.plan(
        "slides.files", Truncate(slide.files.length // 2), slide_id=slide.slide_id
    )
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.wait_done(slide, "probe-files")
    assert len(ia_api_site.runs(slide)) == 1


@pytest.mark.parametrize("form", ["single", "multipart"])
def test_a_download_that_a_kill_cut_off_is_completed_before_the_analysis(
    site_folder: Path, form: str
) -> None:
    with running_site(site_folder, workers=0) as site:
        slide = site.file_slide()
        if form == "multipart":
            slide = in_parts(slide, "i0000,0000b.dcm")
            site.server.add(slide)
        cut = slide.files.length // 2
        site.server.faults.plan("slides.files", Stall(cut), slide_id=slide.slide_id)
        worker = site.worker()
        site.viewer("probe-files").create(slide.slide_id)
        wait(
            lambda: any(
                path.parent.name == "slide" and path.stat().st_size
                for path in site.slide_files()
            ),
            "a part of the slide is on the disk",
        )
        site.kill(worker)
        assert site.runs(slide) == []
        site.worker()
        site.wait_done(slide, "probe-files")
        assert [pixel_of(one) for one in site.runs(slide)] == [undisturbed_pixel(site)]
        wait(lambda: not site.slide_files(), "the slide is removed")


# 13. A status is not looked at: a 401 becomes a KeyError.


def test_a_refused_download_waits_for_a_token_and_goes_on_with_the_next_one(
    ia_api_site: Site,
) -> None:
    slide, other = ia_api_site.file_slide(), ia_api_site.slide()
    viewer = ia_api_site.viewer("probe-files")
    ia_api_site.server.faults.plan("slides.files", Status(401), slide_id=slide.slide_id)
    first = viewer.create(slide.slide_id)
    ia_api_site.server.record.wait(
        lambda record: record.of("slides.files", slide_id=slide.slide_id, status=401)
    )
    ia_api_site.viewer().create(other.slide_id)
    ia_api_site.wait_done(other)
    again = viewer.create(slide.slide_id)
    assert again.result_id == first.result_id
    ia_api_site.wait_done(slide, "probe-files")
    assert len(ia_api_site.results(slide, "probe-files")) == 1


# 14. File names lead out of the folder.


HOSTILE = [
    "../../../../../../tmp/theatrum-evil.svs",
    "..\\..\\theatrum-evil.svs",
    "C:\\data\\theatrum-evil.svs",
    "/etc/theatrum-evil.svs",
]


@pytest.mark.parametrize("form", ["single", "multipart"])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_file_name_leads_out_of_the_folder_of_its_job(
    ia_api_site: Site, form: str, name: str
) -> None:
    slide = ia_api_site.file_slide("hold")
    content = slide.files.parts[0].content
    files = single(name, content)
    if form == "multipart":
        files = SlideFiles((FilePart(name, content), FilePart(f"{name}.txt", b"x")))
    ia_api_site.server.add(replace(slide, files=files))
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    evil = [path for path in ia_api_site.files() if "evil" in path.name]
    phi = ia_api_site.home / "phi"
    assert evil
    assert [path for path in evil if phi not in path.parents] == []
    assert {path.parent for path in evil} == {evil[0].parent}
    for place in (Path("/tmp"), Path("/etc"), ia_api_site.home.parent):
        assert list(place.glob("*theatrum-evil*")) == []
    ia_api_site.note(slide, "")
    ia_api_site.wait_done(slide, "probe-files")


@pytest.mark.parametrize("name", ["..", ".", "dir/", "a\0b.svs", "x" * 300])
def test_a_name_that_names_no_file_ends_the_job_with_a_reason(
    ia_api_site: Site, name: str
) -> None:
    slide = ia_api_site.file_slide()
    files = SlideFiles((FilePart(name, b"x" * 100),))
    ia_api_site.server.add(replace(slide, files=files))
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.wait_text(slide, "Analysis failed", "probe-files")
    wait(lambda: not ia_api_site.slide_files(), "nothing of the slide is left")


def test_files_of_the_same_name_are_all_kept(ia_api_site: Site) -> None:
    slide = ia_api_site.file_slide("hold")
    content = slide.files.parts[0].content
    files = SlideFiles(
        (FilePart("a.dcm", b"1"), FilePart("a.dcm", b"2"), FilePart("a.svs", content))
    )
    ia_api_site.server.add(replace(slide, files=files))
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    kept = [path.read_bytes() for path in ia_api_site.slide_files()]
    assert b"1" in kept
    assert b"2" in kept
    ia_api_site.note(slide, "")
    ia_api_site.wait_done(slide, "probe-files")


# 15. Texts of the laboratory's system become parts of paths.


def test_texts_of_the_laboratory_are_no_parts_of_paths(ia_api_site: Site) -> None:
    texts = {
        "staining": "Ki-67/../../../evil" + "x" * 300,
        "block": "../B 2\\..\\C",
        "specimen": {"description": "Süd/Nord 染色"},
    }
    slide = ia_api_site.file_slide("hold", **texts)
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    parts = {part for path in ia_api_site.files() for part in path.parts}
    for text in ("Ki-67", "evil", "B 2", "ACC", "2025 0001", "Süd", slide.slide_id):
        assert [part for part in parts if text in part] == []
    ia_api_site.note(slide, "")
    ia_api_site.wait_done(slide, "probe-files")


def test_every_slide_of_the_case_is_worked_on(ia_api_site: Site) -> None:
    ia_api_site.server.add(*case_scenario())
    for slide in case_scenario():
        app = "probe-files" if not slide.streamable else "probe"
        if app == "probe-files":
            made = ia_api_site.file_slide()
            slide = replace(slide, files=made.files, picture=made.picture)
            ia_api_site.server.add(slide)
        ia_api_site.viewer(app).create(slide.slide_id)
        ia_api_site.wait_done(slide, app)


# 16. No check of the disk, no cap, no checksum, no manifest.


def test_a_complete_slide_has_a_manifest_with_its_checksums(ia_api_site: Site) -> None:
    slide = in_parts(ia_api_site.file_slide("hold"), "i0000,0000b.dcm")
    ia_api_site.server.add(slide)
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    (path,) = [one for one in ia_api_site.slide_files() if one.name == "manifest.json"]
    listed: dict[str, Any] = {
        one["name"]: one for one in json.loads(path.read_text())["files"]
    }
    for part in slide.files.parts:
        held = (path.parent / part.name).read_bytes()
        assert listed[part.name]["size"] == part.length
        assert listed[part.name]["sha256"] == hashlib.sha256(held).hexdigest()
    ia_api_site.note(slide, "")
    ia_api_site.wait_done(slide, "probe-files")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"slide_bytes": 1000}, "too-large"), ({"min_free_bytes": 1 << 60}, "disk")],
)
def test_a_slide_that_there_is_no_room_for_is_refused_with_the_reason(
    site_folder: Path, settings: dict[str, int], reason: str
) -> None:
    with running_site(site_folder, **settings) as site:
        slide = site.file_slide()
        site.viewer("probe-files").create(slide.slide_id)
        failed = site.wait_text(slide, "Analysis failed", "probe-files")
        assert reason in failed["displayResult"]
        assert site.runs(slide) == []
        wait(lambda: not site.slide_files(), "nothing of the slide is left")

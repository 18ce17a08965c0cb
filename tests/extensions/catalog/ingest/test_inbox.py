"""Rules say what an item is, and a person lets it in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select
from theatrum.catalog.ingest import Wishes, Workers, ingest
from theatrum.catalog.ingest.errors import BadRule, NoSuchItem
from theatrum.catalog.ingest.inbox import accept, collect, edit, reject, waiting
from theatrum.catalog.ingest.rules import classify, parse
from theatrum.catalog.record import recording
from theatrum.catalog.tables import (
    Experiment,
    FileRule,
    Image,
    InboxItem,
    Sample,
    Subject,
)

from hub.durable.database import Database
from hub.home import Home
from tests import stacks
from tests.extensions.catalog.formats import scans

ANN = Wishes("study", "ann")


def _rule(database: Database, pattern: str, **fields: object) -> None:
    with recording(database, "ann") as book:
        project = book.project("study")
        book.add(
            FileRule(
                project_id=project.id, name="by name", pattern=pattern, fields=fields
            )
        )


def _rows(database: Database, table):
    with database.reading() as session:
        return list(session.scalars(select(table)))


def test_what_comes_in_waits_and_is_let_in_as_the_reviewer_says(
    tmp_path: Path, catalogue: Database, home: Home, workers: Workers
) -> None:
    _rule(
        catalogue,
        r"(?P<animal>m\d+)_(?P<stain>[a-z]+)",
        animal="subject__label",
        sample__name="{animal}-slice",
        sample__stain="{stain}",
        experiment__name="Pilot",
    )
    path = stacks.write_ome_tiff(tmp_path / "m07_dapi.ome.tif", stacks.CONFOCAL)
    report = collect(catalogue, home, [str(path)], ANN, workers=workers)
    assert report.counts["waiting"] == 1, report.entries
    assert _rows(catalogue, Image) == []
    (item,) = waiting(catalogue, frozenset({"study"}))
    assert waiting(catalogue, frozenset({"another"})) == []
    assert item.rule == "by name"
    assert item.proposal["subject__label"] == "m07"
    again = collect(catalogue, home, [str(path)], ANN, workers=workers)
    assert again.counts["known"] == 1
    with pytest.raises(BadRule, match="no field"):
        edit(catalogue, item.id, {"sample__shoe_size": 4}, actor="ann")
    edit(catalogue, item.id, {"sample__stain": "Hoechst"}, actor="ann")
    done = accept(catalogue, home, item.id, actor="bob", workers=workers)
    assert done.counts["taken"] == 1, done.entries
    assert [one.stain for one in _rows(catalogue, Sample)] == ["Hoechst"]
    assert [one.label for one in _rows(catalogue, Subject)] == ["m07"]
    assert [one.name for one in _rows(catalogue, Experiment)] == ["Pilot"]
    (image,) = _rows(catalogue, Image)
    assert image.sample_id is not None
    assert Path(image.path).is_relative_to(home.images)
    (row,) = _rows(catalogue, InboxItem)
    assert (row.state, row.decided_by) == ("accepted", "bob")
    assert not Path(row.path).exists()
    with pytest.raises(NoSuchItem, match="accepted already"):
        accept(catalogue, home, item.id, actor="bob", workers=workers)


def test_what_is_rejected_leaves_a_reason_and_no_files(
    tmp_path: Path, catalogue: Database, home: Home, workers: Workers
) -> None:
    scans.write_series(tmp_path / "a", leave_out=(1,))
    collect(catalogue, home, [str(tmp_path / "a")], ANN, workers=workers)
    (item,) = waiting(catalogue)
    assert "missing" in item.findings[0]
    assert item.n_files == 3
    reject(catalogue, item.id, actor="bob", reason="send it again")
    assert waiting(catalogue) == []
    (row,) = waiting(catalogue, state="rejected")
    assert row.reason == "send it again"
    assert not Path(row.path).exists()
    with pytest.raises(NoSuchItem):
        reject(catalogue, item.id, actor="bob")


def test_what_is_known_does_not_wait_again_and_is_named_as_ever(
    tmp_path: Path, catalogue: Database, home: Home, workers: Workers
) -> None:
    good, bad = tmp_path / "knee scan", tmp_path / "broken"
    scans.write_series(good, SeriesDescription="", ProtocolName="")
    scans.write_series(bad, leave_out=(1,), SeriesInstanceUID="1.2.3.9")
    sources = [str(good), str(bad)]
    collect(catalogue, home, sources, ANN, workers=workers)
    items = {one.n_files: one for one in waiting(catalogue)}
    accept(catalogue, home, items[4].id, actor="bob", workers=workers)
    reject(catalogue, items[3].id, actor="bob", reason="gaps")
    again = collect(catalogue, home, sources, ANN, workers=workers)
    assert (again.counts["known"], again.counts["waiting"]) == (2, 0), again.entries
    assert waiting(catalogue) == []
    (image,) = _rows(catalogue, Image)
    told = {one.images: one.warnings for one in again.entries}
    assert told[(f"study/{image.name}",)] == ()
    assert "rejected before: gaps" in told[()][0]
    # As it would be called without the inbox.
    other = replace(ANN, project="other")
    direct = ingest(catalogue, home, [str(good)], other, workers=workers)
    assert direct.images == [f"other/{image.name}"]


def test_a_bad_rule_that_is_there_already_is_told_and_stops_nothing(
    tmp_path: Path, catalogue: Database, home: Home, workers: Workers
) -> None:
    _rule(catalogue, "(", sample__name="never")
    _rule(catalogue, "m07", sample__name="seven")
    path = stacks.write_ome_tiff(tmp_path / "m07.ome.tif", stacks.CONFOCAL)
    report = ingest(catalogue, home, [str(path)], ANN, workers=workers)
    assert report.counts["taken"] == 1, report.entries
    assert [one.name for one in _rows(catalogue, Sample)] == ["seven"]
    assert "left out" in report.warnings[0]
    assert report.to_json()["warnings"] == report.warnings


def test_a_scan_is_deidentified_before_it_waits(
    tmp_path: Path, catalogue: Database, home: Home, workers: Workers
) -> None:
    scans.write_series(tmp_path / "a")
    wishes = Wishes("study", "ann", profile="basic")
    collect(catalogue, home, [str(tmp_path / "a")], wishes, workers=workers)
    (item,) = waiting(catalogue)
    for file in Path(item.path).rglob("*.dcm"):
        assert b"Jane" not in file.read_bytes()


HEADER = {
    "modality": "MR",
    "description": "T1 MPRAGE sag",
    "device": {"field_strength_t": 3.0},
    "protocol": {"echo_time_ms": 2.9, "image_type": ["ORIGINAL", "PRIMARY", "M"]},
}


@pytest.mark.parametrize(
    ("criteria", "holds"),
    [
        ({"modality": "^MR$"}, True),
        ({"modality": "^CT$"}, False),
        ({"SeriesDescription": "(?i)mprage"}, True),
        ({"EchoTime": "<5"}, True),
        ({"EchoTime": ">=5"}, False),
        ({"MagneticFieldStrength": "==3"}, True),
        ({"ImageType": r"ORIGINAL\\PRIMARY"}, True),
        ({"modality": "MR", "EchoTime": ">5"}, False),
        ({"KVP": ">1"}, False),
        ({"body_part": "."}, False),
    ],
)
def test_all_criteria_of_a_rule_have_to_hold(criteria: dict, holds: bool) -> None:
    rule = parse("one", ".", {"criteria": criteria, "modality": "MR"})
    assert (rule.fields("any", HEADER) is not None) == holds


def test_the_first_rule_that_holds_decides() -> None:
    rules = [
        parse("a", r"x(?P<n>\d)", {"subject__label": "s{n}"}),
        parse("b", ".", {"subject__label": "other"}),
    ]
    assert classify(rules, "x7.tif", {}) == ("a", {"subject__label": "s7"})
    assert classify(rules, "y.tif", {}) == ("b", {"subject__label": "other"})
    assert classify(rules[:1], "y.tif", {}) == ("", {})


@pytest.mark.parametrize(
    ("pattern", "fields", "what"),
    [
        ("(", {}, "regular expression"),
        ("(a+)+b", {}, "repeats a repetition"),
        (".", {"subject__name": "x"}, "no field"),
        (".", {"subject__label": "{who}"}, "no group who"),
        (".", {"criteria": {"modality": "["}}, "regular expression"),
        (".", {"criteria": "MR"}, "no pairs"),
    ],
)
def test_rules_that_cannot_be_understood_say_why(
    pattern: str, fields: dict, what: str
) -> None:
    with pytest.raises(BadRule, match=what):
        parse("one", pattern, fields)

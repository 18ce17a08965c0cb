"""The canary finds what stands anywhere, and does not cry at chance."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theatrum.deidentify.canary import Canary, Needle, Where
from theatrum.deidentify.identifiers import Identifiers

from tests.extensions.deidentify.running import image, package, profile, put

FOUND = Identifiers(
    words={"quastelbrook", "lee", "7351904"},
    phrases={"saint zyprianus", "a-77/12"},
    uids={"1.2.826.0.1.3680043.8.498.1"},
    dates={"19510829", "20200102"},
    birth_dates={"19510829"},
    raw={"山田".encode("iso2022_jp")},
)
CANARY = Canary(FOUND, ["2.25.37351904", "2.25.1951082911"], ["20200102"])


@pytest.mark.parametrize(
    "text",
    [
        b"xQUASTELBROOKx",
        b"by Dr Lee.",
        b"id=7351904;",
        b"Saint Zyprianus",
        b"A-77/12",
        b"1.2.826.0.1.3680043.8.498.1",
        b"1.2.826.0.1.3680043.8.498.1.5",
        b"19510829103000",
        b"29.08.1951",
        b"1951-08-29",
        "quastelbrook".encode("utf-16-le"),
        "Quastelbrook".encode("utf-16-be"),
        b"51756173656c62726f6f6b".replace(b"5175617365", b"517561737465"),
        base64.b64encode(b"Quastelbrook"),
        "山田".encode("iso2022_jp"),
    ],
)
def test_an_identifier_is_found_in_every_spelling(text: bytes) -> None:
    padded = b"\0\1\2 " + text.replace(b"x", b" ") + b" \3\4"
    assert CANARY.finds(padded)


@pytest.mark.parametrize(
    "text",
    [
        b"sleep",  # a short name within a word
        b"0.73519041",  # an id within a number
        b"2.25.37351904",  # an id within a UID that was made here
        b"20200102",  # a date that a shift gave
        b"2.25.1951082911",
        b"",
        b"a",
    ],
)
def test_a_chance_meeting_is_no_leak(text: bytes) -> None:
    assert not CANARY.finds(b" " + text + b" ")


def test_a_foreign_uid_is_not_excused() -> None:
    assert CANARY.finds(b"2.25.999 7351904 2.25.37351904")


def test_short_words_are_not_looked_for_in_pixels() -> None:
    assert not CANARY.finds(b"\0lee\0", Where.COMPRESSED)
    assert CANARY.finds(b"\0quastelbrook\0", Where.COMPRESSED)
    assert CANARY.finds(b"\0quastelbrook\0", Where.NATIVE)
    assert not CANARY.finds("735190".encode("utf-16-le"), Where.NATIVE)


@given(st.binary(max_size=200), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_an_identifier_is_found_wherever_it_stands(before: bytes, after: bytes) -> None:
    assert CANARY.finds(before + b" saint zyprianus " + after)


@given(
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.sampled_from(["Saint Zyprianus", "QUASTELBROOK", "1.2.826.0.1.3680043.8.498.1"]),
    st.sampled_from([Where.COMPRESSED, Where.NATIVE]),
)
@settings(max_examples=300, deadline=None)
def test_a_long_identifier_is_found_at_every_place_in_pixels(
    before: bytes, after: bytes, text: str, where: Where
) -> None:
    found = b"\0" + text.encode() + b"\0"
    assert CANARY.finds(bytes(32) + before + found + after + bytes(32), where)


def test_a_file_in_which_an_identifier_would_stay_is_held(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    one = image()
    # The id in an attribute that the profile keeps: a number, which nothing scrubs.
    one.PatientID = "48151623"
    one.AcquisitionNumber = 48151623
    put(one, source / "one.dcm")
    done = package(source, tmp_path / "out", profile())
    assert [entry.reason for entry in done.report.held] == ["canary"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.json"]


def test_an_identifier_in_compressed_pixels_is_found(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate

    source = tmp_path / "in"
    source.mkdir()
    one = image()
    surname = str(one.PatientName).split("^")[0]
    one.PixelData = encapsulate([b"\xff\xd8\xff\xda\0\x02" + surname.encode() * 2])
    one["PixelData"].VR = "OB"
    put(one, source / "one.dcm", "1.2.840.10008.1.2.4.50")
    done = package(source, tmp_path / "out", profile())
    assert [entry.reason for entry in done.report.held] == ["canary"]


def test_a_search_takes_no_longer_for_more_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Every file of a package has UIDs, and every one of them is searched for in each.
    uids = {f"1.2.840.113619.2.1.{number}" for number in range(20_000)}
    canary = Canary(Identifiers(uids=uids), (), ())
    content = b"".join(b"UI\0\0 1.2.840.113619.9.%d " % number for number in range(500))
    looked: list[int] = []
    counts = canary._counts

    def counting(lower: bytes, at: int, needle: Needle) -> bool:
        looked.append(at)
        return counts(lower, at, needle)

    monkeypatch.setattr(canary, "_counts", counting)
    began = time.perf_counter()
    assert not canary.finds(content)
    assert time.perf_counter() - began < 1.0  # 10 000 000 comparisons take longer
    assert not looked
    assert canary.finds(content + b" 1.2.840.113619.2.1.19999 ")

"""Code strings: terms stay, and what could be a name does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from theatrum.deidentify.codes import cleared, is_term

from tests.extensions.deidentify.running import image, through

NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    "code",
    [
        "ORIGINAL", "CT_SOM5 SPI DUAL", "CT_SOM7 SPI STD", "AXIAL", "M_FFE", "DIS2D",
        "PHASE MAP", "FM4_3", "T2_STAR", "HELICAL MODE", "CHESTABDPELVIS", "HEADNECK",
        "ABDOMENPELVIS", "MONOCHROME2", "YBR_FULL_422", "ISO_10918_1", "FAST_GEMS",
        "RTSTRUCT", "HFS", "SELECTED FROM", "SYED_NEBLETT", "Head", "C-SPINE", "",
        "NEURO", "WHOLEBODY", "UNAPPROVED", "JOSLIN_FLYNN", "129XE", "W1",
    ],
)  # fmt: skip
def test_a_term_is_kept(code: str) -> None:
    assert is_term(code)


@pytest.mark.parametrize(
    "code",
    [
        "HEDWIG", "MUELLER HANS", "FLYNN", "HEAD OF HEDWIG", "4711332", "19560203",
        "SMITH_JOHN", "Schädel", "HEDWIG\x1b$B", "KZB77QX", "BERGHEDWIG",
    ],
)  # fmt: skip
def test_what_could_be_a_name_or_a_number_of_somebody_is_no_term(code: str) -> None:
    assert not is_term(code)


def test_a_name_that_is_known_nowhere_else_does_not_come_out_in_a_code(
    tmp_path: Path,
) -> None:
    one = image()
    one.BodyPartExamined = "HEDWIG"
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "FOR HEDWIG", "CT_SOM5 SPI"]
    done, content = through(tmp_path, one)
    assert b"HEDWIG" not in content
    assert done.BodyPartExamined == "REMOVED"
    assert list(done.ImageType) == [
        "ORIGINAL",
        "PRIMARY",
        "AXIAL",
        "REMOVED",
        "CT_SOM5 SPI",
    ]


def test_a_term_that_is_the_patients_name_is_replaced(tmp_path: Path) -> None:
    one = image()
    one.PatientName = "Fluence^Beam"
    one.BodyPartExamined = "FLUENCE"
    done, content = through(tmp_path, one)
    assert done.BodyPartExamined == "REMOVED"
    assert b"fluence" not in content.lower()


def test_values_keep_their_places() -> None:
    assert cleared("AXIAL\\HEDWIG\\\\NORM", NOBODY) == "AXIAL\\REMOVED\\\\NORM"
    assert cleared("AXIAL", frozenset({"axial"})) == "REMOVED"

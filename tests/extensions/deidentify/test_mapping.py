"""A job's mapping: sealed, its owner's alone, and never written twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from theatrum import deidentify

from tests.extensions.deidentify.running import KEY, PERSON, image, package, put


@pytest.fixture
def mapping(tmp_path: Path) -> deidentify.Mapping:
    source = tmp_path / "in"
    source.mkdir()
    put(image(), source / "one.dcm")
    return package(source, tmp_path / "out").mapping


def test_a_mapping_comes_back_as_it_was(
    mapping: deidentify.Mapping, tmp_path: Path
) -> None:
    file = tmp_path / "map"
    deidentify.save_mapping(mapping, file, KEY)
    assert deidentify.load_mapping(file, mapping.job, KEY) == mapping


def test_a_mapping_at_rest_tells_nothing(
    mapping: deidentify.Mapping, tmp_path: Path
) -> None:
    file = tmp_path / "map"
    deidentify.save_mapping(mapping, file, KEY)
    content = file.read_bytes()
    for secret in (PERSON.patient_id, PERSON.name, str(image().StudyInstanceUID)):
        assert secret.encode() not in content
    assert file.stat().st_mode & 0o777 == 0o400
    assert PERSON.name not in repr(mapping)


def test_a_mapping_is_never_replaced(
    mapping: deidentify.Mapping, tmp_path: Path
) -> None:
    file = tmp_path / "map"
    deidentify.save_mapping(mapping, file, KEY)
    before = file.read_bytes()
    with pytest.raises(deidentify.MappingError, match="never change"):
        deidentify.save_mapping(mapping, file, KEY)
    assert file.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in", "map", "out"]


@pytest.mark.parametrize("wrong", ["job", "key", "byte", "mark", "gone"])
def test_a_mapping_opens_for_its_job_and_key_only(
    mapping: deidentify.Mapping, tmp_path: Path, wrong: str
) -> None:
    file = tmp_path / "map"
    deidentify.save_mapping(mapping, file, KEY)
    content = file.read_bytes()
    file.unlink()
    if wrong == "byte":
        content = content[:-1] + bytes([content[-1] ^ 1])
    if wrong == "mark":
        content = b"x" + content
    if wrong != "gone":
        file.write_bytes(content)
    job = "another" if wrong == "job" else mapping.job
    with pytest.raises(deidentify.MappingError):
        deidentify.load_mapping(file, job, bytes(32) if wrong == "key" else KEY)

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ia_api.errors import VersionTooOld
from services.ia_api.versions import OLDEST, Version, negotiate, parse


def test_ten_is_newer_than_nine():
    assert parse("1.10") > parse("1.9") > parse("1.5")
    assert parse("4.2.0.22617") == Version(4, 2)


@pytest.mark.parametrize("text", ["", "1", "1.x", "one", "1.5; DROP", "1.99999"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(ValueError, match="no version"):
        parse(text)


@given(st.integers(0, 9999), st.integers(0, 9999))
def test_a_version_reads_back_as_written(major, minor):
    assert parse(str(Version(major, minor))) == Version(major, minor)


def test_the_older_of_both_sides_is_spoken():
    assert negotiate(parse("1.8")) == parse("1.8")
    assert negotiate(parse("2.0")) == parse("1.10")
    assert negotiate(None) == OLDEST
    with pytest.raises(VersionTooOld, match=r"needs 1\.9"):
        negotiate(parse("1.8"), oldest=parse("1.9"))


def test_the_shared_vectors_are_followed(shared_data):
    file = shared_data.parent / "ia_api" / "version_vectors.json"
    if not file.is_file():
        pytest.skip("the interface's vectors are not here")
    vectors = json.loads(file.read_text())
    for vector in vectors["compare"]:
        a, b = parse(vector["a"]), parse(vector["b"])
        assert (a > b) - (a < b) == vector["result"]
    for vector in vectors["negotiate"]:
        server = None if vector["server"] is None else parse(vector["server"])
        bounds = parse(vector["appMin"]), parse(vector["appMax"])
        if vector["result"] is None:
            with pytest.raises(VersionTooOld):
                negotiate(server, *bounds)
        else:
            assert str(negotiate(server, *bounds)) == vector["result"]

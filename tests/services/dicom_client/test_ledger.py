"""The benchmark's count of uploads puts each one down to what brought it."""

from __future__ import annotations

import pytest

from benchmarks.dicom_client.ledger import whys
from tests.draw_server.server import Upload

FIRST = Upload("sha", at=10.0, ended=12.0, status=201, taken=True)
AGAIN = Upload("sha", at=30.0, ended=31.0, status=201, taken=True)
REFUSED = Upload("sha", at=20.0, ended=21.0, status=500, taken=False)


@pytest.mark.parametrize(
    ("history", "why"),
    [
        ([(15.0, "server_failed"), (25.0, "packed"), (25.0, "retry")], "asked"),
        ([(15.0, "lost"), (25.0, "packed"), (25.0, "retry")], "asked"),
        # A retry of anything else is no word about a package.
        ([(15.0, "packed"), (25.0, "retry")], "unasked"),
        ([(15.0, "lease-expired"), (25.0, "uploading")], "unasked"),
        ([(25.0, "upload-again")], "overlooked"),
        ([(5.0, "upload-again")], "late"),
        ([(11.0, "upload-again")], "late"),
        ([(40.0, "upload-again")], "unasked"),
    ],
)
def test_a_package_that_came_twice_is_explained_by_what_went_before(
    history: list[tuple[float, str]], why: str
) -> None:
    told = [{"at": at, "kind": kind} for at, kind in history]
    assert whys([AGAIN, REFUSED, FIRST], told) == ["first", why]


def test_what_was_not_stored_is_not_counted() -> None:
    assert whys([REFUSED], []) == []
    assert whys([REFUSED, FIRST], []) == ["first"]

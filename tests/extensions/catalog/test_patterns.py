"""Regular expressions of whoever asks take no longer than the text is long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from theatrum.catalog.database import open_database
from theatrum.catalog.errors import BadQuery
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query import patterns
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.record import recording


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|a)*b", "a*a*a*a*a*a*b", "(.|.)*!b"])
def test_a_pattern_that_python_would_search_for_ever_is_answered(
    tmp_path: Path, pattern: str
) -> None:
    database = open_database(tmp_path)
    with recording(database, "ann") as book:
        book.subject(book.project("mice"), "a" * 200 + "!")
    backend = LocalBackend(database, tmp_path, "ann")
    began = time.monotonic()
    assert backend.rows(Spec("subjects", (Q(label__regex=pattern),))) == []
    assert time.monotonic() - began < 5
    database.close()


def test_patterns_are_looked_for_anywhere_in_a_text_and_in_nothing_else() -> None:
    for pattern in ("^mouse [0-9]+$", "(mouse|rat) [0-9]+", "e 1"):
        assert patterns.found(pattern, "mouse 12") is True
        assert patterns.found(pattern, "cat") is False
        assert patterns.found(pattern, None) is None


@pytest.mark.parametrize("pattern", ["[", "(", "(?=a)b", r"(a)\1"])
def test_what_cannot_be_looked_for_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(BadQuery, match="no regular expression here"):
        patterns.check(pattern, "sqlite")

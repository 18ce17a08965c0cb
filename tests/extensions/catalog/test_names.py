"""What `from theatrum import catalog` gives by name is what the documentation says."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest
import theatrum.catalog
from theatrum.catalog import connect
from theatrum.catalog.errors import NotFound
from theatrum.catalog.query.fields import RESOURCES


def test_no_module_stands_in_the_way_of_a_resource() -> None:
    modules = {one.name for one in pkgutil.iter_modules(theatrum.catalog.__path__)}
    # docs/catalog.md says so of these two.
    assert modules & RESOURCES.keys() == {"flows", "tables"}


@pytest.mark.parametrize("key", ["mice/brain-3", "0123456789ab"])
def test_what_is_not_there_is_told_by_its_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(NotFound, match=key):
        connect(tmp_path).images[key]

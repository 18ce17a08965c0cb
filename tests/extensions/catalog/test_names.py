"""What `from theatrum import catalog` gives by name is what the documentation says."""

from __future__ import annotations

import pkgutil

import theatrum.catalog
from theatrum.catalog.query.fields import RESOURCES


def test_no_module_stands_in_the_way_of_a_resource() -> None:
    modules = {one.name for one in pkgutil.iter_modules(theatrum.catalog.__path__)}
    # docs/catalog.md says so of these two.
    assert modules & RESOURCES.keys() == {"flows", "tables"}

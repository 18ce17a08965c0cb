"""What can go wrong with steps that others do, a branch of the catalogue's tree."""

from __future__ import annotations

from theatrum.catalog.errors import CatalogError


class LeaseLost(CatalogError):
    """Somebody else took the work over, or it is not wanted any more."""

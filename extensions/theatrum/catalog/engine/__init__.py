"""Running nodes over queries on Dask, with every run remembered.

from theatrum.catalog.engine import Engine

with Engine("tcp://10.0.0.5:8786") as engine:
    catalog.images.filter(modality="MR").map(project, how="max", engine=engine).wait()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theatrum.catalog.engine.addresses import Engine, using
    from theatrum.catalog.engine.batch import Batch, map_query, open_batch

_HOME = {
    "Engine": "theatrum.catalog.engine.addresses",
    "using": "theatrum.catalog.engine.addresses",
    "Batch": "theatrum.catalog.engine.batch",
    "map_query": "theatrum.catalog.engine.batch",
    "open_batch": "theatrum.catalog.engine.batch",
}
__all__ = ["Batch", "Engine", "map_query", "open_batch", "using"]


def __getattr__(name: str) -> Any:
    # What is behind a name is known only at run time: hence Any.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)

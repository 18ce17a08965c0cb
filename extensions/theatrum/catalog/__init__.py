"""The catalogue: any question about images answered as lazy arrays, with no server.

    from theatrum import catalog

    catalog.images.filter(modality="MR", spacing__lte=1.0).first().array

Inside the hub `catalog.images` asks the hub's catalogue with your rights; elsewhere it
opens the one in the folder that `THEATRUM_HOME` names. `connect` opens another:

    mine = catalog.connect("study/")                     # SQLite and files in a folder
    theirs = catalog.connect("https://hub/services/catalog", token="...")
    shared = catalog.connect("postgresql+psycopg://me@host/catalog", files="/arrays")

`catalog.images`, `catalog.samples`, `catalog.runs` and so on are queries; `flows` and
`tables`, which are packages here, are `catalog.connect().flows` and `.tables`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theatrum.catalog.connection import Catalog, connect, current
    from theatrum.catalog.query.spec import Parameter, Q

__all__ = ["Catalog", "Parameter", "Q", "connect", "current"]

_HOME = {
    "Catalog": "theatrum.catalog.connection",
    "connect": "theatrum.catalog.connection",
    "current": "theatrum.catalog.connection",
    "Parameter": "theatrum.catalog.query.spec",
    "Q": "theatrum.catalog.query.spec",
}
_OF_CURRENT = ("save", "saved", "freeze", "changes", "export", "import_bundle")


# Any: what is behind a name is known only at run time
def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from theatrum.catalog.connection import current
    from theatrum.catalog.query.fields import RESOURCES

    if name in RESOURCES or name in _OF_CURRENT:
        return getattr(current(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

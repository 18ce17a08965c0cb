"""Questions as they come over the wire, and their answers: the body of `/search`.

    {"query": {"of": "images", "where": [...]},
     "rows": true, "count": true, "facets": ["modality"], "sql": true}

A bare query is one that asks for its rows. The answer holds what was asked for:

    {"rows": [{...}], "count": 12, "sql": "SELECT ...",
     "facets": {"modality": [{"value": "MR", "count": 9}, ...]}}

No answer has more than `MOST_ROWS` rows. Whoever wants all asks with `"cursor": ""`,
then with the answer's `next` as cursor, until that is null; each page begins after the
last row of the one before (`query/paging.py`). `offset` skips rows of the first one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from theatrum.catalog.backend import Backend
from theatrum.catalog.errors import BadQuery, near
from theatrum.catalog.query.facets import facets_from_json
from theatrum.catalog.query.paging import page
from theatrum.catalog.query.spec import spec_from_json

MOST_ROWS = 1000
_ASKED = ("query", "rows", "count", "facets", "sql", "cursor")


# Any here: JSON
def answer(backend: Backend, said: Any) -> dict[str, Any]:
    """Answer a question's JSON; raises BadQuery where it cannot be understood."""
    if isinstance(said, Mapping) and "of" in said:
        said = {"query": said}
    if not isinstance(said, Mapping):
        raise BadQuery('ask by an object such as {"query": {"of": "images"}}')
    for name in said:
        if name not in _ASKED:
            raise BadQuery(f"nothing is called {name!r} here.{near(str(name), _ASKED)}")
    spec = spec_from_json(said.get("query"))
    told: dict[str, Any] = {}
    limit = MOST_ROWS if spec.limit is None else min(spec.limit, MOST_ROWS)
    if "cursor" in said:
        cursor = said["cursor"]
        if not isinstance(cursor, str | None) or not limit:
            raise BadQuery('a cursor is "" to begin, and then what `next` was')
        rows, following = page(backend, spec, limit=limit, cursor=cursor)
        ended = spec.limit is not None and len(rows) >= spec.limit
        told |= {"rows": rows, "next": None if ended else following}
    elif said.get("rows", len(said) == 1):
        told["rows"] = backend.rows(replace(spec, limit=limit))
    if said.get("count"):
        told["count"] = backend.count(spec)
    if said.get("facets"):
        found = backend.facets(spec, facets_from_json(said["facets"]))
        told["facets"] = {
            field: [{"value": value, "count": count} for value, count in values]
            for field, values in found.items()
        }
    if said.get("sql"):
        told["sql"] = backend.sql(spec)
    return told

"""A query's rows as other things: Arrow, pandas, xarray, a dask bag.

Imported when one of them is asked for: each takes a while to load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Boolean, Float, Integer, String
from sqlalchemy.types import TypeEngine

from theatrum.catalog.errors import BadQuery
from theatrum.catalog.query.fields import column_name, table_of, way
from theatrum.catalog.query.spec import Spec
from theatrum.catalog.tables import Base
from theatrum.catalog.tables.base import Moment

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import xarray

    from theatrum.catalog.query.lazy import Query


def arrow(spec: Spec, rows: Sequence[Mapping[str, Any]]) -> pyarrow.Table:
    """Rows as an Arrow table with the types of their columns; JSON becomes text."""
    import pyarrow as pa

    fields: list[pa.Field] = []
    columns: list[pa.Array] = []
    for name, type_ in _types(spec).items():
        kind = _arrow_type(pa, type_)
        values = [row[name] for row in rows]
        if kind is None:
            kind = pa.string()
            values = [None if one is None else json.dumps(one) for one in values]
        fields.append(pa.field(name, kind))
        columns.append(pa.array(values, kind))
    return pa.table(columns, schema=pa.schema(fields))


def _arrow_type(pa: Any, type_: TypeEngine[Any]) -> Any:
    match type_:
        case Moment():
            return pa.timestamp("us", tz="UTC")
        case Boolean():
            return pa.bool_()
        case BigInteger() | Integer():
            return pa.int64()
        case Float():
            return pa.float64()
        case String():
            return pa.string()
        case _:
            return None


def _types(spec: Spec) -> dict[str, TypeEngine[Any]]:
    root = table_of(spec.of)
    if not spec.values:
        return {column.name: column.type for column in root.columns}
    return {path: type_at(root.name, path) for path in spec.values}


def type_at(table: str, path: str) -> TypeEngine[Any]:
    """The type of the column at the end of a path."""
    steps = path.split("__")
    over = way(table, steps[0])
    if over is not None:
        rest = "__".join(steps[1:]) or over.default or "id"
        return type_at(over.target, rest)
    name = column_name(table, steps[0])
    if name is None:
        raise BadQuery(f"there is no field {path}")
    return Base.metadata.tables[table].c[name].type


def frame(spec: Spec, rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Rows as a data frame; JSON stays what it is, ids are the index."""
    import pandas as pd

    names = [*_types(spec)]
    made = pd.DataFrame([[row[name] for name in names] for row in rows], columns=names)
    for name, type_ in _types(spec).items():
        if isinstance(type_, Moment):
            made[name] = pd.to_datetime(made[name], utc=True)
        elif isinstance(type_, Boolean):
            made[name] = made[name].astype("boolean")
        elif isinstance(type_, Integer):
            made[name] = made[name].astype("Int64")
        elif isinstance(type_, Float):
            made[name] = made[name].astype("Float64")
    return made.set_index("id") if "id" in names and not spec.values else made


# Any: handles of images
def dataset(query: Query[Any]) -> xarray.Dataset:
    """The images' arrays as the variables of a Dataset, none of them read."""
    import xarray as xr

    _images_only(query)
    arrays = {}
    for image in iter(query):
        project = image.project.name
        name = f"{project}/{image.name}"
        array = image.array
        own = {dim: f"{name}:{dim}" for dim in array.dims}
        array = array.rename({**own}).drop_attrs().assign_attrs(array.attrs)
        arrays[name] = array.assign_attrs(id=image.id)
    return xr.Dataset(arrays)


def bag(query: Query[Any], npartitions: int | None) -> Any:
    """The rows, of images their arrays, as a dask bag; an array is opened where it is
    worked on."""
    import dask.bag

    if query.spec.of != "images" or query.spec.values:
        return dask.bag.from_sequence(query._fetched(), npartitions=npartitions)
    rows = query._fetched()
    if not rows:
        raise BadQuery("the query finds no image: there is nothing to put into a bag")
    sources = dask.bag.from_sequence(rows, npartitions=npartitions)
    if rows[0]["path"] is None:
        # Behind a service: whoever opens the array asks it, with the same token.
        return sources.map(query._backend.array, 0)
    return sources.map(_opened)


def _opened(row: Mapping[str, Any]) -> xarray.DataArray:
    from theatrum.catalog.saving import opened

    return opened(dict(row), 0)


def _images_only(query: Query[Any]) -> None:
    if query.spec.of != "images" or query.spec.values:
        raise BadQuery("arrays are of images: ask images.filter(...).to_xarray()")

"""Steps of images in seven digits, and nothing where a number is none.

`spacing__lte=1.0` missed scans of 1.0000000252 mm, and one NaN or Infinity kept every
listing with its row from being told.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_NUMBERS = {
    "acquisition": "field_strength",
    "annotation": "number",
    "channel": "excitation_nm emission_nm exposure_ms window_lo window_hi",
    "image": "px_x px_y px_z px_t spacing vmin vmax p01 p99",
    "measurement": "value",
    "roi": "x0 x1 y0 y1 z0 z1 t0 t1 score",
    "run_event": "percent",
}
_JSON = {
    "acquisition": "device protocol raw_meta",
    "annotation": "value",
    "batch": "query params engine counts",
    "data_table": "schema links",
    "dataset_version": "query",
    "experiment": "design attrs",
    "file_rule": "fields",
    "flow": "graph",
    "image": "geometry affine attrs",
    "inbox_item": "proposal findings",
    "project": "attrs",
    "result": "numbers marks",
    "roi": "axes geometry",
    "run": "params error metrics",
    "run_event": "data",
    "sample": "attrs",
    "saved_query": "spec parameters",
    "subject": "external_ids attrs",
    "transform": "matrix quality",
    "view": "slices style",
    "visit": "attrs",
}
_MOST = 1.7976931348623157e308
_STEPS = ("px_x", "px_y", "px_z", "px_t", "spacing")


def upgrade() -> None:
    bind = op.get_bind()
    for name, columns in _NUMBERS.items():
        table = sa.table(name, *(sa.column(one, sa.Float()) for one in columns.split()))
        for column in table.columns:
            # On PostgreSQL NaN is larger than all other numbers; SQLite keeps none.
            beyond = sa.or_(column > _MOST, column < -_MOST)
            bind.execute(sa.update(table).where(beyond).values({column.name: None}))
    if bind.dialect.name == "sqlite":  # PostgreSQL lets only JSON in
        for name, columns in _JSON.items():
            for column_name in columns.split():
                _only_json(bind, name, column_name)
    _in_digits(bind)


def downgrade() -> None:
    """Nothing to undo: what was rounded stays so."""


def _only_json(bind: sa.Connection, name: str, column_name: str) -> None:
    table = sa.table(name, sa.column("rowid"), sa.column(column_name, sa.Text()))
    column = table.c[column_name]
    doubtful = sa.select(table).where(
        sa.or_(column.like("%NaN%"), column.like("%Infinity%"))
    )
    for key, text in bind.execute(doubtful).all():
        told = json.loads(text, parse_constant=lambda _word: None)
        if column_name in ("affine", "matrix") and any(None in row for row in told):
            told = None  # of a place that is not known nothing is left
        said = None if told is None else json.dumps(told)
        this = sa.update(table).where(table.c.rowid == key)
        bind.execute(this.values({column_name: said}))


def _rounded(step: float) -> float:
    """As `theatrum.catalog.facts.in_digits` does from now on."""
    rounder = float(f"{step:.6g}")
    return rounder if abs(rounder - step) <= 2e-7 * step else float(f"{step:.7g}")


def _in_digits(bind: sa.Connection) -> None:
    steps = [sa.column(name, sa.Float()) for name in _STEPS]
    image = sa.table("image", sa.column("id", sa.String()), *steps)
    update = sa.update(image).where(image.c.id == sa.bindparam("this"))
    update = update.values({name: sa.bindparam(f"new_{name}") for name in _STEPS})
    changed = []
    for row in bind.execute(sa.select(image)).mappings():
        old = {name: row[name] for name in _STEPS}
        new = {
            name: None if step is None else _rounded(step) for name, step in old.items()
        }
        if new != old:
            said = {f"new_{name}": step for name, step in new.items()}
            changed.append({"this": row["id"], **said})
    for at in range(0, len(changed), 1000):
        bind.execute(update, changed[at : at + 1000])

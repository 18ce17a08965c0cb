"""Images of every kind: the table of old, with all that is asked for.

Their results move along. The old tables are dropped from the leaves: a table that
others point at takes their rows along.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.drop_index("ix_result_image_id", "result")
    op.rename_table("result", "old_result")
    op.rename_table("image", "old_image")
    if op.get_bind().dialect.name == "postgresql":
        # A renamed table's indexes keep their names, which the new tables want.
        for name in ("pk_result", "uq_result_run", "pk_image"):
            op.execute(f"ALTER INDEX IF EXISTS {name} RENAME TO old_{name}")
    op.create_table(
        "image",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("scene", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("geometry", JSON, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("acquisition_id", sa.String(length=16), nullable=True),
        sa.Column("sample_id", sa.String(length=16), nullable=True),
        sa.Column("subject_id", sa.String(length=16), nullable=True),
        sa.Column("run_id", sa.String(length=16), nullable=True),
        sa.Column("modality", sa.String(length=16), nullable=True),
        sa.Column("plane", sa.String(length=8), nullable=True),
        sa.Column("format", sa.String(length=32), nullable=False),
        sa.Column("dims", JSON, nullable=False),
        sa.Column("shape", JSON, nullable=False),
        sa.Column("dtype", sa.String(length=16), nullable=False),
        sa.Column("chunks", JSON, nullable=False),
        sa.Column("n_levels", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("px_x", sa.Double(), nullable=True),
        sa.Column("px_y", sa.Double(), nullable=True),
        sa.Column("px_z", sa.Double(), nullable=True),
        sa.Column("px_t", sa.Double(), nullable=True),
        sa.Column("spacing", sa.Double(), nullable=True),
        sa.Column("n_x", sa.Integer(), nullable=True),
        sa.Column("n_y", sa.Integer(), nullable=True),
        sa.Column("n_c", sa.Integer(), nullable=True),
        sa.Column("n_z", sa.Integer(), nullable=True),
        sa.Column("n_t", sa.Integer(), nullable=True),
        sa.Column("orientation", sa.String(length=8), nullable=True),
        sa.Column("affine", JSON, nullable=True),
        sa.Column("frame_of_ref", sa.String(length=128), nullable=True),
        sa.Column("value_unit", sa.String(length=32), nullable=True),
        sa.Column("vmin", sa.Double(), nullable=True),
        sa.Column("vmax", sa.Double(), nullable=True),
        sa.Column("p01", sa.Double(), nullable=True),
        sa.Column("p99", sa.Double(), nullable=True),
        sa.Column("checksum", sa.String(length=64), nullable=True),
        sa.Column("attrs", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["acquisition_id"],
            ["acquisition.id"],
            name=op.f("fk_image_acquisition_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_image_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_image_run_id")),
        sa.ForeignKeyConstraint(
            ["sample_id"],
            ["sample.id"],
            name=op.f("fk_image_sample_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["subject_id"],
            ["subject.id"],
            name=op.f("fk_image_subject_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
    )
    op.create_index(
        op.f("ix_image_acquisition_id"), "image", ["acquisition_id"], unique=False
    )
    op.create_index(op.f("ix_image_checksum"), "image", ["checksum"], unique=False)
    op.create_index(op.f("ix_image_format"), "image", ["format"], unique=False)
    op.create_index(
        op.f("ix_image_frame_of_ref"), "image", ["frame_of_ref"], unique=False
    )
    op.create_index("ix_image_kind", "image", ["project_id", "kind"], unique=False)
    op.create_index(
        "ix_image_modality_spacing", "image", ["modality", "spacing"], unique=False
    )
    op.create_index(
        op.f("ix_image_orientation"), "image", ["orientation"], unique=False
    )
    op.create_index(op.f("ix_image_plane"), "image", ["plane"], unique=False)
    op.create_index(op.f("ix_image_project_id"), "image", ["project_id"], unique=False)
    op.create_index(op.f("ix_image_px_x"), "image", ["px_x"], unique=False)
    op.create_index(op.f("ix_image_px_y"), "image", ["px_y"], unique=False)
    op.create_index(op.f("ix_image_px_z"), "image", ["px_z"], unique=False)
    op.create_index(op.f("ix_image_run_id"), "image", ["run_id"], unique=False)
    op.create_index(
        "ix_image_sample_id",
        "image",
        ["sample_id", "modality", "spacing", "deleted_at"],
        unique=False,
    )
    op.create_index(op.f("ix_image_spacing"), "image", ["spacing"], unique=False)
    op.create_index(op.f("ix_image_state"), "image", ["state"], unique=False)
    op.create_index(op.f("ix_image_subject_id"), "image", ["subject_id"], unique=False)
    op.create_index(
        "uq_image_name",
        "image",
        ["project_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "uq_image_path",
        "image",
        ["project_id", "path", "scene"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "channel",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("marker", sa.String(length=128), nullable=True),
        sa.Column("fluor", sa.String(length=128), nullable=True),
        sa.Column("excitation_nm", sa.Double(), nullable=True),
        sa.Column("emission_nm", sa.Double(), nullable=True),
        sa.Column("exposure_ms", sa.Double(), nullable=True),
        sa.Column("color", sa.String(length=32), nullable=True),
        sa.Column("window_lo", sa.Double(), nullable=True),
        sa.Column("window_hi", sa.Double(), nullable=True),
        sa.Column("attrs", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["image.id"],
            name=op.f("fk_channel_image_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channel")),
    )
    op.create_index(op.f("ix_channel_marker"), "channel", ["marker"], unique=False)
    op.create_index("ix_channel_name", "channel", ["name", "image_id"], unique=False)
    op.create_index("uq_channel_index", "channel", ["image_id", "index"], unique=True)
    op.create_table(
        "asset",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("owner_kind", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("media_type", sa.String(length=128), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_asset_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_asset_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_asset")),
    )
    op.create_index(
        "ix_asset_owner", "asset", ["owner_kind", "owner_id", "role"], unique=False
    )
    op.create_index(op.f("ix_asset_project_id"), "asset", ["project_id"], unique=False)
    op.create_index(op.f("ix_asset_run_id"), "asset", ["run_id"], unique=False)
    op.create_table(
        "plane_table",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("asset_id", sa.String(length=16), nullable=False),
        sa.Column("n_planes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["asset_id"],
            ["asset.id"],
            name=op.f("fk_plane_table_asset_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["image.id"],
            name=op.f("fk_plane_table_image_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plane_table")),
        sa.UniqueConstraint("image_id", name=op.f("uq_plane_table_image_id")),
    )
    op.create_index(
        op.f("ix_plane_table_asset_id"), "plane_table", ["asset_id"], unique=False
    )
    op.create_table(
        "view",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("slices", JSON, nullable=False),
        sa.Column("style", JSON, nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["image.id"],
            name=op.f("fk_view_image_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_view_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_view")),
    )
    op.create_index(op.f("ix_view_image_id"), "view", ["image_id"], unique=False)
    op.create_index(op.f("ix_view_project_id"), "view", ["project_id"], unique=False)
    op.create_table(
        "transform",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("from_image_id", sa.String(length=16), nullable=False),
        sa.Column("to_image_id", sa.String(length=16), nullable=True),
        sa.Column("space_from", sa.String(length=128), nullable=False),
        sa.Column("space_to", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("matrix", JSON, nullable=True),
        sa.Column("uri", sa.Text(), nullable=True),
        sa.Column("run_id", sa.String(length=16), nullable=True),
        sa.Column("quality", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["from_image_id"],
            ["image.id"],
            name=op.f("fk_transform_from_image_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_transform_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_transform_run_id")
        ),
        sa.ForeignKeyConstraint(
            ["to_image_id"],
            ["image.id"],
            name=op.f("fk_transform_to_image_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transform")),
    )
    op.create_index(
        op.f("ix_transform_from_image_id"), "transform", ["from_image_id"], unique=False
    )
    op.create_index(
        op.f("ix_transform_project_id"), "transform", ["project_id"], unique=False
    )
    op.create_index(op.f("ix_transform_run_id"), "transform", ["run_id"], unique=False)
    op.create_index(
        op.f("ix_transform_space_to"), "transform", ["space_to"], unique=False
    )
    op.create_index(
        op.f("ix_transform_to_image_id"), "transform", ["to_image_id"], unique=False
    )
    op.create_table(
        "result",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("app", sa.String(length=64), nullable=False),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("node_version", sa.String(length=64), nullable=False),
        sa.Column("node_digest", sa.String(length=128), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("numbers", JSON, nullable=False),
        sa.Column("marks", JSON, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["image.id"],
            name=op.f("fk_result_image_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_result")),
        sa.UniqueConstraint("run", name=op.f("uq_result_run")),
    )
    op.create_index(op.f("ix_result_image_id"), "result", ["image_id"], unique=False)
    _move_images()
    op.execute(
        "INSERT INTO result (id, image_id, run, app, node, node_version, node_digest, "
        "title, numbers, marks, created) "
        "SELECT id, image_id, run, app, node, node_version, node_digest, "
        "title, numbers, marks, created FROM old_result"
    )
    if op.get_bind().dialect.name == "postgresql":
        # Copied ids do not move the counter that gives the next one.
        op.execute(
            "SELECT setval(pg_get_serial_sequence('result', 'id'), "
            "greatest((SELECT max(id) FROM result), 1), "
            "(SELECT count(*) > 0 FROM result))"
        )
    for name in ("old_result", "old_image", "collection_group", "collection"):
        op.drop_table(name)


def _move_images() -> None:
    when = sa.DateTime(timezone=True)
    old = sa.table(
        "old_image",
        *(sa.column(name) for name in ("id", "name", "title", "path", "version")),
        sa.column("collection_id"),
        sa.column("geometry", sa.JSON),
        sa.column("added", when),
    )
    new = sa.table(
        "image",
        *(
            sa.column(name)
            for name in (
                *("id", "name", "title", "path", "version", "project_id", "scene"),
                *("description", "kind", "state", "format", "dtype", "n_levels"),
                *("px_x", "px_y", "spacing", "n_x", "n_y", "n_z", "modality"),
            )
        ),
        *(sa.column(name, JSON) for name in ("geometry", "dims", "shape", "chunks")),
        sa.column("attrs", JSON),
        sa.column("created_at", when),
        sa.column("updated_at", when),
    )
    rows = op.get_bind().execute(sa.select(old)).mappings().all()
    op.bulk_insert(new, [_moved(dict(row)) for row in rows])


# Any: a row of mixed columns
def _moved(row: dict[str, Any]) -> dict[str, Any]:
    """The row as it is now: what the view said becomes columns, in millimetres."""
    geometry = row["geometry"] or {}
    added = row.pop("added")
    lengths = [
        length / 1000 if length else None
        for length in (geometry.get("mpp_x"), geometry.get("mpp_y"))
    ]
    scan = geometry.get("affine_lps") is not None
    channels = geometry.get("channels") or [{}]
    return row | {
        "project_id": row.pop("collection_id"),
        "scene": 0,
        "description": "",
        "kind": "original",
        "state": "ready",
        "format": "dicom" if scan else "wsi",
        "modality": channels[0].get("name") if scan else "SM",
        "dtype": "",
        "n_levels": len(geometry.get("levels") or [1]),
        "px_x": lengths[0],
        "px_y": lengths[1],
        "spacing": max((one for one in lengths if one), default=None),
        "n_x": geometry.get("width"),
        "n_y": geometry.get("height"),
        "n_z": geometry.get("z"),
        "dims": [],
        "shape": [],
        "chunks": [],
        "attrs": {},
        "created_at": added,
        "updated_at": added,
    }


def downgrade() -> None:
    raise NotImplementedError(
        "images of every kind do not fit into the table of old: restore the backup "
        "that was made before"
    )

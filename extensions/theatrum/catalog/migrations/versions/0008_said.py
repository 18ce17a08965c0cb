"""Regions, labels, annotations, measurements and tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "annotation",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("target_kind", sa.String(length=32), nullable=False),
        sa.Column("target_id", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", JSON, nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("unit", sa.String(length=32), nullable=True),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_annotation_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotation")),
    )
    op.create_index(
        "ix_annotation_key",
        "annotation",
        ["target_kind", "kind", "key", "text"],
        unique=False,
    )
    op.create_index(
        op.f("ix_annotation_number"), "annotation", ["number"], unique=False
    )
    op.create_index(
        op.f("ix_annotation_project_id"), "annotation", ["project_id"], unique=False
    )
    op.create_index(
        "ix_annotation_target",
        "annotation",
        ["target_kind", "target_id", "kind", "key"],
        unique=False,
    )
    op.create_table(
        "label",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("vocabulary", sa.String(length=64), nullable=False),
        sa.Column("code", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("color", sa.String(length=32), nullable=True),
        sa.Column("parent_id", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["label.id"],
            name=op.f("fk_label_parent_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_label_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label")),
        sa.UniqueConstraint(
            "vocabulary",
            "code",
            "project_id",
            name=op.f("uq_label_vocabulary_code_project_id"),
        ),
    )
    op.create_index(op.f("ix_label_parent_id"), "label", ["parent_id"], unique=False)
    op.create_index(op.f("ix_label_project_id"), "label", ["project_id"], unique=False)
    op.create_table(
        "data_table",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("schema", JSON, nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("links", JSON, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_data_table_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_data_table_run_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_table")),
    )
    op.create_index(
        op.f("ix_data_table_project_id"), "data_table", ["project_id"], unique=False
    )
    op.create_index(
        op.f("ix_data_table_run_id"), "data_table", ["run_id"], unique=False
    )
    op.create_table(
        "roi",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("axes", JSON, nullable=False),
        sa.Column("geometry", JSON, nullable=False),
        sa.Column("x0", sa.Double(), nullable=True),
        sa.Column("x1", sa.Double(), nullable=True),
        sa.Column("y0", sa.Double(), nullable=True),
        sa.Column("y1", sa.Double(), nullable=True),
        sa.Column("z0", sa.Double(), nullable=True),
        sa.Column("z1", sa.Double(), nullable=True),
        sa.Column("t0", sa.Double(), nullable=True),
        sa.Column("t1", sa.Double(), nullable=True),
        sa.Column("label_id", sa.String(length=16), nullable=True),
        sa.Column("color", sa.String(length=32), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("parent_id", sa.String(length=16), nullable=True),
        sa.Column("run_id", sa.String(length=16), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_roi_image_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["label_id"],
            ["label.id"],
            name=op.f("fk_roi_label_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["roi.id"], name=op.f("fk_roi_parent_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_roi_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_roi_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roi")),
    )
    op.create_index(
        "ix_roi_box", "roi", ["image_id", "x0", "x1", "y0", "y1"], unique=False
    )
    op.create_index(op.f("ix_roi_image_id"), "roi", ["image_id"], unique=False)
    op.create_index(op.f("ix_roi_label_id"), "roi", ["label_id"], unique=False)
    op.create_index(op.f("ix_roi_parent_id"), "roi", ["parent_id"], unique=False)
    op.create_index(op.f("ix_roi_project_id"), "roi", ["project_id"], unique=False)
    op.create_index(op.f("ix_roi_run_id"), "roi", ["run_id"], unique=False)
    op.create_index(op.f("ix_roi_score"), "roi", ["score"], unique=False)
    op.create_index(op.f("ix_roi_status"), "roi", ["status"], unique=False)
    op.create_table(
        "measurement",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("roi_id", sa.String(length=16), nullable=True),
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("unit", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["image.id"],
            name=op.f("fk_measurement_image_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_measurement_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["roi_id"],
            ["roi.id"],
            name=op.f("fk_measurement_roi_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_measurement_run_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_measurement")),
    )
    op.create_index(
        "ix_measurement_name", "measurement", ["image_id", "name"], unique=False
    )
    op.create_index(
        op.f("ix_measurement_project_id"), "measurement", ["project_id"], unique=False
    )
    op.create_index(
        op.f("ix_measurement_roi_id"), "measurement", ["roi_id"], unique=False
    )
    op.create_index(
        op.f("ix_measurement_run_id"), "measurement", ["run_id"], unique=False
    )
    op.create_index(
        "ix_measurement_value", "measurement", ["name", "value"], unique=False
    )


def downgrade() -> None:
    op.drop_table("measurement")
    op.drop_table("roi")
    op.drop_table("data_table")
    op.drop_table("label")
    op.drop_table("annotation")

"""Original files, acquisitions, and the inbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "inbox_item",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=True),
        sa.Column("format", sa.String(length=32), nullable=False),
        sa.Column("n_files", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("proposal", JSON, nullable=False),
        sa.Column("rule", sa.String(length=255), nullable=False),
        sa.Column("findings", JSON, nullable=False),
        sa.Column("received_from", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.String(length=255), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_inbox_item_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox_item")),
    )
    op.create_index(
        op.f("ix_inbox_item_project_id"), "inbox_item", ["project_id"], unique=False
    )
    op.create_index(
        op.f("ix_inbox_item_sha256"), "inbox_item", ["sha256"], unique=False
    )
    op.create_index(op.f("ix_inbox_item_state"), "inbox_item", ["state"], unique=False)
    op.create_table(
        "source_file",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.String(length=128), nullable=False),
        sa.Column("reader", sa.String(length=64), nullable=False),
        sa.Column("deidentified", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("received_from", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_source_file_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_source_file")),
    )
    op.create_index(
        op.f("ix_source_file_project_id"), "source_file", ["project_id"], unique=False
    )
    op.create_index(
        op.f("ix_source_file_sha256"), "source_file", ["sha256"], unique=False
    )
    op.create_index(
        op.f("ix_source_file_status"), "source_file", ["status"], unique=False
    )
    op.create_index(
        "uq_source_file_sha256",
        "source_file",
        ["project_id", "sha256"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "acquisition",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("subject_id", sa.String(length=16), nullable=True),
        sa.Column("visit_id", sa.String(length=16), nullable=True),
        sa.Column("sample_id", sa.String(length=16), nullable=True),
        sa.Column("experiment_id", sa.String(length=16), nullable=True),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("acquired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("manufacturer", sa.String(length=128), nullable=True),
        sa.Column("model", sa.String(length=128), nullable=True),
        sa.Column("field_strength", sa.Double(), nullable=True),
        sa.Column("device", JSON, nullable=False),
        sa.Column("study_uid", sa.String(length=128), nullable=True),
        sa.Column("series_uid", sa.String(length=128), nullable=True),
        sa.Column("series_number", sa.Integer(), nullable=True),
        sa.Column("accession", sa.String(length=64), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("body_part", sa.String(length=64), nullable=True),
        sa.Column("laterality", sa.String(length=16), nullable=True),
        sa.Column("protocol", JSON, nullable=False),
        sa.Column("raw_meta", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
            name=op.f("fk_acquisition_experiment_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_acquisition_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"],
            ["sample.id"],
            name=op.f("fk_acquisition_sample_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["subject_id"],
            ["subject.id"],
            name=op.f("fk_acquisition_subject_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["visit_id"],
            ["visit.id"],
            name=op.f("fk_acquisition_visit_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acquisition")),
    )
    op.create_index(
        op.f("ix_acquisition_body_part"), "acquisition", ["body_part"], unique=False
    )
    op.create_index(
        op.f("ix_acquisition_experiment_id"),
        "acquisition",
        ["experiment_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_acquisition_field_strength"),
        "acquisition",
        ["field_strength"],
        unique=False,
    )
    op.create_index(
        op.f("ix_acquisition_manufacturer"),
        "acquisition",
        ["manufacturer"],
        unique=False,
    )
    op.create_index(
        op.f("ix_acquisition_modality"), "acquisition", ["modality"], unique=False
    )
    op.create_index(
        op.f("ix_acquisition_project_id"), "acquisition", ["project_id"], unique=False
    )
    op.create_index(
        op.f("ix_acquisition_sample_id"), "acquisition", ["sample_id"], unique=False
    )
    op.create_index(
        op.f("ix_acquisition_series_uid"), "acquisition", ["series_uid"], unique=False
    )
    op.create_index(
        op.f("ix_acquisition_study_uid"), "acquisition", ["study_uid"], unique=False
    )
    op.create_index(
        op.f("ix_acquisition_subject_id"), "acquisition", ["subject_id"], unique=False
    )
    op.create_index(
        op.f("ix_acquisition_visit_id"), "acquisition", ["visit_id"], unique=False
    )
    op.create_index(
        "uq_acquisition_series_uid",
        "acquisition",
        ["project_id", "series_uid"],
        unique=True,
        sqlite_where=sa.text("series_uid IS NOT NULL AND deleted_at IS NULL"),
        postgresql_where=sa.text("series_uid IS NOT NULL AND deleted_at IS NULL"),
    )
    op.create_table(
        "series_member",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("acquisition_id", sa.String(length=16), nullable=False),
        sa.Column("source_file_id", sa.String(length=16), nullable=False),
        sa.Column("scene_index", sa.Integer(), nullable=False),
        sa.Column("scene_name", sa.String(length=255), nullable=False),
        sa.Column("instance_uid", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["acquisition_id"],
            ["acquisition.id"],
            name=op.f("fk_series_member_acquisition_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["source_file_id"],
            ["source_file.id"],
            name=op.f("fk_series_member_source_file_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series_member")),
    )
    op.create_index(
        op.f("ix_series_member_acquisition_id"),
        "series_member",
        ["acquisition_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_series_member_source_file_id"),
        "series_member",
        ["source_file_id"],
        unique=False,
    )
    op.create_index(
        "uq_series_member_scene",
        "series_member",
        ["acquisition_id", "source_file_id", "scene_index", "instance_uid"],
        unique=True,
    )


def downgrade() -> None:
    op.drop_table("series_member")
    op.drop_table("acquisition")
    op.drop_table("source_file")
    op.drop_table("inbox_item")

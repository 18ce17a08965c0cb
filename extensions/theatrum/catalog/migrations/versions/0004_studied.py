"""Experiments, groups, subjects, visits, samples, and what files' names say."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "experiment",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("paper_url", sa.String(length=1024), nullable=True),
        sa.Column("design", JSON, nullable=False),
        sa.Column("attrs", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_experiment_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiment")),
    )
    op.create_index("ix_experiment_name", "experiment", ["name"], unique=False)
    op.create_index(
        op.f("ix_experiment_project_id"), "experiment", ["project_id"], unique=False
    )
    op.create_index(
        "uq_experiment_name",
        "experiment",
        ["project_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "file_rule",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("fields", JSON, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_file_rule_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_file_rule")),
    )
    op.create_index(
        op.f("ix_file_rule_project_id"), "file_rule", ["project_id"], unique=False
    )
    op.create_table(
        "cohort_group",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("experiment_id", sa.String(length=16), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("is_control", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
            name=op.f("fk_cohort_group_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_cohort_group_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cohort_group")),
    )
    op.create_index(
        op.f("ix_cohort_group_experiment_id"),
        "cohort_group",
        ["experiment_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_cohort_group_project_id"), "cohort_group", ["project_id"], unique=False
    )
    op.create_index(
        "uq_cohort_group_name",
        "cohort_group",
        ["project_id", "experiment_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "subject",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.String(length=16), nullable=True),
        sa.Column("experiment_id", sa.String(length=16), nullable=True),
        sa.Column("label", sa.String(length=255), nullable=False),
        sa.Column("species", sa.String(length=128), nullable=True),
        sa.Column("sex", sa.String(length=16), nullable=True),
        sa.Column("birth_year", sa.Integer(), nullable=True),
        sa.Column("diagnosis", sa.String(length=255), nullable=True),
        sa.Column("external_ids", JSON, nullable=False),
        sa.Column("attrs", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
            name=op.f("fk_subject_experiment_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["cohort_group.id"],
            name=op.f("fk_subject_group_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_subject_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subject")),
    )
    op.create_index(
        op.f("ix_subject_diagnosis"), "subject", ["diagnosis"], unique=False
    )
    op.create_index(
        op.f("ix_subject_experiment_id"), "subject", ["experiment_id"], unique=False
    )
    op.create_index(op.f("ix_subject_group_id"), "subject", ["group_id"], unique=False)
    op.create_index(
        op.f("ix_subject_project_id"), "subject", ["project_id"], unique=False
    )
    op.create_index(
        "uq_subject_label",
        "subject",
        ["project_id", "label"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "visit",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("subject_id", sa.String(length=16), nullable=False),
        sa.Column("label", sa.String(length=255), nullable=False),
        sa.Column("days_from_baseline", sa.Integer(), nullable=True),
        sa.Column("attrs", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_visit_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["subject_id"],
            ["subject.id"],
            name=op.f("fk_visit_subject_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_visit")),
    )
    op.create_index(op.f("ix_visit_project_id"), "visit", ["project_id"], unique=False)
    op.create_index(op.f("ix_visit_subject_id"), "visit", ["subject_id"], unique=False)
    op.create_index(
        "uq_visit_label",
        "visit",
        ["subject_id", "label"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "sample",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("subject_id", sa.String(length=16), nullable=True),
        sa.Column("visit_id", sa.String(length=16), nullable=True),
        sa.Column("parent_id", sa.String(length=16), nullable=True),
        sa.Column("group_id", sa.String(length=16), nullable=True),
        sa.Column("experiment_id", sa.String(length=16), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("stain", sa.String(length=128), nullable=True),
        sa.Column("marker", sa.String(length=128), nullable=True),
        sa.Column("attrs", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
            name=op.f("fk_sample_experiment_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["cohort_group.id"],
            name=op.f("fk_sample_group_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["sample.id"],
            name=op.f("fk_sample_parent_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_sample_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["subject_id"],
            ["subject.id"],
            name=op.f("fk_sample_subject_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["visit_id"],
            ["visit.id"],
            name=op.f("fk_sample_visit_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sample")),
    )
    op.create_index(
        op.f("ix_sample_experiment_id"), "sample", ["experiment_id"], unique=False
    )
    op.create_index(op.f("ix_sample_group_id"), "sample", ["group_id"], unique=False)
    op.create_index(op.f("ix_sample_parent_id"), "sample", ["parent_id"], unique=False)
    op.create_index(
        op.f("ix_sample_project_id"), "sample", ["project_id"], unique=False
    )
    op.create_index(op.f("ix_sample_stain"), "sample", ["stain"], unique=False)
    op.create_index(
        op.f("ix_sample_subject_id"), "sample", ["subject_id"], unique=False
    )
    op.create_index(op.f("ix_sample_visit_id"), "sample", ["visit_id"], unique=False)
    op.create_index(
        "uq_sample_name",
        "sample",
        ["project_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("sample")
    op.drop_table("visit")
    op.drop_table("subject")
    op.drop_table("cohort_group")
    op.drop_table("file_rule")
    op.drop_table("experiment")

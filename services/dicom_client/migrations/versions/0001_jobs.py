"""Jobs with their events, files, deliveries, templates, rules and audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dc_audit",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=16), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("dc_audit_at", "dc_audit", ["at"], unique=False)
    op.create_table(
        "dc_breaker",
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("open_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("peer"),
    )
    op.create_table(
        "dc_duty",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "dc_file",
        sa.Column("path_key", sa.String(length=64), nullable=False),
        sa.Column("path_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("series_key", sa.String(length=64), nullable=False),
        sa.Column("sop_key", sa.String(length=64), nullable=False),
        sa.Column("seen", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("path_key"),
    )
    op.create_index(
        op.f("ix_dc_file_series_key"), "dc_file", ["series_key"], unique=False
    )
    op.create_table(
        "dc_job",
        sa.Column("job_id", sa.String(length=16), nullable=False),
        sa.Column("series_key", sa.String(length=64), nullable=False),
        sa.Column("collecting", sa.String(length=64), nullable=True),
        sa.Column("content_hash", sa.String(length=64), nullable=True),
        sa.Column("template_digest", sa.String(length=64), nullable=False),
        sa.Column("template_name", sa.String(length=128), nullable=False),
        sa.Column("engine", sa.String(length=128), nullable=False),
        sa.Column("profile_digest", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("overridden", sa.Boolean(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("stopped", sa.String(length=32), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("polls", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("dispatched", sa.Integer(), nullable=False),
        sa.Column("next_run_at", sa.Float(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("last_error_code", sa.String(length=32), nullable=True),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=True),
        sa.Column("released", sa.Float(), nullable=True),
        sa.Column("arrived", sa.Float(), nullable=False),
        sa.Column("facts_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("files_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("duplicate_of", sa.String(length=16), nullable=True),
        sa.Column("result_key", sa.String(length=64), nullable=True),
        sa.Column("package_sha256", sa.String(length=64), nullable=True),
        sa.Column("task_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("server_status", sa.String(length=100), nullable=False),
        sa.Column("result_sha256", sa.String(length=64), nullable=True),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("submitted", sa.Float(), nullable=True),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("wiped", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("job_id"),
        sa.UniqueConstraint("collecting"),
        sa.UniqueConstraint("content_hash", "template_digest"),
    )
    op.create_index("dc_job_created", "dc_job", ["created"], unique=False)
    op.create_index("dc_job_due", "dc_job", ["state", "next_run_at"], unique=False)
    op.create_index("dc_job_series", "dc_job", ["series_key"], unique=False)
    op.create_index(
        op.f("ix_dc_job_result_key"), "dc_job", ["result_key"], unique=False
    )
    op.create_table(
        "dc_kept",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "dc_rules",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "dc_secret",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "dc_template",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("in_force", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
        sa.UniqueConstraint("name", "version"),
    )
    op.create_index(op.f("ix_dc_template_name"), "dc_template", ["name"], unique=False)
    op.create_table(
        "dc_worker",
        sa.Column("worker_id", sa.String(length=64), nullable=False),
        sa.Column("machine", sa.String(length=128), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_started", sa.Float(), nullable=False),
        sa.Column("started", sa.Float(), nullable=False),
        sa.Column("heartbeat", sa.Float(), nullable=False),
        sa.Column("disk_used_bytes", sa.BigInteger(), nullable=False),
        sa.Column("disk_free_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("worker_id"),
    )
    op.create_table(
        "dc_attempt",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=16), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("file", sa.String(length=16), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["dc_job.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_dc_attempt_job_id"), "dc_attempt", ["job_id"], unique=False
    )
    op.create_table(
        "dc_delivery",
        sa.Column("job_id", sa.String(length=16), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("file", sa.String(length=16), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("required", sa.Boolean(), nullable=False),
        sa.Column("delivered", sa.Float(), nullable=True),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("text", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["dc_job.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "target", "file"),
    )
    op.create_table(
        "dc_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=16), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.String(length=256), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["dc_job.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_dc_event_job_id"), "dc_event", ["job_id"], unique=False)
    op.create_table(
        "dc_overlap",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=16), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["dc_job.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_dc_overlap_job_id"), "dc_overlap", ["job_id"], unique=False
    )
    op.create_table(
        "dc_rating",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=16), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("roi", sa.String(length=64), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["dc_job.job_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_dc_rating_job_id"), "dc_rating", ["job_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_dc_rating_job_id"), table_name="dc_rating")
    op.drop_table("dc_rating")
    op.drop_index(op.f("ix_dc_overlap_job_id"), table_name="dc_overlap")
    op.drop_table("dc_overlap")
    op.drop_index(op.f("ix_dc_event_job_id"), table_name="dc_event")
    op.drop_table("dc_event")
    op.drop_table("dc_delivery")
    op.drop_index(op.f("ix_dc_attempt_job_id"), table_name="dc_attempt")
    op.drop_table("dc_attempt")
    op.drop_table("dc_worker")
    op.drop_index(op.f("ix_dc_template_name"), table_name="dc_template")
    op.drop_table("dc_template")
    op.drop_table("dc_secret")
    op.drop_table("dc_rules")
    op.drop_table("dc_kept")
    op.drop_index(op.f("ix_dc_job_result_key"), table_name="dc_job")
    op.drop_index("dc_job_series", table_name="dc_job")
    op.drop_index("dc_job_due", table_name="dc_job")
    op.drop_index("dc_job_created", table_name="dc_job")
    op.drop_table("dc_job")
    op.drop_index(op.f("ix_dc_file_series_key"), table_name="dc_file")
    op.drop_table("dc_file")
    op.drop_table("dc_duty")
    op.drop_table("dc_breaker")
    op.drop_index("dc_audit_at", table_name="dc_audit")
    op.drop_table("dc_audit")

"""Jobs, their events, tokens, tombstones, workers and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ia_token",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("callback_url", sa.String(2048), nullable=False),
        sa.Column("application_id", sa.String(256), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("updated", sa.Float, nullable=False),
        sa.UniqueConstraint("callback_url", "application_id"),
    )
    op.create_table(
        "ia_job",
        sa.Column("job_id", sa.String(16), primary_key=True),
        sa.Column("idem_key", sa.String(64), nullable=False, unique=True),
        sa.Column("active_key", sa.String(64), unique=True),
        sa.Column("app", sa.String(64), nullable=False),
        sa.Column("application_id", sa.String(256), nullable=False),
        sa.Column("slide_id", sa.String(1024), nullable=False),
        sa.Column("callback_url", sa.String(2048), nullable=False),
        sa.Column(
            "token_ref",
            sa.Integer,
            sa.ForeignKey("ia_token.id", ondelete="SET NULL"),
        ),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("input_json", sa.JSON),
        sa.Column("context_json", sa.JSON),
        sa.Column("cancellation_token", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("checkpoint", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("deadline", sa.Float, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("dispatched", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("lease_until", sa.Float, nullable=False),
        sa.Column("result_id", sa.BigInteger),
        sa.Column("result_version", sa.String(256)),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("error_code", sa.String(32)),
        sa.Column("api_version", sa.String(16)),
        sa.Column("application_version", sa.String(128)),
        sa.Column("slide_size", sa.JSON),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("updated", sa.Float, nullable=False),
        sa.Column("started", sa.Float),
        sa.Column("ended", sa.Float),
        sa.Column("closed", sa.Float),
        sa.Column("closing_attempts", sa.Integer, nullable=False),
    )
    op.create_index("ia_job_due", "ia_job", ["state", "not_before"])
    op.create_index(
        "ia_job_slide", "ia_job", ["callback_url", "application_id", "slide_id"]
    )
    op.create_index("ia_job_created", "ia_job", ["created"])
    op.create_table(
        "ia_alias",
        sa.Column("idem_key", sa.String(64), primary_key=True),
        sa.Column(
            "job_id",
            sa.String(16),
            sa.ForeignKey("ia_job.job_id", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("cancellation_token", sa.String(64)),
    )
    op.create_table(
        "ia_event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "job_id",
            sa.String(16),
            sa.ForeignKey("ia_job.job_id", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("detail", sa.String(256), nullable=False),
        sa.Column("worker", sa.String(64)),
    )
    op.create_table(
        "ia_tombstone",
        sa.Column("callback_url", sa.String(2048), primary_key=True),
        sa.Column("application_id", sa.String(256), primary_key=True),
        sa.Column("result_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "ia_worker",
        sa.Column("worker_id", sa.String(64), primary_key=True),
        sa.Column("machine", sa.String(128), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("pid_started", sa.Float, nullable=False),
        sa.Column("started", sa.Float, nullable=False),
        sa.Column("heartbeat", sa.Float, nullable=False),
        sa.Column("disk_used_bytes", sa.BigInteger, nullable=False),
        sa.Column("disk_free_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ia_audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("caller", sa.String(128), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("app", sa.String(64), nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("job_id", sa.String(16)),
    )
    op.create_index("ia_audit_at", "ia_audit", ["at"])


def downgrade() -> None:
    for table in (
        "ia_audit",
        "ia_worker",
        "ia_tombstone",
        "ia_event",
        "ia_alias",
        "ia_job",
        "ia_token",
    ):
        op.drop_table(table)

"""Results of analyses that belong to an image."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "result",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "image_id",
            sa.String(16),
            sa.ForeignKey("image.id", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("run", sa.String(64), nullable=False, unique=True),
        sa.Column("app", sa.String(64), nullable=False),
        sa.Column("node", sa.String(128), nullable=False),
        sa.Column("node_version", sa.String(64), nullable=False),
        sa.Column("node_digest", sa.String(128), nullable=False),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("numbers", sa.JSON, nullable=False),
        sa.Column("marks", sa.JSON, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("result")

"""Why a batch waits, or ended as it did."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "batch", sa.Column("reason", sa.Text(), nullable=False, server_default="")
    )


def downgrade() -> None:
    op.drop_column("batch", "reason")

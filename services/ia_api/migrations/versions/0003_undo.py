"""Until when a job that was cancelled on the pages can be begun anew from there."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "ia_job",
        sa.Column("undo_until", sa.Float, nullable=False, server_default="0"),
    )

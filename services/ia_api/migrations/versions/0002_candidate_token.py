"""A token that came with a request and that the pathology server has not seen yet."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ia_token", sa.Column("candidate", sa.LargeBinary))

"""Images, collections, and which hub groups may see a collection."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "collection",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("shows_label", sa.Boolean, nullable=False),
    )
    op.create_table(
        "collection_group",
        sa.Column(
            "collection_id",
            sa.Integer,
            sa.ForeignKey("collection.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("group", sa.String(255), primary_key=True),
    )
    op.create_table(
        "image",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column(
            "collection_id",
            sa.Integer,
            sa.ForeignKey("collection.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("geometry", sa.JSON, nullable=False),
        sa.Column("added", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("collection_id", "name"),
        sa.UniqueConstraint("collection_id", "path"),
    )


def downgrade() -> None:
    op.drop_table("image")
    op.drop_table("collection_group")
    op.drop_table("collection")

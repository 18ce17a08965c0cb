"""The words by which images are found, searched by each database's own means."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# An FTS5 table without contents of its own follows the table of words by these.
_FOLLOW = (
    "CREATE TRIGGER image_text_added AFTER INSERT ON image_text BEGIN "
    "INSERT INTO image_words (rowid, body) VALUES (new.id, new.body); END",
    "CREATE TRIGGER image_text_removed AFTER DELETE ON image_text BEGIN "
    "INSERT INTO image_words (image_words, rowid, body) "
    "VALUES ('delete', old.id, old.body); END",
    "CREATE TRIGGER image_text_changed AFTER UPDATE ON image_text BEGIN "
    "INSERT INTO image_words (image_words, rowid, body) "
    "VALUES ('delete', old.id, old.body); "
    "INSERT INTO image_words (rowid, body) VALUES (new.id, new.body); END",
)


def upgrade() -> None:
    op.create_table(
        "image_text",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["image.id"],
            name=op.f("fk_image_text_image_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image_text")),
        sa.UniqueConstraint("image_id", name=op.f("uq_image_text_image_id")),
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE VIRTUAL TABLE image_words USING fts5("
            "body, content='image_text', content_rowid='id')"
        )
        for trigger in _FOLLOW:
            op.execute(trigger)
    else:
        op.execute(
            "CREATE INDEX ix_image_text_words ON image_text USING gin "
            "(array_to_tsvector(string_to_array(body, ' ')))"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE image_words")
    op.drop_table("image_text")

"""Projects: what collections were, with the roles of groups in them.

The tables of old stay until the images have moved (0007): dropping a table that others
point at would take their rows along.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "project",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("doi", sa.String(length=255), nullable=True),
        sa.Column("licence", sa.String(length=255), nullable=True),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("shows_label", sa.Boolean(), nullable=False),
        sa.Column("attrs", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("name", name=op.f("uq_project_name")),
    )
    op.create_table(
        "project_group",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("group", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_project_group_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "group", name=op.f("pk_project_group")),
    )
    project = sa.table(
        "project",
        sa.column("id"),
        sa.column("name"),
        sa.column("title"),
        sa.column("description"),
        sa.column("visibility"),
        sa.column("shows_label", sa.Boolean),
        sa.column("attrs", JSON),
        sa.column("created_at", sa.DateTime(timezone=True)),
        sa.column("updated_at", sa.DateTime(timezone=True)),
    )
    collection = sa.table(
        "collection",
        sa.column("id"),
        sa.column("name"),
        sa.column("shows_label", sa.Boolean),
    )
    moment = datetime.now(UTC)
    rows = op.get_bind().execute(sa.select(collection)).mappings().all()
    op.bulk_insert(
        project,
        [
            dict(row)
            | {
                "title": "",
                "description": "",
                "visibility": "private",
                "attrs": {},
                "created_at": moment,
                "updated_at": moment,
            }
            for row in rows
        ],
    )
    op.execute(
        'INSERT INTO project_group (project_id, "group", role) '
        "SELECT collection_id, \"group\", 'viewer' FROM collection_group"
    )
    if op.get_bind().dialect.name == "postgresql":
        # Copied ids do not move the counter that gives the next one.
        op.execute(
            "SELECT setval(pg_get_serial_sequence('project', 'id'), "
            "greatest((SELECT max(id) FROM project), 1), "
            "(SELECT count(*) > 0 FROM project))"
        )


def downgrade() -> None:
    op.drop_table("project_group")
    op.drop_table("project")

"""Nodes that somebody wrote go to the projects that use them; what ships is public."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SHIPS = "theatrum.%"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def upgrade() -> None:
    bind = op.get_bind()
    tables = sa.MetaData()
    node, run, batch = (
        sa.Table(name, tables, autoload_with=bind)
        for name in ("node_def", "run", "batch")
    )
    everybodys = sa.select(node).where(
        node.c.project_id.is_(None), node.c.entrypoint.not_like(_SHIPS)
    )
    for row in bind.execute(everybodys).mappings().all():
        projects: set[int] = set()
        for table in (run, batch):
            used = sa.select(table.c.project_id).where(table.c.node_def_id == row["id"])
            projects.update(bind.scalars(used.distinct()))
        for project in sorted(projects):
            here = _of_project(bind, node, row, project)
            for table in (run, batch):
                uses = (table.c.node_def_id == row["id"]) & (
                    table.c.project_id == project
                )
                bind.execute(sa.update(table).where(uses).values(node_def_id=here))
        bind.execute(sa.delete(node).where(node.c.id == row["id"]))


def _of_project(
    bind: sa.Connection, node: sa.Table, row: sa.RowMapping, project: int
) -> str:
    """The project's own row of that definition, made where missing."""
    known = sa.select(node.c.id).where(
        node.c.project_id == project,
        *(
            node.c[name] == row[name]
            for name in ("namespace", "name", "version", "def_hash")
        ),
    )
    found = bind.scalar(known)
    if found is not None:
        return str(found)
    key = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    values = {**row, "id": key, "project_id": project}
    bind.execute(sa.insert(node).values(values))
    return key


def downgrade() -> None:
    """What belongs to a project may stay there."""

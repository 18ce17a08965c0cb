"""Alembic's entry: runs the migrations on the connection that it is given."""

from alembic import context
from theatrum.catalog.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table="catalog_schema",
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

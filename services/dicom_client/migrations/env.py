"""Alembic's entry: runs the migrations on the connection that it is given."""

from alembic import context

from services.dicom_client.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table="dicom_client_schema",
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

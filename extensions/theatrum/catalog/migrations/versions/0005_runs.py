"""Definitions, flows, batches and runs; queries and versions that are kept."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "dataset_version",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("query", JSON, nullable=False),
        sa.Column("manifest_uri", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("frozen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("frozen_by", sa.String(length=255), nullable=False),
        sa.Column("doi", sa.String(length=255), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_dataset_version_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_version")),
        sa.UniqueConstraint(
            "project_id",
            "name",
            "version",
            name=op.f("uq_dataset_version_project_id_name_version"),
        ),
    )
    op.create_index(
        op.f("ix_dataset_version_project_id"),
        "dataset_version",
        ["project_id"],
        unique=False,
    )
    op.create_table(
        "event",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("topic", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("op", sa.String(length=16), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("changed", JSON, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_event_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_object", "event", ["kind", "object_id"], unique=False)
    op.create_index(op.f("ix_event_project_id"), "event", ["project_id"], unique=False)
    op.create_index(op.f("ix_event_topic"), "event", ["topic"], unique=False)
    op.create_table(
        "flow",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("graph", JSON, nullable=False),
        sa.Column("is_template", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("def_hash", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_flow_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flow")),
        sa.UniqueConstraint(
            "project_id",
            "name",
            "version",
            name=op.f("uq_flow_project_id_name_version"),
        ),
    )
    op.create_index(op.f("ix_flow_def_hash"), "flow", ["def_hash"], unique=False)
    op.create_index(op.f("ix_flow_project_id"), "flow", ["project_id"], unique=False)
    op.create_table(
        "node_def",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("namespace", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("entrypoint", sa.Text(), nullable=False),
        sa.Column("ports_in", JSON, nullable=False),
        sa.Column("ports_out", JSON, nullable=False),
        sa.Column("params_schema", JSON, nullable=False),
        sa.Column("defaults", JSON, nullable=False),
        sa.Column("resources", JSON, nullable=False),
        sa.Column("env", JSON, nullable=False),
        sa.Column("pure", sa.Boolean(), nullable=False),
        sa.Column("cancellable", sa.Boolean(), nullable=False),
        sa.Column("def_hash", sa.String(length=64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_node_def_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node_def")),
        sa.UniqueConstraint(
            "project_id",
            "namespace",
            "name",
            "version",
            "def_hash",
            name=op.f("uq_node_def_project_id_namespace_name_version_def_hash"),
        ),
    )
    op.create_index(
        op.f("ix_node_def_def_hash"), "node_def", ["def_hash"], unique=False
    )
    op.create_index(
        op.f("ix_node_def_project_id"), "node_def", ["project_id"], unique=False
    )
    op.create_table(
        "saved_query",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("parameters", JSON, nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_saved_query_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_query")),
        sa.UniqueConstraint(
            "project_id", "slug", name=op.f("uq_saved_query_project_id_slug")
        ),
    )
    op.create_index(
        op.f("ix_saved_query_project_id"), "saved_query", ["project_id"], unique=False
    )
    op.create_table(
        "batch",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("flow_id", sa.String(length=16), nullable=True),
        sa.Column("node_def_id", sa.String(length=16), nullable=True),
        sa.Column("query", JSON, nullable=False),
        sa.Column("params", JSON, nullable=False),
        sa.Column("engine", JSON, nullable=False),
        sa.Column("requested_by", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["flow_id"], ["flow.id"], name=op.f("fk_batch_flow_id")
        ),
        sa.ForeignKeyConstraint(
            ["node_def_id"], ["node_def.id"], name=op.f("fk_batch_node_def_id")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_batch_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
    )
    op.create_index(op.f("ix_batch_flow_id"), "batch", ["flow_id"], unique=False)
    op.create_index(
        op.f("ix_batch_node_def_id"), "batch", ["node_def_id"], unique=False
    )
    op.create_index(op.f("ix_batch_project_id"), "batch", ["project_id"], unique=False)
    op.create_index(op.f("ix_batch_state"), "batch", ["state"], unique=False)
    op.create_table(
        "run",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.String(length=16), nullable=True),
        sa.Column("parent_run_id", sa.String(length=16), nullable=True),
        sa.Column("node_def_id", sa.String(length=16), nullable=True),
        sa.Column("node_key", sa.String(length=128), nullable=False),
        sa.Column("item_key", sa.String(length=128), nullable=False),
        sa.Column("params", JSON, nullable=False),
        sa.Column("params_hash", sa.String(length=64), nullable=False),
        sa.Column("input_hash", sa.String(length=64), nullable=False),
        sa.Column("cache_key", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requested_by", sa.String(length=255), nullable=False),
        sa.Column("on_behalf_of", sa.String(length=255), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("engine_key", sa.String(length=255), nullable=False),
        sa.Column("code_version", sa.String(length=128), nullable=False),
        sa.Column("env_hash", sa.String(length=64), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("metrics", JSON, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("requested_by <> ''", name=op.f("ck_run_human")),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batch.id"], name=op.f("fk_run_batch_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["node_def_id"], ["node_def.id"], name=op.f("fk_run_node_def_id")
        ),
        sa.ForeignKeyConstraint(
            ["parent_run_id"],
            ["run.id"],
            name=op.f("fk_run_parent_run_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
            name=op.f("fk_run_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    op.create_index("ix_run_batch_id", "run", ["batch_id", "state"], unique=False)
    op.create_index(op.f("ix_run_cache_key"), "run", ["cache_key"], unique=False)
    op.create_index(op.f("ix_run_item_key"), "run", ["item_key"], unique=False)
    op.create_index(op.f("ix_run_node_def_id"), "run", ["node_def_id"], unique=False)
    op.create_index(
        op.f("ix_run_parent_run_id"), "run", ["parent_run_id"], unique=False
    )
    op.create_index(op.f("ix_run_project_id"), "run", ["project_id"], unique=False)
    op.create_index(op.f("ix_run_requested_by"), "run", ["requested_by"], unique=False)
    op.create_index(op.f("ix_run_state"), "run", ["state"], unique=False)
    op.create_table(
        "run_event",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("percent", sa.Double(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_run_event_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "seq", name=op.f("pk_run_event")),
    )
    op.create_table(
        "run_input",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("port", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("object_kind", sa.String(length=32), nullable=False),
        sa.Column("object_id", sa.String(length=16), nullable=False),
        sa.Column("checksum", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_run_input_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "run_id", "port", "position", name=op.f("pk_run_input")
        ),
    )
    op.create_index(
        "ix_run_input_object", "run_input", ["object_kind", "object_id"], unique=False
    )
    op.create_table(
        "run_output",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("port", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("object_kind", sa.String(length=32), nullable=False),
        sa.Column("object_id", sa.String(length=16), nullable=False),
        sa.Column("checksum", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["run.id"],
            name=op.f("fk_run_output_run_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "run_id", "port", "position", name=op.f("pk_run_output")
        ),
    )
    op.create_index(
        "uq_run_output_object", "run_output", ["object_kind", "object_id"], unique=True
    )


def downgrade() -> None:
    op.drop_table("run_output")
    op.drop_table("run_input")
    op.drop_table("run_event")
    op.drop_table("run")
    op.drop_table("batch")
    op.drop_table("saved_query")
    op.drop_table("node_def")
    op.drop_table("flow")
    op.drop_table("event")
    op.drop_table("dataset_version")

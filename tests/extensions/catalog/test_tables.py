"""The tables and their migrations, on both kinds of database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, MetaData, Table, create_engine, inspect, text
from sqlalchemy.orm import Session
from theatrum.catalog.database import MIGRATIONS, open_database
from theatrum.catalog.tables import Base, Image, NodeDef, Project, Result, Run

from hub.durable.database import Database
from tests import postgres


def test_the_migrations_make_exactly_the_tables_of_the_models(
    database: Database,
) -> None:
    made = inspect(database.engine)
    assert {*Base.metadata.tables} <= {*made.get_table_names()}
    for name, table in Base.metadata.tables.items():
        columns = {one["name"]: one for one in made.get_columns(name)}
        assert columns.keys() == {column.name for column in table.columns}
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable, column
        assert {one["name"] for one in made.get_indexes(name)} >= {
            index.name for index in table.indexes
        }
        assert {
            (*one["constrained_columns"], one["options"].get("ondelete"))
            for one in made.get_foreign_keys(name)
        } == {
            (key.parent.name, key.constraint and key.constraint.ondelete)
            for key in table.foreign_keys
        }


def test_opening_a_catalogue_again_keeps_what_is_in_it(database: Database) -> None:
    with database.writing() as session:
        session.add(Project(name="kept"))
    again = open_database(database.url)
    with again.reading() as session:
        assert [one.name for one in session.query(Project)] == ["kept"]
    again.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_catalogue_of_the_first_kind_keeps_images_results_and_rights(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'theatrum.sqlite'}"
    if kind == "postgresql":
        cluster: postgres.Cluster = request.getfixturevalue("postgres_cluster")
        url = cluster.new_database()
    engine = create_engine(url)
    _first_kind(engine)
    engine.dispose()

    database = open_database(url)

    with Session(database.engine) as session:
        image = session.get(Image, "0123456789ab")
        assert image is not None
        assert (image.project.id, image.project.name) == (7, "histology")
        assert [(g.group, g.role) for g in image.project.groups] == [("a", "viewer")]
        assert (image.px_x, image.spacing, image.n_x) == (0.00025, 0.0005, 640)
        assert (image.kind, image.state, image.scene) == ("original", "ready", 0)
        assert image.created_at.isoformat() == "2025-01-02T03:04:05+00:00"
        assert [found.title for found in image.results] == ["Ki-67"]
        # The next numbers are free ones.
        session.add(Project(name="another"))
        session.add(
            Result(
                image_id=image.id, run="r2", app="", node="", node_version="",
                node_digest="", title="", numbers={}, marks={},
            )
        )  # fmt: skip
        session.commit()
    assert "collection" not in inspect(database.engine).get_table_names()
    database.close()


def test_nodes_that_somebody_wrote_go_to_the_projects_that_use_them(
    database: Database,
) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    shipped = "theatrum.nodes.catalog.threshold:threshold"
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0010")
        metadata = MetaData()
        for name in ("project", "node_def", "run"):
            Table(name, metadata, autoload_with=connection)
        tables = {one: Base.metadata.tables[one] for one in metadata.tables}
        for key in (1, 2):
            row = {"id": key, "name": f"p{key}"}
            connection.execute(tables["project"].insert().values(row))
        for key, entry in (("ships", shipped), ("wrote", ""), ("nobody", "my:node")):
            row = {"id": key, "name": key, "entrypoint": entry, "def_hash": key}
            connection.execute(tables["node_def"].insert().values(row))
        for key, project, node in (
            *(("a", 1, "wrote"), ("b", 2, "wrote"), ("c", 2, "wrote")),
            *(("d", 1, "ships"), ("e", 2, "ships")),
        ):
            row = {"id": key, "project_id": project, "node_def_id": node}
            row |= {"requested_by": "erika", "params_hash": ""}
            connection.execute(tables["run"].insert().values(row))
        command.upgrade(config, "head")
    with database.reading() as session:
        nodes = {one.id: (one.name, one.project_id) for one in session.query(NodeDef)}
        runs = {one.id: nodes[one.node_def_id] for one in session.query(Run)}
    assert runs == {
        "a": ("wrote", 1), "b": ("wrote", 2), "c": ("wrote", 2),
        "d": ("ships", None), "e": ("ships", None),
    }  # fmt: skip
    assert sorted(nodes.values(), key=str) == [
        ("ships", None), ("wrote", 1), ("wrote", 2),
    ]  # fmt: skip


def test_numbers_of_before_become_numbers_that_are_found(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    noisy = 1.0000000000000664
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0011")
        connection.execute(Base.metadata.tables["project"].insert(), [{"name": "p"}])
        row = {"id": "i", "project_id": 1, "name": "i", "path": "/i", "px_x": 1.0}
        row |= {"px_z": noisy, "spacing": noisy, "vmax": float("inf")}
        connection.execute(Base.metadata.tables["image"].insert(), [row])
        if database.is_sqlite:
            said = 'UPDATE image SET attrs = \'{"x": NaN, "y": [1, -Infinity]}\''
            connection.execute(text(said))
            connection.execute(text("UPDATE image SET affine = '[[NaN, 1], [0, 1]]'"))
        command.upgrade(config, "head")
    with database.reading() as session:
        image = session.query(Image).one()
        assert (image.px_x, image.px_z, image.spacing, image.vmax) == (1, 1, 1, None)
        if database.is_sqlite:
            assert image.attrs == {"x": None, "y": [1, None]}
            assert image.affine is None


def _first_kind(engine: Engine) -> None:
    """A catalogue as it was before there were projects, with an image in it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        geometry = {"width": 640, "height": 480, "mpp_x": 0.25, "mpp_y": 0.5}
        for statement, values in (
            ("INSERT INTO collection VALUES (7, 'histology', :no)", {"no": False}),
            ("INSERT INTO collection_group VALUES (7, 'a')", {}),
            (
                "INSERT INTO image VALUES ('0123456789ab', 7, 'ihc', 'IHC', '/x.svs', "
                "'v1', :geometry, '2025-01-02 03:04:05')",
                {"geometry": json.dumps(geometry)},
            ),
            (
                "INSERT INTO result VALUES (3, '0123456789ab', 'r1', 'a', 'n', '1', "
                "'d', 'Ki-67', '{}', '{}', '2025-01-02 03:04:05')",
                {},
            ),
        ):
            connection.execute(text(statement), values)

"""Any question has one answer, on SQLite and on PostgreSQL, and so has its opposite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from theatrum.catalog.connection import Catalog
from theatrum.catalog.database import open_database
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.spec import Q

from hub.durable.database import Database
from tests import postgres
from tests.extensions.catalog import small_world

TEXTS = ["title", "modality", "sample__name", "sample__experiment__name", "tags"]
TEXTS += ["channels__name", "attrs__site__name", "kv__stain", "sample__stain"]
NUMBERS = ["spacing", "n_z", "attrs__age", "channels__emission_nm", "kv__dose"]
BY_TEXT = ["exact", "iexact", "contains", "icontains", "startswith", "istartswith"]
BY_TEXT += ["endswith", "iendswith", "gt", "gte", "lt", "lte"]
BY_NUMBER = ["exact", "gt", "gte", "lt", "lte"]
WORDS = st.sampled_from(
    ["", "A", "a", "MR", "mr", "s1", "good", "Ü", "ü", "ß", "DAPI", "p", "_", "%", "1"]
) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=2)
LEAVES = st.one_of(
    st.builds(
        lambda name, lookup, value: Q(**{f"{name}__{lookup}": value}),
        st.sampled_from(TEXTS), st.sampled_from(BY_TEXT), WORDS,
    ),
    st.builds(
        lambda name, lookup, value: Q(**{f"{name}__{lookup}": value}),
        st.sampled_from(NUMBERS), st.sampled_from(BY_NUMBER),
        st.sampled_from([0, 0.5, 1, 2, 2.5, 3, 7.5, 461, -1]),
    ),
    st.builds(
        lambda name, absent: Q(**{f"{name}__isnull": absent}),
        st.sampled_from([*TEXTS[:7], "sample", "channels", "spacing", "attrs__age"]),
        st.booleans(),
    ),
    st.builds(
        lambda name, values: Q(**{f"{name}__in": values}),
        st.sampled_from(TEXTS[:6]), st.lists(st.none() | WORDS, max_size=3),
    ),
)  # fmt: skip
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda a, b: a & b, inner, inner)
        | st.builds(lambda a, b: a | b, inner, inner)
        | inner.map(lambda one: ~one)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, postgres_cluster: postgres.Cluster
) -> Any:
    """The same small world on each kind of database."""
    folder = tmp_path_factory.mktemp("both")
    opened: list[Database] = []
    for where in (str(folder), postgres_cluster.new_database()):
        database = open_database(where)
        small_world.build(database)
        opened.append(database)
    yield [
        Catalog(LocalBackend(one, Path(folder), "erika", frozenset({"mice"})))
        for one in opened
    ]
    for database in opened:
        database.close()


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(condition=CONDITIONS, order=st.sampled_from(["name", "-title", "sample__stain"]))
def test_a_question_has_one_answer(
    both: list[Catalog], condition: Q, order: str
) -> None:
    answers = []
    for catalog in both:
        images = catalog.images.filter(condition).order_by(order, "name")
        rest = catalog.images.exclude(condition)
        names = [one["name"] for one in images.values("name")]
        assert len(names) == len({*names}) == images.count()
        assert images.count() + rest.count() == 6
        answers.append(names)
    assert answers[0] == answers[1]

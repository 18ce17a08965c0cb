"""What queries find: the same on SQLite, on PostgreSQL and over REST."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from theatrum.catalog.connection import Catalog
from theatrum.catalog.errors import BadQuery, NotFound, SeveralFound, UnknownField
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.spec import Q, spec_from_json

from hub.durable.database import Database
from tests.extensions.catalog.conftest import Seen


@pytest.fixture
def catalog(seen: Seen) -> Catalog:
    return seen.by("erika", None)


@pytest.fixture
def mice(seen: Seen) -> Catalog:
    """The catalogue as somebody sees it who may see `mice` alone."""
    return seen.by("max", frozenset({"mice"}))


def found(catalog: Catalog, *conditions: Q, **more: Any) -> str:
    """The numbers of the images of `mice`, and x of the secret one."""
    names = [image.name for image in catalog.images.filter(*conditions, **more)]
    return "".join(name[1] if name[0] == "m" else "x" for name in names)


# Each: what is asked, and which images answer.
LOOKUPS = [
    ({"modality": "MR"}, "01x"),
    ({"modality__exact": "mr"}, ""),
    ({"modality__iexact": "mr"}, "01x"),
    ({"modality": None}, "5"),
    ({"modality__isnull": True}, "5"),
    ({"modality__isnull": False}, "01234x"),
    ({"title__contains": "ir"}, "02"),
    ({"title__contains": "f"}, "4"),
    ({"title__icontains": "F"}, "04"),
    ({"title__icontains": "GRÖSSE"}, ""),
    ({"title__icontains": "GRÖß"}, "3"),
    ({"title__startswith": "F"}, "0"),
    ({"title__istartswith": "f"}, "04"),
    ({"title__istartswith": "gRÖ"}, "3"),
    ({"title__endswith": "th"}, "45"),
    ({"title__iendswith": "TH"}, "45"),
    ({"title__in": ["First", "fifth", "none"]}, "04"),
    ({"modality__in": ["CT", None]}, "25"),
    ({"modality__in": []}, ""),
    ({"n_z__in": list(range(1, 2000, 2))}, "135"),
    ({"title__in": ["First", *(str(one) for one in range(600))]}, "0"),
    ({"spacing__lte": 1.0}, "0134"),
    ({"spacing__lt": "1.0"}, "034"),
    ({"spacing__gt": 1}, "2"),
    ({"spacing__gte": 1}, "12"),
    ({"spacing__range": (0.5, 1)}, "01"),
    ({"title__gte": "a"}, "145x"),
    ({"title__regex": "^[Ff]i"}, "04"),
    ({"name__regex": r"\d"}, "012345x"),
    ({"dims__contains": "c"}, "345"),
    ({"created_at__gte": "2020-01-01"}, "012345x"),
    ({"created_at__lt": "2020-01-01T00:00:00+00:00"}, ""),
    ({"attrs__age": 3}, "0"),
    ({"attrs__age": "3"}, "1"),
    ({"attrs__age__gte": 3}, "02"),
    ({"attrs__age__in": [3, "3"]}, "01"),
    ({"attrs__site__name": "A"}, "0"),
    ({"attrs__site__name__icontains": "b"}, "1"),
    ({"attrs__ok": True}, "0"),
    ({"attrs__ok": False}, "1"),
    ({"attrs__has_key": "age"}, "012"),
    ({"attrs__site__has_key": "name"}, "01"),
    ({"attrs__has_key": "note"}, "3"),
    ({"attrs__note__isnull": False}, ""),
    ({"attrs__age__isnull": True}, "345x"),
    ({"attrs__00100040": "F"}, "5"),
    ({"attrs__list__contains": "x"}, ""),
    ({"sample__name": "s1"}, "01"),
    ({"sample__experiment__name__startswith": "Animal"}, "01x"),
    ({"sample__experiment__name__istartswith": "animal"}, "012x"),
    ({"sample__experiment__name__istartswith": "über_"}, "3"),
    ({"sample__stain__contains": "%"}, "3"),
    ({"sample__stain__startswith": "ki_"}, "4"),
    ({"sample__stain__startswith": "kix"}, ""),
    ({"sample__stain__endswith": "0%"}, "3"),
    ({"sample__isnull": True}, "5"),
    ({"sample__experiment__isnull": True}, "45"),
    ({"sample__experiment__name__isnull": True}, "45"),
    ({"sample__experiment__name__isnull": False}, "0123x"),
    ({"sample": None}, "5"),
    ({"sample__subject__group__is_control": True}, "01"),
    ({"sample__subject__birth_year__lt": 1990}, "01"),
    ({"channels__name": "DAPI"}, "34"),
    ({"channel__name__icontains": "dap"}, "34"),
    ({"channels__emission_nm__gt": 480}, "3"),
    ({"channels__isnull": True}, "0125x"),
    ({"channels__isnull": False}, "34"),
    ({"channels__emission_nm__isnull": True}, "4"),
    ({"channels__name": "DAPI", "channels__emission_nm__gt": 480}, ""),
    ({"channels__name": "GFP", "channels__emission_nm__gt": 480}, "3"),
    ({"tags": "good"}, "01"),
    ({"tags__in": ["good", "bad"]}, "012"),
    ({"tags__startswith": "g"}, "01"),
    ({"tags__isnull": True}, "345"),
    ({"kv__dose__gte": 3}, "1"),
    ({"kv__dose": 2.5}, "0"),
    ({"kv__stain": "HE"}, "2"),
    ({"key_values__key": "dose", "key_values__number__lt": 3}, "0"),
    ({"comments__icontains": "SWOLLEN"}, "0"),
    ({"project": "mice"}, "012345"),
    ({"project__name": "secret"}, "x"),
    ({"project__slug": "secret"}, "x"),
    ({"search": "hemisphere"}, "0"),
    ({"search": "HEMI*"}, "0"),
    ({"search": '"left hemisphere"'}, "0"),
    ({"search": '"hemisphere left"'}, ""),
    ({"search": '"left hemi"'}, ""),
    ({"search": "uber"}, "3"),
    ({"search": "Über dapi"}, "3"),
    ({"search": "dapi -gfp"}, "4"),
    ({"search": "mr animal"}, "01x"),
]


@pytest.mark.parametrize(("asked", "images"), LOOKUPS, ids=lambda one: str(one)[:60])
def test_a_lookup_finds(catalog: Catalog, asked: dict[str, Any], images: str) -> None:
    assert found(catalog, **asked) == images


@pytest.mark.parametrize(("asked", "images"), LOOKUPS, ids=lambda one: str(one)[:60])
def test_excluding_leaves_all_the_rest(
    catalog: Catalog, asked: dict[str, Any], images: str
) -> None:
    query = catalog.images.exclude(**asked)
    rest = "".join(one for one in "012345x" if one not in images)
    names = [image.name for image in query]
    assert "".join(name[1] if name[0] == "m" else "x" for name in names) == rest
    assert query.count() == len(rest)


def test_conditions_join_by_and_or_and_not(catalog: Catalog) -> None:
    mr, fine = Q(modality="MR"), Q(spacing__lt=0.1)
    assert found(catalog, mr | fine) == "0134x"
    assert found(catalog, ~(mr | fine)) == "25"
    assert found(catalog, mr & ~Q(tags="seen")) == "1x"
    assert found(catalog, mr, tags="good") == "01"
    assert found(catalog, Q(tags="good") & Q(tags="seen")) == ""
    both = catalog.images.filter(tags="good").filter(tags="seen")
    assert [image.name for image in both] == ["m0"]


def test_a_query_in_a_query_narrows(catalog: Catalog) -> None:
    stained = catalog.samples.filter(stain="HE")
    assert found(catalog, sample__in=stained) == "01"
    named = catalog.samples.filter(stain="HE").values("id")
    assert found(catalog, sample_id__in=named) == "01"


def test_relations_are_followed_backwards(catalog: Catalog) -> None:
    samples = catalog.samples.filter(images__modality="FM")
    assert [one.name for one in samples] == ["s3", "s4"]
    with_gfp = catalog.experiments.filter(samples__images__channels__name="GFP")
    assert [one.name for one in with_gfp] == ["Über_1"]
    assert catalog.projects.filter(images__tags="hidden").one().name == "secret"


def test_order_slices_and_places(catalog: Catalog) -> None:
    images = catalog.images.filter(project="mice")
    names = [one.name for one in images.order_by("-spacing")]
    assert names == ["m2", "m1", "m0", "m4", "m3", "m5"]  # the unknown one last
    by_title = [one.title for one in images.order_by("title")]
    assert by_title == ["First", "Größe 4", "Third", "fifth", "second", "sixth"]
    by_two = [one.name for one in images.order_by("modality", "-name")]
    assert by_two == ["m2", "m4", "m3", "m1", "m0", "m5"]
    by_related = [one.name for one in images.order_by("-sample__name", "name")]
    assert by_related == ["m4", "m3", "m2", "m0", "m1", "m5"]
    assert [one.name for one in images[1:3]] == ["m1", "m2"]
    assert [one.name for one in images[1:5][1:3]] == ["m2", "m3"]
    assert images[2].name == "m2"
    assert (images[1:3].count(), len(images[4:100]), images[9:].count()) == (2, 2, 0)
    with pytest.raises(IndexError):
        images[6]


def test_first_one_get_exists(catalog: Catalog) -> None:
    images = catalog.images
    assert images.filter(modality="XX").first() is None
    assert images.filter(modality="CT").one().name == "m2"
    assert images["mice/m3"].title == "Größe 4"
    assert images[images["mice/m3"].id].name == "m3"
    assert images.filter(modality="CT").exists()
    assert not images.filter(modality="XX")
    with pytest.raises(NotFound):
        images.get(modality="XX")
    with pytest.raises(SeveralFound, match="first"):
        images.get(modality="MR")


def test_values_and_distinct(catalog: Catalog) -> None:
    images = catalog.images.filter(project="mice")
    assert [*images.values("name", "sample__experiment__name", "attrs__age")][:3] == [
        {"name": "m0", "sample__experiment__name": "Animal 1", "attrs__age": 3},
        {"name": "m1", "sample__experiment__name": "Animal 1", "attrs__age": "3"},
        {"name": "m2", "sample__experiment__name": "animal 2", "attrs__age": 7.5},
    ]
    modalities = images.values("modality").distinct()
    assert [one["modality"] for one in modalities] == ["CT", "FM", "MR", None]
    assert modalities.count() == 4
    pairs = images.values("name", "channels__name").order_by("name", "-name")
    assert [one["channels__name"] for one in pairs].count("DAPI") == 2


def test_facets_count_what_is_found(catalog: Catalog) -> None:
    facets = catalog.images.facets("modality", "tags", spacing=[0.5, 1.0])
    assert facets["modality"] == {"MR": 3, "FM": 2, "CT": 1, None: 1}
    assert [*facets["modality"]] == ["MR", "FM", "CT", None]
    assert facets["tags"] == {None: 3, "good": 2, "bad": 1, "hidden": 1, "seen": 1}
    assert facets["spacing"] == {"..0.5": 2, "0.5..1": 1, "1..": 2, None: 2}
    narrowed = catalog.images.filter(channels__name="DAPI").facets("modality")
    assert narrowed == {"modality": {"FM": 2}}
    of_slice = catalog.images.order_by("name")[:2].facets("modality")
    assert of_slice == {"modality": {"MR": 2}}


def test_one_project_is_all_that_its_members_see(mice: Catalog) -> None:
    assert found(mice) == "012345"
    assert found(mice, sample__experiment__name__startswith="Animal") == "01"
    assert [one.name for one in mice.projects] == ["mice"]
    assert mice.channels.count() == 3
    assert mice.annotations.filter(key="hidden").count() == 0
    assert mice.events.exclude(project="mice").count() == 0
    assert mice.images.facets("tags")["tags"].keys() == {None, "good", "seen", "bad"}
    assert mice.images.filter(search="x0").first() is None
    with pytest.raises(NotFound):
        mice.images["secret/x0"]


def test_nobodys_projects_show_nothing(seen: Seen) -> None:
    nobody = seen.by("eve", frozenset())
    for resource in ("images", "channels", "samples", "annotations", "events"):
        assert getattr(nobody, resource).count() == 0


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ({"modalty": "MR"}, "modality"),
        ({"sample__experimnt__name": "A"}, "experiment"),
        ({"sample__experiment__nme": "A"}, "name"),
        ({"spacing__let": 1}, "lte"),
        ({"chanels__name": "x"}, "channels"),
    ],
)
def test_a_misspelt_name_is_told_with_its_like(
    catalog: Catalog, asked: dict[str, Any], hint: str
) -> None:
    with pytest.raises(UnknownField, match=hint):
        catalog.images.filter(**asked).count()
    with pytest.raises(UnknownField, match=hint):
        catalog.images.exclude(**asked).first()


def test_misspelt_resources_and_orders_are_told(catalog: Catalog) -> None:
    with pytest.raises(AttributeError, match="images"):
        catalog.imges  # noqa: B018
    with pytest.raises(UnknownField, match="modality"):
        catalog.images.order_by("modalit").first()
    with pytest.raises(UnknownField, match="name"):
        catalog.images.values("nam").first()
    with pytest.raises(BadQuery, match="several rows"):
        catalog.images.order_by("channels__name").first()


@pytest.mark.parametrize(
    "asked",
    [
        {"spacing__lte": "wide"},
        {"spacing": float("nan")},
        {"n_z": 10**30},
        {"spacing__range": [1]},
        {"modality__in": "MR"},
        {"title": "a\0b"},
        {"title": "\ud800"},
        {"title__regex": "["},
        {"spacing__contains": "1"},
        {"created_at__gte": "yesterday"},
        {"modality__isnull": "perhaps"},
        {"title__has_key": "x"},
        {"search": "!!"},
        {'attrs__a"b': 1},
        {"spacing__lt": None},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_compared_is_refused(
    catalog: Catalog, asked: dict[str, Any]
) -> None:
    with pytest.raises(BadQuery):
        catalog.images.filter(**asked).count()


def test_text_cannot_break_out_of_its_place(catalog: Catalog) -> None:
    for text in ("'; DROP TABLE image; --", '"', "\\", "%", "_", "*", "[a]", "'' OR 1"):
        for lookup in (
            *("exact", "contains", "icontains", "startswith", "istartswith"),
            *("endswith", "iendswith", "gte"),
        ):
            catalog.images.filter(**{f"title__{lookup}": text}).count()
        assert found(catalog, title__startswith=text) == ""
        assert found(catalog, attrs__age=text) == ""
    assert catalog.images.count() == 7


def test_a_query_prints_its_sql(catalog: Catalog) -> None:
    query = catalog.images.filter(modality="MR", spacing__lte=1.0).order_by("name")
    printed = str(query)
    assert printed == query.sql()
    assert re.search(r"modality = 'MR'", printed)
    assert re.search(r"spacing <= 1\.0", printed)
    assert "ORDER BY image.name" in printed


def test_queries_are_lazy_and_immutable(small: Database, tmp_path: Path) -> None:
    closed = LocalBackend(small, tmp_path, "erika")
    asked: list[str] = []

    class Counting(LocalBackend):
        def each(self, spec: Any) -> Any:
            asked.append(spec.of)
            return super().each(spec)

    catalog = Catalog(Counting(closed.database, tmp_path, "erika"))
    first = catalog.images.filter(modality="MR")
    second = first.exclude(tags="good").order_by("-name")[:1]
    assert asked == []
    assert first.spec != second.spec
    assert [one.name for one in second] == ["x0"]
    assert [one.name for one in first] == ["m0", "m1", "x0"]
    assert asked == ["images", "images"]


def test_a_query_is_its_json(catalog: Catalog) -> None:
    query = (
        catalog.images.filter(Q(modality="MR") | ~Q(tags__in=["bad"]), n_z__lt=5)
        .exclude(sample__in=catalog.samples.filter(stain="HE"))
        .order_by("-name")[1:4]
    )
    again = catalog.query(spec_from_json(query.to_json()))
    assert again.spec == query.spec
    assert [one.name for one in again] == [one.name for one in query]


def test_rows_become_tables(catalog: Catalog) -> None:
    images = catalog.images.filter(project="mice")
    frame = images.to_pandas()
    assert frame.shape[0] == 6
    assert frame["spacing"].isna().sum() == 1
    assert str(frame["created_at"].dtype).startswith("datetime64")
    assert str(frame["n_z"].dtype) == "Int64"
    arrow = images.values("name", "spacing", "attrs").to_arrow()
    assert arrow.column_names == ["name", "spacing", "attrs"]
    assert arrow["spacing"].to_pylist()[:2] == [0.5, 1.0]
    empty = catalog.images.filter(modality="XX")
    assert empty.to_arrow().num_rows == 0
    assert empty.to_pandas().columns.tolist() == frame.columns.tolist()


def test_rows_of_other_resources_become_a_bag(catalog: Catalog) -> None:
    bag = catalog.samples.filter(project="mice").to_bag()
    names = bag.pluck("name").compute(scheduler="synchronous")
    assert names == ["s1", "s2", "s3", "s4"]


def test_a_query_shows_a_table_in_a_notebook(catalog: Catalog) -> None:
    html = catalog.samples.filter(project="mice")._repr_html_()
    assert "4 samples" in html
    assert ">s1</td>" in html
    shown = catalog.images.filter(name="m0")._repr_html_()
    assert "1 image<" in shown  # its file is not there: the cell says so
    assert "<small>" in shown


def test_a_row_leads_to_its_relations(catalog: Catalog) -> None:
    image = catalog.images["mice/m3"]
    assert image.sample.experiment.name == "Über_1"
    assert [one.name for one in image.channels] == ["DAPI", "GFP"]
    assert image.channels.first().image == image
    assert image.acquisition is None
    with pytest.raises(AttributeError, match="sample"):
        image.smple  # noqa: B018

"""Our schemas say what the project's shared ones say, instance by instance."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from .schemas import SCHEMA_FILE, document, schema_problem

# Of our names by those of the shared files.
NAMES = {
    "registration.schema.json": "Registration",
    "app_info.schema.json": "Info",
    "invocation.schema.json": "Invocation",
    "invocation.schema.json#/$defs/ImageNotification": "ImageNotification",
    "result.schema.json#/$defs/NewResult": "NewResult",
    "result.schema.json#/$defs/UpdateResult": "UpdateResult",
    "result.schema.json#/$defs/StoredResult": "StoredResult",
    "result.schema.json#/$defs/TransientResult": "TransientResult",
    "slide_info.schema.json": "SlideInfo",
    "slide_info.schema.json#/$defs/NoPhi": "SlideInfoWithoutPhi",
    "case_info.schema.json": "CaseInfo",
    "quality_control.schema.json": "QualityControlUpdate",
    "launch_data.schema.json": "LaunchData",
    "token.schema.json": "Token",
}

EXAMPLES = {
    "registration": "registration.schema.json",
    "app_info": "app_info.schema.json",
    "server_info": "app_info.schema.json",
    "invocation": "invocation.schema.json",
    "image_notification": "invocation.schema.json#/$defs/ImageNotification",
    "result_new": "result.schema.json#/$defs/NewResult",
    "result_stored": "result.schema.json#/$defs/StoredResult",
    "result_update": "result.schema.json#/$defs/UpdateResult",
    "result_transient": "result.schema.json#/$defs/TransientResult",
    "slide_info": "slide_info.schema.json",
    "case_info": "case_info.schema.json",
    "quality_control": "quality_control.schema.json",
    "launch_data": "launch_data.schema.json",
    "token": "token.schema.json",
}

# What a value may be replaced by, to see whether both say the same of it.
ODD_VALUES: tuple[Any, ...] = (None, True, -1, 2.5, "", "odd", [], [None], {})


def _schema_of(example: Path) -> str:
    found = [name for name in EXAMPLES if example.name.startswith(name)]
    return EXAMPLES[max(found, key=len)]


def _examples(folder: Path) -> list[tuple[str, Any]]:
    return [
        (_schema_of(path), json.loads(path.read_text()))
        for path in sorted(folder.glob("*.example.json"))
        # No schema is given for the answer of GET applications/{id}.
        if path.name != "application.example.json"
    ]


def _mutations(instance: Any) -> Iterator[Any]:
    """Copies in each of which one thing is gone, replaced or added."""
    for path in _paths(instance):
        for change in ("drop", "add", *ODD_VALUES):
            made = copy.deepcopy(instance)
            holder = made
            for step in path[:-1]:
                holder = holder[step]
            if change == "drop":
                del holder[path[-1]]
            elif change == "add" and isinstance(holder, dict):
                holder["id"] = holder["versionId"] = "7"
            else:
                holder[path[-1]] = copy.deepcopy(change)
            yield made


def _paths(instance: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    steps: list[Any] = []
    if isinstance(instance, dict):
        steps = list(instance)
    elif isinstance(instance, list):
        steps = list(range(min(2, len(instance))))
    for step in steps:
        yield (*above, step)
        yield from _paths(instance[step], (*above, step))


@pytest.fixture(scope="module")
def shared_validators(shared_api: Path) -> dict[str, Draft202012Validator]:
    documents = {
        path.name: json.loads(path.read_text())
        for path in shared_api.glob("*.schema.json")
    }
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(one)) for name, one in documents.items()
    )
    return {
        name: Draft202012Validator({"$ref": name}, registry=registry) for name in NAMES
    }


def test_the_schema_file_is_what_the_definitions_say() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == document()


def test_every_definition_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(document())
    Draft202012Validator.check_schema(document(strict=False))


def test_a_problem_names_the_place_of_the_fault() -> None:
    problem = schema_problem("Info", {"apiVersion": "1.x", "softwareVersion": "1"})
    assert problem is not None
    assert problem.startswith("apiVersion: ")


def test_a_lenient_server_takes_six_tags_and_a_strict_one_does_not() -> None:
    gallery = {
        "description": "d",
        "polygons": [],
        "patches": [],
        "tags": list("abcdef"),
        "patchSize": 64,
        "magnification": 40,
        "statuses": {},
    }
    assert schema_problem("Gallery", gallery) is not None
    assert schema_problem("Gallery", gallery, strict=False) is None


def test_every_shared_example_fits_our_schema(shared_api: Path) -> None:
    examples = _examples(shared_api)
    assert len(examples) > 25
    problems = [schema_problem(NAMES[name], one) for name, one in examples]
    assert [one for one in problems if one] == []


def test_every_shared_invalid_instance_is_refused_by_our_schema(
    shared_api: Path,
) -> None:
    given = json.loads((shared_api / "invalid_instances.json").read_text())
    assert given
    accepted = [
        one["reason"]
        for one in given
        if schema_problem(NAMES[one["schema"]], one["instance"]) is None
    ]
    assert accepted == []


def test_our_schemas_and_the_shared_ones_agree_on_every_mutation_of_the_examples(
    shared_api: Path, shared_validators: dict[str, Draft202012Validator]
) -> None:
    judged, refused, different = 0, 0, []
    for name, example in _examples(shared_api):
        # Every sixth says as much, and the suite is long enough.
        for instance in itertools.islice(_mutations(example), 0, None, 6):
            theirs = shared_validators[name].is_valid(instance)
            ours = schema_problem(NAMES[name], instance)
            judged, refused = judged + 1, refused + (not theirs)
            if theirs != (ours is None):
                different.append((name, theirs, ours, instance))
    assert different == []
    assert judged > 2000
    assert refused > 500

"""A node: the function that it is, and the door for those who hold names and JSON."""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
import subprocess
import sys
from typing import Annotated, Any

import numpy as np
import pytest
import theatrum
import theatrum.node as package
from theatrum.node import (
    Action,
    ArrayImage,
    BadInputs,
    BadNode,
    BadOutputs,
    Cancelled,
    Context,
    Image,
    Marks,
    Measure,
    Modality,
    Polygon,
    Volume,
    find,
    node,
)

from tests.extensions.node.examples import Brightness, Way, brightness, width_of

SLIDE = ArrayImage(np.full((40, 60, 3), 200, np.uint8), mpp=0.5)
SQUARE = Polygon([(0, 0), (4, 0), (4, 4), (0, 4)])


def test_a_node_is_called_as_the_function_that_it_is() -> None:
    found = brightness(SLIDE, [SQUARE], threshold=201.0)
    assert isinstance(found, Brightness)
    assert (found.mean, found.bright) == (200.0, 0)
    assert brightness.__name__ == "brightness"
    assert next(iter(inspect.signature(brightness).parameters)) == "image"


def test_a_node_knows_what_others_ask() -> None:
    assert (brightness.name, brightness.version) == ("brightness", "2.1.0")
    assert brightness.title == "Brightness"
    assert brightness.summary == "Tell how bright a slide is."
    assert brightness.resources.memory_bytes == 1000
    assert list(brightness.inputs) == ["image", "areas"]
    assert brightness.inputs["areas"].many
    assert brightness.inputs["areas"].optional
    kinds = {name: port.kind for name, port in brightness.outputs.items()}
    assert kinds == {
        "mean": "number",
        "bright": "number",
        "where": "polygon",
        "spots": "marks",
        "verdict": "quality",
    }


def test_a_bare_decorator_names_the_node_after_the_function() -> None:
    assert (width_of.name, width_of.title) == ("width-of", "Width of")
    assert width_of.run({"image": SLIDE})["result"] == 60


@pytest.mark.parametrize("decorator", [theatrum.node, package, package.node])
def test_the_decorator_is_had_from_the_library_whatever_was_imported(
    decorator: Any,
) -> None:
    made = decorator(name="x", version="1.0.0")(width_of.function)
    assert (made.name, made(SLIDE)) == ("x", 60)


def test_the_library_gives_the_decorator_before_and_after_the_package_is_loaded() -> (
    None
):
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "from theatrum import node as a\nimport theatrum.node\n"
            "from theatrum import node as b\nfrom theatrum.node import Image\n"
            "@a\ndef f(image: Image) -> int: return 1\n"
            "print(a is b, f.name)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["True", "f"]


def test_loading_nodes_loads_no_analysis_library() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, theatrum.node, theatrum.nodes\n"
            "for name in theatrum.nodes.__all__: getattr(theatrum.nodes, name)\n"
            "print([m for m in ('skimage', 'scipy', 'shapely', 'xarray', 'httpx')"
            " if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"


# ---- parameters ----------------------------------------------------------------------


def test_parameters_have_a_json_schema_with_bounds_choices_and_descriptions() -> None:
    schema = brightness.parameters
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert list(properties) == ["threshold", "how", "way", "limit"]
    assert properties["threshold"]["maximum"] == 255
    assert properties["threshold"]["default"] == 128.0
    assert properties["threshold"]["description"] == "From here on a pixel is bright."
    assert properties["how"]["enum"] == ["all", "some"]
    assert properties["how"]["description"] == "Not the way."
    assert "description" not in properties["limit"]
    assert schema["$defs"]["Way"]["enum"] == ["fast", "exact"]


def test_parameters_are_checked_and_filled_in() -> None:
    checked = brightness.checked_parameters({"threshold": "7.5", "way": "exact"})
    assert checked == {
        "threshold": 7.5,
        "how": "all",
        "way": Way.EXACT,
        "limit": None,
    }


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"threshold": 300}, "'threshold'"),
        ({"threshold": float("nan")}, "'threshold'"),
        ({"threshold": float("inf")}, "'threshold'"),
        ({"how": "none"}, "'all' or 'some'"),
        ({"speed": 1}, "no parameter 'speed'"),
        ({"context": 1}, "no parameter 'context'"),
    ],
)
def test_a_bad_parameter_is_named(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInputs, match=told):
        brightness.run({"image": SLIDE}, parameters)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(BadInputs) as error:
        brightness.run({"areas": [3], "picture": SLIDE}, {"threshold": -1, "how": 2})
    for part in ("'picture'", "'image' (image) is missing", "'areas' holds int"):
        assert part in str(error.value)
    assert "'threshold'" in str(error.value)
    assert "'how'" in str(error.value)


# ---- run -----------------------------------------------------------------------------


def test_a_run_gives_outputs_by_name_and_leaves_none_out() -> None:
    outputs = brightness.run({"image": SLIDE, "areas": [SQUARE]}, {"threshold": 10})
    assert list(outputs) == ["mean", "bright", "where", "spots"]
    assert outputs["where"] == (SQUARE,)
    assert str(outputs.numbers["mean"]) == "200.0 grey"
    assert str(outputs.numbers["bright"]) == "2400"
    assert outputs.numbers["bright"].title == "Bright"
    assert list(outputs.of_kind("marks")) == ["spots"]
    assert outputs.quality is None


def test_progress_never_falls_and_stays_between_0_and_1() -> None:
    told: list[float] = []
    context = Context(lambda fraction, _: told.append(fraction))
    first, second = context.part(0, 0.5), context.part(0.5, 1)
    for step, fraction in ((first, 0.5), (first, 9), (second, 0), (second, 0.5)):
        step.progress(fraction)
    context.progress(0.1)
    context.progress(2)
    assert told == [0.25, 0.5, 0.5, 0.75, 0.75, 1.0]


def test_a_cancelled_run_stops_at_its_next_step() -> None:
    with pytest.raises(Cancelled):
        brightness.run({"image": SLIDE}, context=Context(is_cancelled=lambda: True))
    part = Context(is_cancelled=lambda: True).part(0, 1)
    with pytest.raises(Cancelled):
        part.check()


def test_what_a_function_returns_is_held_to_its_promise() -> None:
    @node
    def number(image: Image) -> float:
        return float("nan")

    @node
    def other(image: Image) -> Marks:
        return None  # type: ignore[return-value]  # what is tested

    @node
    def counted(image: Image) -> int:
        return np.int64(3)  # type: ignore[return-value]  # what is tested

    with pytest.raises(BadOutputs, match="None where there is nothing"):
        number.run({"image": SLIDE})
    with pytest.raises(BadOutputs, match="'result' is NoneType, but marks is wanted"):
        other.run({"image": SLIDE})
    assert type(counted.run({"image": SLIDE})["result"]) is int


def test_a_constraint_refuses_the_wrong_scan() -> None:
    @node
    def of_ct(volume: Annotated[Volume, Modality("CT")]) -> int:
        return volume.array.size

    scan = np.zeros((2, 3, 4), np.int16)
    with pytest.raises(BadInputs, match="modality MR, but CT is needed"):
        of_ct.run({"volume": Volume(scan, np.eye(4), "MR")})
    assert of_ct.run({"volume": Volume(scan, np.eye(4), "CT")})["result"] == 24


# ---- companions ----------------------------------------------------------------------


def test_numbers_follow_the_marks_that_a_person_corrected() -> None:
    outputs = brightness.run({"image": SLIDE})
    before = {name: one.value for name, one in outputs.numbers.items()}
    corrected = outputs["spots"].with_classes([0, 0, 0])
    after = brightness.recounted(corrected, before)
    assert {name: one.value for name, one in after.items()} == {
        "mean": 200.0,
        "bright": 3,
    }
    assert str(after["mean"]) == "200.0 grey"
    assert brightness.recounts
    assert not width_of.recounts


def test_a_button_changes_marks_and_numbers() -> None:
    assert brightness.actions == (Action("swap", "Swap", "Bright is dark"),)
    marks, numbers = brightness.press(
        "swap", brightness(SLIDE).spots, {"mean": 1.0, "bright": 2}
    )
    assert marks.classes.tolist() == [1, 1, 0]
    assert numbers["bright"].value == 1
    with pytest.raises(BadInputs, match="no action 'jump': swap"):
        brightness.press("jump", marks, {})


def test_a_companion_that_invents_a_number_is_told() -> None:
    made = node(name="made", version="1.0.0")(brightness.function)
    made.recount(lambda _marks, _numbers: {"weight": 1.0})
    with pytest.raises(BadOutputs, match="'weight'"):
        made.recounted(brightness(SLIDE).spots, {})


# ---- elsewhere -----------------------------------------------------------------------


def test_a_node_is_pickled_by_its_address() -> None:
    assert brightness.address == "tests.extensions.node.examples:brightness"
    again = pickle.loads(pickle.dumps(brightness))  # noqa: S301  (our own bytes)
    assert again is brightness
    assert find(brightness.address) is brightness


def test_a_node_runs_in_another_process_and_its_outputs_come_back() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        outputs = pool.apply(brightness.run, ({"image": SLIDE, "areas": [SQUARE]},))
        digest = pool.apply(_digest, (brightness,))
    assert outputs["mean"] == 200.0
    assert outputs["where"] == (SQUARE,)
    assert outputs.numbers["mean"].unit == "grey"
    assert digest == brightness.code_digest


def _digest(one: Any) -> str:
    return str(one.code_digest)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"name": "Two words"}, "small letters"), ({"version": "new"}, r"1\.0\.0")],
)
def test_a_name_or_version_that_no_address_can_hold_is_refused(
    wrong: dict[str, str], told: str
) -> None:
    with pytest.raises(BadNode, match=told):
        node(**wrong)(width_of.function)  # type: ignore[call-overload]


def test_a_measure_of_a_plain_number_is_its_port_s() -> None:
    @node
    def area(image: Image) -> Annotated[float | None, Measure("mm2", "Area", 3)]:
        return None

    port = area.outputs["result"]
    assert (port.kind, port.optional, port.title) == ("number", True, "Area")
    assert dict(area.run({"image": SLIDE})) == {}

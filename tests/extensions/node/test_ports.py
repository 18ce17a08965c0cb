"""Hints that become ports, and those that are refused where they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import numpy as np
import pytest
from pydantic import Field
from theatrum.node import (
    BadNode,
    Context,
    Image,
    Labels,
    Marks,
    Measure,
    Polygon,
    Port,
    Table,
    Volume,
)
from theatrum.node.ports import signature_of


@dataclass
class Loose:
    """Not frozen."""

    count: int


@dataclass(frozen=True)
class Strange:
    """With a field that is no port."""

    array: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Empty:
    """Without any field."""


class Options(TypedDict):
    """No plain value."""

    size: int


def no_hint(image, size=3) -> int:  # type: ignore[no-untyped-def]
    return 0


def no_return(image: Image):  # type: ignore[no-untyped-def]
    return 0


def any_number(*images: Image) -> int:
    return 0


def any_names(**images: Image) -> int:
    return 0


def by_place(image: Image, /) -> int:
    return 0


def a_list(image: Image, sizes: list[int]) -> int:
    return 0


def a_dict(image: Image, options: Options) -> int:
    return 0


def an_array(pixels: np.ndarray[Any, Any]) -> int:
    return 0


def two_ways(image: Image, size: int | str) -> int:
    return 0


def needs_context(image: Image, context: Context) -> int:
    return 0


def bad_default(image: Image, share: Annotated[float, Field(le=1)] = 2.0) -> int:
    return 0


def none_without_default(image: Image | None) -> int:
    return 0


def returns_none(image: Image) -> None:
    return None


def returns_dict(image: Image) -> dict[str, float]:
    return {}


def returns_loose(image: Image) -> Loose:
    return Loose(0)


def returns_strange(image: Image) -> Strange:
    return Strange(np.zeros(3))


def returns_empty(image: Image) -> Empty:
    return Empty()


def returns_measured_text(image: Image) -> Annotated[str, Measure("mm")]:
    return ""


def returns_many_tables(image: Image) -> Sequence[Table]:
    return ()


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (no_hint, "'image' of no_hint.. has no type hint"),
        (no_return, "no_return.. returns has no type hint"),
        (any_number, "'images' of any_number.. stands for any number"),
        (any_names, "'images' of any_names.. stands for any number"),
        (by_place, "cannot be given by name"),
        (a_list, r"'sizes' of a_list.. is list\[int\]"),
        (a_dict, "'options' of a_dict.. is Options"),
        (an_array, "'pixels' of an_array.. is"),
        (two_ways, "'size' of two_ways.. is int | str"),
        (needs_context, "Context | None = None"),
        (bad_default, "The default of 'share' of bad_default.."),
        (none_without_default, "give it the default None"),
        (returns_none, "returns_none.. returns is NoneType"),
        (returns_dict, r"returns_dict.. returns is dict\[str, float\]"),
        (returns_loose, r"frozen=True"),
        (returns_strange, "The field 'array' of Strange"),
        (returns_empty, "has no field"),
        (returns_measured_text, "is no number"),
        (returns_many_tables, "returns is .*Sequence"),
    ],
)
def test_a_hint_that_no_port_can_have_is_refused_with_what_could_stand_there(
    function: Callable[..., Any], told: str
) -> None:
    with pytest.raises(BadNode, match=told):
        signature_of(function)


def test_a_hint_that_only_the_type_checker_knows_is_told() -> None:
    def hidden(image: Invisible) -> int:  # type: ignore[name-defined]  # noqa: F821
        return 0

    with pytest.raises(BadNode, match="'Invisible', which its module does not know"):
        signature_of(hidden)


def test_every_kind_of_input_and_output_is_a_port() -> None:
    def every(
        image: Image,
        volume: Volume,
        polygon: Polygon,
        polygons: tuple[Polygon, ...],
        labels: Labels,
        marks: Marks,
        table: Table | None = None,
        *,
        count: int,
        text: str = "",
        flag: bool = False,
    ) -> Labels:
        return labels

    signature = signature_of(every)
    kinds = {name: port.kind for name, port in signature.inputs.items()}
    assert kinds == {
        "image": "image",
        "volume": "volume",
        "polygon": "polygon",
        "polygons": "polygon",
        "labels": "labels",
        "marks": "marks",
        "table": "table",
    }
    assert signature.inputs["polygons"].many
    assert signature.inputs["table"].optional
    assert list(signature.parameters.model_fields) == ["count", "text", "flag"]
    assert signature.outputs == {"result": Port("result", "labels", title="Result")}
    assert signature.context is None

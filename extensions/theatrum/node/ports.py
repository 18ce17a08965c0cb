"""Ports: what a node takes and gives, read from the hints of its function.

A parameter of the function is an *input* (a slide, a scan, an area, what another node
found), the *context*, or a *parameter* in the narrow sense: a plain value that a form
can ask for, with a JSON schema. What it returns is one output, or a frozen dataclass
whose fields are its outputs. Whatever else a hint says is refused where the function is
decorated, with the hint's name and what could stand there instead.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import pydantic

from theatrum.node.arrays import Array, File
from theatrum.node.context import Context
from theatrum.node.errors import BadNode
from theatrum.node.findings import Marks, Measure, Quality, Table
from theatrum.node.pixels import Image, Labels, Volume
from theatrum.node.shapes import Line, Polygon

Kind = Literal[
    "array",
    "file",
    "image",
    "line",
    "volume",
    "polygon",
    "labels",
    "marks",
    "table",
    "number",
    "flag",
    "text",
    "quality",
]

_OBJECTS: Mapping[Any, Kind] = {
    Array: "array",
    File: "file",
    Line: "line",
    Image: "image",
    Volume: "volume",
    Polygon: "polygon",
    Labels: "labels",
    Marks: "marks",
    Table: "table",
}
_FOUND: Mapping[Any, Kind] = {
    **_OBJECTS,
    Quality: "quality",
    float: "number",
    int: "number",
    bool: "flag",
    str: "text",
}
TYPES: Mapping[Kind, type | tuple[type, ...]] = {
    "array": Array,
    "file": File,
    "line": Line,
    "image": Image,
    "volume": Volume,
    "polygon": Polygon,
    "labels": Labels,
    "marks": Marks,
    "table": Table,
    "quality": Quality,
    "number": (int, float),
    "flag": bool,
    "text": str,
}
"""What a value of a port has to be an instance of."""

_MANY = (collections.abc.Sequence, list, tuple)
_SEVERAL: tuple[Kind, ...] = ("array", "file", "line", "polygon")
"""What an output may be a sequence of."""


@runtime_checkable
class Constraint(Protocol):
    """Stands in `Annotated[Volume, ...]`: what more an input has to be.

    It may also have `clash(promises)`, which tells why no output that promises these
    constraints can ever fit: a flow asks it where two ports are joined.
    """

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with the value, or None. It may be any port's."""


@dataclass(frozen=True)
class Modality:
    """The scan has to be of one of these, as DICOM names them."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a scan of another modality."""
        if modality_of(value) in self.names:
            return None
        wanted = " or ".join(self.names)
        has = modality_of(value) or "unknown"
        return f"is of modality {has}, but {wanted} is needed"

    def clash(self, promises: Sequence[Any]) -> str | None:
        """Return why an output with these promises can never fit, or None."""
        for promise in promises:
            if isinstance(promise, Modality) and not set(promise.names) & set(
                self.names
            ):
                return f"gives {' or '.join(promise.names)}, not {self.names[0]}"
        return None


def modality_of(value: Any) -> str:
    """Return the modality of a scan or an array, as DICOM names it; "" if unknown."""
    attrs = getattr(value, "attrs", {})
    return str(getattr(value, "modality", "") or attrs.get("modality", ""))


@dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes
    ----------
    many
        It is a sequence, not one.
    optional
        An input that may be left out; an output that may be None.
    measure
        What a number means.
    constraints
        What more an input has to be; of an output, what it promises.
    """

    name: str
    kind: Kind
    many: bool = False
    optional: bool = False
    title: str = ""
    measure: Measure | None = None
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True)
class Signature:
    """What the hints of a function say."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    parameters: type[pydantic.BaseModel]
    context: str | None
    bundle: type | None
    """The dataclass that is returned; None for a single output named `result`."""


RESULT = "result"


def signature_of(function: Callable[..., Any]) -> Signature:
    """Read a function's ports; raises BadNode for what no node can have."""
    hints = _hints(function, _named(function))
    described = _described(function.__doc__ or "")
    inputs: dict[str, Port] = {}
    fields: dict[str, Any] = {}
    context = None
    for name, parameter in inspect.signature(function).parameters.items():
        where = f"The parameter {name!r} of {_named(function)}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise BadNode(f"{where} stands for any number: name each one.")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise BadNode(f"{where} cannot be given by name: take the '/' away.")
        if name not in hints:
            raise BadNode(f"{where} has no type hint. {_CAN_BE}")
        hint, default = hints[name], parameter.default
        bare, optional, metadata = _peeled(hint)
        if bare is Context:
            if default is parameter.empty:
                raise BadNode(
                    f"{where} has to be `{name}: Context | None = None`, so that the "
                    "function can be called without one."
                )
            context = name
        elif (port := _input(name, bare, metadata)) is not None:
            if optional and default is not None:
                raise BadNode(f"{where} may be None: give it the default None.")
            if not optional and default is not parameter.empty:
                raise BadNode(
                    f"{where} is an input: it can only have the default None."
                )
            inputs[name] = dataclasses.replace(
                port, optional=optional, title=described.get(name, "")
            )
        else:
            _check_plain(bare, where)
            fields[name] = _field(hint, default, described.get(name))
    outputs, bundle = _outputs(function, hints)
    return Signature(
        inputs,
        outputs,
        _model(function, fields),
        context,
        bundle,
    )


_CAN_BE = (
    "It can be an input (Image, Volume, Array, Sequence[Array], Polygon, "
    "Sequence[Polygon], Line, Labels, Marks, Table, File), `Context | None`, or a "
    "plain parameter (int, float, bool, str, Literal, an Enum, tuple[float, ...], "
    "dict[str, str]), each also as `... | None`."
)
_CAN_RETURN = (
    "It can be Array, Sequence[Array], File, Sequence[File], Labels, Marks, Polygon, "
    "Sequence[Polygon], Line, Table, Quality, Image, a number "
    "(`Annotated[float, Measure(unit=...)]`), bool, str, or a frozen dataclass of "
    "these."
)


def _outputs(
    function: Callable[..., Any], hints: Mapping[str, Any]
) -> tuple[dict[str, Port], type | None]:
    where = f"What {_named(function)} returns"
    if "return" not in hints:
        raise BadNode(f"{where} has no type hint. {_CAN_RETURN}")
    hint = hints["return"]
    if (
        not (isinstance(hint, type) and dataclasses.is_dataclass(hint))
        or hint in _FOUND
    ):
        return {RESULT: _output(RESULT, hint, where)}, None
    if not hint.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise BadNode(f"{where} can change: write @dataclass(frozen=True).")
    of_fields = _hints(hint, hint.__name__)
    names = [field.name for field in dataclasses.fields(hint)]
    if not names:
        raise BadNode(f"{where} has no field. {_CAN_RETURN}")
    ports = {
        name: _output(name, of_fields[name], f"The field {name!r} of {hint.__name__}")
        for name in names
    }
    return ports, hint


def _output(name: str, hint: Any, where: str) -> Port:
    bare, optional, metadata = _peeled(hint)
    measure = next((one for one in metadata if isinstance(one, Measure)), None)
    inner, many = _sequence(bare)
    kind = _FOUND.get(inner) if isinstance(inner, collections.abc.Hashable) else None
    if kind is None or (many and kind not in _SEVERAL):
        raise BadNode(f"{where} is {_shown(hint)}. {_CAN_RETURN}")
    if measure is not None and kind != "number":
        raise BadNode(f"{where} has a Measure, but is no number.")
    if kind == "number":
        measure = measure or Measure()
    title = (measure.title if measure else "") or name.replace("_", " ").capitalize()
    promises = tuple(one for one in metadata if isinstance(one, Constraint))
    return Port(name, kind, many, optional, title, measure, promises)


def _input(name: str, bare: Any, metadata: tuple[Any, ...]) -> Port | None:
    inner, many = _sequence(bare)
    kind = _OBJECTS.get(inner) if isinstance(inner, collections.abc.Hashable) else None
    if kind is None:
        return None
    constraints = tuple(one for one in metadata if isinstance(one, Constraint))
    return Port(name, kind, many, constraints=constraints)


def _sequence(bare: Any) -> tuple[Any, bool]:
    """Return the type of the members, and whether it is a sequence at all."""
    arguments = [one for one in typing.get_args(bare) if one is not Ellipsis]
    if typing.get_origin(bare) in _MANY and len(arguments) == 1:
        return arguments[0], True
    return bare, False


def _peeled(hint: Any) -> tuple[Any, bool, tuple[Any, ...]]:
    """Return a hint without Annotated and None, whether None was there, the rest."""
    metadata: tuple[Any, ...] = ()
    optional = False
    while True:
        if typing.get_origin(hint) is Annotated:
            hint, *more = typing.get_args(hint)
            metadata += tuple(more)
        elif typing.get_origin(hint) in (typing.Union, types.UnionType):
            rest = [one for one in typing.get_args(hint) if one is not types.NoneType]
            if len(rest) != 1 or len(rest) == len(typing.get_args(hint)):
                return hint, optional, metadata
            hint, optional = rest[0], True
        else:
            return hint, optional, metadata


def _check_plain(bare: Any, where: str) -> None:
    if not _is_plain(bare):
        raise BadNode(f"{where} is {_shown(bare)}. {_CAN_BE}")


def _is_plain(bare: Any) -> bool:
    """Whether a form can ask for it: a value, several of them, or values by name."""
    origin, members = typing.get_origin(bare), typing.get_args(bare)
    if origin is tuple:
        return all(_is_plain(one) for one in members if one is not Ellipsis)
    if origin is dict:
        return members[0] is str and _is_plain(members[1])
    if origin is Annotated:
        return _is_plain(members[0])
    plain = bare in (int, float, bool, str) if _hashable(bare) else False
    return plain or origin is Literal or _is_enum(bare)


def _is_enum(bare: Any) -> bool:
    return isinstance(bare, type) and issubclass(bare, enum.Enum)


def _field(hint: Any, default: Any, description: str | None) -> Any:
    required = default is inspect.Parameter.empty
    if description:
        bare, metadata = hint, []
        if typing.get_origin(hint) is Annotated:
            bare, *metadata = typing.get_args(hint)
        # First, so that a description in the author's own Field wins over it.
        hint = Annotated[(bare, pydantic.Field(description=description), *metadata)]
    return (hint, ... if required else default)


def _model(
    function: Callable[..., Any], fields: Mapping[str, Any]
) -> type[pydantic.BaseModel]:
    config = pydantic.ConfigDict(
        extra="forbid", allow_inf_nan=False, validate_default=True, frozen=True
    )
    try:
        # create_model's overloads cannot see through a mapping: hence Any.
        make: Any = pydantic.create_model
        model: type[pydantic.BaseModel] = make(
            f"{function.__name__}_parameters", __config__=config, **fields
        )
        model.model_json_schema()
        defaults = {name for name, (_, default) in fields.items() if default is not ...}
        _check_defaults(model, defaults)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise BadNode(
            f"The default of {first['loc'][0]!r} of {_named(function)} is not one of "
            f"its own values: {first['msg']}."
        ) from error
    except (pydantic.errors.PydanticUserError, NameError, TypeError) as error:
        raise BadNode(
            f"The parameters of {_named(function)} cannot be used: {error}"
        ) from error
    return model


def _check_defaults(model: type[pydantic.BaseModel], names: set[str]) -> None:
    """Raise pydantic's error if a default breaks its own bounds."""
    try:
        model.model_validate({})
    except pydantic.ValidationError as error:
        wrong = [one for one in error.errors() if one["loc"][0] in names]
        if wrong:
            raise


def _hints(owner: Any, name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except NameError as error:
        raise BadNode(
            f"The hints of {name} name {error.name!r}, which its module does not know "
            "when it runs: import or define it there, outside of any function and of "
            "`if TYPE_CHECKING`."
        ) from error
    except TypeError as error:
        raise BadNode(f"The hints of {name} cannot be read: {error}.") from error


_PARAMETER = re.compile(r"^(\w+(?:, \w+)*)(?: :.*)?$")


def _described(docstring: str) -> dict[str, str]:
    """Return what the NumPy section "Parameters" of a docstring says of each name."""
    lines = iter(inspect.cleandoc(docstring).splitlines())
    for line in lines:
        if line == "Parameters" and next(lines, "").startswith("---"):
            break
    told: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line.startswith("---"):  # the next section: its heading was no name
            for name in names:
                told.pop(name, None)
            break
        if line.startswith(" "):
            for name in names:
                told[name] = f"{told.get(name, '')} {line.strip()}".strip()
        elif found := _PARAMETER.match(line):
            names = found[1].split(", ")
    return told


def _named(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', function)}()"


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _hashable(value: Any) -> bool:
    return isinstance(value, collections.abc.Hashable)

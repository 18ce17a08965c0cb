"""`@node`: a plain typed function that other parts can find, ask and run.

The function stays what it was: calling the node calls it. What is added is read from
it once, when it is decorated: its ports and the schema of its parameters (ports.py),
and the digest of its code (digest.py). `run` is the door for those who hold names and
JSON instead of arguments: it checks everything, tells all problems at once, and gives
back `Outputs`.
"""

from __future__ import annotations

import difflib
import functools
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, overload

import pydantic

from theatrum.node.context import Context
from theatrum.node.digest import code_digest
from theatrum.node.errors import BadInputs, BadNode, BadOutputs
from theatrum.node.findings import Marks, Number
from theatrum.node.outputs import Outputs, misfit, number, plain_value, wanted_by
from theatrum.node.ports import Port, signature_of

P = ParamSpec("P")
R = TypeVar("R")

Numbers = Mapping[str, float | int | None]
"""Numbers of a result by the names of its outputs; None is as good as left out."""

Recount = Callable[[Marks, Numbers], Numbers]
Press = Callable[[Marks, Numbers], "Pressed | Numbers"]
AnyRecount = TypeVar("AnyRecount", bound=Recount)
AnyPress = TypeVar("AnyPress", bound=Press)

_NAME = re.compile(r"[a-z0-9]+(?:[-._][a-z0-9]+)*")
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?(?:[-+.]?[A-Za-z0-9.]+)?")


@dataclass(frozen=True)
class Resources:
    """What a node needs at most; who runs it plans, and limits it, by these.

    Attributes
    ----------
    memory_bytes
        Beyond what the process has without it; 0 where nobody measured.
    seconds
        On one processor, for the largest input that its author has in mind.
    processors
        That it uses at a time.
    """

    memory_bytes: int = 0
    seconds: float = 0.0
    processors: int = 1


@dataclass(frozen=True)
class Action:
    """A button beside a result; `id` is the name by which a server knows it."""

    id: str
    title: str
    tooltip: str


@dataclass(frozen=True)
class Pressed:
    """What a button leads to: marks, perhaps sorted anew, and the changed numbers."""

    marks: Marks
    numbers: Numbers


@dataclass(frozen=True)
class _Told:
    """What the decorator was told."""

    name: str
    version: str
    title: str
    resources: Resources
    kind: str = "analysis"
    pure: bool = True
    retries: tuple[type[Exception], ...] = ()


class Node(Generic[P, R]):
    """A function with what others have to know of it.

    Attributes
    ----------
    name, version
        Together they say which analysis made a result.
    title, summary
        For people: a menu's text, and the first line of the docstring.
    inputs, outputs
        Ports by name.
    parameters
        JSON schema of an object: the plain parameters.
    resources
        What it needs at most.
    kind
        What it does in a flow: filter, measure, transform, render, export, collect,
        notebook, container.
    pure
        The same inputs and parameters give the same outputs, so an earlier run's may
        stand for them.
    retries
        Errors that pass by themselves, so that trying once more may help.
    code_digest
        Changes when the code does (digest.py).
    """

    def __init__(
        self,
        function: Callable[P, R],
        told: _Told,
        recount: Recount | None = None,
        actions: Mapping[str, tuple[Action, Press]] | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._told = told
        self._signature = signature_of(function)
        self._recount = recount
        self._actions = dict(actions or {})

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    @property
    def name(self) -> str:
        """Lower case, hyphens; safe in URLs and file names."""
        return self._told.name

    @property
    def version(self) -> str:
        """Of the analysis, as its author counts."""
        return self._told.version

    @property
    def title(self) -> str:
        """For menus."""
        return self._told.title

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    @property
    def inputs(self) -> Mapping[str, Port]:
        """What `run` takes as inputs."""
        return self._signature.inputs

    @property
    def outputs(self) -> Mapping[str, Port]:
        """What `run` gives."""
        return self._signature.outputs

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON schema (draft 2020-12) of what `run` takes as parameters."""
        schema = self._signature.parameters.model_json_schema()
        return {**schema, "title": self.title}

    @property
    def resources(self) -> Resources:
        """What it needs at most."""
        return self._told.resources

    @property
    def kind(self) -> str:
        """What it does in a flow."""
        return self._told.kind

    @property
    def pure(self) -> bool:
        """Whether an earlier run's outputs may stand for a new run's."""
        return self._told.pure

    @property
    def retries(self) -> tuple[type[Exception], ...]:
        """Errors after which it is tried once more."""
        return self._told.retries

    @functools.cached_property
    def code_digest(self) -> str:
        """SHA-256 of the code, as hexadecimal digits."""
        return code_digest(self.function)

    @property
    def actions(self) -> tuple[Action, ...]:
        """The buttons beside a result."""
        return tuple(action for action, _ in self._actions.values())

    @property
    def recounts(self) -> bool:
        """Whether the numbers can follow marks that a person corrected."""
        return self._recount is not None

    # ---- run -----------------------------------------------------------------------

    def checked_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters, defaults filled in; raises BadInputs."""
        problems, model = self._parsed(parameters)
        if model is None:
            raise BadInputs(self._told_of(problems))
        return _arguments(model)

    def run(
        self,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
        context: Context | None = None,
    ) -> Outputs:
        """Check everything, call the function, check what it returns.

        Raises BadInputs, which lists all problems; Cancelled; BadOutputs; and whatever
        the function raises.
        """
        problems = self._problems(inputs)
        more, model = self._parsed(parameters or {})
        if problems or model is None:
            raise BadInputs(self._told_of([*problems, *more]))
        given: dict[str, Any] = {**inputs, **_arguments(model)}
        if self._signature.context is not None:
            given[self._signature.context] = context or Context()
        # By name, from a mapping: what ParamSpec cannot express.
        plain: Callable[..., Any] = self.function
        return self._outputs_of(plain(**given))

    def _problems(self, inputs: Mapping[str, Any]) -> list[str]:
        problems = [
            f"there is no input {name!r}; the inputs are "
            f"{', '.join(self.inputs) or 'none'}"
            for name in inputs
            if name not in self.inputs
        ]
        for name, port in self.inputs.items():
            value = inputs.get(name)
            if value is None:
                if not port.optional:
                    problems.append(
                        f"the input {name!r} ({wanted_by(port)}) is missing"
                    )
            elif (problem := misfit(port, value)) is not None:
                problems.append(f"the input {name!r} {problem}")
        return problems

    def _parsed(
        self, parameters: Mapping[str, Any]
    ) -> tuple[list[str], pydantic.BaseModel | None]:
        try:
            return [], self._signature.parameters.model_validate(dict(parameters))
        except pydantic.ValidationError as error:
            known = list(self._signature.parameters.model_fields)
            return [_of_parameter(one, known) for one in error.errors()], None

    def _told_of(self, problems: Sequence[str]) -> str:
        return f"{self.name} cannot run: {'; '.join(problems)}."

    def _outputs_of(self, returned: Any) -> Outputs:
        bundle = self._signature.bundle
        if bundle is None:
            values = dict.fromkeys(self.outputs, returned)
        elif not isinstance(returned, bundle):
            raise BadOutputs(
                f"{self.name} returned {type(returned).__name__}, not the "
                f"{bundle.__name__} that it promises."
            )
        else:
            values = {name: getattr(returned, name) for name in self.outputs}
        return Outputs(
            self.outputs,
            {
                name: plain_value(self.name, self.outputs[name], value)
                for name, value in values.items()
                if not (value is None and self.outputs[name].optional)
            },
        )

    # ---- companions ----------------------------------------------------------------

    def recount(self, function: AnyRecount) -> AnyRecount:
        """Register what makes the numbers anew when a person corrected the marks.

        A decorator of a pure function of the marks as they are now and of the numbers
        as they were; it returns those numbers that change, by output name.
        """
        self._recount = function
        return function

    def action(
        self, id: str, *, title: str, tooltip: str = ""
    ) -> Callable[[AnyPress], AnyPress]:
        """Register a button: a decorator of what is done when it is pressed.

        The function is pure. Like that of `recount` it returns the numbers that
        change, or `Pressed`, where marks are sorted anew as well.
        """
        if not _NAME.fullmatch(id):
            raise BadNode(f"The action {id!r} needs a short name in lower case.")
        action = Action(id, title, tooltip)

        def register(function: AnyPress) -> AnyPress:
            self._actions[id] = (action, function)
            return function

        return register

    def recounted(self, marks: Marks, numbers: Numbers) -> dict[str, Number]:
        """Return all numbers of a result, after a person corrected its marks."""
        if self._recount is None:
            return self._complete(numbers, {})
        return self._complete(numbers, self._recount(marks, numbers))

    def press(
        self, action: str, marks: Marks, numbers: Numbers
    ) -> tuple[Marks, dict[str, Number]]:
        """Do what a button does; returns the marks and all numbers after it."""
        if action not in self._actions:
            known = ", ".join(self._actions) or "none"
            raise BadInputs(f"{self.name} has no action {action!r}: {known}.")
        answer = self._actions[action][1](marks, numbers)
        if isinstance(answer, Pressed):
            return answer.marks, self._complete(numbers, answer.numbers)
        return marks, self._complete(numbers, answer)

    def _complete(self, before: Numbers, after: Numbers) -> dict[str, Number]:
        known = {n: port for n, port in self.outputs.items() if port.kind == "number"}
        strange = sorted(set(after) - set(known))
        if strange:
            raise BadOutputs(
                f"{self.name} counted {strange[0]!r} anew, which it does not give."
            )
        both = {**before, **after}
        return {
            name: number(port, plain_value(self.name, port, both[name]))
            for name, port in known.items()
            if both.get(name) is not None
        }

    # ---- elsewhere -----------------------------------------------------------------

    @property
    def address(self) -> str | None:
        """What `find` finds it by, in any process; None for a node of a notebook."""
        module = sys.modules.get(self.function.__module__)
        name = self.function.__qualname__
        if module is None or module.__spec__ is None:
            return None  # typed into a notebook, or run as a script
        if getattr(module, name, None) is not self:
            return None  # made inside a function, or decorated twice
        where = getattr(module, "__theatrum_file__", module.__name__)
        return f"{where}:{name}"

    def __reduce__(self) -> Any:
        # By address where there is one, so that the other process uses its own code;
        # a node of a notebook travels whole (with cloudpickle).
        if self.address is not None:
            return _found_again, (self.address,)
        # Hints that are text name what only their module knows, and it stays here.
        self.function.__annotations__ = typing.get_type_hints(
            self.function, include_extras=True
        )
        return Node, (self.function, self._told, self._recount, self._actions)

    def __repr__(self) -> str:
        takes = ", ".join([*self.inputs, *self._signature.parameters.model_fields])
        gives = ", ".join(self.outputs)
        return f"<node {self.name} {self.version} ({takes}) -> {gives}>"


@overload
def node(function: Callable[P, R], /) -> Node[P, R]: ...
@overload
def node(
    *,
    name: str = ...,
    version: str = ...,
    title: str = ...,
    resources: Resources = ...,
    kind: str = ...,
    pure: bool = ...,
    retries: tuple[type[Exception], ...] = ...,
) -> Callable[[Callable[P, R]], Node[P, R]]: ...
def node(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    version: str = "0.1.0",
    title: str = "",
    resources: Resources | None = None,
    kind: str = "analysis",
    pure: bool = True,
    retries: tuple[type[Exception], ...] = (),
) -> Any:
    """Make a node of a function; it can still be called as before.

    Parameters
    ----------
    name
        Lower case with hyphens; the function's name without it.
    version
        Count it up whenever results change: it is written beside every result.
    title
        For menus; made of the name without it.
    resources
        What it needs at most.
    kind
        What it does in a flow, for menus: filter, measure, transform, render, export.
    pure
        False where a second run may give something else: it is never cached.
    retries
        Errors that pass by themselves (a store that is away): the engine tries again.

    Raises BadNode for hints that no port can have, and for a name or version that
    could not stand in an address.
    """

    def decorate(plain: Callable[..., Any]) -> Node[..., Any]:
        wished = name or plain.__name__.strip("_").replace("_", "-").lower()
        if not _NAME.fullmatch(wished):
            raise BadNode(
                f"The name {wished!r} will not do: use small letters, digits, hyphens."
            )
        if not _VERSION.fullmatch(version):
            raise BadNode(f"The version {version!r} will not do: write it as 1.0.0.")
        spoken = title or wished.replace("-", " ").capitalize()
        needs = resources or Resources()
        told = _Told(wished, version, spoken, needs, kind, pure, retries)
        return Node(plain, told)

    return decorate if function is None else decorate(function)


def _found_again(address: str) -> Node[..., Any]:
    """Return the node that was pickled."""
    from theatrum.node.finding import find  # which imports this module

    return find(address)


def _arguments(model: pydantic.BaseModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}


def _of_parameter(error: Any, known: Sequence[str]) -> str:
    # pydantic's own dictionary of an error: hence Any.
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        meant = f": did you mean {' or '.join(near)}?" if near else ""
        return f"there is no parameter {name!r}{meant}"
    if error["type"] == "missing":
        return f"the parameter {name!r} is missing"
    return f"the parameter {name!r}: {error['msg'][:1].lower()}{error['msg'][1:]}"

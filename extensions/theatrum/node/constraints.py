"""What more a port asks of an array: axes, kind of numbers, channels, spacing.

The same value stands on an output as a promise. Where two ports are joined, what the
one asks is held against what the other promises (`clash`), before anything runs; a
promise that is not made is checked when the array is there (`problem`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from theatrum.node.arrays import affine_of, spacing_of
from theatrum.node.errors import BadValue


@dataclass(frozen=True)
class Dims:
    """The axes, slowest first: "z y x" exactly; "... y x" with any in front.

    A name in brackets, as in "[c] y x", may be missing.
    """

    wanted: str

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with the axes of an array."""
        has = tuple(str(name) for name in getattr(value, "dims", ()))
        if self._fits(has):
            return None
        return f"has the axes {' '.join(has) or 'of nothing'}, not {self.wanted!r}"

    def clash(self, promises: Sequence[Any]) -> str | None:
        """Return why an output with these promises can never fit, or None."""
        for promise in promises:
            if not isinstance(promise, Dims) or "..." in promise.wanted:
                continue
            if not any(self._fits(one) for one in promise._forms()):
                return f"gives the axes {promise.wanted!r}, not {self.wanted!r}"
        return None

    def _forms(self) -> list[tuple[str, ...]]:
        forms: list[tuple[str, ...]] = [()]
        for name in self.wanted.split():
            bare = name.strip("[]")
            longer = [(*form, bare) for form in forms]
            forms = [*forms, *longer] if name != bare else longer
        return forms

    def _fits(self, has: tuple[str, ...]) -> bool:
        wanted = self.wanted.split()
        if not wanted or wanted[0] != "...":
            return has in self._forms()
        rest = Dims(" ".join(wanted[1:]))._forms()
        return any(has[len(has) - len(form) :] == form for form in rest)


@dataclass(frozen=True)
class Axes:
    """These axes have to be among those of the array, in any order."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    def problem(self, value: Any) -> str | None:
        """Return which axis is missing."""
        missing = [one for one in self.names if one not in getattr(value, "dims", ())]
        return f"has no axis {missing[0]}" if missing else None

    def clash(self, promises: Sequence[Any]) -> str | None:
        """Return which axis an output with these promises never has."""
        for promise in promises:
            if isinstance(promise, Dims) and "..." not in promise.wanted:
                can = {name.strip("[]") for name in promise.wanted.split()}
                missing = [one for one in self.names if one not in can]
                if missing:
                    return f"gives the axes {promise.wanted!r}, without {missing[0]}"
        return None


_KINDS = {"integer": "ui", "float": "f", "number": "uif", "flag": "b", "whole": "uib"}


@dataclass(frozen=True)
class DType:
    """The kind of numbers; "whole" takes labels and masks alike."""

    kind: Literal["integer", "float", "number", "flag", "whole"]

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with the numbers of an array."""
        dtype = getattr(value, "dtype", None)
        if dtype is not None and dtype.kind in _KINDS[self.kind]:
            return None
        return f"holds {dtype}, but {self.kind} is needed"

    def clash(self, promises: Sequence[Any]) -> str | None:
        """Return why an output with these promises can never fit, or None."""
        for promise in promises:
            if isinstance(promise, DType) and not set(_KINDS[promise.kind]) & set(
                _KINDS[self.kind]
            ):
                return f"gives {promise.kind} values, but {self.kind} is needed"
        return None


@dataclass(frozen=True)
class Channels:
    """How many channels there have to be; an array without axis c has one."""

    at_least: int = 1
    at_most: int | None = None

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with the number of channels."""
        has = int(getattr(value, "sizes", {}).get("c", 1))
        if has >= self.at_least and (self.at_most is None or has <= self.at_most):
            return None
        return f"has {has} channels, but {self._said()} are needed"

    def clash(self, promises: Sequence[Any]) -> str | None:
        """Return why an output with these promises can never fit, or None."""
        for promise in promises:
            if not isinstance(promise, Channels):
                continue
            most = promise.at_most
            if (most is not None and most < self.at_least) or (
                self.at_most is not None and promise.at_least > self.at_most
            ):
                return f"gives {promise._said()} channels, not {self._said()}"
        return None

    def _said(self) -> str:
        if self.at_most is None:
            return f"at least {self.at_least}"
        if self.at_most == self.at_least:
            return str(self.at_least)
        return f"{self.at_least} to {self.at_most}"


@dataclass(frozen=True)
class Placed:
    """The array has to lie in the patient: an affine along x, y and z."""

    def problem(self, value: Any) -> str | None:
        """Return that the array has no place, or a broken one."""
        missing = [one for one in "xyz" if one not in getattr(value, "dims", ())]
        if missing:
            return f"has no axis {missing[0]}, so it is no volume"
        try:
            found = affine_of(value)
        except BadValue as error:
            return str(error)
        if found is None:
            return "does not say where it lies in the patient (attrs['affine'])"
        return None

    def clash(self, promises: Sequence[Any]) -> str | None:
        """Return which axis an output with these promises never has."""
        return Axes("z", "y", "x").clash(promises)


@dataclass(frozen=True)
class Spacing:
    """Neighbours may be this far apart at most, in millimetres, along each axis."""

    at_most_mm: float

    def problem(self, value: Any) -> str | None:
        """Return which axis is too coarse, or of unknown scale."""
        for name, step in spacing_of(value).items():
            if name not in value.dims:
                continue
            if step is None:
                return f"does not tell its scale along {name}"
            if step > self.at_most_mm * (1 + 1e-6):
                return (
                    f"has {step:g} mm along {name}; {self.at_most_mm:g} mm or less "
                    "is needed"
                )
        return None

    def clash(self, promises: Sequence[Any]) -> str | None:
        """Nothing is promised of spacing: it depends on the image."""
        del promises
        return None

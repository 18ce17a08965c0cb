"""Profiles: which options are on and what else a site wants, as versioned data.

A profile is a YAML or JSON file of the shape `Profile`. It is read strictly: a field
that is not known, an action that is none and an attribute that is not in the dictionary
are errors with their place, so that a slip of the pen never keeps an identifier. Two
ship: `basic` and `autosegmentation`.
"""

from __future__ import annotations

import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydicom.datadict import tag_for_keyword

from theatrum.deidentify.annex_e import Option
from theatrum.deidentify.errors import ProfileError

SHIPPED: Final = ("autosegmentation", "basic")

Action = Literal["X", "Z", "D", "K", "C", "U"]
"""Remove, empty, dummy, keep, clean, new UID: the letters of table E.1-1."""


def tag_of(name: object) -> int:
    """A tag from a keyword or from `(gggg,eeee)`; ValueError where it is neither."""
    if isinstance(name, int) and not isinstance(name, bool):
        return name
    text = str(name)
    if found := re.fullmatch(r"\(?([0-9A-Fa-f]{4}),?\s?([0-9A-Fa-f]{4})\)?", text):
        tag = int(found[1] + found[2], 16)
        if tag >> 16 & 1:
            raise ValueError(f"{text} is private: list it under `safe_private`")
        return tag
    tag_found = tag_for_keyword(text)
    if tag_found is None:
        raise ValueError(
            f"{text!r} is no attribute: write a keyword such as StudyDescription, "
            "or (gggg,eeee)"
        )
    return tag_found


Attribute = Annotated[int, BeforeValidator(tag_of)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class SafePrivate(_Strict):
    """A private attribute that is known to hold no identity."""

    creator: str = Field(min_length=1)
    """The private creator, as PS3.5 7.8.1 has it."""
    group: str = Field(pattern=r"^[0-9A-Fa-f]{3}[13579bdfBDF]$")
    """The odd group, four hexadecimal digits."""
    element: str = Field(pattern=r"^[0-9A-Fa-f]{2}$")
    """The last two hexadecimal digits of the element."""
    vr: str = Field(pattern=r"^[A-Z]{2}$")
    """The value is kept only if it can be one of this VR."""


class ByModality(_Strict):
    """What differs for one modality."""

    options: tuple[Option, ...] = ()
    """Options on besides the profile's."""
    attributes: dict[Attribute, Action] = {}
    """Actions that overrule the table's and the profile's."""


class Profile(_Strict):
    """A de-identification profile; the YAML or JSON file has these fields."""

    format: Literal[1]
    """The version of this file format."""
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    """What reports call it."""
    version: str = Field(min_length=1, max_length=20)
    """Raised by hand with every change; reports add a hash of the content."""
    description: str = ""
    """For people."""
    options: tuple[Option, ...] = ()
    """The options of Annex E that are on."""
    patient_name: str = Field("ANON^{code}", pattern=r"^[A-Za-z0-9^ _{}-]*$")
    """What stands for a name; `{code}` is the patient's pseudonym."""
    patient_id: str = Field(
        "{code}", pattern=r"^[A-Za-z0-9 _{}-]*\{code\}[A-Za-z0-9_-]*$"
    )
    """What stands for a patient id; it must hold `{code}`."""
    attributes: dict[Attribute, Action] = {}
    """Actions that overrule the table's."""
    by_modality: dict[str, ByModality] = {}
    """Additions for one value of Modality."""
    ensure_present: tuple[Attribute, ...] = ()
    """Attributes that are written empty where the input has none."""
    keep_text: tuple[Attribute, ...] = ()
    """Text attributes outside the table that are kept besides the shipped list."""
    safe_private: tuple[SafePrivate, ...] = ()
    """Private attributes kept besides the shipped list; needs retain_safe_private."""
    text_detection: Literal["off", "ocr"] = "off"
    """`ocr` looks for text in the pixels of every file, and holds what shows any."""

    @model_validator(mode="after")
    def _options_agree(self) -> Profile:
        for where, options in [
            ("options", self.options),
            *[
                (f"by_modality.{m}", self.options + v.options)
                for m, v in self.by_modality.items()
            ],
        ]:
            both = {Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES}
            if both <= set(options):
                raise ValueError(
                    f"{where}: dates are kept in full or shifted, not both"
                )
        if self.safe_private and Option.RETAIN_SAFE_PRIVATE not in self.options:
            raise ValueError("safe_private: add retain_safe_private to the options")
        return self

    def for_modality(
        self, modality: str
    ) -> tuple[frozenset[Option], dict[int, Action]]:
        """The options and overruling actions for a value of Modality."""
        more = self.by_modality.get(modality)
        if more is None:
            return frozenset(self.options), dict(self.attributes)
        options = frozenset(self.options) | frozenset(more.options)
        return options, {**self.attributes, **more.attributes}

    @property
    def digest(self) -> str:
        """A hash of everything the profile says, for reports and jobs."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_profile(name: str | Path) -> Profile:
    """A shipped profile by its name, or one from a YAML or JSON file.

    Raises
    ------
    ProfileError
        With one line for each field that is wrong.
    """
    if str(name) in SHIPPED:
        file = resources.files(__package__) / "profiles" / f"{name}.yaml"
        return parse_profile(file.read_text("utf-8"), str(name))
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise ProfileError(
            f"There is no profile {str(name)!r}: use {', '.join(SHIPPED)}, "
            "or a .yaml or .json file."
        )
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ProfileError(f"The profile {path.name} cannot be read: {err}") from err
    return parse_profile(text, path.name)


def parse_profile(text: str, name: str) -> Profile:
    """A profile from YAML or JSON text; `name` is for messages."""
    try:
        # JSON is YAML as far as a profile goes; a key given twice is refused by us.
        content: Any = yaml.load(text, _NoDuplicates)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as err:
        raise ProfileError(f"{name} is neither YAML nor JSON: {err}") from err
    if not isinstance(content, dict):
        raise ProfileError(f"{name} holds no fields: start with `format: 1`.")
    try:
        return Profile.model_validate(content)
    except ValidationError as err:
        lines = [
            f"  {'.'.join(str(part) for part in fault['loc']) or 'profile'}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in err.errors()
        ]
        raise ProfileError("\n".join([f"{name} cannot be used:", *lines])) from err


class _NoDuplicates(yaml.SafeLoader):
    """YAML as in SafeLoader, with keys that stand twice refused."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)

"""Autosegmentation templates: which models run on a series, and what comes of them.

A template is a value and never changes: an edited one is a new version with a new
number, so that every job can say what it was sent with. What leaves for the server is
a YAML document with exactly the keys that its worker accepts; the names, colours and
types that a structure gets afterwards, and the structures made from others, stay here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import yaml

SHIPPED_ENGINES = ("theatrum.nodes:ct_body_lungs_bone",)
"""Nodes that come with this service and make label masks of a scan."""
LABEL_LENGTH = 16
"""The longest ROI name that treatment planning systems of today all take."""
FIRST_MODEL = 11
"""The server's worker takes no model number of 10 or less."""

INTERPRETED_TYPES = (
    *("EXTERNAL", "PTV", "CTV", "GTV", "TREATED_VOLUME", "IRRAD_VOLUME", "OAR"),
    *("BOLUS", "AVOIDANCE", "ORGAN", "MARKER", "REGISTRATION", "ISOCENTER"),
    *("CONTRAST_AGENT", "CAVITY", "BRACHY_CHANNEL", "BRACHY_ACCESSORY"),
    *("BRACHY_SRC_APP", "BRACHY_CHNL_SHLD", "SUPPORT", "FIXATION", "DOSE_REGION"),
    *("CONTROL", "DOSE_MEASUREMENT"),
)
"""RT ROI Interpreted Type (3006,00A4): the defined terms of PS3.3, C.8.8.8.1."""

_SIDE = re.compile(r"(?P<part>[ _-](?:l|r|left|right|lt|rt|li|re))$", re.IGNORECASE)


class BadTemplate(ValueError):
    """A template makes no sense; the message says where and what to write instead."""


@dataclass(frozen=True)
class RoiProperties:
    """What a structure is called and how it looks in the planning system."""

    label: str | None = None
    """None keeps the server's name."""
    interpreted_type: str = ""
    colour: tuple[int, int, int] | None = None
    """Red, green, blue of 0 to 255, as ROI Display Color (3006,002A)."""


@dataclass(frozen=True)
class Structure:
    """One label of a model's mask, by its number and its name (TG-263)."""

    map_id: int
    name: str
    properties: RoiProperties = RoiProperties()


@dataclass(frozen=True)
class Model:
    """One model of the server and the structures that are wanted of it."""

    model_id: int
    name: str
    config: str
    trainer_name: str
    postprocess: str | None
    structures: tuple[Structure, ...]


@dataclass(frozen=True)
class GeneratedRoi:
    """A structure made from others after the answer came; without operations, empty.

    `operations` are those of `services.dicom_client.generation`, one after the other.
    """

    label: str
    properties: RoiProperties = RoiProperties()
    operations: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Template:
    """A named choice of models and structures."""

    name: str
    models: tuple[Model, ...] = ()
    generated: tuple[GeneratedRoi, ...] = ()
    description: str = ""
    engine: str = "draw"
    """`draw` for the server; else the name of a local node that makes label masks."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """For a local node."""

    @property
    def digest(self) -> str:
        """Tells versions apart: SHA-256 over all that is in it, in hexadecimal."""
        text = json.dumps(template_to_json(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def wanted(self) -> list[str]:
        """The names that the answer may bear, in order."""
        return [one.name for model in self.models for one in model.structures]


def check(template: Template) -> None:
    """Refuse a template that the server or a planning system would refuse."""
    if not template.name.strip():
        raise BadTemplate("give the template a name")
    if template.engine == "draw" and not template.models:
        raise BadTemplate("choose at least one structure of one model")
    numbers = [model.model_id for model in template.models]
    if len(set(numbers)) != len(numbers):
        raise BadTemplate("a model stands twice: put its structures together")
    for model in template.models:
        _check_model(model)
    labels: dict[str, str] = {}
    for model in template.models:
        for one in model.structures:
            _check_properties(one.properties, one.name)
            _take(labels, one.properties.label or one.name)
    for made in template.generated:
        _check_label(made.label)
        _check_properties(made.properties, made.label)
        _take(labels, made.label)


def _check_model(model: Model) -> None:
    if model.model_id < FIRST_MODEL:
        raise BadTemplate(f"model {model.model_id}: a number starts at {FIRST_MODEL}")
    if not model.structures:
        raise BadTemplate(f"model {model.model_id}: choose at least one structure")
    for what in ("name", "config", "trainer_name"):
        if not getattr(model, what).strip():
            raise BadTemplate(f"model {model.model_id}: {what} is missing")
    taken: set[int] = set()
    for one in model.structures:
        if one.map_id < 1 or not one.name.strip():
            raise BadTemplate(
                f"model {model.model_id}: a structure has a number from 1 and a name"
            )
        if one.map_id in taken:
            raise BadTemplate(
                f"model {model.model_id}: number {one.map_id} stands twice"
            )
        taken.add(one.map_id)


def _check_properties(properties: RoiProperties, name: str) -> None:
    if properties.label is not None:
        _check_label(properties.label)
    kind = properties.interpreted_type
    if kind and kind not in INTERPRETED_TYPES:
        raise BadTemplate(
            f"{name}: {kind!r} is no interpreted type; there are "
            f"{', '.join(INTERPRETED_TYPES)}"
        )
    if properties.colour is not None and not all(
        0 <= part <= 255 for part in properties.colour
    ):
        raise BadTemplate(f"{name}: a colour has three parts of 0 to 255")


def _check_label(label: str) -> None:
    if not 0 < len(label.strip()) <= LABEL_LENGTH or "\\" in label:
        raise BadTemplate(
            f"{label!r}: a label has 1 to {LABEL_LENGTH} characters and no backslash; "
            f"{short_label(label)!r} would do"
        )


def _take(labels: dict[str, str], label: str) -> None:
    """Note a label; planning systems do not tell A from a."""
    key = label.strip().casefold()
    if key in labels:
        raise BadTemplate(f"{label!r} and {labels[key]!r} are one name: rename one")
    labels[key] = label


def short_label(name: str) -> str:
    """Cut a name to what a planning system takes; left and right stay told apart."""
    clean = re.sub(r"[\\^\x00-\x1f]", " ", name).strip()
    if len(clean) <= LABEL_LENGTH:
        return clean
    side = _SIDE.search(clean)
    end = side["part"] if side else ""
    return clean[: LABEL_LENGTH - len(end)].rstrip(" _-") + end


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, which YAML forbids and PyYAML passes over."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len({repr(key) for key in keys}) != len(keys):
            raise BadTemplate("a key stands twice in the YAML: write each once")
        return super().construct_mapping(node, deep)


YAML_BYTES = 1 << 20
_TOP = {"name", "protocol", "models"}
_MODEL = {"name", "config", "map", "trainer_name", "postprocess"}


def to_yaml(template: Template, protocol: str = "DRAW") -> str:
    """The document for the server: model and structure numbers are whole numbers."""
    check(template)
    return yaml.safe_dump(
        {
            "name": template.name,
            "protocol": protocol,
            "models": {
                model.model_id: {
                    "name": model.name,
                    "config": model.config,
                    "map": {one.map_id: one.name for one in model.structures},
                    "trainer_name": model.trainer_name,
                    "postprocess": model.postprocess,
                }
                for model in template.models
            },
        },
        sort_keys=False,
        allow_unicode=True,
    )


def from_yaml(text: str | bytes) -> Template:
    """Read a template document as strictly as the server's worker does.

    Raises BadTemplate for another key, a number that is written as text, a key that
    stands twice, or anything that is not plain YAML.
    """
    if len(text) > YAML_BYTES:
        raise BadTemplate("a template has at most 1 MiB")
    try:
        # A subclass of SafeLoader: it makes nothing but plain values.
        said = yaml.load(text, _UniqueKeyLoader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as err:
        raise BadTemplate(f"this is no YAML: {str(err)[:200]}") from err
    top = _keys(said, _TOP, "the template")
    _string(top["protocol"], "protocol")
    models = top["models"]
    if not isinstance(models, dict) or not models:
        raise BadTemplate("models: write at least one model under its number")
    template = Template(
        _string(top["name"], "name"),
        tuple(_model(number, one) for number, one in models.items()),
    )
    check(template)
    return template


def _model(number: Any, said: Any) -> Model:  # Any: YAML
    _whole(number, "models")
    where = f"model {number}"
    one = _keys(said, _MODEL, where)
    structures = one["map"]
    if not isinstance(structures, dict) or not structures:
        raise BadTemplate(f"{where}: map is missing")
    postprocess = one["postprocess"]
    if postprocess is not None:
        postprocess = _string(postprocess, f"{where}.postprocess")
    return Model(
        number,
        _string(one["name"], f"{where}.name"),
        _string(one["config"], f"{where}.config"),
        _string(one["trainer_name"], f"{where}.trainer_name"),
        # The server's own catalogue writes an absent step as the text "null".
        None if postprocess in {None, "null", ""} else postprocess,
        tuple(
            Structure(_whole(key, f"{where}.map"), _string(name, f"{where}.map[{key}]"))
            for key, name in structures.items()
        ),
    )


def _keys(said: Any, wanted: set[str], where: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise BadTemplate(f"{where}: write {', '.join(sorted(wanted))}")
    if set(said) != wanted:
        missing = ", ".join(sorted(wanted - set(said))) or "nothing"
        extra = ", ".join(sorted(map(str, set(said) - wanted))) or "nothing"
        raise BadTemplate(f"{where}: missing {missing}, too much {extra}")
    return said


def _string(said: Any, where: str) -> str:
    if not isinstance(said, str):
        raise BadTemplate(f"{where}: write a text")
    return said


def _whole(said: Any, where: str) -> int:
    if isinstance(said, bool) or not isinstance(said, int):
        raise BadTemplate(f"{where}: {said!r} is no whole number; write it bare")
    return said


def template_to_json(template: Template) -> dict[str, Any]:
    """All of a template as plain values, for export and for the database."""
    return asdict(template)


def template_from_json(said: Any) -> Template:  # Any: JSON
    """Read an exported template; BadTemplate where it makes no sense."""
    try:
        template = Template(
            name=said["name"],
            description=said.get("description", ""),
            engine=said.get("engine", "draw"),
            parameters=dict(said.get("parameters") or {}),
            models=tuple(
                Model(
                    **{**model, "structures": _structures(model["structures"])},
                )
                for model in said.get("models", [])
            ),
            generated=tuple(
                GeneratedRoi(
                    made["label"],
                    _properties(made.get("properties")),
                    tuple(made.get("operations") or ()),
                )
                for made in said.get("generated", [])
            ),
        )
    except (KeyError, TypeError, AttributeError) as err:
        raise BadTemplate(f"this is no exported template: {err}") from err
    check(template)
    return template


def _structures(said: Sequence[Mapping[str, Any]]) -> tuple[Structure, ...]:
    return tuple(
        Structure(one["map_id"], one["name"], _properties(one.get("properties")))
        for one in said
    )


def _properties(said: Mapping[str, Any] | None) -> RoiProperties:
    if not said:
        return RoiProperties()
    colour = said.get("colour")
    properties = RoiProperties(said.get("label"), said.get("interpreted_type") or "")
    if colour is None:
        return properties
    red, green, blue = colour
    return replace(properties, colour=(int(red), int(green), int(blue)))


def models_of_server(said: Any) -> list[tuple[Model, dict[int, dict[str, Any]]]]:
    """Read the server's catalogue of models (`GET /api/models/`).

    With each model come the further fields of its structures, by their number: their
    category, anatomical group, description, modality and median Dice. A model that
    cannot be read is left out; BadTemplate if it is no list at all.
    """
    if not isinstance(said, list):
        raise BadTemplate("the server's list of models is no list")
    models = []
    for one in said:
        try:
            listed = {
                int(entry["mapid"]): dict(entry) for entry in one.get("modelmap", [])
            }
            structures = tuple(
                Structure(number, str(entry["map_tg263_primary_name"]))
                for number, entry in sorted(listed.items())
            )
            postprocess = one.get("model_postprocess")
            model = Model(
                int(one["model_id"]),
                str(one["model_name"]),
                str(one["model_config"]),
                str(one["model_trainer_name"]),
                None if postprocess in {None, "", "null"} else str(postprocess),
                structures,
            )
            _check_model(model)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        models.append((model, listed))
    return models

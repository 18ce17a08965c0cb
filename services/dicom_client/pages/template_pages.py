"""Autosegmentation templates: what is in force, earlier versions, and new ones.

GET  /templates                    the list
GET  /templates/new                the structures of the server's catalogue to pick from
POST /templates/new                the picked ones
GET  /templates/local, POST        one for an engine on this machine
GET  /templates/{digest}           one version, with its YAML
GET  /templates/{digest}/edit      names, colours, types; structures made from others
POST /templates/{digest}/edit
GET  /templates/{digest}.json      for export
POST /templates/{digest}/drop
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Response
from theatrum.structures import OPERATIONS

from services.dicom_client.errors import BadRequest, DicomClientError, NoSuchThing
from services.dicom_client.keeping import TemplateVersion
from services.dicom_client.local_engine import check_engine, is_local
from services.dicom_client.pages.forms import Fields
from services.dicom_client.pages.rendering import Here, Pages, download, sentence
from services.dicom_client.pages.rights import Anybody, Editor, EditorsForm, Member
from services.dicom_client.templates import (
    INTERPRETED_TYPES,
    BadTemplate,
    GeneratedRoi,
    Model,
    RoiProperties,
    Structure,
    Template,
    models_of_server,
    template_to_json,
    to_yaml,
)


@dataclass(frozen=True)
class Offered:
    """One structure of the server's catalogue."""

    model: Model
    structure: Structure
    about: dict[str, str]

    @property
    def key(self) -> str:
        return f"{self.model.model_id}:{self.structure.map_id}"


def add_routes(router: APIRouter) -> None:
    for method, path, route in (
        ("GET", "/templates", every_template),
        ("GET", "/templates/new", picker),
        ("POST", "/templates/new", pick),
        ("GET", "/templates/local", local_form),
        ("POST", "/templates/local", make_local),
        ("GET", "/templates/{digest}.json", as_json),
        ("GET", "/templates/{digest}", one_template),
        ("GET", "/templates/{digest}/edit", edit_form),
        ("POST", "/templates/{digest}/edit", edit),
        ("POST", "/templates/{digest}/drop", drop),
    ):
        router.add_api_route(path, route, methods=[method])


def every_template(here: Here, member: Anybody) -> Response:
    """The templates in force."""
    return here.page(
        member,
        "templates.html",
        tab="templates",
        templates=here.service.keeper.templates(),
        problem="",
    )


def version_of(here: Pages, digest: str) -> tuple[TemplateVersion, list[Any]]:
    """A version and all versions of its name; raises NoSuchThing."""
    keeper = here.service.keeper
    name = keeper.template_of_digest(digest).name
    versions = keeper.template_versions(name)
    found = next((one for one in versions if one.digest == digest), None)
    if found is None:
        raise NoSuchThing("there is no such template version")
    return found, versions


def one_template(here: Here, member: Anybody, digest: str) -> Response:
    """One version, as it is sent and as it is finished."""
    version, versions = version_of(here, digest)
    return here.page(
        member,
        "template.html",
        tab="templates",
        version=version,
        versions=versions,
        template=version.template,
        local=is_local(version.template),
        yaml="" if is_local(version.template) else to_yaml(version.template),
    )


def as_json(here: Here, _member: Anybody, digest: str) -> Response:
    """A version to be imported elsewhere."""
    version, _ = version_of(here, digest)
    text = json.dumps(template_to_json(version.template), indent=2, ensure_ascii=False)
    name = re.sub(r"[^A-Za-z0-9-]+", "-", version.template.name).strip("-")
    return download(
        f"{text}\n",
        "application/json",
        f"template-{name or 'unnamed'}-{version.version}.json",
    )


def offered(here: Pages) -> list[Offered]:
    """All structures that the server has; raises what the server did wrong."""
    found = models_of_server(here.service.servers.server().models())
    return [
        Offered(
            model,
            one,
            {
                str(name): str(value)
                for name, value in further.get(one.map_id, {}).items()
                if value not in (None, "")
            },
        )
        for model, further in found
        for one in model.structures
    ]


def picker(here: Here, member: Editor, base: str = "") -> Response:
    """The catalogue; `base` is the digest of a template whose structures are ticked."""
    template = version_of(here, base)[0].template if base else None
    return _picker(here, member, template)


def _picker(
    here: Pages,
    member: Member,
    template: Template | None,
    *,
    picked: set[str] | None = None,
    fields: dict[str, str] | None = None,
    problem: str = "",
) -> Response:
    if picked is None:
        picked = {
            f"{model.model_id}:{one.map_id}"
            for model in (template.models if template else ())
            for one in model.structures
        }
    try:
        structures = offered(here)
    except DicomClientError as err:
        structures = []
        problem = problem or f"The server's catalogue cannot be read. {sentence(err)}"
    said = fields or {}
    return here.page(
        member,
        "picker.html",
        status=422 if problem and structures else 200,
        tab="templates",
        structures=structures,
        picked=picked,
        base=template,
        name=said.get("name", template.name if template else ""),
        description=said.get("description", template.description if template else ""),
        categories=_kinds(structures, "Major_Category"),
        groups=_kinds(structures, "Anatomic_Group"),
        models=sorted({one.model.name for one in structures}),
        problem=problem,
    )


def _kinds(structures: list[Offered], field: str) -> list[str]:
    return sorted({one.about[field] for one in structures if field in one.about})


def pick(here: Here, sent: EditorsForm) -> Response:
    """Make a version of the structures that are ticked; properties are kept."""
    fields = sent.fields
    base = None
    if fields.text("base"):
        base = version_of(here, fields.text("base"))[0].template
    picked = set(fields.every("structure"))
    known = {
        (model.model_id, one.map_id): one
        for model in (base.models if base else ())
        for one in model.structures
    }
    chosen: dict[int, Model] = {}
    for one in offered(here):
        if one.key not in picked:
            continue
        model = chosen.setdefault(one.model.model_id, replace(one.model, structures=()))
        structure = known.get((model.model_id, one.structure.map_id), one.structure)
        chosen[model.model_id] = replace(
            model, structures=(*model.structures, structure)
        )
    template = Template(
        fields.text("name", 128),
        tuple(chosen.values()),
        base.generated if base else (),
        fields.text("description", 1000),
    )
    try:
        version = put(here, template, sent.member)
    except BadTemplate as err:
        return _picker(
            here,
            sent.member,
            base,
            picked=picked,
            fields=fields.plain(),
            problem=sentence(err),
        )
    return here.to(f"templates/{version.digest}/edit")


def put(here: Pages, template: Template, member: Member) -> TemplateVersion:
    """Put a template into force; BadTemplate says what is wrong with it."""
    if is_local(template):
        check_engine(template, here.service.settings().engines)
    return here.service.keeper.put_template(template, member.name)


def local_form(here: Here, member: Editor) -> Response:
    """What an engine on this machine needs to be told."""
    return _local(here, member, {}, "")


def _local(
    here: Pages, member: Member, fields: dict[str, str], problem: str
) -> Response:
    return here.page(
        member,
        "local_template.html",
        status=422 if problem else 200,
        tab="templates",
        engines=here.service.settings().engines,
        fields=fields,
        problem=problem,
    )


def make_local(here: Here, sent: EditorsForm) -> Response:
    """Make a template for an engine on this machine."""
    fields = sent.fields
    try:
        parameters = _json(fields.text("parameters", 20_000) or "{}", "parameters")
        if not isinstance(parameters, dict):
            raise BadTemplate("parameters: write an object, as {}")
        template = Template(
            fields.text("name", 128),
            description=fields.text("description", 1000),
            engine=fields.text("engine", 128),
            parameters={**parameters, "output": fields.text("output") or "rtstruct"},
        )
        if not is_local(template) or not template.engine:
            raise BadTemplate("give the address of a node, as module:name")
        version = put(here, template, sent.member)
    except BadTemplate as err:
        return _local(here, sent.member, fields.plain(), sentence(err))
    return here.to(f"templates/{version.digest}")


def edit_form(here: Here, member: Editor, digest: str) -> Response:
    """Names, colours and types; structures made from others."""
    return _edit(here, member, version_of(here, digest)[0].template, "")


def _edit(here: Pages, member: Member, template: Template, problem: str) -> Response:
    return here.page(
        member,
        "template_edit.html",
        status=422 if problem else 200,
        tab="templates",
        template=template,
        types=INTERPRETED_TYPES,
        operations=sorted(OPERATIONS),
        example=_EXAMPLE,
        problem=problem,
    )


_EXAMPLE = [
    {"type": "union", "structures": ["Lung_L", "Lung_R"]},
    {"type": "expand", "parameters": {"margin_mm": 5}},
]


def edit(here: Here, sent: EditorsForm, digest: str) -> Response:
    """Make a version with these properties and made structures."""
    base = version_of(here, digest)[0].template
    try:
        template = _edited(base, sent.fields)
        version = put(here, template, sent.member)
    except BadTemplate as err:
        return _edit(here, sent.member, base, sentence(err))
    return here.to(f"templates/{version.digest}")


def _edited(base: Template, fields: Fields) -> Template:
    models = tuple(
        replace(
            model,
            structures=tuple(
                replace(one, properties=properties(fields, f"{model.model_id}-{at}"))
                for at, one in enumerate(model.structures)
            ),
        )
        for model in base.models
    )
    made = []
    for mark in fields.every("made"):
        label = fields.text(f"label-{mark}", 64)
        if not label or fields.text(f"drop-{mark}"):
            continue
        steps = _json(fields.text(f"operations-{mark}", 20_000) or "[]", label)
        made.append(
            GeneratedRoi(
                label, _unnamed(properties(fields, mark)), _steps(steps, label)
            )
        )
    return replace(
        base,
        models=models,
        generated=tuple(made),
        description=fields.text("description", 1000),
    )


def _unnamed(said: RoiProperties) -> RoiProperties:
    return replace(said, label=None)


def properties(fields: Fields, mark: str) -> RoiProperties:
    """The properties of one structure; their fields end with its mark."""
    colour = fields.text(f"colour-{mark}", 16)
    found = re.fullmatch(r"#?([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})", colour)
    if colour and not found:
        raise BadTemplate(f"{colour!r} is no colour: write it as #ff8800")
    return RoiProperties(
        fields.text(f"label-{mark}", 64) or None,
        fields.text(f"type-{mark}", 32),
        (int(found[1], 16), int(found[2], 16), int(found[3], 16)) if found else None,
    )


def _steps(said: Any, label: str) -> tuple[dict[str, Any], ...]:  # Any: JSON
    if not isinstance(said, list) or not all(isinstance(one, dict) for one in said):
        raise BadTemplate(f"{label}: operations are a list, as in the example")
    for at, one in enumerate(said, start=1):
        if one.get("type") not in OPERATIONS:
            raise BadTemplate(
                f"{label}, step {at}: there is no operation {one.get('type')!r}; there "
                f"are {', '.join(sorted(OPERATIONS))}"
            )
        if at == 1 and not one.get("structures"):
            raise BadTemplate(f"{label}, step 1: name a structure to start from")
        if not isinstance(one.get("structures") or [], list) or not isinstance(
            one.get("parameters") or {}, dict
        ):
            raise BadTemplate(
                f"{label}, step {at}: structures are a list, parameters an object"
            )
    return tuple(said)


def _json(text: str, where: str) -> Any:  # Any: JSON
    try:
        return json.loads(text)
    except ValueError as err:
        raise BadTemplate(f"{where}: this is no JSON: {err}") from err


def drop(here: Here, sent: EditorsForm, digest: str) -> Response:
    """Take a template out of force; series that had it keep it."""
    version, _ = version_of(here, digest)
    if not version.in_force:
        raise BadRequest("this version is not in force: look at the newest one")
    here.service.keeper.drop_template(version.template.name, sent.member.name)
    return here.to("templates")

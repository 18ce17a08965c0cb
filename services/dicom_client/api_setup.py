"""The API of what is set up: templates, rules, nodes, settings, secrets, audit."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.dicom_client import audit, eclipse
from services.dicom_client import nodes as dicom_nodes
from services.dicom_client.actions import Actions
from services.dicom_client.draw_server import Tokens
from services.dicom_client.errors import NoSuchThing
from services.dicom_client.intake import read_headers
from services.dicom_client.keeping import TemplateVersion
from services.dicom_client.local_engine import check_engine, is_local
from services.dicom_client.opening import Service
from services.dicom_client.people import (
    Administrator,
    Anybody,
    Chooser,
    Editor,
    Right,
    rights_of,
)
from services.dicom_client.rules import (
    AllOf,
    AnyOf,
    Choice,
    Not,
    Trace,
    choose,
    condition_to_json,
    rules_from_json,
    rules_from_v1,
    rules_from_v2,
    rules_to_json,
)
from services.dicom_client.settings import CHANGEABLE, SECRETS
from services.dicom_client.targets import check_nodes, node_of
from services.dicom_client.templates import (
    models_of_server,
    template_from_json,
    template_to_json,
    to_yaml,
)

# Any below: JSON of the API.


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TokenForm(_Body):
    """The server's tokens as its administration shows them; never shown again."""

    access: SecretStr
    refresh: SecretStr | None = None
    expires: datetime | None = None


class SecretForm(_Body):
    """A secret that is written and used, never shown."""

    secret: SecretStr


class DryRun(_Body):
    """A series to try rules on; without rules, those in force."""

    series: str = Field(max_length=16)
    rules: list[dict[str, Any]] | None = None


class XmlForm(_Body):
    """A structure template of Eclipse."""

    xml: str = Field(max_length=eclipse.XML_BYTES)


def routes(service: Service) -> APIRouter:
    """The routes below `api/`; `def` ones run in threads."""
    router = APIRouter()
    keeper = service.keeper
    actions = Actions(service.jobs, keeper)

    @router.get("/templates")
    def templates(_person: Anybody) -> list[dict[str, Any]]:
        """The templates in force."""
        return [_template(one) for one in keeper.templates()]

    @router.put("/templates")
    def put_template(person: Editor, content: dict[str, Any]) -> dict[str, Any]:
        """Put a template into force: a new version if anything in it is new."""
        template = template_from_json(content)
        if is_local(template):
            check_engine(template, service.settings().engines)
        return _template(keeper.put_template(template, person.name))

    @router.get("/templates/{name}")
    def versions(_person: Anybody, name: str) -> list[dict[str, Any]]:
        """All versions of a template, newest first."""
        found = [_template(one) for one in keeper.template_versions(name)]
        if not found:
            raise NoSuchThing("there is no such template")
        return found

    @router.get("/templates/{name}/yaml")
    def as_yaml(_person: Chooser, name: str) -> Response:
        """What the server gets with the images."""
        return PlainTextResponse(to_yaml(keeper.template(name).template))

    @router.delete("/templates/{name}", status_code=204)
    def drop_template(person: Editor, name: str) -> None:
        """Take a template out of force; jobs that had it keep it."""
        keeper.drop_template(name, person.name)

    @router.post("/templates/eclipse")
    def from_eclipse(_person: Editor, form: XmlForm) -> dict[str, Any]:
        """The names, types and colours of an Eclipse structure template."""
        title, structures = eclipse.read(form.xml.encode())
        return {
            "name": title,
            "structures": [
                {
                    "name": one.name,
                    "label": one.properties.label,
                    "interpreted_type": one.properties.interpreted_type,
                    "colour": one.properties.colour,
                }
                for one in structures
            ],
        }

    @router.get("/models")
    def models(_person: Editor) -> list[dict[str, Any]]:
        """The server's catalogue of models and their structures."""
        found = models_of_server(service.servers.server().models())
        return [
            {
                "model_id": model.model_id,
                "name": model.name,
                "config": model.config,
                "trainer_name": model.trainer_name,
                "postprocess": model.postprocess,
                "structures": [
                    {
                        "map_id": one.map_id,
                        "name": one.name,
                        "about": further.get(one.map_id, {}),
                    }
                    for one in model.structures
                ],
            }
            for model, further in found
        ]

    @router.get("/rules")
    def rules(_person: Chooser, version: int | None = None) -> dict[str, Any]:
        """The rules in force, or an earlier version."""
        number, found = keeper.rules(version)
        return {
            "version": number,
            "versions": keeper.rule_versions(),
            **json.loads(rules_to_json(found)),
        }

    @router.put("/rules")
    def put_rules(person: Editor, content: dict[str, Any]) -> dict[str, Any]:
        """Put all rules into force together."""
        chosen = rules_from_json(json.dumps({"rules": content.get("rules")}))
        return {"version": keeper.put_rules(chosen, person.name)}

    @router.post("/rules/import/v1")
    def import_v1(_person: Editor, content: Any) -> dict[str, Any]:
        """Rules of DRAW's first client, to look at before they are put into force."""
        told: dict[str, Any] = json.loads(rules_to_json(rules_from_v1(content)))
        return told

    @router.post("/rules/import/v2")
    def import_v2(_person: Editor, content: Any) -> dict[str, Any]:
        """Rules of DRAW's second client."""
        told: dict[str, Any] = json.loads(rules_to_json(rules_from_v2(content)))
        return told

    @router.post("/rules/dry-run")
    def dry_run(person: Editor, wanted: DryRun) -> dict[str, Any]:
        """What each rule says of a series; values only to who may see patients."""
        headers = read_headers(service.jobs.files_of(service.jobs.get(wanted.series)))
        if not headers:
            raise NoSuchThing("the images of this series are not there any more")
        chosen = (
            keeper.rules()[1]
            if wanted.rules is None
            else rules_from_json(json.dumps({"rules": wanted.rules}))
        )
        sees = Right.SEE in rights_of(person)
        return told_of(choose(chosen, headers[0]), values=sees)

    @router.get("/nodes")
    def nodes(_person: Chooser) -> list[dict[str, Any]]:
        """The DICOM nodes that structure sets are sent to."""
        return keeper.node_list()

    @router.put("/nodes")
    def put_nodes(
        person: Administrator, records: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Replace the list of nodes."""
        check_nodes(records)
        keeper.put_nodes(records, person.name)
        return keeper.node_list()

    @router.post("/nodes/{name}/echo")
    def echo(_person: Administrator, name: str) -> dict[str, Any]:
        """Ask a node whether it is there (C-ECHO)."""
        for record in keeper.node_list():
            if record["name"] == name:
                answer = dicom_nodes.echo(node_of(record))
                return {
                    "ok": answer.ok,
                    "code": answer.code,
                    "text": answer.text,
                    "took_s": answer.took_s,
                }
        raise NoSuchThing("there is no such node")

    @router.get("/settings")
    def settings(_person: Administrator) -> dict[str, Any]:
        """All settings as they are now, and which of them may be changed here."""
        return {
            "settings": service.settings().model_dump(mode="json"),
            "changeable": sorted(CHANGEABLE),
            "secrets": keeper.secrets(),
        }

    @router.patch("/settings")
    def change(person: Administrator, values: dict[str, Any]) -> dict[str, Any]:
        """Change settings for all processes; null takes the file's value again."""
        chosen = keeper.change_settings(service.base, values, person.name)
        return chosen.model_dump(mode="json")

    @router.put("/tokens", status_code=204)
    def put_tokens(person: Administrator, form: TokenForm) -> None:
        """Give the server's tokens; series that waited for them go on."""
        refresh = form.refresh.get_secret_value() if form.refresh else None
        tokens = Tokens(form.access.get_secret_value(), refresh, form.expires)
        actions.put_tokens(tokens, person.name)

    @router.put("/secrets/{name}", status_code=204)
    def put_secret(person: Administrator, name: str, form: SecretForm) -> None:
        """Give a token or password of a DICOMweb server; it is never shown again."""
        if name not in SECRETS:
            raise NoSuchThing(f"there are the secrets {', '.join(SECRETS)}")
        keeper.put_secret(name, form.secret.get_secret_value(), person.name)

    @router.delete("/secrets/{name}", status_code=204)
    def drop_secret(person: Administrator, name: str) -> None:
        """Forget a token or password of a DICOMweb server."""
        if name not in SECRETS:
            raise NoSuchThing(f"there are the secrets {', '.join(SECRETS)}")
        keeper.drop_secret(name, person.name)

    @router.get("/server")
    def server(_person: Administrator) -> dict[str, Any]:
        """Whether the segmentation server takes packages."""
        return {
            "healthy": service.servers.server().health(),
            "left_alone_s": service.servers.breaker.wait_s(),
        }

    @router.get("/audit")
    def lines(
        _person: Administrator, limit: int = 200, below: int | None = None
    ) -> list[dict[str, Any]]:
        """Who did what, newest first."""
        found = audit.newest(service.database, min(max(limit, 1), 1000), below)
        return [audit.as_dict(line) for line in found]

    @router.get("/audit/check")
    def check(_person: Administrator) -> dict[str, Any]:
        """Whether the chain of the audit log is whole."""
        broken = audit.broken_at(service.database)
        return {"whole": broken is None, "broken_at": broken}

    @router.get("/audit.csv")
    def as_csv(_person: Administrator) -> Response:
        """The whole audit log for a spreadsheet."""
        return _file(audit.as_csv(service.database), "text/csv", "audit.csv")

    @router.get("/audit.json")
    def as_json(_person: Administrator) -> Response:
        """The whole audit log, one JSON object a line."""
        lines = audit.as_json(service.database)
        return _file(lines, "application/x-ndjson", "audit.json")

    return router


def told_of(choice: Choice, *, values: bool) -> dict[str, Any]:
    """What rules chose, and what each of their tests said."""
    return {
        "template": choice.template,
        "ambiguous": choice.ambiguous,
        "matched": list(choice.matched),
        "rules": [
            {
                "name": rule.name,
                "template": rule.template,
                "holds": trace.holds,
                "trace": _trace(trace, values=values),
            }
            for rule, trace in choice.traces
        ],
    }


def _trace(trace: Trace, *, values: bool) -> dict[str, Any]:
    kind = type(trace.condition)
    names = {AllOf: "all_of", AnyOf: "any_of", Not: "not"}
    if kind in names:
        inner = [_trace(one, values=values) for one in trace.inner]
        return {"kind": names[kind], "holds": trace.holds, "of": inner}
    told: dict[str, Any] = {
        "kind": "test",
        "holds": trace.holds,
        "test": condition_to_json(trace.condition),
        "found": len(trace.values),
    }
    if values:
        told["values"] = [value[:256] for value in trace.values[:32]]
    return told


def _template(one: TemplateVersion) -> dict[str, Any]:
    return {
        "digest": one.digest,
        "version": one.version,
        "in_force": one.in_force,
        "at": one.at,
        "who": one.who,
        "template": template_to_json(one.template),
    }


def _file(lines: Any, kind: str, name: str) -> Response:
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type=kind, headers=disposition)

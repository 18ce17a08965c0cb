"""What people decide and the pipeline reads: templates, rules, nodes, secrets.

Templates and rules are never changed: an edit is a new version, and a job says by its
digest which one it was sent with. Secrets are sealed, written and used, never shown.
Every change stands in the audit log within the same transaction.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from hub.durable.database import Database
from hub.durable.sealing import Sealer
from services.dicom_client import audit
from services.dicom_client.draw_server import Tokens
from services.dicom_client.errors import BadRequest, NoSuchThing
from services.dicom_client.models import Kept, Secret, StoredRules, StoredTemplate
from services.dicom_client.rules import Rule, rules_from_json, rules_to_json
from services.dicom_client.settings import ServiceSettings, changed
from services.dicom_client.templates import (
    Template,
    check,
    template_from_json,
    template_to_json,
)

TOKENS = "draw-tokens"
SETTINGS = "settings"
NODES = "nodes"


@dataclass(frozen=True)
class TemplateVersion:
    """One version of a template, and who made it."""

    template: Template
    digest: str
    version: int
    in_force: bool
    at: float
    who: str


class Keeper:
    """What is kept beside the jobs; safe to share between threads."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self.database = database
        self.sealer = sealer

    # Templates

    def put_template(self, template: Template, who: str) -> TemplateVersion:
        """Put a template into force as the newest version of its name."""
        check(template)
        with self.database.writing() as session:
            before = session.scalar(
                select(StoredTemplate.digest).where(
                    StoredTemplate.name == template.name, StoredTemplate.in_force
                )
            )
            session.execute(
                update(StoredTemplate)
                .where(StoredTemplate.name == template.name)
                .values(in_force=False)
            )
            row = session.get(StoredTemplate, template.digest)
            if row is None:
                newest = session.scalar(
                    select(func.max(StoredTemplate.version)).where(
                        StoredTemplate.name == template.name
                    )
                )
                row = StoredTemplate(
                    digest=template.digest,
                    name=template.name,
                    version=(newest or 0) + 1,
                    content=json.loads(json.dumps(template_to_json(template))),
                    who=who[:128],
                )
                session.add(row)
            row.in_force = True
            audit.note(
                session,
                who,
                "template",
                before=before,
                after={"name": template.name, "digest": template.digest},
            )
            session.flush()
            return _version(row)

    def drop_template(self, name: str, who: str) -> None:
        """Take a template out of force; its versions stay for the jobs that had it."""
        with self.database.writing() as session:
            row = session.scalar(
                select(StoredTemplate).where(
                    StoredTemplate.name == name, StoredTemplate.in_force
                )
            )
            if row is None:
                raise NoSuchThing("there is no such template")
            row.in_force = False
            audit.note(session, who, "template-dropped", before=row.digest)

    def templates(self) -> list[TemplateVersion]:
        """The templates in force, by name."""
        with self.database.reading() as session:
            rows = session.scalars(
                select(StoredTemplate)
                .where(StoredTemplate.in_force)
                .order_by(StoredTemplate.name)
            )
            return [_version(row) for row in rows]

    def template_versions(self, name: str) -> list[TemplateVersion]:
        """All versions of a template, newest first."""
        with self.database.reading() as session:
            rows = session.scalars(
                select(StoredTemplate)
                .where(StoredTemplate.name == name)
                .order_by(StoredTemplate.version.desc())
            )
            return [_version(row) for row in rows]

    def template(self, name: str) -> TemplateVersion:
        """The version in force; raises NoSuchThing."""
        with self.database.reading() as session:
            row = session.scalar(
                select(StoredTemplate).where(
                    StoredTemplate.name == name, StoredTemplate.in_force
                )
            )
        if row is None:
            raise NoSuchThing(f"there is no template {name[:64]!r}: make it first")
        return _version(row)

    def template_of_digest(self, digest: str) -> Template:
        """A version, in force or not."""
        with self.database.reading() as session:
            row = session.get(StoredTemplate, digest)
        if row is None:
            raise NoSuchThing("there is no such template version")
        return template_from_json(row.content)

    # Rules

    def put_rules(self, rules: Sequence[Rule], who: str) -> int:
        """Put all rules into force together; returns their version."""
        content = rules_to_json(rules)
        rules_from_json(content)
        with self.database.writing() as session:
            newest = session.scalar(select(func.max(StoredRules.version))) or 0
            session.add(StoredRules(version=newest + 1, content=content, who=who[:128]))
            audit.note(session, who, "rules", before=newest or None, after=newest + 1)
            return newest + 1

    def rules(self, version: int | None = None) -> tuple[int, list[Rule]]:
        """The rules in force, or those of a version; (0, []) where there are none."""
        with self.database.reading() as session:
            chosen = select(StoredRules).order_by(StoredRules.version.desc()).limit(1)
            if version is not None:
                chosen = chosen.where(StoredRules.version == version)
            row = session.scalar(chosen)
        if row is None:
            return 0, []
        return row.version, rules_from_json(row.content)

    def rule_versions(self) -> list[dict[str, Any]]:
        """When which version came into force, newest first."""
        with self.database.reading() as session:
            rows = session.scalars(
                select(StoredRules).order_by(StoredRules.version.desc())
            )
            return [
                {"version": row.version, "at": row.at, "who": row.who} for row in rows
            ]

    # Settings that the pages change, and nodes

    def settings(self, base: ServiceSettings) -> ServiceSettings:
        """The settings with what was changed on the pages."""
        kept = self.value(SETTINGS)
        return changed(base, kept) if kept else base

    def change_settings(
        self, base: ServiceSettings, values: dict[str, Any], who: str
    ) -> ServiceSettings:
        """Change settings for all processes; None takes the file's value again."""
        kept = dict(self.value(SETTINGS) or {})
        before = dict(kept)
        for name, value in values.items():
            if value is None:
                kept.pop(name, None)
            else:
                kept[name] = value
        chosen = changed(base, kept)
        plain = chosen.model_dump(mode="json")
        kept = {name: plain[name] for name in kept}
        self._put(SETTINGS, kept, who, "settings", before)
        return chosen

    # Any: JSON, as nodes.py reads and writes it
    def node_list(self) -> list[dict[str, Any]]:
        """The DICOM nodes that structure sets are sent to, by priority."""
        return list(self.value(NODES) or [])

    def put_nodes(self, nodes: list[dict[str, Any]], who: str) -> None:
        """Replace the list of nodes."""
        self._put(NODES, nodes, who, "nodes", self.node_list())

    def value(self, name: str) -> Any:  # Any: JSON
        with self.database.reading() as session:
            row = session.get(Kept, name)
            return None if row is None else row.value

    def remember(self, name: str, value: Any) -> None:  # Any: JSON
        """Keep something of a process's own, such as where a source left off."""
        with self.database.writing() as session:
            session.merge(Kept(name=name, value=value, at=time.time()))

    def _put(
        self, name: str, value: Any, who: str, action: str, before: Any
    ) -> None:  # Any: JSON
        with self.database.writing() as session:
            session.merge(Kept(name=name, value=value, at=time.time()))
            audit.note(session, who, action, before=before, after=value)

    # Secrets

    def put_secret(self, name: str, text: str, who: str) -> None:
        """Keep a secret, sealed; the audit log tells only that it was set."""
        if not text.strip():
            raise BadRequest("a secret is not empty")
        with self.database.writing() as session:
            self._seal(session, name, text)
            audit.note(session, who, "secret", after={"name": name})

    def drop_secret(self, name: str, who: str) -> None:
        """Forget a secret; one that is not there raises NoSuchThing."""
        with self.database.writing() as session:
            row = session.get(Secret, name)
            if row is None:
                raise NoSuchThing("this secret is not set")
            session.delete(row)
            audit.note(session, who, "secret-dropped", before={"name": name})

    def secret(self, name: str) -> str | None:
        with self.database.reading() as session:
            row = session.get(Secret, name)
        return None if row is None else self.sealer.open(row.sealed)

    def secrets(self) -> dict[str, float]:
        """Which secrets are set, and since when."""
        with self.database.reading() as session:
            rows = session.scalars(select(Secret))
            return {row.name: row.at for row in rows}

    def put_tokens(self, tokens: Tokens, who: str) -> None:
        """Keep the server's tokens, as a person pasted them."""
        self.put_secret(TOKENS, _tokens_text(tokens), who)

    def renew_tokens(self, tokens: Tokens) -> None:
        """Keep tokens that the server renewed, before the old ones are dropped."""
        with self.database.writing() as session:
            self._seal(session, TOKENS, _tokens_text(tokens))

    def tokens(self) -> Tokens | None:
        """The server's newest tokens; None where nobody has pasted any."""
        text = self.secret(TOKENS)
        if text is None:
            return None
        told = json.loads(text)
        expires = told.get("expires")
        return Tokens(
            told["access"],
            told.get("refresh"),
            datetime.fromisoformat(expires) if expires else None,
        )

    def _seal(self, session: Session, name: str, text: str) -> None:
        session.merge(Secret(name=name, sealed=self.sealer.seal(text), at=time.time()))


def _version(row: StoredTemplate) -> TemplateVersion:
    return TemplateVersion(
        template_from_json(row.content),
        row.digest,
        row.version,
        row.in_force,
        row.at,
        row.who,
    )


def _tokens_text(tokens: Tokens) -> str:
    expires = tokens.expires.isoformat() if tokens.expires else None
    return json.dumps(
        {"access": tokens.access, "refresh": tokens.refresh, "expires": expires}
    )

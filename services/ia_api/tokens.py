"""Callback tokens: which one is kept of a (callback, app), sealed, and for how long.

The newest token is the one to use (section 7 of the interface's description). But the
webhook has no credential: whoever reaches it may send any text as a token. So a token
takes the place of another only once the pathology server has accepted it, or while
jobs wait because theirs was refused. Until then it is a candidate: it is tried when
the one that is kept is refused.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from hub.durable.sealing import SealedElsewhere, Sealer
from services.ia_api.errors import Unauthorized
from services.ia_api.models import Job, Token
from services.ia_api.transitions import change


@dataclass(frozen=True)
class Place:
    """Where a token is for: a callback address and the app's id there."""

    callback_url: str
    application_id: str

    def of(self, table: type[Token] | type[Job]) -> tuple[ColumnElement[bool], ...]:
        """The condition that a row belongs here."""
        return (
            table.callback_url == self.callback_url,
            table.application_id == self.application_id,
        )


def keep(
    session: Session, sealer: Sealer, place: Place, token: str, *, accepted: bool
) -> int:
    """Keep a token, and wake the jobs that wait for one; returns the row's id.

    `accepted`: the pathology server took it a moment ago.
    """
    # Held, because the last job that needed the token may be closed just now.
    row = session.scalar(select(Token).where(*place.of(Token)).with_for_update())
    waiting = session.scalars(
        select(Job).where(Job.state == "waiting_auth", *place.of(Job)).with_for_update()
    ).all()
    new = row is None
    if row is None:
        row = Token(
            callback_url=place.callback_url, application_id=place.application_id
        )
        session.add(row)
    if new or accepted or waiting:
        row.sealed, row.candidate = sealer.seal(token), None
    else:
        row.candidate = sealer.seal(token)
    row.updated = time.time()
    session.flush()
    if new:
        # Of jobs that have their last word to say and lost the token for it.
        session.execute(
            update(Job)
            .where(Job.closed.is_(None), Job.token_ref.is_(None), *place.of(Job))
            .values(token_ref=row.id),
            execution_options={"synchronize_session": False},
        )
    for job in waiting:
        change(
            session,
            job,
            "queued",
            detail="new token",
            run=job.run + 1,
            token_ref=row.id,
        )
    return row.id


def opened(session: Session, sealer: Sealer, token_ref: int | None) -> str:
    """The token to use; raises Unauthorized where there is none."""
    row = session.get(Token, token_ref) if token_ref else None
    if row is None:
        raise Unauthorized("no token is left for this job")
    return _open(sealer, row.sealed)


def after_refusal(
    session: Session, sealer: Sealer, token_ref: int | None, refused: str | None
) -> bool:
    """Whether there is another token than the refused one; it is the kept one then.

    A candidate is given one try: it becomes the kept one, and is none any more.
    """
    row = session.get(Token, token_ref, with_for_update=True) if token_ref else None
    if row is None:
        return False
    if _open(sealer, row.sealed) != refused:
        return True
    if row.candidate is None:
        return False
    other = _open(sealer, row.candidate)
    row.sealed, row.candidate = row.candidate, None
    return other != refused


def _open(sealer: Sealer, sealed: bytes) -> str:
    try:
        return sealer.open(sealed)
    except SealedElsewhere as err:
        raise Unauthorized(
            "the job's token was sealed with another key: all machines need the same "
            "token.key"
        ) from err

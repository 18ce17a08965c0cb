"""What is remembered of deliveries, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AttemptCode = Literal["sending", "not_sent", "delivered", "released"]
"""`sending` is noted before the first byte, the others after the last; `released` by a
person who found out that the node does not have it."""


@dataclass(frozen=True)
class Attempt:
    """A note about one file, one target and the node of it that was tried."""

    target: str
    node: str
    """The target's own name where it has no nodes."""
    code: AttemptCode


@dataclass(frozen=True)
class Outcome:
    """How a delivery stands; `text` says it to people and names no patient."""

    target: str
    node: str
    code: str
    """`delivered` or `already_there`; `unanswered` if it was sent and not answered, and
    the target is asked or sent to again; `unknown` if only a person can find out;
    `conflict` if another object has its place; `no_node`; else why not: `unreachable`,
    `rejected`, `tls`, `no_context`, `no_space`, `refused`, `unauthorized`, `denied`."""
    text: str

    @property
    def delivered(self) -> bool:
        """Whether the target has it, by now or since before."""
        return self.code in ("delivered", "already_there")

    @property
    def again(self) -> bool:
        """Whether trying later, without a person, can help."""
        return self.code in (
            *("unanswered", "unreachable", "rejected", "no_space", "peer"),
        )

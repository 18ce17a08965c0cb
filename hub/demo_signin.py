"""Sign-in for the demo: a few accounts with passwords made at the first start."""

from __future__ import annotations

import hmac
import json
import secrets
from pathlib import Path
from typing import Any

from jupyterhub.auth import Authenticator
from traitlets import Unicode

from hub.home import write_private

ACCOUNTS = ("teacher", "student1", "student2", "researcher")
# No letter or digit that is taken for another when read off a screen.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def new_password() -> str:
    """Three groups of four characters: 59 bits, easy to type."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(3))
    return "-".join(groups)


def passwords(file: Path, *, demo: bool = True) -> dict[str, str]:
    """The accounts' `{name: password}`, stored (0600) where there is no such file.

    The demo's accounts are made then; without `demo`, an empty file to be filled in.
    """
    if not file.exists():
        made = {name: new_password() for name in ACCOUNTS} if demo else {}
        write_private(file, json.dumps(made, indent=2).encode() + b"\n")
    accounts: dict[str, str] = json.loads(file.read_text("utf-8"))
    return accounts


class DemoAuthenticator(Authenticator):  # type: ignore[misc]  # jupyterhub is untyped
    """Lets in the accounts of the password file, and nobody else."""

    password_file = Unicode(config=True, help="JSON file `{name: password}`")

    # Any: JupyterHub passes its handler and expects a name or None.
    async def authenticate(self, _handler: Any, data: dict[str, str]) -> str | None:
        """The name, where the password is the account's; compared in constant time."""
        accounts = passwords(Path(self.password_file))
        name = data["username"]
        # An unknown name costs the same comparison as a known one.
        expected = accounts.get(name, secrets.token_hex(8))
        given = data.get("password", "")
        if not given or not expected:
            return None
        if hmac.compare_digest(expected.encode(), given.encode()) and name in accounts:
            return name
        return None

"""Secrets at rest: sealed with a key that only this installation has.

The key lies in the home, readable by its owner only. Workers on other machines need
the same file.
"""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from hub.home import private_key


class SealedElsewhere(Exception):
    """Another key sealed this; all machines need the same key file."""


class Sealer:
    """Seals texts with the installation's key (Fernet: AES-128-CBC and HMAC)."""

    def __init__(self, key_file: Path) -> None:
        # Web server and workers start at the same moment: one of them makes the key.
        with key_file.with_suffix(".lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            self._box = Fernet(private_key(key_file, Fernet.generate_key()))

    def seal(self, text: str) -> bytes:
        return self.seal_bytes(text.encode())

    def seal_bytes(self, content: bytes) -> bytes:
        return self._box.encrypt(content)

    def open(self, sealed: bytes) -> str:
        """The text; SealedElsewhere where another key sealed it."""
        return self.open_bytes(sealed).decode()

    def open_bytes(self, sealed: bytes) -> bytes:
        """The content; SealedElsewhere where another key sealed it."""
        try:
            return self._box.decrypt(sealed)
        except InvalidToken as err:
            raise SealedElsewhere(
                "this was sealed with another key: all machines need the same key file"
            ) from err


def digest(*parts: str) -> str:
    """A digest of texts, to compare by what must not be kept as it is."""
    whole = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        whole.update(len(encoded).to_bytes(8, "big") + encoded)
    return whole.hexdigest()

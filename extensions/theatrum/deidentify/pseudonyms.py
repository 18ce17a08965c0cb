"""Everything that is made up in place of an identifier, from one secret key.

A keyed hash (HMAC-SHA-256) of the original gives the replacement, so that the same
original has the same replacement in every file, run and machine with the same key, and
nobody without the key can tell or check what it was. The key is the content of a file.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from theatrum.deidentify.errors import KeyFileError

MIN_KEY_BYTES: Final = 16
MAX_SHIFT_DAYS: Final = 365


def read_key(path: Path) -> bytes:
    """The key of a key file: its bytes, all of them.

    Raises
    ------
    KeyFileError
        Where the file cannot be read, or is too short to be a secret.
    """
    try:
        key = path.read_bytes()
    except OSError as err:
        raise KeyFileError(
            f"The key file cannot be read ({err.strerror}). Make one with "
            f"`head -c 32 /dev/urandom > {path.name}` and keep it: the same key "
            "gives the same pseudonyms."
        ) from err
    if len(key) < MIN_KEY_BYTES:
        raise KeyFileError(
            f"The key file holds {len(key)} bytes; "
            f"a secret has {MIN_KEY_BYTES} or more."
        )
    return key


@dataclass
class Pseudonyms:
    """Replacements under one key. Each is computed once and remembered."""

    key: bytes = field(repr=False)
    _uids: dict[str, str] = field(default_factory=dict, repr=False)

    def _hash(self, purpose: str, *originals: str) -> bytes:
        machine = hmac.new(self.key, purpose.encode(), hashlib.sha256)
        for original in originals:
            content = original.encode("utf-8", "surrogateescape")
            machine.update(len(content).to_bytes(8, "big"))
            machine.update(content)
        return machine.digest()

    def uid(self, original: str) -> str:
        """The UID in place of `original`: `2.25.` and 128 bits (PS3.5 B.2)."""
        made = self._uids.get(original)
        if made is None:
            number = int.from_bytes(self._hash("uid", original)[:16], "big")
            made = self._uids[original] = f"2.25.{number or 1}"
        return made

    @property
    def uids(self) -> Mapping[str, str]:
        """Every UID replaced so far, by its original."""
        return self._uids

    def patient_code(self, issuer: str, patient_id: str) -> str:
        """Twelve characters A to Z and 2 to 7 for a patient."""
        return base64.b32encode(self._hash("patient", issuer, patient_id))[:12].decode()

    def code(self, original: str) -> str:
        """Twelve characters for any other identifier that must not be empty."""
        return base64.b32encode(self._hash("identifier", original))[:12].decode()

    def shift_days(self, issuer: str, patient_id: str) -> int:
        """By how many whole days a patient's dates move: -365 to -1."""
        number = int.from_bytes(self._hash("days", issuer, patient_id)[:8], "big")
        return -1 - number % MAX_SHIFT_DAYS

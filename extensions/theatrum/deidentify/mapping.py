"""What a job replaced, to be undone by its owner: immutable, and encrypted at rest.

A mapping is made when a package is, and never changed: a second job on the same series
has a mapping of its own. It holds every UID and date that was replaced and the original
attributes of patients and studies. On disk it is AES-256-GCM under a key derived (HKDF)
from a secret; the job's name is bound to the content, so that one job's mapping cannot
pass for another's.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from theatrum.deidentify.errors import MappingError

_MARK: Final = b"THEATRUM-MAPPING-1\n"
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12


@dataclass(frozen=True)
class PatientMapping:
    """One patient: the original attributes, and every date that was moved."""

    attributes: dict[str, str]
    """Original values by keyword: PatientName, PatientID, PatientBirthDate, ..."""
    dates: dict[str, str]
    """Original dates by the ones given out, as eight digits."""


@dataclass(frozen=True)
class Mapping:
    """Everything that a job replaced."""

    job: str
    profile_digest: str
    uids: dict[str, str] = field(repr=False)
    """Original UIDs by the ones given out."""
    patients: dict[str, PatientMapping] = field(repr=False)
    """By the pseudonym given out as PatientID."""
    studies: dict[str, dict[str, str]] = field(repr=False)
    """Original attributes of studies by the StudyInstanceUID given out."""


def save_mapping(mapping: Mapping, path: Path, secret: bytes) -> None:
    """Write a mapping, encrypted; it is never written twice.

    Raises
    ------
    MappingError
        Where the file exists.
    """
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
    content = json.dumps(asdict(mapping), sort_keys=True).encode()
    sealed = AESGCM(_derived(secret, salt)).encrypt(nonce, content, _bound(mapping.job))
    name = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(
            os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb"
        ) as file:
            file.write(_MARK + salt + nonce + sealed)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)  # unlike a rename, this refuses to replace
    except FileExistsError as err:
        raise MappingError(
            "This job has a mapping already; mappings never change."
        ) from err
    finally:
        name.unlink(missing_ok=True)


def load_mapping(path: Path, job: str, secret: bytes) -> Mapping:
    """Read the mapping of a job.

    Raises
    ------
    MappingError
        Where it is missing, damaged, another job's, or sealed with another secret.
    """
    try:
        content = path.read_bytes()
    except OSError as err:
        raise MappingError(f"The mapping cannot be read: {err.strerror}.") from err
    if not content.startswith(_MARK):
        raise MappingError("This is no mapping.")
    rest = content[len(_MARK) :]
    salt, rest = rest[:_SALT_BYTES], rest[_SALT_BYTES:]
    nonce, sealed = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
    try:
        opened = AESGCM(_derived(secret, salt)).decrypt(nonce, sealed, _bound(job))
    except (InvalidTag, ValueError) as err:
        raise MappingError(
            "The mapping is damaged, another job's, or sealed with another key."
        ) from err
    fields = json.loads(opened)
    patients = {
        code: PatientMapping(**patient)
        for code, patient in fields.pop("patients").items()
    }
    return Mapping(patients=patients, **fields)


def _derived(secret: bytes, salt: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, b"theatrum job mapping").derive(secret)


def _bound(job: str) -> bytes:
    return _MARK + job.encode()

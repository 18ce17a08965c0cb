"""One pydicom data set, de-identified in memory, for notebooks."""

from __future__ import annotations

import io

from pydicom import Dataset, dcmread, dcmwrite

from theatrum.deidentify import part10
from theatrum.deidentify.canary import Canary
from theatrum.deidentify.dates import shift_date
from theatrum.deidentify.engine import Scrubber, patient_of
from theatrum.deidentify.errors import Held
from theatrum.deidentify.identifiers import collect
from theatrum.deidentify.package import Deidentifier
from theatrum.deidentify.profile import load_profile


def data_set(original: Dataset, key: bytes, profile: str = "basic") -> Dataset:
    """A de-identified copy; the original stays as it is.

    Raises
    ------
    Held, Refused
        Where it must not be given out; the message says why.
    """
    worker = Deidentifier(load_profile(profile), key)
    content = _written(original)
    parsed = part10.read(content)
    rules = worker.rules(parsed.elements)
    found = collect(parsed.elements, rules, explicit=parsed.explicit)
    done = worker.file(content, Scrubber.of(found))
    patient = patient_of(parsed.elements, worker.pseudonyms)
    moved = {shift_date(date, patient.shift_days) or "" for date in found.dates}
    own = [worker.pseudonyms.uid(uid) for uid in found.uids]
    canary = Canary(found, own, moved)
    if done.leaks(canary):
        raise Held("canary", "An identifier would still stand in the data set.")
    return dcmread(io.BytesIO(b"".join([*done.header, *done.pixels])))


def _written(original: Dataset) -> bytes:
    target = io.BytesIO()
    has_syntax = "TransferSyntaxUID" in getattr(original, "file_meta", {})
    if has_syntax:
        dcmwrite(target, original, enforce_file_format=False)
    else:
        implicit, _ = original.original_encoding
        dcmwrite(
            target,
            original,
            implicit_vr=bool(implicit),
            little_endian=True,
            enforce_file_format=False,
        )
    return target.getvalue()

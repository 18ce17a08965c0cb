"""Series from a DICOMweb archive: found by QIDO-RS, fetched by WADO-RS (PS3.18).

    dicomweb+https://archive/dicom-web/studies/1.2.3
    dicomweb+https://archive/dicom-web/studies/1.2.3/series/1.2.3.4
    dicomweb+https://archive/dicom-web?Modality=MR&StudyDate=20260101-

The last form asks for series and takes all that are found. A token for the archive is
read from `THEATRUM_DICOMWEB_TOKEN`. Instances are fetched one by one, each as it is
stored there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import httpx

from theatrum.catalog.ingest.errors import SourceFailed
from theatrum.catalog.ingest.fetched import Arriving, shown_address

_STUDY: Final = "0020000D"
_SERIES: Final = "0020000E"
_INSTANCE: Final = "00080018"
_PATH: Final = re.compile(r"^(.*?)(?:/studies/([0-9.]+))?(?:/series/([0-9.]+))?/?$")
_AS_STORED: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_UID: Final = re.compile(r"[0-9.]{1,64}")
_PAGE: Final = 200
_TIMEOUT_S: Final = 60.0
Tell = Callable[[int, int], None]


def fetch_dicomweb(
    address: str, staging: Path, *, tell: Tell = lambda _done, _all: None
) -> str:
    """Bring the instances that an address names into `staging`; it for reports.

    Raises SourceFailed where the archive does not answer, or has nothing.
    """
    parts = urlsplit(address)
    found = _PATH.match(parts.path)
    base, study, series = found.groups() if found else (parts.path, None, None)
    root = f"{parts.scheme}://{parts.netloc}{base}"
    label = shown_address(address)
    headers = {}
    if token := os.environ.get("THEATRUM_DICOMWEB_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    try:
        with httpx.Client(headers=headers, timeout=_TIMEOUT_S) as client:
            wanted = list(
                _wanted(client, root, (study, series), dict(parse_qsl(parts.query)))
            )
            if not wanted:
                raise SourceFailed(f"{label} has no such images.")
            arriving = Arriving(staging)
            for number, place in enumerate(wanted):
                tell(number, len(wanted))
                _instance(client, root, place, arriving)
            tell(len(wanted), len(wanted))
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise SourceFailed(
            f"{label} does not answer as a DICOMweb archive ({type(error).__name__})."
        ) from error
    return label


def _wanted(
    client: httpx.Client,
    root: str,
    named: tuple[str | None, str | None],
    query: dict[str, str],
) -> Iterator[tuple[str, str, str]]:
    study, series = named
    if study and series:
        places = [(study, series)]
    elif study:
        listed = _found(client, f"{root}/studies/{study}/series", query)
        places = [(study, _uid(one, _SERIES)) for one in listed]
    else:
        listed = _found(client, f"{root}/series", query)
        places = [(_uid(one, _STUDY), _uid(one, _SERIES)) for one in listed]
    for one_study, one_series in places:
        below = f"{root}/studies/{one_study}/series/{one_series}/instances"
        for one in _found(client, below, {}):
            yield one_study, one_series, _uid(one, _INSTANCE)


def _found(
    client: httpx.Client, address: str, query: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """What QIDO finds, page by page; one that ignores the paging ends it too."""
    seen: set[str] = set()
    offset = 0
    while True:
        answer = client.get(
            address,
            params=query | {"limit": str(_PAGE), "offset": str(offset)},
            headers={"Accept": "application/dicom+json"},
        )
        if answer.status_code == httpx.codes.NO_CONTENT:
            return
        answer.raise_for_status()
        page = answer.json()
        fresh = [one for one in page if str(one) not in seen]
        yield from fresh
        seen |= {str(one) for one in fresh}
        if len(page) < _PAGE or not fresh:
            return
        offset += len(page)


def _uid(found: dict[str, Any], tag: str) -> str:
    uid = str(found[tag]["Value"][0])
    if not _UID.fullmatch(uid):
        raise ValueError("no UID")
    return uid


def _instance(
    client: httpx.Client, root: str, place: tuple[str, str, str], arriving: Arriving
) -> None:
    study, series, instance = place
    address = f"{root}/studies/{study}/series/{series}/instances/{instance}"
    answer = client.get(address, headers={"Accept": _AS_STORED})
    if answer.status_code in (httpx.codes.NOT_ACCEPTABLE, httpx.codes.BAD_REQUEST):
        # It cannot give it as it is stored; the default has to be there.
        plain = _AS_STORED.partition("; transfer")[0]
        answer = client.get(address, headers={"Accept": plain})
    answer.raise_for_status()
    for content in _parts(answer):
        arriving.write(f"{series}/{arriving.count + 1:06d}.dcm", [content])


def _parts(answer: httpx.Response) -> Iterator[bytes]:
    """The parts of a multipart answer (RFC 2046, clause 5.1)."""
    kind = answer.headers.get("Content-Type", "")
    if not kind.startswith("multipart/"):
        yield answer.content
        return
    told = re.search(r'boundary="?([^";]+)"?', kind)
    if told is None:
        raise ValueError("no boundary")
    mark = b"--" + told[1].encode()
    content = answer.content
    at = content.index(mark)
    while not content.startswith(b"--", at + len(mark)):
        head = content.index(b"\r\n\r\n", at) + 4
        end = content.index(b"\r\n" + mark, head)
        yield content[head:end]
        at = end + 2

"""Comparisons with manual structure sets that are under way: one thread, with progress.

A large set takes minutes, so it is measured beside the request, structure by structure,
and can be called off. The reference names a patient: it lies in the series' own folder,
and only as long as it is measured. What a restart cuts off is asked for again by the
person; the file it left is removed with the next start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from theatrum.structures import StructureError

from services.dicom_client import audit
from services.dicom_client.errors import BadRequest, DicomClientError, WrongState
from services.dicom_client.models import Overlap
from services.dicom_client.opening import Service
from services.dicom_client.overlap import overlaps

log = logging.getLogger("theatrum.dicom_client")

SUFFIX = ".reference.tmp"
"""How a reference is called while it is measured."""
Phase = Literal["measuring", "done", "failed", "cancelled"]


class CalledOff(DicomClientError):
    """A person does not want the comparison any more."""

    code = "cancelled"


@dataclass(frozen=True)
class Measurement:
    """The newest comparison of a series, and how far it is."""

    job_id: str
    who: str
    at: float
    phase: Phase = "measuring"
    share: float = 0.0
    text: str = ""

    @property
    def percent(self) -> int:
        return min(99, int(100 * self.share))


class Measurements:
    """The comparisons of one web server process; safe to share between threads."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._newest: dict[str, Measurement] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="measure")
        self._closing = False
        for left in service.folders.jobs.glob(f"*/*{SUFFIX}"):
            left.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop what is under way."""
        self._closing = True
        self._worker.shutdown(wait=True, cancel_futures=True)

    def newest(self, job_id: str) -> Measurement | None:
        """The comparison of a series that was begun last, since the start."""
        with self._lock:
            return self._newest.get(job_id)

    def begin(
        self,
        job_id: str,
        who: str,
        reference: Path,
        result: Path,
        headers: Sequence[Dataset],
    ) -> Future[None]:
        """Measure a result against a reference, which is removed in any case.

        Raises WrongState where the series is being measured already. What is wrong
        with the reference is raised by the answer, and told by `newest`.
        """
        made = Measurement(job_id, who, time.time())
        with self._lock:
            known = self._newest.get(job_id)
            if known is not None and known.phase == "measuring":
                raise WrongState("this series is being measured: wait, or cancel that")
            self._newest[job_id] = made
        return self._worker.submit(self._measure, made, reference, result, headers)

    def cancel(self, job_id: str) -> None:
        """Call the comparison of a series off; WrongState where there is none."""
        with self._lock:
            known = self._newest.get(job_id)
            if known is None or known.phase != "measuring":
                raise WrongState("nothing is measured here now")
            self._newest[job_id] = replace(known, phase="cancelled")

    def _measure(
        self,
        made: Measurement,
        reference: Path,
        result: Path,
        headers: Sequence[Dataset],
    ) -> None:
        try:
            self._check(made)
            measured = [
                one.as_json()
                for one in overlaps(
                    result,
                    reference,
                    headers,
                    progress=lambda share: self._told(made, share=share),
                    check=lambda: self._check(made),
                )
            ]
            if not measured:
                raise BadRequest(
                    "no structure of the file has the name of one of the result: "
                    "rename them in the planning system, then export again"
                )
            self._check(made)
        except CalledOff:
            return
        except (BadRequest, StructureError) as err:
            self._told(made, phase="failed", text=str(err))
            raise
        except (InvalidDicomError, ValueError, OSError, KeyError, TypeError) as err:
            text = "this is no RT Structure Set: export one from the planning system"
            self._told(made, phase="failed", text=text)
            raise BadRequest(text) from err
        except Exception:
            # The boundary of the thread; what is wrong can hold anything.
            log.exception("a comparison failed", extra={"job": made.job_id})
            self._told(made, phase="failed", text="the log of the server says why")
            raise
        finally:
            reference.unlink(missing_ok=True)
        with self._service.database.writing() as session:
            session.add(Overlap(job_id=made.job_id, who=made.who, content=measured))
            audit.note(session, made.who, "comparison", job_id=made.job_id)
        self._told(made, phase="done")

    def _check(self, made: Measurement) -> None:
        known = self.newest(made.job_id)
        # After a cancel another one may have been begun: that is not ours.
        if self._closing or known is None or known.at != made.at:
            raise CalledOff("the comparison was called off")
        if known.phase == "cancelled":
            raise CalledOff("the comparison was called off")

    def _told(self, made: Measurement, **values: float | str) -> None:
        with self._lock:
            known = self._newest[made.job_id]
            if known.at == made.at and known.phase == "measuring":
                changed = replace(known, **values)  # type: ignore[arg-type]
                self._newest[made.job_id] = changed

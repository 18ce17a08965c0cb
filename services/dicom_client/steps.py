"""The steps of a job: what is done in each state, and which state follows.

    matched       the images are de-identified, or staged for a local engine
    deidentified  the package is made, searched and stored with its SHA-256
    packed        the package is sent; while it is on its way the state is `uploading`
    uploading     found so at the start of a run: nobody knows whether it arrived
    submitted     the server is asked how far it is
    processing    the same; a local engine works
    ready         the structure set is fetched
    downloaded    it is checked, made the patient's again, and finished
    reidentified  it is delivered to every target, and looked for there
    exported      the server is told, which then deletes all it has
    confirmed     what was staged is wiped

A step may be cut off anywhere and be done again: what it makes appears whole or not at
all, and what it tells others is told so that twice does no harm. The one exception is
an upload: see `sending.send`.
"""

from __future__ import annotations

from collections.abc import Callable

from services.dicom_client import local_steps, returning, sending
from services.dicom_client.running import Ended, Run, Told

_DRAW: dict[str, Callable[[Run], Told]] = {
    "matched": sending.deidentify,
    "deidentified": sending.pack,
    "packed": sending.send,
    "uploading": sending.find_out,
    "submitted": sending.poll,
    "processing": sending.poll,
    "ready": returning.fetch,
}
_LOCAL: dict[str, Callable[[Run], Told]] = {
    "matched": sending.deidentify,
    "deidentified": local_steps.pack,
    "packed": local_steps.hand_over,
    "uploading": local_steps.take_over,
    "submitted": local_steps.begin,
    "processing": local_steps.work,
    "ready": local_steps.fetch,
}
_EITHER: dict[str, Callable[[Run], Told]] = {
    "downloaded": returning.finish,
    "reidentified": returning.deliver,
    "exported": returning.confirm,
    "confirmed": returning.wipe,
}


def step(run: Run) -> Told:
    """Do what the job's state asks for; a local engine walks through the same states.

    Raises what is in `errors`; the worker decides by the class what becomes of it.
    """
    run.check()
    steps = _EITHER | (_LOCAL if run.is_local else _DRAW)
    found = steps.get(run.job.state)
    return Ended() if found is None else found(run)

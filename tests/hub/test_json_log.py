"""What the services log never quotes what a file says."""

from __future__ import annotations

import subprocess
import sys

READS_A_HEADER = """
import io, logging
from hub.durable.json_log import start_logging
start_logging(("job",))
from pydicom.filereader import read_dataset
uid = b"UI" + (12).to_bytes(2, "little") + b"Quastelbrook"
code = b"CS" + (12).to_bytes(2, "little") + b"Quastelbrook"
name = b"PN" + (6).to_bytes(2, "little") + b"A^B^C "
raw = (
    bytes.fromhex("08000500") + code
    + bytes.fromhex("08001800") + uid
    + bytes.fromhex("10001000") + name
)
found = read_dataset(io.BytesIO(raw), False, True)
found.SOPInstanceUID, found.PatientName
str(found.PatientName)
try:
    raise ValueError("Quastelbrook")
except ValueError:
    logging.getLogger("theatrum").exception("a step failed", extra={"job": "7"})
"""


def test_a_library_that_quotes_a_file_is_told_by_its_place_alone() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", READS_A_HEADER],
        capture_output=True,
        text=True,
        check=True,
    )
    told = ran.stdout + ran.stderr
    assert "Quastelbrook" not in told
    assert "UserWarning at valuerep.py:" in told
    assert '"error": "ValueError"' in told

"""What a killed receiver leaves behind goes; what is being written stays."""

import io
import subprocess
import sys
import threading

from services.dicom_client.staging import Quota, Staging
from tests.extensions.structures.series import ct_series

WRITER = """
import os, signal, sys
from pathlib import Path
from services.dicom_client.staging import Quota, Staging

def pieces():
    yield b"half of a file"
    os.kill(os.getpid(), signal.SIGKILL)

Staging(Path(sys.argv[1]), Quota()).keep(pieces())
"""


def test_half_a_file_of_a_killed_receiver_goes_at_once(tmp_path):
    folder = tmp_path / "in"
    done = subprocess.run([sys.executable, "-c", WRITER, folder], check=False)
    assert done.returncode == -9
    assert len(list(folder.iterdir())) == 1
    assert Staging(folder, Quota()).sweep() == 1
    assert list(folder.iterdir()) == []


def test_a_file_that_is_being_written_is_not_swept_away(tmp_path):
    staging = Staging(tmp_path / "in", Quota())
    begun, swept = threading.Event(), threading.Event()
    content = io.BytesIO()
    ct_series(slices=1)[0].save_as(content, enforce_file_format=True)

    def pieces():
        yield content.getvalue()[:500]
        begun.set()
        assert swept.wait(30)
        yield content.getvalue()[500:]

    kept = []
    writer = threading.Thread(target=lambda: kept.append(staging.keep(pieces())))
    writer.start()
    assert begun.wait(30)
    assert Staging(tmp_path / "in", Quota()).sweep() == 0
    swept.set()
    writer.join()
    assert kept[0].path.read_bytes() == content.getvalue()
    assert list((tmp_path / "in").glob("*.part")) == []

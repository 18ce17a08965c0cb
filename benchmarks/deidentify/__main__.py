"""De-identification: is everything gone, is everything else there, and how fast.

    python -m benchmarks.deidentify [--peer PYTHON] [--files N] [--data DIR]

Builds the corpus of planted identifiers, runs the engine of `theatrum deidentify` over
it, and scores it with the ten actions of MIDI-B. With `--peer` (a Python that has
`dicom-anonymizer`), the peer's list of tags is held against our output, and both are
timed on the same files in one run, taking turns. Exits with 1 unless removal, dates,
UIDs and consistency are complete, retention is 99 % or more, nothing of the peer's list
comes out, and we are twice as fast as the peer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from theatrum import deidentify

from benchmarks.deidentify import oracle
from benchmarks.deidentify.corpus import ACTIONS, Answer, build
from benchmarks.deidentify.score import Score, score

KEY = b"a key for the benchmark, not secret"
PROFILE = """
format: 1
name: benchmark
version: "1"
options: [retain_longitudinal_modified_dates, clean_pixel_data]
ensure_present: [StudyDate, StudyTime, StudyID]
"""
COMPLETE = (
    "text_removed",
    "date_shifted",
    "uid_changed",
    "uid_consistent",
    "patid_consistent",
    "pixels_hidden",
)
RETAINED = ("tag_retained", "text_notnull", "text_retained", "pixels_retained")
ROUNDS = 5


def run_ours(source: Path, target: Path) -> deidentify.Package:
    """One package with a fresh engine."""
    worker = deidentify.Deidentifier(
        deidentify.parse_profile(PROFILE, "benchmark"), KEY
    )
    return worker.package(deidentify.files_below(source), target, root=source)


def score_ours(folder: Path) -> tuple[Score, list[Answer]]:
    """Build, de-identify and score the corpus below `folder`."""
    source, target = folder / "in", folder / "out"
    source.mkdir()
    answers = build(source)
    package = run_ours(source, target)
    files = deidentify.files_below(source)
    outputs = {files[n - 1].name: target / name for n, name in package.names.items()}
    uids = {old: new for new, old in package.mapping.uids.items()}
    patients = {
        patient.attributes["PatientID"]: code
        for code, patient in package.mapping.patients.items()
    }
    return score(answers, source, outputs, uids, patients), answers


def show(result: Score, answers: list[Answer]) -> bool:
    """Print the score; whether it is good enough."""
    planted = {(a.kind, a.value, a.depth) for a in answers if a.kind != "keep"}
    print(f"{len({a.file[:2] for a in answers})} series, {len(planted)} identifiers")
    for action in ACTIONS:
        print(f"  {action:18}{result.passed[action]:6} of {result.asked[action]}")
    for failure in result.failures[:20]:
        print("  failed:", failure)
    removal, retention = result.share(*COMPLETE), result.share(*RETAINED)
    print(f"removal and consistency {removal:.2%}, retention {retention:.2%}")
    return removal == 1.0 and retention >= 0.99


PEER = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file
from pathlib import Path
files = sorted(Path(sys.argv[1]).rglob("*.dcm"))
target = Path(sys.argv[2])
start = time.perf_counter()
failed = []
for number, file in enumerate(files):
    try:
        anonymize_dicom_file(str(file), str(target / f"{number}.dcm"))
    except Exception:
        failed.append(str(file))
print(json.dumps([time.perf_counter() - start, failed]))
"""


def ask_oracle(peer: str, folder: Path) -> bool:
    """Whether nothing comes out of what the peer's list removes."""
    done = subprocess.run(
        [peer, "-c", oracle.PEER_LIST], capture_output=True, text=True, check=True
    )
    tags = [tuple(tag) for tag in json.loads(done.stdout) if len(tag) == 2]
    (folder / "oracle").mkdir()
    out = oracle.let_out(tags, "basic", folder / "oracle")
    print(f"oracle of {len(tags)} tags: {len(out)} let out", [f"{t:08x}" for t in out])
    return not out


def run_peer(peer: str, source: Path, target: Path) -> tuple[float, list[str]]:
    """Seconds that the peer takes, and the files that it raises on."""
    target.mkdir()
    done = subprocess.run(
        [peer, "-c", PEER, str(source), str(target)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    shutil.rmtree(target)
    seconds, failed = json.loads(done.stdout.splitlines()[-1])
    return seconds, failed


def time_both(peer: str, source: Path, folder: Path) -> bool:
    """Time both on the same files, in turns; whether we are twice as fast."""
    _, failed = run_peer(peer, source, folder / "first")
    for name in failed:
        Path(name).unlink()
    if failed:
        print(f"dicom-anonymizer fails on {len(failed)} files; they are not timed")
    files = deidentify.files_below(source)
    if not files:
        return False
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(ROUNDS):
        target = folder / f"ours{turn}"
        start = time.perf_counter()
        package = run_ours(source, target)
        ours.append(time.perf_counter() - start)
        shutil.rmtree(target)
        if package.report.given_out != len(files):
            print("not all files were given out:", package.report.as_json())
            return False
        theirs.append(run_peer(peer, source, folder / f"peer{turn}")[0])
    mine, its = statistics.median(ours), statistics.median(theirs)
    print(
        f"{len(files)} files: ours {len(files) / mine:.0f} files/s (canary and fsync "
        f"included), dicom-anonymizer {len(files) / its:.0f} files/s: "
        f"{its / mine:.1f} times as fast"
    )
    return its / mine >= 2


def main() -> int:
    """The whole benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--peer", help="a Python with dicom-anonymizer 2.1")
    arguments.add_argument("--data", type=Path, help="a folder of DICOM files to time")
    arguments.add_argument("--files", type=int, default=200)
    wanted = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = show(*score_ours(folder))
        if wanted.peer is None:
            print("dicom-anonymizer: skipped, --peer names no Python that has it")
            return 0 if good else 1
        source = folder / "timed"
        source.mkdir()
        originals = deidentify.files_below(wanted.data or folder / "in")
        originals = [
            file
            for file in originals
            if file.suffix == ".dcm" and not file.name.startswith("9")
        ]
        for number in range(wanted.files):
            _copy(
                originals[number % len(originals)], source / f"{number:05}.dcm", number
            )
        good &= ask_oracle(wanted.peer, folder)
        good &= time_both(wanted.peer, source, folder)
    return 0 if good else 1


def _copy(original: Path, target: Path, number: int) -> None:
    """A copy with an instance UID of its own, so that no file is another's double."""
    import warnings

    from pydicom import dcmread

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = dcmread(original)
        image.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.77.{number}.20190311"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(target)


if __name__ == "__main__":
    sys.exit(main())

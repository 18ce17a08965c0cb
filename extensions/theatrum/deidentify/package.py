"""Many files at once: a folder in, a package out, everything or nothing of each file.

Two passes. The survey reads every file's header, so that all identifiers of the package
are known before the first file is written: a name that stands in one file is searched
for in every other. The second pass de-identifies, and lets the canary look at every
byte before it is written into a staging folder. The package appears under its name only
when it is whole and on disk; a run that is cut off leaves nothing that looks finished,
and nothing that exists is ever replaced.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final

from pydicom.uid import RE_VALID_UID

from theatrum.deidentify import burned_in, ocr, part10
from theatrum.deidentify.canary import Canary, Where
from theatrum.deidentify.dates import shift_date
from theatrum.deidentify.elements import Element, encode
from theatrum.deidentify.engine import Engine, Patient, Scrubber, patient_of
from theatrum.deidentify.errors import (
    FolderError,
    Held,
    NotGivenOut,
    ProfileError,
    Refused,
)
from theatrum.deidentify.identifiers import Identifiers, collect, decode, encodings_of
from theatrum.deidentify.mapping import Mapping, PatientMapping
from theatrum.deidentify.profile import Profile
from theatrum.deidentify.pseudonyms import Pseudonyms
from theatrum.deidentify.report import Entry, Report, shown
from theatrum.deidentify.rules import Rules
from theatrum.deidentify.safe_private import SafeList

SOP_CLASS: Final = 0x00080016
SOP_INSTANCE: Final = 0x00080018
MODALITY: Final = 0x00080060
STUDY: Final = 0x0020000D
SERIES: Final = 0x0020000E
_PIXEL_GROUP: Final = 0x7FE0
_LARGE_BYTES: Final = 1 << 16
_DIRECTORY: Final = "1.2.840.10008.1.3.10"
REPORT_NAME: Final = "report.json"
_PARTIAL: Final = ".partial-"
_YOUNG_S: Final = 10.0

# What comes back with an RTSTRUCT gets these from the mapping.
_PATIENT_ATTRIBUTES: Final = {
    0x00100010: "PatientName",
    0x00100020: "PatientID",
    0x00100021: "IssuerOfPatientID",
    0x00100030: "PatientBirthDate",
    0x00100040: "PatientSex",
}
_STUDY_ATTRIBUTES: Final = {
    0x00080005: "SpecificCharacterSet",
    0x00080020: "StudyDate",
    0x00080030: "StudyTime",
    0x00080050: "AccessionNumber",
    0x00080090: "ReferringPhysicianName",
    0x00081030: "StudyDescription",
    0x00200010: "StudyID",
}

Progress = Callable[[str, int, int], None]
"""Called with the pass (`survey`, `files`), files done and files in all."""


@dataclass
class _Surveyed:
    """What the first pass knows of a file."""

    number: int
    path: Path
    shown: str
    series: str = ""
    new_series: str = ""
    fault: NotGivenOut | None = None
    stamp: tuple[int, ...] = ()


@dataclass(frozen=True)
class Deidentified:
    """A file as it is given out: its new UIDs, and its bytes in pieces."""

    instance: str
    series: str
    header: list[bytes]
    pixels: list[bytes]
    counts: Counter[str]
    native: bool

    def leaks(self, canary: Canary) -> bool:
        """Whether an identifier stands in header, pixels or file name."""
        # Large values of the header (tables, waveforms) are as random as pixels are.
        small = [piece for piece in self.header if len(piece) < _LARGE_BYTES]
        large = [piece for piece in self.header if len(piece) >= _LARGE_BYTES]
        where = Where.NATIVE if self.native else Where.COMPRESSED
        return (
            canary.finds(b"".join(small))
            or any(canary.finds(piece, Where.COMPRESSED) for piece in large)
            or any(canary.finds(piece, where) for piece in self.pixels)
            or canary.finds(self.instance.encode())
        )


@dataclass
class Package:
    """What a run gave out, and what its owner keeps."""

    report: Report
    mapping: Mapping
    names: dict[int, str] = field(default_factory=dict)
    """The names of the files given out, by their number in the input."""


class Deidentifier:
    """A profile and a key, ready for packages. Not for several threads at once."""

    def __init__(self, profile: Profile, key: bytes) -> None:
        if profile.text_detection == "ocr" and not ocr.is_available():
            raise ProfileError(
                "The profile wants text_detection: ocr. Install pytesseract and "
                "tesseract, or set it to off."
            )
        self.profile = profile
        self.pseudonyms = Pseudonyms(key)
        self._safe_private = SafeList.of(profile)
        self._rules: dict[tuple[str, str], Rules] = {}

    def rules(self, elements: Sequence[Element]) -> Rules:
        """The rules for a data set's SOP class and modality."""
        kind = text_of(elements, SOP_CLASS), text_of(elements, MODALITY).upper()
        found = self._rules.get(kind)
        if found is None:
            found = self._rules[kind] = Rules(self.profile, kind[1], kind[0])
        return found

    def file(self, content: bytes, scrubber: Scrubber) -> Deidentified:
        """One file's content, de-identified; the canary has not seen it yet.

        Raises
        ------
        Refused, Held
            Where the file stays inside.
        """
        data_set = part10.read(content)
        sop_class = _require_instance(data_set.elements)
        rules = self.rules(data_set.elements)
        burned_in.require_whole(data_set)
        burned_in.check(data_set, sop_class, rules.options)
        if self.profile.text_detection == "ocr":
            ocr.hold_if_text(content)
        engine = Engine(rules, self.pseudonyms, scrubber, self._safe_private)
        patient = patient_of(data_set.elements, self.pseudonyms)
        outcome = engine.run(data_set.elements, patient, explicit=data_set.explicit)
        outcome.counts["damaged"] += len(data_set.damaged)
        elements = outcome.elements
        tail = [element for element in elements if element.tag >> 16 >= _PIXEL_GROUP]
        data_set.elements = [e for e in elements if e.tag >> 16 < _PIXEL_GROUP]
        instance = text_of(elements, SOP_INSTANCE)
        return Deidentified(
            instance,
            text_of(elements, SERIES),
            part10.write(data_set, sop_class, instance),
            encode(tail, explicit=data_set.explicit),
            outcome.counts,
            native=data_set.syntax in burned_in.NATIVE,
        )

    def package(
        self,
        files: Iterable[Path],
        target: Path,
        *,
        root: Path | None = None,
        job: str = "",
        whole_series: bool = False,
        progress: Progress = lambda _phase, _done, _total: None,
    ) -> Package:
        """De-identify files into the new folder `target`.

        Parameters
        ----------
        files
            Any files; what is no DICOM is refused and the rest goes on.
        target
            A folder that does not exist, or is empty. It gets the files under their new
            SOP Instance UIDs and `report.json`.
        root
            What paths in the report are relative to.
        job
            The name that the mapping is bound to.
        whole_series
            Hold all files of a series of which one is held or refused.

        Raises
        ------
        FolderError
            Where `target` cannot be used.
        """
        paths = sorted(files)
        run = _Run(self, root, job or secrets.token_hex(8), progress)
        with _staging_for(target) as staging:
            try:
                package = run.into(paths, staging, whole_series=whole_series)
            except OSError as err:
                raise FolderError(
                    f"{target} could not be written: {err.strerror}. Nothing was given "
                    "out; make room and run again."
                ) from err
            _publish(staging, target)
        return package


class _Run:
    """The state of one package while it is made."""

    def __init__(
        self, owner: Deidentifier, root: Path | None, job: str, progress: Progress
    ) -> None:
        self.owner = owner
        self.root = root
        self.progress = progress
        self.identifiers = Identifiers()
        self.own_dates: set[str] = set()
        self.patients: dict[str, PatientMapping] = {}
        self.studies: dict[str, dict[str, str]] = {}
        self.job = job
        self.counts: Counter[str] = Counter()
        profile = owner.profile
        self.report = Report(
            {
                "name": profile.name,
                "version": profile.version,
                "sha256": profile.digest,
            },
            tables={
                "annex_e": "2024b and 2026c",
                "burned_in": burned_in.table_version(),
            },
        )

    def into(self, paths: list[Path], staging: Path, *, whole_series: bool) -> Package:
        surveyed = self._survey(paths)
        scrubber = Scrubber.of(self.identifiers)
        pseudonyms = self.owner.pseudonyms
        own_uids = [pseudonyms.uid(uid) for uid in self.identifiers.uids]
        canary = Canary(self.identifiers, own_uids, self.own_dates)
        done: list[tuple[_Surveyed, str]] = []
        names: set[str] = set()
        with ThreadPoolExecutor(2, "fsync") as pool:
            written: list[Future[None]] = []
            for count, one in enumerate(surveyed, 1):
                try:
                    name = self._one(
                        one, scrubber, canary, staging, names, pool, written
                    )
                    done.append((one, name))
                except NotGivenOut as err:
                    one.fault = err
                self.progress("files", count, len(surveyed))
            for future in written:
                future.result()
        if whole_series:
            done = self._whole_series(surveyed, done, staging)
        package = self._package(surveyed, done)
        report = package.report.as_json().encode()
        if canary.finds(report):
            raise FolderError(
                "The report itself would tell an identifier; nothing was given out. "
                "Please report this as a fault."
            )
        _write(staging / REPORT_NAME, [report])
        _sync(staging / REPORT_NAME)
        return package

    def _survey(self, paths: list[Path]) -> list[_Surveyed]:
        surveyed: list[_Surveyed] = []
        for number, path in enumerate(paths, 1):
            relative = path.relative_to(self.root) if self.root else PurePath(path.name)
            one = _Surveyed(number, path, shown(relative, self.owner.pseudonyms))
            try:
                self._look_at(one)
            except NotGivenOut as err:
                one.fault = err
            surveyed.append(one)
            self.progress("survey", number, len(paths))
        return surveyed

    def _look_at(self, one: _Surveyed) -> None:
        try:
            content, one.stamp = _content(one.path)
            data_set = part10.read(content)
        except Refused as err:
            one.series = text_of(err.before, SERIES)
            raise
        elements = data_set.elements
        _require_instance(elements)
        pseudonyms = self.owner.pseudonyms
        one.series = text_of(elements, SERIES)
        patient = patient_of(elements, pseudonyms)
        rules = self.owner.rules(elements)
        found = collect(elements, rules, explicit=data_set.explicit)
        self.identifiers.add(found)
        dates = {
            moved: date
            for date in found.dates
            if (moved := shift_date(date, patient.shift_days))
        }
        self.own_dates |= dates.keys()
        self._remember(elements, patient, dates)

    def _remember(
        self, elements: list[Element], patient: Patient, dates: dict[str, str]
    ) -> None:
        """Keep what the mapping needs of a file."""
        encodings = encodings_of(elements, ["latin-1"])
        form = self.owner.profile.patient_id
        code = form.replace("{code}", patient.code)
        known = self.patients.get(code)
        if known is None:
            attributes = _attributes(elements, _PATIENT_ATTRIBUTES, encodings)
            known = self.patients[code] = PatientMapping(attributes, {})
        known.dates.update(dates)
        study = text_of(elements, STUDY)
        new = self.owner.pseudonyms.uid(study) if study else ""
        if new and new not in self.studies:
            self.studies[new] = _attributes(elements, _STUDY_ATTRIBUTES, encodings)

    def _one(
        self,
        one: _Surveyed,
        scrubber: Scrubber,
        canary: Canary,
        staging: Path,
        names: set[str],
        pool: ThreadPoolExecutor,
        written: list[Future[None]],
    ) -> str:
        if one.fault is not None:
            raise one.fault
        content, stamp = _content(one.path)
        if stamp != one.stamp:
            raise Refused("changed", "The file changed meanwhile; run again.")
        done = self.owner.file(content, scrubber)
        name, one.new_series = f"{done.instance}.dcm", done.series
        if name in names:
            raise Refused("duplicate", "Another file has the same SOP Instance UID.")
        if done.leaks(canary):
            raise Held(
                "canary",
                "An identifier of the package would still stand in this file; look at "
                "which attribute the profile keeps it in.",
            )
        names.add(name)
        self.counts += done.counts
        path = staging / name
        _write(path, [*done.header, *done.pixels])
        written.append(pool.submit(_sync, path))
        return name

    def _whole_series(
        self,
        surveyed: list[_Surveyed],
        done: list[tuple[_Surveyed, str]],
        staging: Path,
    ) -> list[tuple[_Surveyed, str]]:
        broken = {one.series for one in surveyed if one.fault and one.series}
        kept: list[tuple[_Surveyed, str]] = []
        for one, name in done:
            if one.series in broken:
                one.fault = Held("series", "Another file of its series stays inside.")
                (staging / name).unlink()
            else:
                kept.append((one, name))
        return kept

    def _package(
        self, surveyed: list[_Surveyed], done: list[tuple[_Surveyed, str]]
    ) -> Package:
        report, pseudonyms = self.report, self.owner.pseudonyms
        report.files, report.given_out = len(surveyed), len(done)
        for one in surveyed:
            if one.fault is not None:
                entries = report.held if isinstance(one.fault, Held) else report.refused
                fault = one.fault
                entries.append(Entry(one.number, one.shown, fault.reason, fault.detail))
        report.series = dict(Counter(one.new_series for one, _ in done if one.series))
        report.elements = dict(sorted(self.counts.items()))
        mapping = Mapping(
            self.job,
            self.owner.profile.digest,
            {pseudonyms.uid(uid): uid for uid in self.identifiers.uids},
            self.patients,
            self.studies,
        )
        return Package(report, mapping, {one.number: name for one, name in done})


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, links to folders not followed."""
    found: list[Path] = []
    for here, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(here, name) for name in names]
    return sorted(found)


def text_of(elements: Sequence[Element], tag: int) -> str:
    """The text of a top-level element; empty where there is none."""
    for element in elements:
        if element.tag == tag and element.items is None:
            return element.value.decode("latin-1").strip(" \0")
        if element.tag > tag:
            break
    return ""


def _attributes(
    elements: list[Element], wanted: dict[int, str], encodings: list[str]
) -> dict[str, str]:
    return {
        wanted[element.tag]: decode(element.value, encodings).strip(" \0")
        for element in elements
        if element.tag in wanted and element.items is None
    }


def _require_instance(elements: Sequence[Element]) -> str:
    """The SOP class of a data set that has one, and an instance UID."""
    sop_class = text_of(elements, SOP_CLASS)
    if sop_class == _DIRECTORY:
        raise Refused("unsupported", "A DICOMDIR lists patients; make a new one.")
    if not sop_class or not text_of(elements, SOP_INSTANCE):
        raise Refused("incomplete", "The file has no SOP Class UID or Instance UID.")
    # It goes into the file meta information as it is.
    if re.fullmatch(RE_VALID_UID, sop_class) is None:
        raise Refused("damaged", "The SOP Class UID is no UID.")
    return sop_class


def _content(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """A file's bytes, and what changes whenever they do."""
    try:
        # Not to wait for what a pipe or a device never gives.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Refused("unreadable", "This is a pipe or a device, and no file.")
            stamp = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            return file.read(), stamp
    except OSError as err:
        raise Refused(
            "unreadable", f"The file cannot be read: {err.strerror}."
        ) from err


@contextmanager
def _staging_for(target: Path) -> Iterator[Path]:
    """A new folder on the same file system as `target`, for the owner only.

    It is locked while it is used and removed afterwards. What a run that was killed
    has left is known by its lock, which died with it, and is removed first.
    """
    try:
        if target.exists() and not target.is_dir():
            raise FolderError(f"{target} is a file; name a folder that is to be made.")
        inside = target.is_dir()
        folder = target if inside else target.parent
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        if inside and any(target.iterdir()):
            raise FolderError(
                f"{target} is not empty. Nothing is ever overwritten: name a new "
                "folder, or empty this one."
            )
        staging = folder / f"{_PARTIAL}{secrets.token_hex(6)}"
        staging.mkdir(mode=0o700)
    except OSError as err:
        raise FolderError(f"{target} cannot be written to: {err.strerror}.") from err
    handle = os.open(staging, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what killed runs left; what a run still holds is locked."""
    for left in folder.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - left.stat().st_mtime > _YOUNG_S or _holds(left):
                    _take_back(left, folder)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(handle)


def _holds(folder: Path) -> bool:
    """Whether anything lies in a folder: a new one may not be locked yet."""
    return any(folder.iterdir())


def _publish(staging: Path, target: Path) -> None:
    """Let the package appear; nothing that exists is replaced.

    A new folder appears at once. In one that exists already the files appear one after
    the other, and stay in `staging` until all are there: so whoever finds them both
    knows what a run that was killed meanwhile has put there, and takes it back.
    """
    _sync(staging)
    try:
        if staging.parent != target:
            staging.rename(target)  # refuses a folder that is not empty
            _sync(target.parent)
            return
        names = sorted(p.name for p in staging.iterdir() if p.name != REPORT_NAME)
        for name in [*names, REPORT_NAME]:  # the report last: with it all is there
            os.link(staging / name, target / name)
        _sync(target)
    except BaseException as err:
        _take_back(staging, target)
        if not isinstance(err, OSError):
            raise
        raise FolderError(
            f"The package could not be moved to {target}: {err.strerror}. "
            "Nothing there was replaced; run again with a new folder."
        ) from err


def _take_back(staging: Path, target: Path) -> None:
    """Remove what was published of a package, unless all of it was.

    Without a report nothing of it was published yet, or it is being removed.
    """
    report = staging / REPORT_NAME
    if not report.exists() or _is_same(report, target / REPORT_NAME):
        return
    for file in staging.iterdir():
        if _is_same(file, target / file.name):
            (target / file.name).unlink()


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are of one file."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _write(path: Path, pieces: list[bytes]) -> None:
    with path.open("xb") as file:
        file.writelines(pieces)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        with suppress(OSError):
            os.close(descriptor)

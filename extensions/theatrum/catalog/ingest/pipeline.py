"""Images into a project: every item is taken in, known already, or refused.

    report = ingest(database, home, ["/data/a", "b.zip"], Wishes("study", "ann"))

An item is registered as soon as it is done, in one transaction, so that what was done
before an interruption stays; run again, it is known by its checksums. A bad item is a
line in the report and never stops the rest.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from hub.durable.database import Database
from hub.home import Home
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.formats import FormatError
from theatrum.catalog.formats.dicom.series import LEFT_OUT
from theatrum.catalog.ingest import look
from theatrum.catalog.ingest.bare import TOLD
from theatrum.catalog.ingest.deid import Deidentification, key_of
from theatrum.catalog.ingest.errors import IngestError
from theatrum.catalog.ingest.fields import guess_modality, of_name
from theatrum.catalog.ingest.items import Item, files_below, items_of
from theatrum.catalog.ingest.place import (
    Checked,
    again,
    check,
    keep,
    lies_alone,
)
from theatrum.catalog.ingest.registering import (
    Prepared,
    Shown,
    known_images,
    register,
)
from theatrum.catalog.ingest.report import Entry, Report, shown
from theatrum.catalog.ingest.rules import Rule, classify, rules_of
from theatrum.catalog.ingest.sources import Gathered, gathered
from theatrum.catalog.ingest.wishes import Progress, Step, Wishes
from theatrum.catalog.ingest.workers import Workers
from theatrum.catalog.record import recording
from tile_server.errors import TileServerError
from tile_server.probing import Prober
from tile_server.versions import file_version

log = logging.getLogger(__name__)

STAGING: Final = ".incoming"
"""Below the home's folder of images: what came and is not registered yet."""


_SAYS_NOTHING: Final = frozenset({"dicom", "dcm", "images", "series", "slices"})


def ingest(
    database: Database,
    home: Home,
    sources: Sequence[str],
    wishes: Wishes,
    *,
    progress: Progress = lambda _step: None,
    workers: Workers | None = None,
) -> Report:
    """Take in everything that the sources hold.

    Ctrl-C ends it after what is being done is undone or registered: the report that
    comes back then says `interrupted`.

    Raises
    ------
    IngestError
        Where the wishes cannot be followed; then nothing was looked at.
    """
    run = Run.register
    return ingest_into(
        database, home, sources, wishes, run, progress=progress, workers=workers
    )


Keep = Callable[["Run", Item, Gathered, Path, Entry], Entry]
"""What becomes of an item: into the project, or into its inbox."""


def ingest_into(
    database: Database,
    home: Home,
    sources: Sequence[str],
    wishes: Wishes,
    keep_item: Keep,
    *,
    progress: Progress = lambda _step: None,
    workers: Workers | None = None,
) -> Report:
    """Give every item of the sources to `keep_item`; see `ingest`."""
    report = Report(wishes.project, started=_now())
    with opened(
        database,
        home,
        wishes,
        report,
        progress=progress,
        keep_item=keep_item,
        workers=workers,
    ) as run:
        try:
            for source in sources:
                run.source(source)
        except KeyboardInterrupt:
            report.interrupted = True
    report.ended = _now()
    return report


@contextmanager
def opened(
    database: Database,
    home: Home,
    wishes: Wishes,
    report: Report,
    *,
    progress: Progress = lambda _step: None,
    keep_item: Keep | None = None,
    workers: Workers | None = None,
) -> Iterator[Run]:
    """What takes items in, for the length of a `with`; its own workers go with it."""
    home.prepare()
    with ExitStack() as closing:
        if workers is None:
            workers = closing.enter_context(Workers(home, wishes.limits))
        with recording(database, wishes.actor) as book:
            project = book.project(wishes.project)
            rules, faults = rules_of(book.session, project.id)
        report.warnings += [one for one in faults if one not in report.warnings]
        yield Run(
            database=database,
            home=home,
            wishes=wishes,
            report=report,
            progress=progress,
            project_id=project.id,
            rules=rules,
            looker=workers.looker,
            prober=workers.prober,
            keep_item=keep_item or Run.register,
        )


@dataclass
class Run:
    """One ingest while it goes on; see `opened`."""

    database: Database
    home: Home
    wishes: Wishes
    report: Report
    progress: Progress
    project_id: int
    rules: Sequence[Rule]
    looker: look.Looker
    prober: Prober
    keep_item: Keep
    named: str = ""
    """What its images are named after; by default what the files themselves tell."""

    def __post_init__(self) -> None:
        self.key = key_of(self.home, self.wishes.key_file)
        self.deidentification = (
            Deidentification(self.wishes.profile, self.key)
            if self.wishes.profile
            else None
        )

    def source(self, source: str) -> None:
        """Take in what a source holds; one that fails is an entry of the report."""
        staging = self.home.images / STAGING / secrets.token_hex(8)
        staging.mkdir(mode=0o700, parents=True)
        try:
            fetched = staging / "fetched"
            fetched.mkdir()

            def tell(done: int, total: int) -> None:
                self.progress(Step("fetch", done, total))

            def unpack(path: Path, folder: Path) -> None:
                self.looker.unpack(path, folder, self.wishes.archive_limits)

            with gathered(source, fetched, unpack=unpack, tell=tell) as found:
                self.found(found, staging)
        except IngestError as error:
            name = source if "://" in source else Path(source).name
            reason = str(error)
            if self.deidentification is not None:
                reason, name = reason.replace(Path(source).name, "It"), "source"
            self.report.add(Entry(name, (name,), "refused", reason))
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def found(self, found: Gathered, staging: Path) -> None:
        """Take in the items of a folder of files."""
        files = list(files_below(found.root))
        root = found.root if found.root.is_dir() else found.root.parent
        if found.root.is_dir() and files == [found.root]:
            root = found.root.parent
        looked = 0

        def seen(path: Path) -> None:
            nonlocal looked
            looked += 1
            self.progress(Step("sort", looked, len(files), path.name))

        items = items_of(
            files,
            root,
            seen=seen,
            kinds_of=self.looker.kinds,
            identified=self.looker.identify,
        )
        for number, item in enumerate(items):
            self.progress(Step("take", number, len(items), item.paths[0].name))
            began = time.monotonic()
            entry = self._told(self.item(item, found, staging), item)
            seconds = round(time.monotonic() - began, 3)
            self.report.add(replace(entry, seconds=seconds))
        self.progress(Step("take", len(items), len(items), ""))
        if not items:
            label = "source" if self.deidentification is not None else found.label
            self.report.add(Entry(label, (label,), "refused", "There are no files."))

    def _told(self, entry: Entry, item: Item) -> Entry:
        """The entry as it may be told: de-identified, without names of files."""
        if self.deidentification is None:
            return entry
        reason = entry.reason
        for path in sorted(item.every, key=lambda one: -len(one.name)):
            reason = reason.replace(path.name, "The file")
        return replace(entry, source="source", reason=reason)

    def item(self, item: Item, found: Gathered, staging: Path) -> Entry:
        """Take in one item; what it became."""
        entry = Entry(found.label, self._shown(item), "refused", format=item.format)
        try:
            try:
                return self.keep_item(self, item, found, staging, entry)
            except IntegrityError:
                # Another process took the same in meanwhile: now it is known.
                return self.keep_item(self, item, found, staging, entry)
        except (FormatError, IngestError, TileServerError) as error:
            return replace(entry, reason=str(error))
        except CatalogError as error:
            return replace(entry, reason=f"It cannot be registered: {error}")
        except SQLAlchemyError as error:
            kind = type(error).__name__
            log.warning("the database refuses an item: %s", kind)
            return replace(entry, reason=f"The database does not take it ({kind}).")
        except OSError as error:
            log.warning("an item cannot be taken in: %s", type(error).__name__)
            return replace(
                entry, reason=f"It cannot be read or kept: {error.strerror or 'error'}."
            )

    def register(
        self, item: Item, found: Gathered, staging: Path, entry: Entry
    ) -> Entry:
        """Take an item into the project; what it became. Raises what `item` tells."""
        if item.refusal:
            return replace(entry, reason=item.refusal)
        original = item
        item, warnings = self.given_out(item, staging)
        given_out = item is not original
        checked = check(item.every)
        entry = replace(entry, size=checked.size)
        known = self.known(checked)
        if known is not None:
            return replace(
                entry, status="known", images=known, warnings=tuple(warnings)
            )
        planes = staging / secrets.token_hex(4)
        scenes = self.looker.describe(
            item.paths, item.format, planes=planes, key=self.key
        )
        guess_modality(scenes, original.paths[0].name, self.wishes.fields)
        whole = item
        item, checked = self._without_bad(item, checked, scenes, found.label)
        if item is not whole and (known := self.known(checked)) is not None:
            return replace(entry, files=self._shown(item), status="known", images=known)
        entry = replace(entry, files=self._shown(item), size=checked.size)
        ours = found.ours or given_out
        done = self._registered(
            original, item, checked, scenes, planes, ours=ours, given_out=given_out
        )
        for scene in scenes:
            warnings += scene["warnings"]
        return replace(
            entry,
            status="taken",
            images=done,
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def given_out(self, item: Item, staging: Path) -> tuple[Item, list[str]]:
        """The item de-identified, where that is wished, and what there is to tell.

        Raises IngestError where nothing of it may be given out.
        """
        if self.deidentification is None:
            return item, []
        if item.format != "dicom":
            made = self.looker.bare(
                item.paths, item.format, staging / f"bare-{secrets.token_hex(6)}"
            )
            return (
                replace(item, paths=(made.path,), format=made.format, beside=()),
                [TOLD],
            )
        given = self.looker.deidentify(
            item.paths,
            staging / f"deidentified-{secrets.token_hex(6)}",
            profile=self.wishes.profile,
            key=self.key,
        )
        if not given.files:
            reasons = " ".join(given.reasons)
            raise IngestError(f"It cannot be de-identified: {reasons}")
        return replace(item, paths=given.files), list(given.reasons)

    def _without_bad(
        self,
        item: Item,
        checked: Checked,
        scenes: Sequence[dict[str, Any]],
        label: str,
    ) -> tuple[Item, Checked]:
        """The item without files of its series that cannot be read; these are told."""
        bad: dict[Path, str] = {}
        for scene in scenes:
            bad |= {
                Path(name): reason for name, reason in scene["attrs"].pop(LEFT_OUT, [])
            }
        if not bad:
            return item, checked
        if self.deidentification is not None:
            label = "source"
        for path, reason in bad.items():
            name = self._shown(replace(item, paths=(path,), beside=()))
            self.report.add(Entry(label, name, "refused", reason, item.format))
        left = tuple(path for path in item.paths if path not in bad)
        good = {path: one for path, one in checked.files.items() if path not in bad}
        return replace(item, paths=left), again(good)

    def known(self, checked: Checked) -> tuple[str, ...] | None:
        """`project/name` of the images that these files are already, or None."""
        with self.database.reading() as session:
            names = known_images(session, self.project_id, list(checked.files.values()))
        if names is None:
            return None
        return tuple(f"{self.wishes.project}/{name}" for name in names)

    def _registered(
        self,
        original: Item,
        item: Item,
        checked: Checked,
        scenes: Sequence[Mapping[str, Any]],
        planes: Path,
        *,
        ours: bool,
        given_out: bool,
    ) -> tuple[str, ...]:
        """Put the files in their places and write the rows; names of the images."""
        made: list[Path] = []
        try:
            kept = self._kept(item, checked, ours=ours)
            paths = [_now_at(path, kept) for path in item.paths]
            showing = [self._showing(item, paths, one, made) for one in scenes]
            prepared = Prepared(
                checked=checked,
                kept=kept,
                name=str(_as_text(Path(self.name_of(original, scenes)))),
                names=dict(
                    zip(
                        checked.files,
                        self._file_names(original, checked),
                        strict=True,
                    )
                ),
                format=item.format,
                scenes=scenes,
                shown=showing,
                planes=[self._planes(one, planes, checked, made) for one in scenes],
                fields=self._fields(original, scenes),
                sidecars=[
                    one
                    for one in item.beside
                    if one.suffix in (".json", ".bval", ".bvec")
                ],
                deidentified=given_out,
                received_from=self.wishes.received_from,
            )
            with recording(self.database, self.wishes.actor) as book:
                project = book.project(self.wishes.project)
                images = register(book, project, prepared)
                return tuple(f"{project.name}/{one.name}" for one in images)
        except BaseException:
            for path in made:
                _remove(path)
            raise

    def _kept(self, item: Item, checked: Checked, *, ours: bool) -> Mapping[Path, Path]:
        """Where the item's files lie from now on."""
        files = list(checked.files)
        scattered = (
            item.format == "dicom"
            and len(files) > 1
            and not item.whole_slide
            and not lies_alone(files)
        )
        sayable = all(_is_text(path) for path in files)
        if sayable and not (ours or self.wishes.copy or scattered):
            return {path: path for path in files}
        if item.format == "dicom" and not item.whole_slide:
            names = {
                path: Path(f"{number:05d}.dcm")
                for number, path in enumerate(files, start=1)
            }
        else:
            top = item.paths[0].parent
            names = {
                path: _as_text(
                    path.relative_to(top)
                    if path.is_relative_to(top)
                    else Path(path.name)
                )
                for path in files
            }
        return keep(self.home.images, checked, names, move=ours)

    def _showing(
        self,
        item: Item,
        paths: Sequence[Path],
        scene: Mapping[str, Any],
        made: list[Path],
    ) -> Shown:
        """The original, where the tile service shows this scene of it; else a copy."""
        path = paths[0]
        if item.format == "dicom" and len(paths) > 1 and not item.whole_slide:
            path = path.parent
        if int(scene["index"]) == 0:
            try:
                view = self._view(path)
            except TileServerError as error:
                log.info("a copy is made: %s", type(error).__name__)
            else:
                if _is_same(view, scene["image"]):
                    return Shown(path, file_version(path), view)
        target = (
            self.home.derived / self.wishes.project
            / f"{secrets.token_hex(8)}.ome.zarr"
        )  # fmt: skip
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made.append(target)
        written = self.looker.copy(
            paths, item.format, int(scene["index"]), target, int(scene["bytes"])
        )
        return Shown(target, file_version(target), self._view(target), written)

    def _view(self, path: Path) -> dict[str, Any]:
        finding = self.prober.probe(path, file_version(path))
        return finding.view | {"associated": list(finding.associated)}

    def _planes(
        self,
        scene: Mapping[str, Any],
        folder: Path,
        checked: Checked,
        made: list[Path],
    ) -> Path | None:
        if scene["planes"] is None:
            return None
        target = (
            self.home.derived / self.wishes.project / "planes"
            / f"{checked.digest[:32]}-{scene['index']}.parquet"
        )  # fmt: skip
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made.append(target)
        (folder / scene["planes"]["file"]).replace(target)
        return target

    def _fields(
        self, item: Item, scenes: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """What the name, the rules and the wishes say; the later has the word."""
        name = shown(item.paths[0], item.root)
        header = scenes[0]["acquisition"] | {
            "format": item.format,
            "orientation": scenes[0]["image"]["orientation"],
            "plane": scenes[0]["image"]["plane"],
        }
        _, told = classify(self.rules, name, header)
        # A name can be a person's; what a rule takes out of it somebody chose.
        named = {} if self.deidentification is not None else of_name(name)
        return {**named, **told, **self.wishes.fields}

    def name_of(self, item: Item, scenes: Sequence[Mapping[str, Any]]) -> str:
        """What an image is named after."""
        if self.named:
            return self.named
        path = item.paths[0]
        if item.format == "dicom" and not item.whole_slide:
            about = scenes[0]["acquisition"]
            told = str(about["description"] or about["protocol"].get("protocol") or "")
            if told:
                return told
        if self.deidentification is not None:
            return item.format or "image"
        if item.format == "dicom" and len(item.paths) > 1:
            return _telling(path.parent, item.root)
        name = path.name
        for ending in (".gz", ".zip", ".bz2"):
            name = name.removesuffix(ending)
        stem = Path(name).stem
        return stem.removesuffix(".ome").removesuffix(".companion") or "image"

    def _shown(self, item: Item) -> tuple[str, ...]:
        """The names of an item's files for the report."""
        files = item.paths + item.beside
        if self.deidentification is not None:
            return tuple(f"file {number}" for number in range(1, len(files) + 1))
        return tuple(shown(one, item.root) for one in files)

    def _file_names(self, original: Item, checked: Checked) -> list[str]:
        if self.deidentification is not None:
            return [f"file {number}" for number in range(1, len(checked.files) + 1)]
        root = original.root
        return [shown(one, root) for one in checked.files]


def _is_same(view: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Whether what the tile service shows of a file is this scene, whole."""
    mine = [image[f"n_{dim}"] for dim in "xyzt"]
    its = [view["width"], view["height"], view["z"], view["t"]]
    return mine == its and len(view["channels"]) == image["n_c"]


def _telling(folder: Path, root: Path) -> str:
    """The name of a folder, or of the one above where its own says nothing."""
    while folder.name.lower() in _SAYS_NOTHING and folder not in (root, folder.parent):
        folder = folder.parent
    return folder.name


def _now_at(path: Path, kept: Mapping[Path, Path]) -> Path:
    """Where a file lies now; of a folder, where the files in it do."""
    if path in kept:
        return kept[path]
    for before, now in kept.items():
        if path in before.parents:
            depth = len(before.relative_to(path).parts)
            return now.parents[depth - 1]
    return path


def _is_text(path: Path) -> bool:
    """Whether a path can be written down; file systems take any bytes."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _as_text(path: Path) -> Path:
    """The path with what is no text replaced."""
    return Path(os.fspath(path).encode("utf-8", "replace").decode("utf-8"))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        path.with_name(path.name + ".sha256").unlink(missing_ok=True)
    else:
        path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

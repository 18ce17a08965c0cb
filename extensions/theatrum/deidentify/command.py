"""`theatrum deidentify IN OUT`: folders in, folders out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

DONE = 0
WRONG_CALL = 2
SOME_STAYED = 3
NONE_GIVEN_OUT = 4

errors = Console(stderr=True, highlight=False)


def deidentify(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A folder of DICOM files, or one file.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="A folder that is new or empty.")
    ],
    key_file: Annotated[
        Path,
        typer.Option(
            help="The secret that pseudonyms are made from; 16 bytes or more."
        ),
    ],
    profile: Annotated[
        str, typer.Option(help="basic, autosegmentation, or a .yaml or .json file.")
    ] = "basic",
    whole_series: Annotated[
        bool, typer.Option("--whole-series", help="Hold a series if one file stays.")
    ] = False,
    mapping: Annotated[
        Path | None,
        typer.Option(help="Keep what is needed to undo it here, encrypted."),
    ] = None,
    operator_list: Annotated[
        Path | None, typer.Option(help="List the paths of held and refused files here.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Say by the exit code if a file stayed.")
    ] = False,
) -> None:
    """De-identify DICOM files after PS3.15 Annex E.

    Exit codes:

    0 the run is complete: OUT/report.json lists what was held or refused, and why;

    2 the call, the profile, the key or a folder is wrong, and nothing was written;

    3 (with --strict) some files were held or refused;

    4 (with --strict) no file was given out.
    """
    from theatrum.deidentify.errors import DeidentifyError

    try:
        code = _run(
            source, target, key_file, profile, whole_series, mapping, operator_list
        )
    except DeidentifyError as err:
        errors.print(str(err), markup=False, soft_wrap=True)
        raise typer.Exit(WRONG_CALL) from err
    raise typer.Exit(code if strict else DONE)


def _run(
    source: Path,
    target: Path,
    key_file: Path,
    profile: str,
    whole_series: bool,
    mapping: Path | None,
    operator_list: Path | None,
) -> int:
    from rich.progress import Progress

    from theatrum.deidentify.errors import FolderError
    from theatrum.deidentify.mapping import save_mapping
    from theatrum.deidentify.package import Deidentifier, files_below
    from theatrum.deidentify.profile import load_profile
    from theatrum.deidentify.pseudonyms import read_key

    key = read_key(key_file)
    worker = Deidentifier(load_profile(profile), key)
    if not source.exists():
        raise FolderError(f"{source} does not exist; name a folder of DICOM files.")
    inside, outside = target.resolve(), source.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise FolderError("IN and OUT must not lie in one another; name another OUT.")
    for beside in (mapping, operator_list):
        if beside is not None and beside.exists():
            raise FolderError(f"{beside} exists; nothing is ever overwritten.")
        if beside is not None and inside in beside.resolve().parents:
            raise FolderError(f"{beside} tells who people are: keep it outside of OUT.")
    files = files_below(source) if source.is_dir() else [source]
    root = source if source.is_dir() else source.parent
    titles = {"survey": "Reading identifiers", "files": "De-identifying"}
    with Progress(console=errors, transient=True) as bar:
        tasks = {
            name: bar.add_task(title, total=None) for name, title in titles.items()
        }

        def show(phase: str, done: int, total: int) -> None:
            bar.update(tasks[phase], completed=done, total=total)

        job = "" if mapping is None else mapping.name
        package = worker.package(
            files, target, root=root, job=job, whole_series=whole_series, progress=show
        )
    if mapping is not None:
        save_mapping(package.mapping, mapping, key)
    report = package.report
    if operator_list is not None:
        stayed = sorted(
            (entry.number, entry.reason) for entry in [*report.held, *report.refused]
        )
        operator_list.touch(mode=0o600, exist_ok=False)
        operator_list.write_text(
            "".join(f"{reason}\t{files[number - 1]}\n" for number, reason in stayed),
            "utf-8",
            "surrogateescape",
        )
    errors.print(
        f"{report.given_out} of {report.files} files given out, "
        f"{len(report.held)} held, {len(report.refused)} refused; "
        "see report.json in OUT.",
        markup=False,
    )
    if report.given_out == report.files:
        return DONE
    return SOME_STAYED if report.given_out else NONE_GIVEN_OUT


def main() -> None:
    """The command by itself, for machines without the rest of Theatrum."""
    typer.run(deidentify)


if __name__ == "__main__":
    main()

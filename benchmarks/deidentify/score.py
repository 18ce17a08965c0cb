"""The ten actions of MIDI-B, checked against a folder of de-identified files.

Nothing here knows how the files were made: it gets the answer key, which output belongs
to which input, and the mapping of UIDs and patient ids that was handed in with them. As
in MIDI-B, a file that was not given out passes every removal and fails every retention.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread

from benchmarks.deidentify.corpus import Answer

REMOVALS = {"text_removed", "date_shifted", "uid_changed", "pixels_hidden"}


@dataclass
class Score:
    """Passed and asked, by action; and what failed."""

    passed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failures: list[Answer] = field(default_factory=list)

    def share(self, *actions: str) -> float:
        """The share that passed, of some actions or of all; 1 where none was asked."""
        chosen = actions or tuple(self.asked)
        asked = sum(self.asked[action] for action in chosen)
        return sum(self.passed[action] for action in chosen) / asked if asked else 1.0


def score(
    answers: Iterable[Answer],
    source: Path,
    outputs: Mapping[str, Path],
    uids: Mapping[str, str],
    patients: Mapping[str, str],
) -> Score:
    """Check every answer.

    Parameters
    ----------
    outputs
        Output files by the name of their input; what is missing was not given out.
    uids, patients
        New values by old ones, as the de-identifier handed them in.
    """
    result = Score()
    by_file: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_file[answer.file].append(answer)
    for name, asked in sorted(by_file.items()):
        path = outputs.get(name)
        checker = (
            None if path is None else _Checker(source / name, path, uids, patients)
        )
        for answer in asked:
            result.asked[answer.action] += 1
            if checker is None:
                good = answer.action in REMOVALS
            else:
                good = bool(getattr(checker, answer.action)(answer))
            if good:
                result.passed[answer.action] += 1
            else:
                result.failures.append(answer)
    return result


class _Checker:
    """One output beside its input."""

    def __init__(
        self,
        before: Path,
        after: Path,
        uids: Mapping[str, str],
        patients: Mapping[str, str],
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # the corpus holds invalid values on purpose
            self.before = dcmread(before)
            self.after = dcmread(after)
        self.content = after.read_bytes().lower()
        self.text = after.name.lower().encode() + b"\n" + self.content
        self.uids = uids
        self.patients = patients

    def _value(self, answer: Answer) -> str | None:
        found: Any = self.after  # a data set, a sequence or a value, step by step
        for step in answer.path:
            try:
                if isinstance(found, Dataset) and isinstance(step, str):
                    found = getattr(found, step)
                else:
                    found = found[step]
            except (AttributeError, IndexError, KeyError):
                return None
        if isinstance(found, list):
            return "\\".join(map(str, found))
        return str(found)

    def tag_retained(self, answer: Answer) -> bool:
        return self._value(answer) is not None

    def text_notnull(self, answer: Answer) -> bool:
        return bool(self._value(answer))

    def text_retained(self, answer: Answer) -> bool:
        value = self._value(answer)
        return value is not None and all(
            word in value for word in re.findall(r"\w+", answer.value)
        )

    def text_removed(self, answer: Answer) -> bool:
        return answer.value.lower().encode() not in self.text

    def date_shifted(self, answer: Answer) -> bool:
        return self._value(answer) != answer.value

    def uid_changed(self, answer: Answer) -> bool:
        return self._value(answer) != answer.value and (
            answer.value.encode() not in self.content
        )

    def uid_consistent(self, answer: Answer) -> bool:
        return self._value(answer) == self.uids.get(answer.value)

    def patid_consistent(self, answer: Answer) -> bool:
        return self._value(answer) == self.patients.get(answer.value)

    def pixels_hidden(self, answer: Answer) -> bool:
        x, y, width, height = map(int, answer.value.split(","))
        box = np.asarray(self.after.pixel_array)[y : y + height, x : x + width]
        return bool((box == box.flat[0]).all())

    def pixels_retained(self, _answer: Answer) -> bool:
        return bool(np.array_equal(self.before.pixel_array, self.after.pixel_array))

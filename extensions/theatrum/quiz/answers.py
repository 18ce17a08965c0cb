"""The answer file: what a student answered, as JSON beside the notebook.

A widget's memory does not outlive its kernel, and a grader has no browser. So every
change of an answer goes to `<question>.answer.json` in the current directory, where
nbgrader collects it with the notebook. One file looks like this::

    {"schema": 1, "question": "tumour", "kind": "outline",
     "image": {"id": "7", "name": "ihc", "version": "1f3c"},
     "answer": {"polygon": [[10.0, 20.0], [30.0, 20.0], [30.0, 40.0]]},
     "time": "2026-10-03T12:02:11+00:00"}

`kind` is `choice` (`{"choice": [keys]}`), `click` (`{"point": [x, y]}`) or `outline`.
Coordinates are level-0 pixels, x before y, kept to a hundredth; the last vertex of a
polygon joins the first without repeating it.

The student can write anything into this file. Reading it therefore opens a plain file
only, reads a bounded number of bytes, and checks every value before it is used; what
is wrong becomes a `BrokenAnswer` in words that the student can act upon. Text from
the file appears in such a message only through `repr`, so that it can neither break
the output's encoding nor pose as something else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NoReturn

from theatrum.quiz.errors import BadQuestion, BrokenAnswer, NoAnswer, NotSaved

SCHEMA = 1
TRIES = ".tries"
MAX_BYTES = 256 * 1024
"""Largest answer file that is read; an outline of `MAX_VERTICES` takes half of it."""

MAX_VERTICES = 4000
"""Most corners of an outline; drawn by hand it has some dozens."""

MAX_CHOICES = 200
MAX_TEXT = 300
MAX_COORDINATE_PX = 10_000_000
"""Far outside of any slide, and small enough for exact geometry in doubles."""

Kind = Literal["choice", "click", "outline"]
Position = tuple[float, float]


@dataclass(frozen=True)
class Chosen:
    """The keys of the options that are ticked."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Clicked:
    """A point in level-0 pixels."""

    point: Position


@dataclass(frozen=True)
class Outlined:
    """The corners of a polygon in level-0 pixels, the first not repeated."""

    polygon: tuple[Position, ...]


Given = Chosen | Clicked | Outlined


@dataclass(frozen=True)
class SeenImage:
    """The image that was on screen when the answer was given."""

    id: str
    name: str
    version: str


@dataclass(frozen=True)
class Answer:
    """An answer to one question, as its file holds it."""

    question: str
    given: Given
    image: SeenImage | None
    time: datetime
    """Aware; the moment of the last change."""

    @property
    def kind(self) -> Kind:
        match self.given:
            case Chosen():
                return "choice"
            case Clicked():
                return "click"
            case Outlined():
                return "outline"


def check_question_id(question: str) -> str:
    """Return the question's id, or raise `BadQuestion` where it is none.

    It becomes part of a file name, so it may not say where that file lies.
    """
    if isinstance(question, str) and re.fullmatch(r"[a-z0-9_-]{1,64}", question):
        return question
    raise BadQuestion(
        f"{_shown(question)} cannot be a question's id: use 1 to 64 small letters "
        "a-z, digits, '-' and '_', for example 'q1-tumour'."
    )


def answer_path(question: str) -> Path:
    """Return where a question's answer is kept, relative to the current directory."""
    return _folder() / f"{check_question_id(question)}.answer.json"


def _folder() -> Path:
    """Return the current directory, or the folder of tries in an assignment's source.

    A teacher tries the questions where the assignment's source lies. nbgrader releases
    what lies there to the students, and when it grades puts it in the place of what
    they handed in; the hub's configuration tells it to leave this folder alone.
    """
    course = os.environ.get("THEATRUM_COURSE_DIR")
    if course and Path.cwd().is_relative_to(Path(course, "source").resolve()):
        return Path(TRIES)
    return Path()


def read_answer(question: str) -> Answer:
    """Return the answer to a question that lies in the current directory.

    Raises
    ------
    NoAnswer
        There is no answer file.
    BrokenAnswer
        There is one, but not with a valid answer to this question.
    """
    return parse_answer(_read_plain_file(answer_path(question)), question)


def parse_answer(content: bytes, question: str) -> Answer:
    """Return the answer that the bytes of an answer file hold.

    Raises `BrokenAnswer` for anything else than a valid answer to this question.
    """
    document = _parse_json(content)
    schema = document.get("schema")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema != SCHEMA:
        raise BrokenAnswer(
            f"it follows schema {_shown(schema)}, this version of Theatrum reads "
            f"schema {SCHEMA}"
        )
    if document.get("question") != question:
        raise BrokenAnswer(
            f"it belongs to the question {_shown(document.get('question'))}"
        )
    return Answer(
        question=question,
        given=_parse_given(document.get("kind"), document.get("answer")),
        image=_parse_image(document.get("image"), document.get("kind")),
        time=_parse_time(document.get("time")),
    )


def format_answer(answer: Answer) -> bytes:
    """Return the content of the answer file."""
    image = answer.image
    document = {
        "schema": SCHEMA,
        "question": answer.question,
        "kind": answer.kind,
        "image": image
        and {"id": image.id, "name": image.name, "version": image.version},
        "answer": _format_given(answer.given),
        "time": answer.time.astimezone(UTC).isoformat(timespec="seconds"),
    }
    return (json.dumps(document) + "\n").encode("ascii")


def save_answer(answer: Answer) -> None:
    """Write an answer to its file, whole or not at all.

    The bytes go to a staging name, reach the disk, and are then renamed. Raises
    `NotSaved`, in which case the file before it is untouched; so it is when the
    answer is one that `read_answer` would refuse.
    """
    content = format_answer(answer)
    try:
        parse_answer(content, answer.question)
    except BrokenAnswer as error:
        raise NotSaved(error.reason) from error
    path = answer_path(answer.question)
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(exist_ok=True)
        with staging.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
        _sync(path.parent)
    except OSError as error:
        # Where the staging file cannot be removed either, the first error says more.
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)
        raise NotSaved(_reason(error)) from error


def remove_answer(question: str) -> None:
    """Remove the answer file, if there is one. Raises `NotSaved`."""
    try:
        path = answer_path(question)
        path.unlink(missing_ok=True)
        _sync(path.parent)
    except FileNotFoundError:
        # There is no folder of tries yet, hence nothing in it.
        return
    except OSError as error:
        raise NotSaved(_reason(error)) from error


def rounded(x: float, y: float) -> Position:
    """Return a position as an answer keeps it: to a hundredth of a pixel."""
    return round(float(x), 2), round(float(y), 2)


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    except OSError as error:
        # Network folders keep names their own way and refuse the question (EINVAL).
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(directory)


def _reason(error: OSError) -> str:
    """Return the system's words for an error, without the path of the file."""
    return error.strerror or type(error).__name__


def _read_plain_file(path: Path) -> bytes:
    """Return the bytes of a regular file, no more than what shows it is too large."""
    try:
        # Path.open takes no opener.
        with open(path, "rb", opener=_open_plain) as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NoAnswer("This question has not been answered.") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BrokenAnswer("it is a link, not a plain file") from error
        raise BrokenAnswer(f"it cannot be read ({_reason(error)})") from error


def _open_plain(path: str, flags: int) -> int:
    """Open a regular file, which a link, a pipe or a device is not."""
    # O_NONBLOCK: opening a pipe would else wait for somebody to write into it.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise BrokenAnswer("it is not a plain file")


def _parse_json(content: bytes) -> dict[str, object]:
    if len(content) > MAX_BYTES:
        raise BrokenAnswer(f"it is larger than {MAX_BYTES // 1024} KiB")
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise BrokenAnswer("it is not text") from error
    except RecursionError as error:
        raise BrokenAnswer("its values are nested too deeply") from error
    except ValueError as error:
        raise BrokenAnswer("it is damaged: it does not read as JSON") from error
    if not isinstance(document, dict):
        raise BrokenAnswer("it holds no answer")
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_given(kind: object, answer: object) -> Given:
    if not isinstance(answer, dict):
        raise BrokenAnswer("it holds no answer")
    match kind:
        case "choice":
            return Chosen(_parse_keys(answer.get("choice")))
        case "click":
            return Clicked(_parse_position(answer.get("point")))
        case "outline":
            return Outlined(_parse_polygon(answer.get("polygon")))
    raise BrokenAnswer(f"it holds an answer of the unknown kind {_shown(kind)}")


def _parse_keys(keys: object) -> tuple[str, ...]:
    if not isinstance(keys, list) or not keys:
        raise BrokenAnswer("it names no choice")
    if len(keys) > MAX_CHOICES:
        raise BrokenAnswer(f"it names more than {MAX_CHOICES} choices")
    return tuple(dict.fromkeys(_parse_text(key, "a choice") for key in keys))


def _parse_polygon(vertices: object) -> tuple[Position, ...]:
    if not isinstance(vertices, list):
        raise BrokenAnswer("it holds no outline")
    if len(vertices) > MAX_VERTICES:
        raise BrokenAnswer(
            f"the outline has {len(vertices)} corners, at most {MAX_VERTICES} are read"
        )
    polygon = tuple(_parse_position(vertex) for vertex in vertices)
    if len(polygon) > 1 and polygon[0] == polygon[-1]:
        polygon = polygon[:-1]
    if len(polygon) < 3:
        raise BrokenAnswer("the outline has fewer than three corners")
    return polygon


def _parse_position(position: object) -> Position:
    if not isinstance(position, list) or len(position) != 2:
        raise BrokenAnswer("a position is not a pair of numbers")
    return _parse_coordinate(position[0]), _parse_coordinate(position[1])


def _parse_coordinate(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise BrokenAnswer("a position is not a pair of numbers")
    # Compared before it becomes a float: an int may be too large to become one.
    if not -MAX_COORDINATE_PX <= number <= MAX_COORDINATE_PX:
        raise BrokenAnswer("a position lies far outside of any image")
    return float(number)


def _parse_image(image: object, kind: object) -> SeenImage | None:
    if image is None and kind == "choice":
        return None
    if not isinstance(image, dict):
        raise BrokenAnswer("it does not say which image it is about")
    return SeenImage(
        id=_parse_text(image.get("id"), "the image's id"),
        name=_parse_text(image.get("name"), "the image's name"),
        version=_parse_text(image.get("version"), "the image's version"),
    )


def _parse_time(time: object) -> datetime:
    text = _parse_text(time, "the time")
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise BrokenAnswer("its time has no time zone")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BrokenAnswer(
            f"its time {_shown(text)} does not read as a time"
        ) from error


def _parse_text(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise BrokenAnswer(f"{what} is not a text")
    if len(text) > MAX_TEXT:
        raise BrokenAnswer(f"{what} is longer than {MAX_TEXT} characters")
    return text


def _format_given(given: Given) -> dict[str, object]:
    match given:
        case Chosen(keys):
            return {"choice": list(keys)}
        case Clicked(point):
            return {"point": list(point)}
        case Outlined(polygon):
            return {"polygon": [list(vertex) for vertex in polygon]}


def _shown(value: object) -> str:
    """Return a value for a message: short, printable in any encoding's terms."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "…")
    if isinstance(value, int) and abs(value) < 1_000_000:
        return repr(value)
    return "(none)" if value is None else f"({type(value).__name__})"

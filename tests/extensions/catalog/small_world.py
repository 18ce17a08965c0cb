"""A small catalogue whose answers can be counted on one's fingers.

Project `mice`: images m0..m5, modalities MR, MR, CT, FM, FM, None; spacings 0.5, 1.0,
2.0, 0.001, 0.002, None. m0 and m1 are of sample s1 (experiment "Animal 1"), m2 of s2
("animal 2"), m3 of s3 ("Über_1"), m4 of s4, which has no experiment; m5 has no sample.
m3 has the channels DAPI (461) and GFP (509), m4 DAPI (none). m0 is tagged good and
seen, m1 good, m2 bad. Project `secret`: one image, x0, in an experiment "Animal 9".
"""

from __future__ import annotations

from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import Image

from hub.durable.database import Database

MODALITIES = ("MR", "MR", "CT", "FM", "FM", None)
SPACINGS = (0.5, 1.0, 2.0, 0.001, 0.002, None)
ATTRS = (
    {"age": 3, "site": {"name": "A"}, "ok": True},
    {"age": "3", "site": {"name": "B"}, "ok": False},
    {"age": 7.5, "list": ["x", "y"]},
    {"note": None},
    {},
    {"00100040": "F"},
)
CHANNELS = {
    3: [{"name": "DAPI", "emission_nm": 461.0}, {"name": "GFP", "emission_nm": 509.0}],
    4: [{"name": "DAPI"}],
}


def build(database: Database) -> None:
    """Write the world."""
    with recording(database, "erika") as book:
        _mice(book)
        secret = book.project("secret")
        hidden = book.experiment(secret, "Animal 9")
        sample = book.sample(secret, "hidden", experiment_id=hidden.id)
        image = book.image(
            secret, path="/x0.nii", name="x0", sample_id=sample.id, modality="MR"
        )
        book.tag(image, "hidden")


def _mice(book: Book) -> None:
    project = book.project("mice", title="Mice")
    experiments = [
        book.experiment(project, name) for name in ("Animal 1", "animal 2", "Über_1")
    ]
    group = book.group(project, "controls", is_control=True)
    subject = book.subject(project, "sub-1", group_id=group.id, birth_year=1980)
    samples = [
        book.sample(
            project,
            f"s{number}",
            experiment_id=experiments[number - 1].id if number < 4 else None,
            subject_id=subject.id if number == 1 else None,
            stain=("HE", None, "100%", "ki_67")[number - 1],
        )
        for number in range(1, 5)
    ]
    images: list[Image] = []
    for number, of in enumerate((0, 0, 1, 2, 3, None)):
        spacing = SPACINGS[number]
        image = book.image(
            project,
            path=f"/m{number}.nii",
            name=f"m{number}",
            title=("First", "second", "Third", "Größe 4", "fifth", "sixth")[number],
            sample_id=None if of is None else samples[of].id,
            modality=MODALITIES[number],
            px_x=spacing,
            dims=["z", "y", "x"] if number < 3 else ["c", "y", "x"],
            n_z=number,
            attrs=ATTRS[number],
            channels=CHANNELS.get(number),
        )
        images.append(image)
    book.tag(images[0], "good")
    book.tag(images[0], "seen")
    book.tag(images[1], "good")
    book.tag(images[2], "bad")
    book.value(images[0], "dose", 2.5, unit="Gy")
    book.value(images[1], "dose", 4)
    book.value(images[2], "stain", "HE")
    book.comment(images[0], "The left hemisphere looks swollen")

import os
import random
from dataclasses import replace

import pydicom
import pytest

from services.dicom_client.arrivals import by_series, content_hash
from services.dicom_client.headers import Unreadable, read_header
from services.dicom_client.watch_folder import (
    WatchSettings,
    is_below,
    resolve_roots,
    scan,
)
from tests.services.dicom_client.received import write_series

SETTINGS = WatchSettings(scans=3, stable_s=20)


class Watch:
    """Looks again and again, ten seconds apart, and remembers."""

    def __init__(self, *roots, settings=SETTINGS):
        self.roots, self.settings = roots, settings
        self.known, self.now = {}, 1000.0

    def look(self):
        found = scan(self.roots, self.known, self.now, self.settings)
        self.known.update(found.snapshots)
        for path in found.gone:
            del self.known[path]
        self.now += 10
        return found

    def until_stable(self):
        self.look()
        self.look()
        return self.look()


def test_a_file_is_taken_after_several_like_looks_and_once(tmp_path):
    files = write_series(tmp_path, slices=4)
    watch = Watch(tmp_path)
    assert watch.look().waiting == 4
    assert watch.look().stable == []
    taken = watch.look()
    assert [one.path for one in taken.stable] == files
    assert taken.waiting == 0
    assert watch.look().stable == []


def test_a_file_that_grows_waits_until_it_rests(tmp_path):
    (file,) = write_series(tmp_path, slices=1)
    watch = Watch(tmp_path)
    watch.look()
    watch.look()
    with file.open("ab") as grown:
        grown.write(bytes(10))
    assert watch.until_stable().waiting == 0
    assert len(watch.known) == 1


def test_a_slice_that_comes_late_waits_for_itself_only(tmp_path):
    files = write_series(tmp_path, slices=3)
    late = files[2].read_bytes()
    files[2].unlink()
    watch = Watch(tmp_path)
    assert len(watch.until_stable().stable) == 2
    files[2].write_bytes(late)
    assert [one.path for one in watch.until_stable().stable] == [files[2]]


def test_a_file_that_is_written_anew_is_offered_again(tmp_path):
    (file,) = write_series(tmp_path, slices=1)
    watch = Watch(tmp_path)
    watch.until_stable()
    other = pydicom.dcmread(file)
    other.PatientID = "P-22"
    other.save_as(file)
    assert len(watch.until_stable().stable) == 1


def test_many_looks_in_a_short_time_do_not_make_a_file_stable(tmp_path):
    write_series(tmp_path, slices=1)
    known = {}
    for now in range(10):
        found = scan([tmp_path], known, float(now), SETTINGS)
        known.update(found.snapshots)
        assert found.stable == []


def test_writing_beside_the_images_offers_them_not_again(tmp_path):
    write_series(tmp_path, slices=3)
    watch = Watch(tmp_path)
    watch.until_stable()
    (tmp_path / ".RS.0011.dcm.aa.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("beside")
    found = watch.until_stable()
    assert found.stable == []
    assert [one.reason for one in found.rejects] == ["not_dicom"]


def test_a_rejected_file_is_not_opened_again_until_it_changes(tmp_path):
    file = tmp_path / "report.pdf"
    file.write_bytes(b"%PDF" + bytes(500))
    watch = Watch(tmp_path)
    assert [one.reason for one in watch.until_stable().rejects] == ["not_dicom"]
    read = file.stat().st_atime_ns
    os.utime(file, ns=(0, file.stat().st_mtime_ns))  # reading it would set the first
    assert watch.look().rejects == []
    assert file.stat().st_atime_ns == 0 != read
    file.write_bytes(b"%PDF" + bytes(600))
    assert len(watch.until_stable().rejects) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not_dicom"),
        (b"text", "not_dicom"),
        (bytes(128) + b"DICM", "no_uid"),
        (bytes(128) + b"DICM" + b"\xff" * 200, "no_uid"),
        (b"\x08\x00\x16\x00UI\xff\xff", "no_uid"),
    ],
)
def test_what_is_no_image_is_rejected_with_a_reason(tmp_path, content, reason):
    (tmp_path / "file").write_bytes(content)
    (reject,) = Watch(tmp_path).until_stable().rejects
    assert reject.reason == reason


def test_two_series_in_one_folder_and_one_series_in_two_are_told_apart(tmp_path):
    first = write_series(tmp_path / "a", slices=4)
    write_series(tmp_path / "b", slices=3)
    (tmp_path / "b" / "moved.dcm").write_bytes(first[3].read_bytes())
    first[3].unlink()
    found = by_series(Watch(tmp_path).until_stable().stable)
    assert sorted(len(one) for one in found.values()) == [3, 4]


def test_a_series_has_the_same_content_wherever_and_whenever_it_lies():
    assert content_hash("1.2", ["1.3", "1.4"]) == content_hash("1.2", ["1.4", "1.3"])
    assert content_hash("1.2", ["1.3", "1.4"]) != content_hash("1.2", ["1.3"])


def test_links_are_not_followed_out_of_the_root(tmp_path):
    outside = write_series(tmp_path / "outside", slices=2)
    root = tmp_path / "root"
    root.mkdir()
    (root / "file.dcm").symlink_to(outside[0])
    (root / "folder").symlink_to(tmp_path / "outside")
    watch = Watch(root)
    found = watch.look()
    assert {one.reason for one in found.rejects} == {"link"}
    assert watch.until_stable().stable == []
    assert not is_below(root / "file.dcm", [root])


def test_a_root_that_is_a_link_is_watched_under_its_real_path(tmp_path):
    write_series(tmp_path / "real", slices=1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    found = Watch(tmp_path / "link", tmp_path / "real").until_stable()
    assert [one.path.parent.name for one in found.stable] == ["real"]
    assert resolve_roots([tmp_path / "link", tmp_path]) == [tmp_path]


def test_a_share_that_is_not_mounted_loses_no_memory_of_its_files(tmp_path):
    root = tmp_path / "share"
    files = write_series(root, slices=2)
    watch = Watch(root)
    watch.until_stable()
    root.rename(tmp_path / "away")
    found = watch.look()
    assert (found.gone, found.unreachable) == ([], [root])
    (tmp_path / "away").rename(root)
    files[0].unlink()
    assert watch.look().gone == [files[0]]
    assert watch.look().stable == []


def test_old_files_are_passed_over_where_a_start_is_set(tmp_path):
    files = write_series(tmp_path, slices=2)
    os.utime(files[0], (500, 500))
    watch = Watch(tmp_path, settings=replace(SETTINGS, modified_from=1000))
    assert [one.path for one in watch.until_stable().stable] == [files[1]]


def test_one_look_reads_a_bounded_number_of_headers_and_the_next_goes_on(tmp_path):
    write_series(tmp_path, slices=5)
    watch = Watch(tmp_path, settings=replace(SETTINGS, batch=2))
    counts = [
        len(watch.until_stable().stable),
        *(len(watch.look().stable) for _ in "12"),
    ]
    assert counts == [2, 2, 1]


def test_a_file_too_large_is_rejected_unread(tmp_path):
    write_series(tmp_path, slices=1)
    watch = Watch(tmp_path, settings=replace(SETTINGS, largest_bytes=1000))
    assert [one.reason for one in watch.until_stable().rejects] == ["too_large"]


def test_a_header_is_read_in_every_encoding(tmp_path):
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ImplicitVRLittleEndian,
    )

    (file,) = write_series(tmp_path, slices=1)
    image = pydicom.dcmread(file)
    wanted = read_header(file)
    assert wanted.modality == "CT"
    for syntax in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        image.file_meta.TransferSyntaxUID = syntax
        image.save_as(
            file, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True
        )
        assert read_header(file) == wanted
    image = pydicom.dcmread(file)
    image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(
        file, image, implicit_vr=False, little_endian=False, force_encoding=True
    )
    assert read_header(file) == wanted


def test_a_file_without_a_preamble_is_read(tmp_path):
    (file,) = write_series(tmp_path, slices=1)
    wanted = read_header(file)
    file.write_bytes(file.read_bytes()[132:])
    assert read_header(file) == wanted


def test_a_small_file_that_inflates_to_gigabytes_is_read_only_at_its_start(tmp_path):
    import zlib

    from pydicom.uid import DeflatedExplicitVRLittleEndian

    (file,) = write_series(tmp_path, slices=1)
    image = pydicom.dcmread(file)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(file)
    content = file.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    inflated = zlib.decompress(content[start:], -15)
    machine = zlib.compressobj(9, wbits=-15)
    bomb = machine.compress(inflated + bytes(200 << 20)) + machine.flush()
    file.write_bytes(content[:start] + bomb)
    assert read_header(file).series == image.SeriesInstanceUID


def damage(source, content):
    spoilt = bytearray(content)
    for _ in range(source.randrange(1, 8)):
        spoilt[source.randrange(len(spoilt))] = source.randrange(256)
    return bytes(spoilt[: source.randrange(1, len(spoilt))])


def read_damaged(folder, times, seed):
    source = random.Random(seed)  # noqa: S311
    (file,) = write_series(folder, slices=1, rows=4, columns=4)
    content = file.read_bytes()
    allowed = {"", "not_dicom", "damaged", "no_uid", "dicomdir"}
    for _ in range(times):
        file.write_bytes(damage(source, content))
        assert refusal(file) in allowed


def refusal(file):
    try:
        read_header(file)
    except Unreadable as err:
        return err.code
    return ""


def test_damaged_headers_give_a_reason_and_nothing_else(tmp_path):
    read_damaged(tmp_path, 300, seed=3)


@pytest.mark.fuzz
def test_many_damaged_headers_give_a_reason_and_nothing_else(tmp_path):
    read_damaged(tmp_path, 50_000, seed=4)


def test_a_look_that_reads_only_some_files_says_where_others_lie(tmp_path):
    write_series(tmp_path / "one", slices=4)
    write_series(tmp_path / "two", slices=4)
    watch = Watch(tmp_path, settings=replace(SETTINGS, batch=6))
    assert set(watch.look().unread) == {tmp_path / "one", tmp_path / "two"}
    watch.look()
    read = watch.look()
    ((folder, since),) = read.unread.items()
    left = set(folder.iterdir()) - {one.path for one in read.stable}
    assert len(left) == read.waiting == 2
    assert since == min(path.stat().st_ctime for path in left)
    assert watch.look().unread == {}

import random
import stat
import zipfile

import pytest

from services.dicom_client.errors import BadRequest
from services.dicom_client.zip_upload import ZipLimits, unpack
from tests.services.dicom_client.received import write_series


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


def archive(path, members, **more):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            made.writestr(name, content, **more)
    return path


def refused(path, folder, limits=None):
    with pytest.raises(BadRequest) as why:
        unpack(path, folder, limits or ZipLimits())
    assert list(folder.iterdir()) == []
    return str(why.value)


def test_a_zipped_series_is_unpacked_under_names_of_ours(tmp_path, folder):
    files = write_series(tmp_path / "scan", slices=3)
    members = [("scan/", b"")] + [
        (f"scan/Doe^Jane {file.name}", file.read_bytes()) for file in files
    ]
    got = unpack(archive(tmp_path / "a.zip", members), folder, ZipLimits())
    assert [path.name for path in got] == ["1.dcm", "2.dcm", "3.dcm"]
    assert [path.read_bytes() for path in got] == [file.read_bytes() for file in files]


@pytest.mark.parametrize(
    "name",
    [
        "../evil.dcm",
        "a/../../evil.dcm",
        "/etc/evil.dcm",
        "C:/evil.dcm",
        "..\\evil.dcm",
        "C:evil.dcm",
    ],
)
def test_a_name_outside_the_archives_folder_refuses_all_of_it(tmp_path, folder, name):
    path = archive(tmp_path / "a.zip", [("good.dcm", b"1"), (name, b"2")])
    assert "outside" in refused(path, folder)
    assert not list(tmp_path.rglob("evil*"))


def test_a_link_in_the_archive_refuses_all_of_it(tmp_path, folder):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = archive(tmp_path / "a.zip", [(link, "/etc/passwd")])
    assert "link" in refused(path, folder)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, folder):
    path = archive(tmp_path / "a.zip", [("zeros.dcm", bytes(50 << 20))])
    assert "far more" in refused(path, folder)


@pytest.mark.parametrize(
    "limits",
    [
        ZipLimits(members=2),
        ZipLimits(member_bytes=10),
        ZipLimits(total_bytes=2500),
    ],
)
def test_too_many_or_too_large_files_are_refused(tmp_path, folder, limits):
    members = [(f"{n}.dcm", bytes(1000)) for n in range(3)]
    refused(archive(tmp_path / "a.zip", members), folder, limits)


def test_a_directory_that_lies_about_sizes_does_not_help(tmp_path, folder):
    path = archive(tmp_path / "a.zip", [("zeros.dcm", bytes(3 << 20))])
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.index(signature) + at
        content[start : start + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    refused(path, folder, ZipLimits(member_bytes=100_000))


def test_an_archive_with_a_password_says_so(tmp_path, folder):
    path = archive(tmp_path / "a.zip", [("a.dcm", b"secret")])
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + at] |= 1
    path.write_bytes(content)
    assert "password" in refused(path, folder)


def test_what_is_no_zip_file_is_refused(tmp_path, folder):
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04 nothing more")
    refused(path, folder)


def damage(tmp_path, folder, times, seed):
    source = random.Random(seed)  # noqa: S311
    path = archive(tmp_path / "a.zip", [(f"{n}", bytes(300)) for n in range(3)])
    content = path.read_bytes()
    for _ in range(times):
        spoilt = bytearray(content)
        for _ in range(source.randrange(1, 5)):
            spoilt[source.randrange(len(spoilt))] = source.randrange(256)
        path.write_bytes(spoilt[: source.randrange(1, len(spoilt) + 1)])
        try:
            got = unpack(path, folder, ZipLimits())
        except BadRequest:
            got = []
        assert sorted(folder.iterdir()) == sorted(got)
        for one in got:
            one.unlink()


def test_damaged_archives_are_unpacked_or_refused_and_leave_nothing(tmp_path, folder):
    damage(tmp_path, folder, 200, seed=1)


@pytest.mark.fuzz
def test_many_damaged_archives_leave_nothing(tmp_path, folder):
    damage(tmp_path, folder, 20_000, seed=2)

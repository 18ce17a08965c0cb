import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ia_api.errors import HostileName
from services.ia_api.filenames import safe_name, unused_name


@pytest.mark.parametrize(
    "raw", ["", ".", "..", "dir/", "a\0b", "C:", "x" * 256, "a\nb", "\udcff.dcm"]
)
def test_what_names_no_file_is_refused(raw):
    with pytest.raises(HostileName) as caught:
        safe_name(raw)
    assert raw not in str(caught.value) or len(raw) < 2


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\win.ini", "win.ini"),
        ("C:\\data\\a.tif", "a.tif"),
        ("i0000,0000b.dcm", "i0000,0000b.dcm"),
        ("schnitt-äöü.ndpi", "schnitt-äöü.ndpi"),
    ],
)
def test_only_the_last_component_of_a_name_is_kept(raw, name):
    assert safe_name(raw) == name


def test_the_shared_names_come_out_as_the_vectors_say(shared_data):
    file = shared_data.parent / "ia_api" / "filename_vectors.json"
    if not file.is_file():
        pytest.skip("the interface's vectors are not here")
    for vector in json.loads(file.read_text())["vectors"]:
        if vector["out"] is None:
            with pytest.raises(HostileName):
                safe_name(vector["in"])
        else:
            assert safe_name(vector["in"]) == vector["out"]


@given(st.text())
def test_a_name_never_leaves_its_folder(tmp_path_factory, raw):
    folder = tmp_path_factory.getbasetemp()
    try:
        name = safe_name(raw)
    except HostileName:
        return
    assert (folder / name).parent == folder
    assert (folder / name).resolve().parent == folder.resolve()


@given(st.lists(st.sampled_from(["a.dcm", "a-2.dcm", "b", "ä" * 127, ".c"])))
def test_files_of_one_name_all_survive(names):
    taken: set[str] = set()
    for name in names:
        taken.add(unused_name(name, taken))
    assert len(taken) == len(names)
    assert all(len(name.encode()) <= 255 for name in taken)

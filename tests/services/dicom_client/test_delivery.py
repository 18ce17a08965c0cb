import contextlib
import threading

import pydicom
import pytest
from pynetdicom import AE, evt

from services.dicom_client.delivery import NodeTarget, WebTarget, deliver, is_done
from services.dicom_client.dicomweb import DicomWebServer
from services.dicom_client.folder_delivery import FolderTarget
from services.dicom_client.nodes import Node, echo
from services.dicom_client.outcomes import Attempt
from services.dicom_client.tls import ClientTls
from tests.certificates import self_signed
from tests.dcmtk import free_port, storescp
from tests.orthanc import orthanc
from tests.services.dicom_client.received import write_structure_set


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "result.dcm"
    write_structure_set(path)
    return path


def node(port, name="archive", **more):
    return Node(name, "127.0.0.1", port, "ARCHIVE", connect_s=5, timeout_s=20, **more)


def one(file, target, **more):
    (outcome,) = deliver(file, [target], **more)
    return outcome


@contextlib.contextmanager
def peer(answer, title="ARCHIVE"):
    """A node that answers to C-STORE as told; yields its port and what it got."""
    from pydicom.uid import RTStructureSetStorage

    entity, got = AE(ae_title=title), []
    entity.require_called_aet = True
    entity.add_supported_context(RTStructureSetStorage)

    def store(event):
        got.append(event.request.AffectedSOPInstanceUID)
        return answer(event)

    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    try:
        yield server.server_address[1], got
    finally:
        server.shutdown()


# Folders


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def test_a_folder_gets_the_whole_file_and_then_its_mark(result, inbox):
    outcome = one(result, FolderTarget("tps", inbox, ready=True))
    assert outcome.code == "delivered"
    file, mark = sorted(inbox.iterdir())
    assert file.read_bytes() == result.read_bytes()
    assert mark.name == f"{file.name}.ready"
    assert pydicom.dcmread(result).PatientID not in file.name


def test_a_folder_is_given_nothing_twice(result, inbox):
    target = FolderTarget("tps", inbox)
    one(result, target)
    assert one(result, target).code == "already_there"
    assert len(list(inbox.iterdir())) == 1


def test_a_mark_that_a_crash_left_out_is_made_up_for(result, inbox):
    one(result, FolderTarget("tps", inbox))
    outcome = one(result, FolderTarget("tps", inbox, ready=True))
    assert outcome.code == "already_there"
    assert len(list(inbox.glob("*.ready"))) == 1


def test_another_file_of_that_name_is_not_overwritten(result, inbox):
    target = FolderTarget("tps", inbox)
    one(result, target)
    (there,) = inbox.iterdir()
    there.write_bytes(b"other")
    outcome = one(result, target)
    assert (outcome.code, outcome.delivered) == ("conflict", False)
    assert there.read_bytes() == b"other"


def test_a_missing_share_is_not_made_and_is_tried_again(result, tmp_path):
    outcome = one(result, FolderTarget("tps", tmp_path / "share"))
    assert (outcome.code, outcome.again) == ("unreachable", True)
    assert not (tmp_path / "share").exists()


class Killed(BaseException):
    """The process ends here."""


def killed_at(code, notes):
    """Notes attempts, and ends the process when it comes to `code`."""

    def note(attempt):
        notes.append(attempt)
        if attempt.code == code:
            raise Killed

    return note


@pytest.mark.parametrize("taken_away", [False, True])
def test_a_crash_between_name_and_record_delivers_once(result, inbox, taken_away):
    target, notes = FolderTarget("tps", inbox), []
    with pytest.raises(Killed):
        one(result, target, on_attempt=killed_at("delivered", notes))
    (file,) = inbox.iterdir()
    if taken_away:
        file.unlink()  # imported before we came back
    outcome = one(result, target, earlier=notes[:1])
    assert outcome.code == "already_there"
    assert len(list(inbox.iterdir())) == (not taken_away)


def test_a_crash_before_the_name_goes_on_with_the_copy(result, inbox):
    target, notes = FolderTarget("tps", inbox), []
    with pytest.raises(Killed):
        one(result, target, on_attempt=killed_at("sending", notes))
    (hidden,) = inbox.iterdir()
    assert hidden.name.startswith(".")
    assert one(result, target, earlier=notes).code == "delivered"
    (file,) = inbox.iterdir()
    assert file.read_bytes() == result.read_bytes()


def test_half_a_copy_of_a_crash_is_removed(result, inbox):
    target = FolderTarget("tps", inbox)
    one(result, target)
    (file,) = inbox.iterdir()
    name = file.name
    file.unlink()
    (inbox / f".{name}.0011.part").write_bytes(b"half")
    earlier = [Attempt("tps", "tps", "sending")]
    assert one(result, target, earlier=earlier).code == "delivered"
    assert [path.name for path in inbox.iterdir()] == [name]


# Nodes


def test_dcmtk_receives_what_we_send(result):
    with storescp() as archive:
        outcome = one(result, NodeTarget("archive", (node(archive.port),)))
        assert (outcome.code, outcome.node) == ("delivered", "archive")
        (file,) = archive.received()
        sent, got = pydicom.dcmread(result), pydicom.dcmread(file)
    assert got == sent


def test_dcmtk_answers_our_echo():
    with storescp() as archive:
        assert echo(node(archive.port)).ok
    assert echo(node(free_port())).code == "unreachable"


def test_dcmtk_receives_over_tls(result, tmp_path):
    bundle, _ = self_signed(tmp_path)
    tls = ClientTls(ca=bundle)
    options = ("+tls", tmp_path / "key.pem", bundle, "-ic")
    with storescp(*options) as archive:
        assert echo(node(archive.port, tls=tls)).ok
        target = NodeTarget("archive", (node(archive.port, tls=tls),))
        assert one(result, target).code == "delivered"
        assert len(archive.received()) == 1
        untrusted = echo(node(archive.port, tls=ClientTls()))
        assert (untrusted.ok, untrusted.code) == (False, "tls")


def test_the_fallback_receives_while_the_first_node_is_down(result):
    with storescp() as second:
        nodes = (
            node(second.port, "second", priority=2),
            node(free_port(), "first", priority=1),
        )
        target, notes = NodeTarget("archive", nodes), []
        outcome = one(result, target, on_attempt=notes.append)
        assert (outcome.code, outcome.node) == ("delivered", "second")
        assert len(second.received()) == 1
    # The first is back; what was delivered stays delivered.
    with storescp() as first:
        nodes = (node(first.port, "first", priority=1), nodes[0])
        target = NodeTarget("archive", nodes)
        outcome = one(result, target, earlier=notes)
        assert (outcome.code, outcome.node) == ("already_there", "second")
        assert first.received() == []


@pytest.mark.parametrize(
    ("status", "code"), [(0xA700, "no_space"), (0xC000, "refused"), (0xA900, "refused")]
)
def test_the_fallback_receives_what_the_first_refuses(result, status, code):
    with peer(lambda _event: status) as (port, got):
        alone = one(result, NodeTarget("archive", (node(port),)))
        assert (alone.code, alone.delivered) == (code, False)
        with storescp() as second:
            nodes = (node(port, "first"), node(second.port, "second", priority=1))
            outcome = one(result, NodeTarget("archive", nodes))
            assert (outcome.code, outcome.node) == ("delivered", "second")
        assert len(got) == 2


def test_a_warning_of_a_node_counts_as_delivered(result):
    with peer(lambda _event: 0xB000) as (port, _):
        outcome = one(result, NodeTarget("archive", (node(port),)))
    assert (outcome.code, "B000H" in outcome.text) == ("delivered", True)


def test_a_node_that_says_it_has_the_object_has_it(result):
    with peer(lambda _event: 0x0111) as (port, _):
        assert one(result, NodeTarget("a", (node(port),))).code == "already_there"


def test_a_lost_answer_is_asked_for_at_the_same_node_and_no_other(result):
    lost = threading.Event()

    def answer(event):
        if lost.is_set():
            return 0
        lost.set()
        event.assoc.dul.socket.socket.close()
        return 0

    with peer(answer) as (port, got), storescp() as second:
        nodes = (node(port, "first"), node(second.port, "second", priority=1))
        target, notes = NodeTarget("archive", nodes), []
        outcome = one(result, target, on_attempt=notes.append)
        assert (outcome.code, outcome.again) == ("unknown", False)
        down = NodeTarget("archive", (node(free_port(), "first"), nodes[1]))
        for place in (target, down):
            assert one(result, place, earlier=notes).code == "unknown"
        assert len(got) == 1, "what was not answered was sent again"
        # A setting, or a person, has it sent again: to the same node.
        assert one(result, down, earlier=notes, resend=True).code == "unanswered"
        outcome = one(result, target, earlier=notes, resend=True)
        assert (outcome.code, outcome.node) == ("delivered", "first")
        released = [*notes, Attempt("archive", "first", "released")]
        assert one(result, target, earlier=released).code == "delivered"
        assert len(got) == 3
        assert second.received() == []


def test_a_node_that_does_not_know_us_says_so(result):
    with peer(lambda _event: 0, title="SOMEBODY") as (port, got):
        outcome = one(result, NodeTarget("archive", (node(port),)))
    assert (outcome.code, got) == ("rejected", [])
    assert "another title" in outcome.text


def test_a_node_without_our_kind_of_object_says_so(result):
    from pydicom.uid import MRImageStorage

    entity = AE(ae_title="ARCHIVE")
    entity.add_supported_context(MRImageStorage)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        port = server.server_address[1]
        outcome = one(result, NodeTarget("archive", (node(port),)))
        assert outcome.code == "no_context"
    finally:
        server.shutdown()


def test_all_required_targets_must_have_it(result, inbox):
    targets = [
        FolderTarget("tps", inbox),
        NodeTarget("archive", (node(free_port()),)),
        FolderTarget("copy", inbox / "none", required=False),
    ]
    outcomes = deliver(result, targets)
    assert [one.code for one in outcomes] == ["delivered", "unreachable", "unreachable"]
    assert not is_done(outcomes, targets)
    assert is_done(outcomes, [targets[0], targets[2]])


def test_orthanc_is_asked_by_find_and_given_nothing_twice(result):
    with orthanc() as pacs:
        archive = NodeTarget("pacs", (node(pacs.dicom_port, can_find=True),))
        assert echo(archive.nodes[0]).ok
        notes = []
        with pytest.raises(Killed):
            one(result, archive, on_attempt=killed_at("delivered", notes))
        changes = len(pacs.instances())
        outcome = one(result, archive, earlier=notes[:1])
        assert outcome.code == "already_there"
        assert len(pacs.instances()) == changes == 1


# DICOMweb


def test_orthanc_is_given_it_by_stow_once(result):
    with orthanc(dicomweb=True) as pacs:
        target = WebTarget("pacs", DicomWebServer(pacs.dicomweb))
        notes = []
        assert one(result, target, on_attempt=notes.append).code == "delivered"
        assert [note.code for note in notes] == ["sending", "delivered"]
        assert pacs.instances() == [pydicom.dcmread(result).SOPInstanceUID]
        assert one(result, target).code == "already_there"
        assert one(result, target, earlier=notes).code == "already_there"
        assert one(result, target, earlier=notes[:1]).code == "already_there"


def test_a_dicomweb_server_that_is_down_is_tried_again(result):
    server = DicomWebServer(f"http://127.0.0.1:{free_port()}/dicom-web")
    outcome = one(result, WebTarget("pacs", server))
    assert (outcome.code, outcome.again) == ("unreachable", True)

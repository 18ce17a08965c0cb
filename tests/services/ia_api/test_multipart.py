import base64
import hashlib
import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ia_api.errors import CallbackError, Permanent, Truncated
from services.ia_api.filenames import safe_name
from services.ia_api.multipart import file_name_of, is_multipart, parts

TYPE = "multipart/related; boundary=bnd-1234"


def cut(body: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


def read(body: bytes, size: int = 7, kind: str = TYPE) -> list[tuple[str, bytes]]:
    return [
        (part.file_name or "", b"".join(part.chunks))
        for part in parts(cut(body, size), kind)
    ]


def body_of(files: list[tuple[str, bytes]], end: bytes = b"\r\n") -> bytes:
    whole = b""
    for name, content in files:
        whole += b"--bnd-1234\r\n"
        whole += f'Content-Disposition: attachment; filename="{name}"\r\n'.encode()
        whole += b"\r\n" + content + b"\r\n"
    return whole + b"--bnd-1234--" + end


@pytest.mark.parametrize("size", [1, 7, 64, 65536])
def test_every_shared_body_is_read_as_the_vectors_say(shared_data, size):
    file = shared_data.parent / "ia_api" / "multipart_vectors.json"
    if not file.is_file():
        pytest.skip("the interface's vectors are not here")
    for vector in json.loads(file.read_text())["vectors"]:
        body = base64.b64decode(vector["bodyBase64"])
        if vector["expect"] is None:
            with pytest.raises(CallbackError):
                read(body, size, vector["contentType"])
            continue
        found = read(body, size, vector["contentType"])
        assert [
            {
                "filename": safe_name(name),
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for name, content in found
        ] == vector["expect"], vector["name"]


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z0-9][a-z0-9,. ]{0,20}\.dcm", fullmatch=True),
            st.one_of(
                st.binary(max_size=300),
                st.lists(
                    st.sampled_from(
                        [
                            b"\r\n",
                            b"--",
                            b"--bnd-1234x",
                            b"bnd",
                            b"\r\n--bnd-123",
                            b"\n",
                        ]
                    )
                ).map(b"".join),
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 70),
    st.sampled_from([b"", b"\r\n", b"\r\nepilogue"]),
)
def test_what_was_sent_comes_out_however_it_is_cut(files, size, end):
    # A delimiter may not stand in the data (RFC 2046, 5.1.1); what looks like one may.
    files = [(name, re.sub(rb"--bnd-1234(?!x)", b"", data)) for name, data in files]
    assert read(body_of(files, end), size) == files


@given(st.binary(max_size=200), st.integers(1, 50), st.integers(0, 10_000))
@settings(max_examples=300)
def test_any_other_bytes_end_in_an_error_of_ours(noise, size, at):
    body = body_of([("a.dcm", b"12345")])
    at %= len(body)
    try:
        read(body[:at] + noise + body[at:], size)
    except (Permanent, Truncated):
        return


@given(st.integers(0, 10_000))
def test_a_body_that_ends_early_is_never_taken_for_a_whole_one(at):
    body = body_of([("a.dcm", b"12345"), ("b.dcm", b"")], end=b"")
    with pytest.raises((Truncated, Permanent)):
        read(body[: at % len(body)])


def test_line_feeds_alone_end_header_lines():
    body = b'--bnd-1234\nContent-Disposition: x; filename="a.dcm"\n\n1\r\n--bnd-1234--'
    assert read(body) == [("a.dcm", b"1")]


def test_a_name_in_utf_8_is_understood():
    assert file_name_of("attachment; filename*=UTF-8''schnitt-%C3%A4.ndpi") == (
        "schnitt-ä.ndpi"
    )
    assert file_name_of(None) is None
    assert file_name_of("attachment") is None


def test_headers_without_end_are_refused_before_they_fill_the_memory():
    def endless() -> Iterator[bytes]:
        yield b"--bnd-1234\r\n"
        while True:
            yield b"X: " + b"y" * 997

    with pytest.raises(Permanent, match="never end"):
        list(parts(endless(), TYPE))


def test_a_multipart_answer_without_boundary_is_refused():
    assert is_multipart("multipart/related")
    assert not is_multipart("application/octet-stream")
    with pytest.raises(Permanent, match="what parts them"):
        list(parts([b""], "multipart/related"))


def test_a_part_that_nobody_reads_is_skipped():
    body = body_of([("a.dcm", b"12345"), ("b.dcm", b"6")])
    assert [part.file_name for part in parts(cut(body, 3), TYPE)] == ["a.dcm", "b.dcm"]

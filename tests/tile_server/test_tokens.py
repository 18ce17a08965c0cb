"""Capabilities survive the trip, and nothing else does."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tile_server import tokens
from tile_server.address import normal_base, slide_url, tiles_url
from tile_server.errors import BadToken, ExpiredToken
from tile_server.tokens import Capability

KEY = tokens.new_key()
FOR_LONG = 2**40
CAPABILITY = Capability("/slides/ward 7/a b.svs", "0123456789abcdef", False, FOR_LONG)
BASE64URL = set(string.ascii_letters + string.digits + "-_")

capabilities = st.builds(
    Capability,
    # Surrogates too: that is how Python writes a file name that is not UTF-8.
    st.text(st.characters(), min_size=1, max_size=300),
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.booleans(),
    st.integers(1, FOR_LONG),
)


@given(capabilities)
def test_a_token_gives_back_its_capability(capability: Capability) -> None:
    token = tokens.seal(KEY, capability)
    assert tokens.unseal(KEY, token, capability.expires - 1) == capability
    assert set(token) <= BASE64URL


@given(capabilities)
def test_the_same_capability_gives_the_same_token(capability: Capability) -> None:
    assert tokens.seal(KEY, capability) == tokens.seal(KEY, capability)


@given(st.integers(0, 10_000), st.sampled_from(sorted(BASE64URL)))
def test_a_changed_token_is_refused(at: int, letter: str) -> None:
    token = tokens.seal(KEY, CAPABILITY)
    at %= len(token)
    changed = token[:at] + letter + token[at + 1 :]
    # The last letter carries bits that base64 ignores; the bytes are what counts.
    if changed[:-1] == token[:-1]:
        return
    with pytest.raises(BadToken):
        tokens.unseal(KEY, changed, 0)


@given(st.text(max_size=80))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(BadToken):
        tokens.unseal(KEY, text, 0)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(BadToken):
        tokens.unseal(tokens.new_key(), tokens.seal(KEY, CAPABILITY), 0)


def test_a_token_ends_at_its_time() -> None:
    token = tokens.seal(KEY, Capability("a", "b", True, 1000))
    assert tokens.unseal(KEY, token, 999.9).expires == 1000
    with pytest.raises(ExpiredToken):
        tokens.unseal(KEY, token, 1000)


def test_a_token_shows_neither_path_nor_version() -> None:
    token = tokens.seal(KEY, CAPABILITY)
    for part in ("slides", "ward", CAPABILITY.version):
        assert part not in token


@given(st.floats(0, 2**33), st.integers(1, 10**6))
def test_an_expiry_is_at_least_one_life_away(now: float, life_s: int) -> None:
    ends = tokens.expiry(now, life_s)
    assert life_s <= ends - now <= 2 * life_s
    assert ends % life_s == 0


def test_a_key_survives_as_text() -> None:
    assert tokens.decode_key(tokens.encode_key(KEY) + "\n") == KEY


@pytest.mark.parametrize("text", ["", "short", "ä" * 88, "a" * 88 + "="])
def test_a_wrong_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="tile key") as refusal:
        tokens.decode_key(text)
    assert not text or text not in str(refusal.value)


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        ("/", "/s/T/{z}/{x}/{y}"),
        ("", "/s/T/{z}/{x}/{y}"),
        ("/services/tiles/", "/services/tiles/s/T/{z}/{x}/{y}"),
        ("/services/tiles", "/services/tiles/s/T/{z}/{x}/{y}"),
        ("/user/x/", "/user/x/s/T/{z}/{x}/{y}"),
        ("/user/x/named/proxy/1/", "/user/x/named/proxy/1/s/T/{z}/{x}/{y}"),
    ],
)
def test_the_tiles_of_a_token_lie_under_the_base(base: str, wanted: str) -> None:
    assert tiles_url(base, "T") == wanted


@given(st.lists(st.text("ab-~", min_size=1), max_size=4), st.booleans(), st.booleans())
def test_an_address_has_no_double_slash(
    parts: list[str], before: bool, after: bool
) -> None:
    base = "/" * before + "/".join(parts) + "/" * after
    for address in (normal_base(base), slide_url(base, "T"), tiles_url(base, "T")):
        assert address.startswith("/")
        assert "//" not in address

"""Requests made at random, for every route that the application has.

A third of the addresses comes from the patterns of the route table itself, so that no
route is left out, whoever adds one; the others are what a client would send, with odd
values here and there. Headers are conditions, parts, origins and media types, right
and wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import quote

from hypothesis import strategies as st
from tornado import web

_TOKEN = "([A-Za-z0-9_-]+)"
_IDENTIFIER = "([^/]+)"

_WHOLE = st.sampled_from(["0", "1", "2", "3", "4", "5", "7", "16", "63", "999999999"])
_NUMBERS = st.one_of(
    _WHOLE,
    st.integers(-300, 2100).map(str),
    st.sampled_from(
        [
            "-1",
            "0.5",
            "1e3",
            "1e300",
            "-0",
            "nan",
            "inf",
            "",
            "a",
            "1_0",
            " 3",
            "٣",
            "+5",
        ]
    ),
)
_ENDINGS = st.sampled_from(["", ".jpg", ".jpeg", ".png", ".webp", ".npy", ".gif", "."])
_STYLES = st.one_of(
    st.sampled_from(["", "{}", "[]", "null", "{", '{"channels":[]}', "9" * 5000]),
    st.fixed_dictionaries(
        {},
        optional={
            "channels": st.lists(
                st.fixed_dictionaries(
                    {"index": st.integers(-1, 4)},
                    optional={
                        "color": st.sampled_from(["#ff0000", "#FFF", "red", 3]),
                        "window": st.sampled_from([[0, 900], [9, 0], "auto", [], 5]),
                        "gamma": st.sampled_from([1, 0.01, 100, 0, -2, "a"]),
                    },
                ),
                max_size=3,
            ),
            "z": st.integers(-1, 4),
            "t": st.integers(-1, 2),
            "projection": st.sampled_from(["max", "min", None]),
        },
    ).map(json.dumps),
)
_QUERY = st.dictionaries(
    st.sampled_from(
        [
            "icc",
            "bits",
            "channel",
            "z",
            "t",
            "level",
            "mpp",
            "unit",
            "format",
            "size",
            "bins",
            "x",
            "y",
            "width",
            "height",
            "limit",
            "offset",
            "quality",
            "viewport",
        ]
    ),
    st.one_of(
        _NUMBERS,
        st.sampled_from(["srgb", "16", "8", "px", "um", "png", "webp", "npy", "jpg"]),
    ),
    max_size=4,
)
_REGION = st.fixed_dictionaries(
    {
        "x": st.integers(-100, 1100).map(str),
        "y": st.integers(-100, 800).map(str),
        "width": st.integers(1, 700).map(str),
        "height": st.integers(1, 500).map(str),
    },
    optional={
        "format": st.sampled_from(["npy", "png", "jpg", "webp", "tiff"]),
        "bits": st.sampled_from(["8", "16", "12"]),
        "icc": st.sampled_from(["0", "1", "srgb", "2"]),
        "level": _WHOLE,
        "mpp": st.sampled_from(["0.25", "1", "8", "0", "1e-9"]),
        "unit": st.sampled_from(["px", "um", "mm"]),
    },
)
_IIIF = st.tuples(
    st.sampled_from(
        [
            "full",
            "square",
            "0,0,64,64",
            "64,64,300,200",
            "pct:10,10,50,50",
            "0,0,0,0",
            "9999,9999,1,1",
            "pct:0,0,0.001,0.001",
            "1,2,3",
            "-1,0,5,5",
            "0,0,1000,1",
        ]
    ),
    st.sampled_from(
        [
            "max",
            "full",
            "64,",
            ",64",
            "64,64",
            "!50,50",
            "pct:50",
            "^700,",
            "^!90,90",
            "0,0",
            ",",
            "99999,99999",
            "^max",
            "pct:0",
            "pct:1e9",
            "1,",
            ",1",
            "^9999,1",
        ]
    ),
    st.sampled_from(["0", "90", "180", "270", "!0", "22.5", "360", "361", "-1", "a"]),
    st.sampled_from(["default", "color", "gray", "bitonal", "native", "x"]),
    st.sampled_from(
        ["jpg", "png", "webp", "tif", "gif", "jp2", "pdf", "bmp", "jpg.jpg"]
    ),
).map(lambda five: "/".join(five[:4]) + "." + five[4])
_HEADERS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "*/*",
                "image/png",
                "image/webp",
                "image/webp;q=0.1,*/*;q=2",
                ";;,",
                "q=1",
                "image/avif,image/webp,image/*,*/*;q=0.8",
                "text/html",
                "",
                "*",
                "ÿ",
                "application/dicom+json",
                'multipart/related; type="image/jpeg"',
                "application/ld+json",
                "image/*;q=0",
                "image/jpeg;q=0.5,image/png;q=0.5",
            ]
        ).map(lambda text: f"Accept: {text}"),
        st.sampled_from(
            [
                "bytes=0-0",
                "bytes=-1",
                "bytes=5-",
                "bytes=0-99999",
                "bytes=9999999-",
                "bytes=0-1,3-4",
                "bytes=",
                "bytes=-0",
                "bytes=5-2",
                "lines=1-2",
                "bytes=a",
                "bytes=999999999999999999999999-",
                "bytes= 1 - 2 ",
                "bytes=--1",
                "=",
                "-",
            ]
        ).map(lambda text: f"Range: {text}"),
        st.sampled_from(
            ["*", '"x"', 'W/"x"', '"a", "b"', '"', "x", 'W/"', '""', ",,,", '"\xe9"']
        ).map(lambda text: f"If-None-Match: {text}"),
        st.sampled_from(
            [
                "Sat, 21 Nov 2099 12:00:00 GMT",
                "Thu, 01 Jan 1970 00:00:00 GMT",
                "now",
                "",
                "Fri, 31 Dec 99999 23:59:59 GMT",
                "21 Nov 2026",
                "0",
                "-1",
                "ÿ",
            ]
        ).flatmap(
            lambda text: st.sampled_from(
                [f"If-Modified-Since: {text}", f"If-Range: {text}"]
            )
        ),
        st.sampled_from(["https://a.example", "null", "*", ""]).map(
            lambda text: f"Origin: {text}"
        ),
        st.sampled_from(
            [
                "Access-Control-Request-Method: PUT",
                "Access-Control-Request-Headers: x",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Proto: ÿ",
                "Cookie: a=b",
            ]
        ),
    ),
    max_size=3,
)
_METHODS = st.sampled_from(["GET"] * 12 + ["HEAD"] * 3 + ["OPTIONS", "POST", "PUT"])


def routes_of(application: web.Application) -> list[str]:
    """The patterns of all routes, as the application has them."""
    return [
        rule.matcher.regex.pattern
        for rule in application.wildcard_router.rules
        if hasattr(rule.matcher, "regex")
    ]


def requests(
    base: str, tokens: Sequence[str], names: Sequence[str], patterns: Sequence[str]
) -> st.SearchStrategy[bytes]:
    """Whole requests to the slides of `tokens`, and to those of IIIF's `names`."""
    any_token = st.sampled_from([*tokens, "nonsense", tokens[0][:-3] + "AAA"])
    below = any_token.flatmap(lambda token: _below(f"{base}s/{token}/"))
    identifiers = st.one_of(any_token, st.sampled_from([*names, "nobody", "%2e%2e"]))
    iiif = st.tuples(
        st.sampled_from("23"),
        identifiers,
        st.one_of(_IIIF, st.sampled_from(["", "info.json", "x", "full/max/0/a."])),
    ).map(lambda three: f"{base}iiif/{'/'.join(three)}")
    by_pattern = st.sampled_from(list(patterns)).flatmap(
        lambda pattern: _by_pattern(pattern, [*tokens[:3], *names])
    )
    others = st.sampled_from(
        ["/", base, "/images.json", f"{base}health", "//", "*", "/%"]
    )
    addresses = st.one_of(below, below, iiif, by_pattern, by_pattern, others)
    return st.tuples(_METHODS, addresses, _HEADERS).map(_request)


def _below(prefix: str) -> st.SearchStrategy[str]:
    number = st.one_of(_WHOLE, _WHOLE, _WHOLE, _NUMBERS.map(lambda text: quote(text)))
    tile = st.tuples(number, number, number).map("/".join)
    with_ending = st.tuples(
        st.one_of(
            tile,
            tile,
            st.sampled_from(["thumbnail", "associated/macro", "associated/label"]),
        ),
        _ENDINGS,
    ).map("".join)
    region = st.tuples(
        st.sampled_from(["region", "region.png", "region.webp", "region.jpeg"]), _REGION
    ).map(lambda two: f"{two[0]}?{_encoded(two[1])}")
    chunk = st.lists(number, min_size=5, max_size=6).map("/".join)
    zarr = st.tuples(
        st.sampled_from(["zarr/", "zarr2/"]),
        st.one_of(
            chunk,
            chunk.map(lambda text: text.replace("/", "/c/", 1)),
            st.sampled_from(["zarr.json", ".zgroup", ".zattrs", "0/zarr.json"]),
            st.sampled_from(["0/.zarray", "9/zarr.json", "", "c", "999/.zarray"]),
        ),
    ).map("".join)
    deep_zoom = st.tuples(number, number, number).map(
        lambda three: f"dzi/slide_files/{three[0]}/{three[1]}_{three[2]}.jpg"
    )
    plain = st.sampled_from(
        ["view.json", "icc", "dzi/slide.dzi", "statistics", "histogram", "pixel", ""]
    )
    places = st.one_of(with_ending, with_ending, region, zarr, deep_zoom, plain)
    queries = st.one_of(
        st.just({}),
        _QUERY,
        st.fixed_dictionaries({"style": _STYLES}),
        st.tuples(_QUERY, _STYLES).map(lambda two: two[0] | {"style": two[1]}),
    )
    return st.tuples(places, queries).map(
        lambda two: prefix + _with_query(two[0], two[1])
    )


def _by_pattern(pattern: str, tokens: Sequence[str]) -> st.SearchStrategy[str]:
    """Addresses that a route's pattern takes; where it names a slide, one of ours."""
    token = st.sampled_from(list(tokens))
    if _TOKEN in pattern:
        filled = token.map(lambda one: pattern.replace(_TOKEN, one, 1))
    elif _IDENTIFIER in pattern:
        filled = token.map(lambda one: pattern.replace(_IDENTIFIER, one, 1))
    else:
        filled = st.just(pattern)
    return filled.flatmap(
        lambda whole: st.from_regex(
            re.compile(whole.removesuffix("$")),
            fullmatch=True,
            alphabet=st.characters(max_codepoint=0x2FF),
        )
    ).map(lambda path: quote(path, safe="/%,:!^=;"))


def _with_query(path: str, query: dict[str, str]) -> str:
    if not query:
        return path
    return path + ("&" if "?" in path else "?") + _encoded(query)


def _encoded(query: dict[str, str]) -> str:
    return "&".join(f"{name}={quote(text)}" for name, text in query.items())


def _request(parts: tuple[str, str, list[str]]) -> bytes:
    method, address, headers = parts
    lines = [f"{method} {address} HTTP/1.1", "Host: localhost", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

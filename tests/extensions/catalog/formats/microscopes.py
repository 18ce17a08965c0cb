"""Microscopes' own files, made in code: the smallest that their readers take."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np


def stack(c: int = 2, z: int = 3, y: int = 20, x: int = 30) -> np.ndarray[Any, Any]:
    """Numbers [c, z, y, x], each another."""
    return np.arange(c * z * y * x, dtype=np.uint16).reshape(c, z, y, x)


def write_lif(path: Path) -> np.ndarray[Any, Any]:
    """Two images of two channels, three depths; what the first holds."""
    first, second = stack(), stack() + 7
    elements = "".join(_lif_element(number, first) for number in (1, 2))
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="project" '
        'Visibility="1" CopyOption="1" UniqueID="a"><Data><Experiment/></Data>'
        f'<Memory Size="0" MemoryBlockID="MemBlock_0"/><Children>{elements}</Children>'
        "</Element></LMSDataContainerHeader>"
    )
    text = xml.encode("utf-16-le")
    content = struct.pack("<iiBi", 0x70, len(text) + 5, 0x2A, len(xml)) + text
    for number, data in ((1, first.tobytes()), (2, second.tobytes())):
        name = f"MemBlock_{number}".encode("utf-16-le")
        head = struct.pack("<BQBi", 0x2A, len(data), 0x2A, len(name) // 2) + name
        content += struct.pack("<ii", 0x70, len(head)) + head + data
    path.write_bytes(content)
    return first


def _lif_element(number: int, data: np.ndarray[Any, Any]) -> str:
    channels, depths, rows, columns = data.shape
    plane = rows * columns * 2
    described = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" '
        f'NameOfMeasuredQuantity="" Min="0" Max="65535" Unit="" LUTName="Green" '
        f'IsLUTInverted="0" BytesInc="{one * plane * depths}" BitInc="0"/>'
        for one in range(channels)
    )
    dimensions = "".join(
        f'<DimensionDescription DimID="{dim}" NumberOfElements="{count}" Origin="0" '
        f'Length="{length}" Unit="m" BitInc="0" BytesInc="{step}"/>'
        for dim, count, length, step in (
            (1, columns, 0.25e-6 * (columns - 1), 2),
            (2, rows, 0.25e-6 * (rows - 1), 2 * columns),
            (3, depths, 1e-6 * (depths - 1), plane),
        )
    )
    return (
        f'<Element Name="image {number}" Visibility="1" CopyOption="1" '
        f'UniqueID="b{number}"><Data><Image TextDescription=""><ImageDescription>'
        f"<Channels>{described}</Channels><Dimensions>{dimensions}</Dimensions>"
        f'</ImageDescription></Image></Data><Memory Size="{data.nbytes}" '
        f'MemoryBlockID="MemBlock_{number}"/><Children/></Element>'
    )


def write_czi(path: Path, *, compression: int = 6) -> np.ndarray[Any, Any]:
    """Two channels, three depths, in tiles laid over each other; what it holds."""
    data = stack(2, 3, 40, 50)
    blocks = []
    for c in range(2):
        for z in range(3):
            for mosaic, (y, x) in enumerate([(0, 0), (0, 26), (18, 0), (18, 26)]):
                part = np.ascontiguousarray(data[c, z, y : y + 22, x : x + 24 + 4])
                blocks.append((c, z, y, x, mosaic, part))
    distances = b"".join(
        b'<Distance Id="%s"><Value>%s</Value></Distance>' % pair
        for pair in ((b"X", b"2E-07"), (b"Y", b"2E-07"), (b"Z", b"1E-06"))
    )
    dapi = b"<EmissionWavelength>461</EmissionWavelength>"
    xml = (
        b"<ImageDocument><Metadata><Information><Image><SizeX>50</SizeX>"
        b"<SizeY>40</SizeY><SizeC>2</SizeC><SizeZ>3</SizeZ><Dimensions><Channels>"
        b'<Channel Id="Channel:0" Name="DAPI">' + dapi + b"</Channel>"
        b'<Channel Id="Channel:1" Name="GFP"/></Channels></Dimensions></Image>'
        b"</Information><Scaling><Items>" + distances + b"</Items></Scaling>"
        b"</Metadata></ImageDocument>"
    )
    body, entries = bytearray(), []
    start = 32 + 512
    for c, z, y, x, mosaic, part in blocks:
        raw = _packed(part, compression)
        at = start + len(body)
        sizes = (("X", x - 300, part.shape[1]), ("Y", y + 80, part.shape[0]))
        sizes += (("C", c, 1), ("Z", z, 1), ("M", mosaic, 1))
        dims = b"".join(
            struct.pack("<4siifi", dim.encode(), first, size, 0.0, size)
            for dim, first, size in sizes
        )
        entry = struct.pack("<2siqii", b"DV", 1, at, 0, compression)
        entry += struct.pack("<B5xi", 0, len(sizes)) + dims
        head = struct.pack("<iiq", 0, 0, len(raw)) + entry
        body += _segment("ZISRAWSUBBLOCK", head.ljust(256, b"\0") + raw)
        entries.append(entry)
    directory = start + len(body)
    head = struct.pack("<i", len(entries)) + bytes(124)
    body += _segment("ZISRAWDIRECTORY", head + b"".join(entries))
    metadata = start + len(body)
    body += _segment(
        "ZISRAWMETADATA", struct.pack("<ii", len(xml), 0) + bytes(248) + xml
    )
    attachments = start + len(body)
    body += _segment("ZISRAWATTDIR", bytes(256))
    guid = bytes(range(16))
    file = struct.pack("<iiii", 1, 0, 0, 0) + guid + guid
    file += struct.pack("<iqqiq", 0, directory, metadata, 0, attachments)
    path.write_bytes(_segment("ZISRAWFILE", file.ljust(512, b"\0")) + body)
    return data


def _packed(part: np.ndarray[Any, Any], compression: int) -> bytes:
    plain = part.tobytes()
    if compression == 0:
        return plain
    if compression == 5:
        return bytes(imagecodecs.zstd_encode(plain))
    # The low bytes of all numbers, then the high ones.
    halves = np.frombuffer(plain, np.uint8).reshape(-1, 2).T.tobytes()
    return b"\x03\x01\x01" + bytes(imagecodecs.zstd_encode(halves))


def _segment(name: str, body: bytes) -> bytes:
    head = name.encode().ljust(16, b"\0") + struct.pack("<qq", len(body), len(body))
    return head + body

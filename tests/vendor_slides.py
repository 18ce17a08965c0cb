"""Scanners' own formats, made in code: each the smallest file that openslide takes.

They hold the picture of `tests.slides`, and each writer returns the file to open and
what its levels show, full resolution first. Where a format lays its tiles over each
other, or a picture somewhere on the slide, so do these.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.slides import Pixels, picture, shrunken

Written = tuple[Path, list[Pixels]]
WIDTH, HEIGHT = 640, 448
_JPEG = {"compression": "jpeg", "compressionargs": {"level": 95}}


def write_czi(folder: Path, *, codec: str = "zstd") -> Written:
    """Zeiss CZI: two levels of subblocks, those of level 0 laid over each other."""
    levels = _levels(2)
    blocks: list[tuple[int, int, int, int, int, bytes]] = []
    for number, level in enumerate(levels):
        factor, step, edge = 2**number, 120, 128
        for y in range(0, level.shape[0], step):
            for x in range(0, level.shape[1], step):
                part = level[y : y + edge, x : x + edge, ::-1]
                raw = np.ascontiguousarray(part).tobytes()
                if codec == "zstd":
                    raw = b"\x01" + imagecodecs.zstd_encode(raw)
                elif codec == "jpeg xr":
                    raw = imagecodecs.jpegxr_encode(np.ascontiguousarray(part))
                size = part.shape[1], part.shape[0]
                # Positions are wherever the stage stood.
                blocks.append((x * factor - 900, y * factor + 70, *size, factor, raw))
    compression = {"plain": 0, "zstd": 6, "jpeg xr": 4}[codec]
    xml = (
        "<ImageDocument><Metadata><Information><Image>"
        f"<SizeX>{WIDTH}</SizeX><SizeY>{HEIGHT}</SizeY><SizeS>1</SizeS>"
        '<ObjectiveSettings><ObjectiveRef Id="Objective:1"/></ObjectiveSettings>'
        '</Image><Instrument><Objectives><Objective Id="Objective:1">'
        "<NominalMagnification>20</NominalMagnification></Objective></Objectives>"
        '</Instrument></Information><Scaling><Items><Distance Id="X">'
        '<Value>5E-07</Value></Distance><Distance Id="Y"><Value>5E-07</Value>'
        "</Distance></Items></Scaling></Metadata></ImageDocument>"
    ).encode()
    body, entries = bytearray(), []
    start = 32 + 512
    for z, (x, y, width, height, factor, raw) in enumerate(blocks):
        at = start + len(body)
        entry = _czi_entry((x, y, z), (width, height), factor, at, compression)
        head = struct.pack("<iiq", 0, 0, len(raw)) + entry
        body += _czi_segment("ZISRAWSUBBLOCK", head.ljust(256, b"\0") + raw)
        entries.append(entry)
    directory_at = start + len(body)
    head = struct.pack("<i", len(entries)) + bytes(124)
    body += _czi_segment("ZISRAWDIRECTORY", head + b"".join(entries), pad=False)
    metadata_at = start + len(body)
    head = struct.pack("<ii", len(xml), 0) + bytes(248)
    body += _czi_segment("ZISRAWMETADATA", head + xml)
    attachments_at = start + len(body)
    body += _czi_segment("ZISRAWATTDIR", bytes(256))
    guid = bytes(range(16))
    file = struct.pack("<iiii", 1, 0, 0, 0) + guid + guid
    file += struct.pack("<iqqiq", 0, directory_at, metadata_at, 0, attachments_at)
    path = folder / "slide.czi"
    path.write_bytes(_czi_segment("ZISRAWFILE", file.ljust(512, b"\0")) + body)
    return path, levels


def _czi_entry(
    place: tuple[int, int, int],
    size: tuple[int, int],
    factor: int,
    at: int,
    compression: int,
) -> bytes:
    """A directory entry: BGR, 8 bits, dimensions X, Y, scene and mosaic."""
    x, y, z = place
    dimensions = [
        (b"X", x, size[0] * factor, size[0]),
        (b"Y", y, size[1] * factor, size[1]),
        (b"S", 0, 1, 1),
        (b"M", z, 1, 1),
    ]
    entry = b"DV" + struct.pack("<iqii", 3, at, 0, compression)
    entry += struct.pack("<B5xi", 0 if factor == 1 else 1, len(dimensions))
    for name, begin, length, stored in dimensions:
        entry += struct.pack("<4siifi", name, begin, length, 0.0, stored)
    return entry


def _czi_segment(name: str, body: bytes, *, pad: bool = True) -> bytes:
    room = -(-len(body) // 32) * 32 if pad else len(body)
    head = struct.pack("<16sqq", name.encode(), room, len(body))
    return head + body.ljust(room, b"\0")


def write_philips(folder: Path) -> Written:
    """Philips TIFF: levels padded to whole tiles, a tile that is not there."""
    edge = 128
    levels = _levels(2)
    boxes = "".join(
        '<DataObject ObjectType="PixelDataRepresentation">'
        '<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        f'PMSVR="IDoubleArray">"{0.0005 * 2**k}" "{0.0005 * 2**k}"</Attribute>'
        "</DataObject>"
        for k in range(len(levels))
    )
    label = base64.b64encode(_jpeg(np.full((32, 48, 3), (10, 200, 60), np.uint8)))
    pictures = "".join(
        f'<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE">'
        f'{kind}</Attribute><Attribute Name="PIM_DP_IMAGE_DATA">{label.decode()}'
        "</Attribute></DataObject>"
        for kind in ("MACROIMAGE", "LABELIMAGE")
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array>'
        '<DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
        '<Attribute Name="DICOM_PIXEL_SPACING">"0.0005" "0.0005"</Attribute>'
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>'
        f"{boxes}</Array></Attribute></DataObject>{pictures}</Array></Attribute>"
        "</DataObject>"
    )
    path = folder / "philips.tiff"
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            padded = np.full((512, 640, 3) if not number else (256, 384, 3), 255)
            padded[: level.shape[0], : level.shape[1]] = level
            tiff.write(
                padded.astype(np.uint8),
                tile=(edge, edge),
                photometric="rgb",
                description=xml if number == 0 else f"level={number}",
                software="Philips DP v1.0" if number == 0 else False,
                metadata=None,
                subfiletype=1 if number else 0,
                **_JPEG,
            )
    return path, levels


def write_scn(folder: Path) -> Written:
    """Leica SCN: a picture that lies somewhere on its slide."""
    levels = _levels(2)
    left, top, around = 96, 64, (1024, 768)  # pixels of level 0
    clicks = 500  # nanometres per pixel
    ns = "http://www.leica-microsystems.com/scn/2010/10/01"
    dimensions = "".join(
        f'<dimension sizeX="{one.shape[1]}" sizeY="{one.shape[0]}" r="{k}" ifd="{k}"/>'
        for k, one in enumerate(levels)
    )
    xml = (
        f'<?xml version="1.0"?><scn xmlns="{ns}" uuid="urn:uuid:1">'
        f'<collection name="c" uuid="1" sizeX="{around[0] * clicks}" '
        f'sizeY="{around[1] * clicks}"><barcode>MTIz</barcode><image name="i" uuid="2">'
        f'<pixels sizeX="{WIDTH}" sizeY="{HEIGHT}">{dimensions}</pixels>'
        f'<view sizeX="{WIDTH * clicks}" sizeY="{HEIGHT * clicks}" '
        f'offsetX="{left * clicks}" offsetY="{top * clicks}" spacingZ="0"/>'
        '<device model="Leica SCN400" version="1"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.4</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image></collection></scn>"
    )
    path = folder / "slide.scn"
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, level in enumerate(levels):
            tiff.write(
                level,
                tile=(128, 128),
                photometric="rgb",
                description=xml if number == 0 else None,
                resolution=(20_000 / 2**number, 20_000 / 2**number),
                resolutionunit="CENTIMETER",
                software=False,
                metadata=None,
                **_JPEG,
            )
    shown = []
    for number, level in enumerate(levels):
        factor = 2**number
        whole = np.full((around[1] // factor, around[0] // factor, 3), 255, np.uint8)
        y, x = top // factor, left // factor
        whole[y : y + level.shape[0], x : x + level.shape[1]] = level
        shown.append(whole)
    return path, shown


def write_bif(folder: Path) -> Written:
    """Ventana BIF: tiles that overlap by 16 pixels, numbered from the bottom up."""
    edge, overlap, columns, rows = 128, 16, 4, 3
    step = edge - overlap
    full = picture(columns * step + overlap, rows * step + overlap)
    tiles = [
        full[r * step : r * step + edge, c * step : c * step + edge]
        for r in range(rows)
        for c in range(columns)
    ]
    joints = []
    for row in range(rows):
        for column in range(columns):
            here = _bif_number(column, row, columns, rows)
            if column + 1 < columns:
                right = _bif_number(column + 1, row, columns, rows)
                joints.append(("RIGHT", here, right, overlap, 0))
            if row:
                above = _bif_number(column, row - 1, columns, rows)
                joints.append(("UP", here, above, 0, overlap))
    told = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{way}" '
        f'Tile1="{one}" Tile2="{two}" OverlapX="{x}" OverlapY="{y}"/>'
        for way, one, two, x, y in joints
    )
    encode = (
        '<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" '
        'Pos-X="0" Pos-Y="0" '
        f'Width="{edge}" Height="{edge}" NumCols="{columns}" NumRows="{rows}">{told}'
        '</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/>'
        "</AoiOrigin></EncodeInfo>"
    ).encode()
    scan = b'<iScan Z-layers="1" Magnification="20" ScanRes="0.5"/>'
    path = folder / "slide.bif"
    montage = np.vstack(
        [np.hstack(tiles[r * columns : (r + 1) * columns]) for r in range(rows)]
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(
            np.full((40, 60, 3), 200, np.uint8),
            photometric="rgb",
            description="Label Image",
            extratags=[(700, 1, len(scan), scan, True)],
            metadata=None,
            software=False,
        )
        tiff.write(
            montage,
            tile=(edge, edge),
            photometric="rgb",
            description="level=0 mag=20 quality=95",
            extratags=[(700, 1, len(encode), encode, True)],
            metadata=None,
            software=False,
            **_JPEG,
        )
    return path, [full]


def _bif_number(column: int, row: int, columns: int, rows: int) -> int:
    """The number of a tile, from 1: from the bottom, every second row leftwards."""
    up = rows - row - 1
    return 1 + up * columns + (columns - column - 1 if up % 2 else column)


def write_ndpi(folder: Path) -> Written:
    """Hamamatsu NDPI: each level one JPEG with restart markers, and a macro image."""
    levels = _levels(3)[::2]
    pages = [(level, lens) for level, lens in zip(levels, (20.0, 5.0), strict=True)]
    pages.append((np.full((40, 80, 3), 190, np.uint8), -1.0))
    out = bytearray(b"II*\0" + struct.pack("<Q", 0))
    link = 4
    for pixels, lens in pages:
        height, width = pixels.shape[:2]
        stream = _jpeg(pixels, restart_marker_blocks=width // 16)
        stream_at = len(out)
        out += stream + b"\0" * (len(stream) % 2)
        texts = {271: b"Hamamatsu\0", 272: b"C9600-12\0"}
        text_at = {}
        for tag, text in texts.items():
            text_at[tag] = len(out)
            out += text + b"\0" * (len(text) % 2)
        resolution_at = len(out)
        out += struct.pack("<II", int(20_000 * abs(lens) / 20), 1)
        bits_at = len(out)
        out += struct.pack("<HHHxx", 8, 8, 8)
        entries = [
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 3, bits_at),
            (259, 3, 1, 7),
            (262, 3, 1, 6),
            (271, 2, len(texts[271]), text_at[271]),
            (272, 2, len(texts[272]), text_at[272]),
            (273, 4, 1, stream_at),
            (277, 3, 1, 3),
            (278, 4, 1, height),
            (279, 4, 1, len(stream)),
            (282, 5, 1, resolution_at),
            (283, 5, 1, resolution_at),
            (284, 3, 1, 1),
            (296, 3, 1, 3),
            (65420, 4, 1, 1),
            (65421, 11, 1, struct.unpack("<I", struct.pack("<f", lens))[0]),
            (65422, 9, 1, 0),
            (65423, 9, 1, 0),
            (65424, 9, 1, 0),
        ]
        out[link : link + 8] = struct.pack("<Q", len(out))
        out += struct.pack("<H", len(entries))
        for entry in entries:
            out += struct.pack("<HHII", *entry)
        link = len(out)
        # Eight bytes, not four, and the upper halves of all values.
        out += struct.pack("<Q", 0) + bytes(4 * len(entries))
    path = folder / "slide.ndpi"
    path.write_bytes(out)
    return path, levels


def write_vms(folder: Path) -> Written:
    """Hamamatsu VMS: level 0 in two JPEG files side by side, and a map of it."""
    full = picture(WIDTH, HEIGHT)
    half = WIDTH // 2
    small = shrunken(full, 4)
    streams = {
        "slide.jpg": (full[:, :half], 8),
        "slide(1,0).jpg": (full[:, half:], 8),
        "slide_map.jpg": (small, 5),
        "slide_macro.jpg": (np.full((40, 80, 3), 190, np.uint8), 5),
    }
    for name, (pixels, restart) in streams.items():
        (folder / name).write_bytes(_jpeg(pixels, restart_marker_blocks=restart))
    path = folder / "slide.vms"
    path.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=2\nNoJpegRows=1\n"
        "ImageFile=slide.jpg\nImageFile(1,0)=slide(1,0).jpg\nMapFile=slide_map.jpg\n"
        "MacroImage=slide_macro.jpg\nPhysicalWidth=320000\nPhysicalHeight=224000\n"
        "SourceLens=20\n"
    )
    return path, [full]


def write_mrxs(folder: Path) -> Written:
    """3DHISTECH MIRAX: two levels in one data file, tiles found by a linked index."""
    edge, levels = 128, _levels(2)
    columns, rows = -(-WIDTH // edge), -(-HEIGHT // edge)
    inside = folder / "slide"
    inside.mkdir()
    sections = "".join(
        f"[LEVEL_{k}]\nOVERLAP_X=0\nOVERLAP_Y=0\nMICROMETER_PER_PIXEL_X={0.5 * 2**k}\n"
        f"MICROMETER_PER_PIXEL_Y={0.5 * 2**k}\nIMAGE_FILL_COLOR_BGR=16777215\n"
        f"DIGITIZER_WIDTH={edge}\nDIGITIZER_HEIGHT={edge}\nIMAGE_FORMAT=JPEG\n"
        f"IMAGE_CONCAT_FACTOR={min(k, 1)}\n"
        for k in range(len(levels))
    )
    names = "".join(
        f"HIER_0_VAL_{k}_SECTION=LEVEL_{k}\nHIER_0_VAL_{k}=ZoomLevel_{k}\n"
        for k in range(len(levels))
    )
    (inside / "Slidedat.ini").write_text(
        f"[GENERAL]\nSLIDE_VERSION=01.02\nSLIDE_ID=made\nIMAGENUMBER_X={columns}\n"
        f"IMAGENUMBER_Y={rows}\nOBJECTIVE_MAGNIFICATION=20\n"
        "[HIERARCHICAL]\nINDEXFILE=Index.dat\nHIER_COUNT=1\nNONHIER_COUNT=0\n"
        f"HIER_0_NAME=Slide zoom level\nHIER_0_COUNT={len(levels)}\n{names}"
        f"[DATAFILE]\nFILE_COUNT=1\nFILE_0=Data0000.dat\n{sections}"
    )
    stored = bytearray(b"01.02made")
    pages = []
    for k, level in enumerate(levels):
        page = b""
        for y in range(-(-level.shape[0] // edge)):
            for x in range(-(-level.shape[1] // edge)):
                tile = np.full((edge, edge, 3), 255, np.uint8)
                part = level[y * edge : (y + 1) * edge, x * edge : (x + 1) * edge]
                tile[: part.shape[0], : part.shape[1]] = part
                stream = _jpeg(tile)
                # An image is numbered by its first one in the grid of level 0.
                number = (y << k) * columns + (x << k)
                page += struct.pack("<iiii", number, len(stored), len(stream), 0)
                stored += stream
        pages.append(page)
    (inside / "Data0000.dat").write_bytes(stored)
    index = bytearray(b"01.02made")
    at = len(index) + 8 + 4 * len(pages)
    heads, body = b"", b""
    for page in pages:
        heads += struct.pack("<i", at)
        # A zero, the first page's place; there a length, no next page, and entries.
        body += struct.pack("<ii", 0, at + 8)
        body += struct.pack("<ii", len(page) // 16, 0) + page
        at += 16 + len(page)
    roots = struct.pack("<ii", len(index) + 8, at)
    (inside / "Index.dat").write_bytes(index + roots + heads + body + bytes(16))
    path = folder / "slide.mrxs"
    # Such files hold a picture of the program's, or of the slide.
    path.write_bytes(_jpeg(np.full((32, 32, 3), 90, np.uint8)))
    return path, levels


def _levels(count: int) -> list[Pixels]:
    full = picture(WIDTH, HEIGHT)
    return [full, *(shrunken(full, 2**k) for k in range(1, count))]


def _jpeg(pixels: Pixels, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(stream, "JPEG", quality=95, subsampling=0, **options)
    return stream.getvalue()


WRITERS: dict[str, Callable[[Path], Written]] = {
    "zeiss": write_czi,
    "philips": write_philips,
    "leica": write_scn,
    "ventana": write_bif,
    "mirax": write_mrxs,
    "hamamatsu ndpi": write_ndpi,
    "hamamatsu vms": write_vms,
}

"""Frames of DICOM files, decoded: JPEG, JPEG-LS, JPEG 2000, RLE and plain pixels.

What a frame decodes to is checked against what the file's header says, so a frame that
announces a huge picture is refused before it is decoded.
"""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from tile_server import jpeg_streams
from tile_server.errors import DamagedTile
from tile_server.readers.dicom_files import CODECS, Instance

Frame = npt.NDArray[Any]

_DAMAGED = "This frame cannot be decoded."
# What imagecodecs raises; its own errors derive from RuntimeError.
_CODEC_ERRORS = (RuntimeError, ValueError, TypeError, IndexError)
_JPEG_LS_FRAME = 0xF7


def decode(frame: bytes, header: Instance) -> Frame:
    """The pixels of a frame: (height, width), or (height, width, 3) in RGB.

    Raises DamagedTile.
    """
    codec = CODECS[header.syntax]
    try:
        if codec == "JPEG":
            pixels = _jpeg(frame, header)
        elif codec == "uncompressed":
            pixels = _plain(frame, header)
        elif codec == "RLE":
            pixels = _rle(frame, header)
        elif codec == "JPEG-LS":
            _refuse_bomb(jpeg_ls_size(frame), header)
            pixels = imagecodecs.jpegls_decode(frame)
        else:
            _refuse_bomb(jpeg_2000_size(frame), header)
            pixels = imagecodecs.jpeg2k_decode(frame)
    except _CODEC_ERRORS as error:
        raise DamagedTile(_DAMAGED) from error
    shape: tuple[int, ...] = (header.tile_height, header.tile_width)
    if header.samples == 3:
        shape = (*shape, 3)
    if pixels.shape != shape or pixels.dtype != (
        np.uint8 if header.bits == 8 else np.uint16
    ):
        raise DamagedTile("This frame is not of the size that its file says.")
    if header.samples == 3 and codec != "JPEG":
        # JPEG 2000 turns its own transforms (YBR_ICT, YBR_RCT) back by itself.
        if header.photometric in ("YBR_FULL", "YBR_FULL_422"):
            pixels = rgb_of_ycbcr(pixels)
    elif header.photometric == "MONOCHROME1":
        pixels = (1 << header.bits_stored) - 1 - pixels
    return np.asarray(pixels)


def jpeg_2000_size(stream: bytes) -> tuple[int, int]:
    """Width and height as a JPEG 2000 stream announces them; (0, 0) if it does not.

    The stream may be bare or in a JP2 file.
    """
    at = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or at + 24 > len(stream):
        return 0, 0
    right, bottom, left, top = struct.unpack_from(">IIII", stream, at + 8)
    return max(right - left, 0), max(bottom - top, 0)


def jpeg_ls_size(stream: bytes) -> tuple[int, int]:
    """Width and height as a JPEG-LS stream announces them; (0, 0) if it does not."""
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1] == _JPEG_LS_FRAME:
            height, width = struct.unpack_from(">HH", stream, at + 5)
            return width, height
        (length,) = struct.unpack_from(">H", stream, at + 2)
        at += 2 + length
    return 0, 0


def rgb_of_ycbcr(pixels: Frame) -> Frame:
    """RGB of full-range YCbCr (PS3.3 C.7.6.3.1.2)."""
    y, cb, cr = (pixels[..., i].astype(np.float32) for i in range(3))
    red = y + 1.402 * (cr - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    blue = y + 1.772 * (cb - 128)
    mixed = np.stack([red, green, blue], axis=-1)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def _refuse_bomb(size: tuple[int, int], header: Instance) -> None:
    if size != (header.tile_width, header.tile_height):
        raise DamagedTile("This frame is not of the size that its file says.")


def _jpeg(frame: bytes, header: Instance) -> Frame:
    told = jpeg_streams.read_header(frame)
    if told is None:
        raise DamagedTile(_DAMAGED)
    _refuse_bomb((told.width, told.height), header)
    if header.samples == 1:
        return np.asarray(imagecodecs.jpeg8_decode(frame))
    space = "RGB" if header.photometric == "RGB" else "YCBCR"
    pixels = imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace="RGB")
    return np.asarray(pixels)


def _plain(frame: bytes, header: Instance) -> Frame:
    dtype = np.dtype("u1" if header.bits == 8 else "<u2")
    numbers = np.frombuffer(frame, dtype)
    width, height, samples = header.tile_width, header.tile_height, header.samples
    if samples == 1:
        return np.asarray(numbers.reshape(height, width), dtype.newbyteorder("="))
    if header.planar:
        return np.ascontiguousarray(
            numbers.reshape(3, height, width).transpose(1, 2, 0)
        )
    return numbers.reshape(height, width, 3)


def _rle(frame: bytes, header: Instance) -> Frame:
    width, height, samples = header.tile_width, header.tile_height, header.samples
    dtype = "u1" if header.bits == 8 else "<u2"
    room = bytearray(width * height * samples * header.bits // 8)
    imagecodecs.dicomrle_decode(frame, dtype, out=room)
    planes = np.frombuffer(bytes(room), dtype).reshape(samples, height, width)
    if samples == 1:
        return np.asarray(planes[0], planes.dtype.newbyteorder("="))
    return np.ascontiguousarray(planes.transpose(1, 2, 0))

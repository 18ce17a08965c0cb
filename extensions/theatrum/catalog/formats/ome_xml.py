"""OME-XML: what a microscope says of an image, for OME-TIFF, ND2 and others.

The XML is read by defusedxml, which expands no entities. Names of experimenters and
groups are not read. Lengths become millimetres, times seconds, wavelengths nanometres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.scene import Acquisition, Channel

_MM: Final = {
    "m": 1e3, "dm": 1e2, "cm": 10.0, "mm": 1.0, "µm": 1e-3, "μm": 1e-3, "um": 1e-3,
    "nm": 1e-6, "pm": 1e-9, "Å": 1e-7, "in": 25.4, "pt": 25.4 / 72,
}  # fmt: skip
_SECONDS: Final = {
    "s": 1.0, "ms": 1e-3, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0,
    "d": 86400.0,
}  # fmt: skip
_NM: Final = {unit: mm * 1e6 for unit, mm in _MM.items()}
_MOST_PLANES: Final = 1_000_000


@dataclass(frozen=True)
class OmeImage:
    """One `Image` element."""

    name: str
    sizes: Mapping[str, int]
    spacing: Mapping[str, float]
    channels: tuple[Channel, ...]
    planes: Mapping[str, list[Any]]
    acquisition: Acquisition
    significant_bits: int | None = None
    order: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def parse(text: str, name: str) -> list[OmeImage]:
    """The images of an OME-XML text; raises Damaged, with `name` for the file."""
    try:
        root = fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise Damaged(f"{name} holds OME-XML that cannot be read.") from error
    instruments = {one.get("ID", ""): one for one in root if _tag(one) == "Instrument"}
    return [
        _image(one, instruments)
        for one in root
        if _tag(one) == "Image" and _child(one, "Pixels") is not None
    ]


def _image(image: Element, instruments: Mapping[str, Element]) -> OmeImage:
    pixels = _child(image, "Pixels")
    if pixels is None:
        raise Damaged("An image of the OME-XML has no pixels.")
    spacing = {}
    for dim in "XYZ":
        size = _number(pixels.get(f"PhysicalSize{dim}"))
        unit = pixels.get(f"PhysicalSize{dim}Unit", "µm")
        if size and unit in _MM:
            spacing[dim.lower()] = abs(size) * _MM[unit]
    step = _number(pixels.get("TimeIncrement"))
    unit = pixels.get("TimeIncrementUnit", "s")
    if step and unit in _SECONDS:
        spacing["t"] = step * _SECONDS[unit]
    channels = [_channel(one, n) for n, one in enumerate(_children(pixels, "Channel"))]
    planes = _planes(pixels)
    exposures = _exposures(planes)
    channels = [
        one
        if one.exposure_ms or number not in exposures
        else Channel(**{**vars(one), "exposure_ms": exposures[number]})
        for number, one in enumerate(channels)
    ]
    moment = _child(image, "AcquisitionDate")
    bits = _number(pixels.get("SignificantBits"))
    return OmeImage(
        name=(image.get("Name") or "")[:128],
        sizes={dim: int(_number(pixels.get(f"Size{dim}")) or 1) for dim in "XYZCT"},
        spacing=spacing,
        channels=tuple(channels),
        planes=planes,
        acquisition=Acquisition(
            modality="FM",
            acquired_at="" if moment is None else (moment.text or "")[:32],
            device=_device(image, instruments),
            protocol=_protocol(image, pixels, instruments),
        ),
        significant_bits=None if bits is None else int(bits),
        order=pixels.get("DimensionOrder", ""),
    )


def _channel(element: Element, number: int) -> Channel:
    excitation = _length(element, "ExcitationWavelength")
    emission = _length(element, "EmissionWavelength")
    return Channel(
        name=(element.get("Name") or f"channel {number}")[:128],
        color=_colour(element.get("Color")),
        excitation_nm=excitation,
        emission_nm=emission,
        fluor=(element.get("Fluor") or "")[:64],
    )


def _length(element: Element, name: str) -> float | None:
    value = _number(element.get(name))
    factor = _NM.get(element.get(f"{name}Unit", "nm"), 1.0)
    return None if value is None else value * factor


def _colour(packed: str | None) -> str:
    """`#rrggbb` of OME's RGBA in one signed number."""
    if packed is None:
        return ""
    try:
        number = int(packed) & 0xFFFFFFFF
    except ValueError:
        return ""
    return f"#{number >> 8:06x}"


def _planes(pixels: Element) -> dict[str, list[Any]]:
    elements = _children(pixels, "Plane")[:_MOST_PLANES]
    if not elements:
        return {}
    columns: dict[str, list[Any]] = {"t": [], "c": [], "z": []}
    known: dict[str, list[Any]] = {
        "exposure_ms": [],
        "delta_t_s": [],
        "position_x_mm": [],
        "position_y_mm": [],
        "position_z_mm": [],
    }
    for one in elements:
        for dim in "tcz":
            columns[dim].append(int(_number(one.get(f"The{dim.upper()}")) or 0))
        exposure = _timed(one, "ExposureTime")
        known["exposure_ms"].append(None if exposure is None else exposure * 1000)
        known["delta_t_s"].append(_timed(one, "DeltaT"))
        for axis in "xyz":
            value = _number(one.get(f"Position{axis.upper()}"))
            # Without a unit it is the stage's own, which says nothing.
            factor = _MM.get(one.get(f"Position{axis.upper()}Unit", ""), None)
            known[f"position_{axis}_mm"].append(
                None if value is None or factor is None else value * factor
            )
    return columns | {
        name: column
        for name, column in known.items()
        if any(value is not None for value in column)
    }


def _timed(element: Element, name: str) -> float | None:
    value = _number(element.get(name))
    factor = _SECONDS.get(element.get(f"{name}Unit", "s"), 1.0)
    return None if value is None else value * factor


def _exposures(planes: Mapping[str, list[Any]]) -> dict[int, float]:
    """Of each channel the exposure of its first plane."""
    found: dict[int, float] = {}
    for c, exposure in zip(
        planes.get("c", ()), planes.get("exposure_ms", ()), strict=False
    ):
        if exposure is not None:
            found.setdefault(c, exposure)
    return found


def _device(image: Element, instruments: Mapping[str, Element]) -> dict[str, Any]:
    reference = _child(image, "InstrumentRef")
    instrument = instruments.get("" if reference is None else reference.get("ID", ""))
    if instrument is None:
        return {}
    device: dict[str, Any] = {}
    for kind, prefix in (("Microscope", ""), ("Detector", "detector_")):
        found = _child(instrument, kind)
        if found is None:
            continue
        for attribute, ours in (
            ("Manufacturer", "maker"),
            ("Model", "model"),
            ("Type", "type"),
        ):
            value = found.get(attribute)
            if value:
                device[prefix + ours] = value[:128]
    return device


def _protocol(
    image: Element, pixels: Element, instruments: Mapping[str, Element]
) -> dict[str, Any]:
    protocol: dict[str, Any] = {}
    settings = _child(image, "ObjectiveSettings")
    if settings is not None:
        for attribute, ours in (
            ("RefractiveIndex", "refractive_index"),
            ("Medium", "medium"),
        ):
            value = settings.get(attribute)
            if value:
                protocol[ours] = _number(value) or value[:32]
        wanted = settings.get("ID", "")
        for instrument in instruments.values():
            for one in _children(instrument, "Objective"):
                if one.get("ID") != wanted:
                    continue
                for attribute, ours in (
                    ("NominalMagnification", "objective"),
                    ("LensNA", "numerical_aperture"),
                    ("Immersion", "immersion"),
                ):
                    value = one.get(attribute)
                    if value:
                        protocol[ours] = _number(value) or value[:32]
    modes = {
        mode
        for one in _children(pixels, "Channel")
        if (mode := one.get("AcquisitionMode"))
    }
    if modes:
        protocol["acquisition_mode"] = ", ".join(sorted(modes))[:128]
    return protocol


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _child(element: Element, name: str) -> Element | None:
    return next((one for one in element if _tag(one) == name), None)


def _children(element: Element, name: str) -> list[Element]:
    return [one for one in element if _tag(one) == name]


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None

"""DICOMweb over real sockets, by two public clients: dicomweb-client and wsidicom."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import generate_frames
from wsidicom import WsiDicom, WsiDicomWebClient

from tests import dicom_slides, slides
from tests.dicom_slides import COLOUR, MONOCHROME, DicomSpec, write_dicom_slide
from tests.tile_server.conftest import SPECS
from tests.tile_server.dicom_web_service import (
    Service,
    place_of,
    services,
    way,
)
from tile_server import jpeg_streams
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.readers.protocol import Reader

JPEG = ('multipart/related; type="image/jpeg"',)
PLAIN = ("application/octet-stream",)
NATIVE = ("plain", "implicit")


@pytest.fixture(scope="module", params=["application", "lane"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    yield from services(request.param == "lane", cors_origins=("https://viewer.test",))


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A DICOM slide of every kind; nobody may change them."""
    folder = tmp_path_factory.mktemp("dicom")
    return {
        name: write_dicom_slide(folder / name.replace(" ", "-"), spec)
        for name, spec in (COLOUR | MONOCHROME).items()
    }


def stored_frames(folder: Path) -> dict[str, list[bytes]]:
    """The frames of every file in a folder, by instance."""
    found = {}
    for file in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        count = int(dataset.NumberOfFrames)
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
        else:
            size = len(dataset.PixelData) // count
            frames = [
                dataset.PixelData[at * size : (at + 1) * size] for at in range(count)
            ]
        found[str(dataset.SOPInstanceUID)] = frames
    return found


@pytest.mark.parametrize("name", sorted(COLOUR | MONOCHROME))
def test_frames_of_dicom_slides_are_the_bytes_of_the_files(
    service: Service, dicom: dict[str, Path], name: str
) -> None:
    path = dicom[name]
    client = service.client(path, label=True)
    wanted = stored_frames(path.parent)
    found = client.search_for_instances()
    assert {place_of(one)[2] for one in found} == set(wanted)
    for one in found:
        frames = wanted[place_of(one)[2]]
        assert one["00280008"]["Value"] == [len(frames)]
        numbers = list(range(1, len(frames) + 1))
        assert client.retrieve_instance_frames(*place_of(one), numbers) == frames
        some = [len(frames), 1]
        seen = client.retrieve_instance_frames(*place_of(one), some)
        assert seen == [frames[-1], frames[0]]


@pytest.mark.parametrize("name", sorted(COLOUR | MONOCHROME))
def test_a_retrieved_instance_is_a_file_of_the_same_frames(
    service: Service, dicom: dict[str, Path], name: str
) -> None:
    path = dicom[name]
    client = service.client(path, label=True)
    wanted = stored_frames(path.parent)
    study, series, _ = place_of(client.search_for_instances()[0])
    for dataset in client.retrieve_series(study, series):
        count = int(dataset.NumberOfFrames)
        frames = wanted.pop(str(dataset.SOPInstanceUID))
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            seen = list(generate_frames(dataset.PixelData, number_of_frames=count))
            assert [one.rstrip(b"\0") for one in seen] == [
                one.rstrip(b"\0") for one in frames
            ]
        else:
            assert dataset.PixelData == b"".join(frames)
        assert dataset.pixel_array.size
    assert not wanted


@pytest.mark.parametrize("name", sorted(COLOUR | MONOCHROME))
def test_decoded_frames_have_the_readers_pixels(
    service: Service, dicom: dict[str, Path], name: str
) -> None:
    spec = (COLOUR | MONOCHROME)[name]
    client = service.client(dicom[name])
    one = next(
        i for i in client.search_for_instances() if "VOLUME" in str(full(client, i))
    )
    (frame,) = client.retrieve_instance_frames(*place_of(one), [1], media_types=PLAIN)
    shape: tuple[int, ...] = (spec.tile, spec.tile)
    if not spec.channels:
        shape = (*shape, 3)
    seen = np.frombuffer(frame, "<u2" if spec.bits == 16 else "u1").reshape(shape)
    header = pydicom.dataset.Dataset.from_json(full(client, one))
    assert header.Rows == header.Columns == spec.tile
    wanted = first_tile(header, dicom[name], spec)
    assert np.abs(seen.astype(int) - wanted).mean() < (
        4 if spec.codec == "jpeg" else 0.1
    )


def full(client: Any, found: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = client.retrieve_instance_metadata(*place_of(found))
    return metadata


def first_tile(header: Any, path: Path, spec: DicomSpec) -> Any:
    """What the first frame of an instance has to show."""
    level = spec.downsamples.index(4 if header.TotalPixelMatrixColumns < 600 else 1)
    x = y = channel = depth = 0
    if spec.sparse:
        place = header.PerFrameFunctionalGroupsSequence[0]
        position = place.PlanePositionSlideSequence[0]
        x = position.ColumnPositionInTotalImagePixelMatrix - 1
        y = position.RowPositionInTotalImagePixelMatrix - 1
        depth = round(float(position.ZOffsetInSlideCoordinateSystem) / 1.5)
        light = place.OpticalPathIdentificationSequence[0].OpticalPathIdentifier
        channel = int(light.split()[1])
    elif spec.file_per_channel:
        light = header.OpticalPathSequence[0].OpticalPathIdentifier
        channel = int(light.split()[1])
    elif spec.parts > 1:
        columns = -(-header.TotalPixelMatrixColumns // spec.tile)
        y, x = divmod(int(header.ConcatenationFrameOffsetNumber), columns)
        x, y = x * spec.tile, y * spec.tile
    plane = dicom_slides.truth(spec, level, channel, depth)
    return dicom_slides._padded(plane, x // spec.tile, y // spec.tile, spec.tile)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_frames_of_other_slides_are_the_files_own_tiles(
    service: Service, made_slides: dict[str, Path], name: str
) -> None:
    client = service.client(made_slides[name])
    found = client.search_for_instances()
    with open_slide(made_slides[name]) as reader:
        rungs = Pyramid(reader).ladder.rungs
        for one, rung in zip(found, rungs, strict=False):
            count = one["00280008"]["Value"][0]
            numbers = list(range(1, count + 1))
            frames = client.retrieve_instance_frames(*place_of(one), numbers)
            assert len(frames) == count
            assert all(frame[:2] == b"\xff\xd8" for frame in frames)
            if rung.level is None or not reader.levels[rung.level].encoded:
                continue
            columns = reader.levels[rung.level].columns
            for number, frame in enumerate(frames):
                y, x = divmod(number, columns)
                tile = reader.encoded_tile(rung.level, x, y)
                if tile is not None:
                    assert scan(frame) == scan(tile)
                    told = jpeg_streams.read_header(frame)
                    assert told is not None
                    marked = replace(told, transform=1)
                    assert jpeg_streams.read_header(tile) in (told, marked)


def scan(stream: bytes) -> bytes:
    """The coded picture of a JPEG, from its tables on, without the marks before."""
    return stream[stream.index(b"\xff\xdb") :]


@pytest.mark.parametrize("name", ["ycbcr", "rgb_odd", "whole_streams"])
def test_highdicom_sees_the_readers_pixels_in_a_retrieved_file(
    service: Service, made_slides: dict[str, Path], tmp_path: Path, name: str
) -> None:
    client = service.client(made_slides[name])
    (one, *_) = client.search_for_instances()
    client.retrieve_instance(*place_of(one)).save_as(tmp_path / "one.dcm")
    image = highdicom.imread(tmp_path / "one.dcm")
    seen = image.get_total_pixel_matrix(dtype=np.uint8, apply_icc_profile=False)
    with open_slide(made_slides[name]) as reader:
        level = reader.levels[0]
        wanted = reader.read(0, 0, 0, (level.width, level.height))
    assert np.abs(seen.astype(int) - wanted).max() <= 6


def pixels_of(slide: WsiDicom, level: Any, box: tuple[int, int, int, int]) -> Any:
    left, top, width, height = box
    region = slide.read_region((left, top), level.level, (width, height))
    return np.asarray(region.convert("RGB")).astype(int)


def stored_level(reader: Reader, level: Any) -> int | None:
    sizes = [(one.width, one.height) for one in reader.levels]
    size = level.size.width, level.size.height
    return sizes.index(size) if size in sizes else None


def compare(service: Service, path: Path) -> int:
    """Open a slide by wsidicom and by our reader; gives the levels that were alike."""
    client = service.client(path)
    study, series, _ = place_of(client.search_for_instances()[0])
    alike = 0
    with (
        WsiDicom.open_web(WsiDicomWebClient(client), study, series) as slide,
        open_slide(path) as reader,
    ):
        full_size = reader.levels[0]
        assert slide.size.width == full_size.width
        assert slide.size.height == full_size.height
        for level in slide.levels:
            number = stored_level(reader, level)
            if number is None:
                continue
            width, height = min(level.size.width, 300), min(level.size.height, 300)
            corner = level.size.width - width, level.size.height - height
            for left, top in ((0, 0), corner):
                seen = pixels_of(slide, level, (left, top, width, height))
                wanted = reader.read(number, left, top, (width, height)).astype(int)
                assert np.abs(seen - wanted).max() <= 3
            alike += 1
    return alike


@pytest.mark.parametrize("name", ["ycbcr", "rgb_odd", "whole_streams", "single"])
def test_wsidicom_sees_the_readers_pixels_of_a_tiff(
    service: Service, made_slides: dict[str, Path], name: str
) -> None:
    assert compare(service, made_slides[name]) >= 1


@pytest.mark.parametrize("name", ["full", "rgb", "sparse", "jpeg2000", "fragments"])
def test_wsidicom_sees_the_readers_pixels_of_a_dicom_slide(
    service: Service, tmp_path: Path, name: str
) -> None:
    spec = COLOUR[name]
    spec = replace(spec, left_out=frozenset())
    assert compare(service, write_dicom_slide(tmp_path, spec)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "dicom_cmu",
        "camelyon_level.dcm",
        "CMU-1-Small-Region.svs",
        "cmu_pyramid.tiff",
        "synthetic_marked_6000x4500.svs",
    ],
)
def test_wsidicom_sees_the_readers_pixels_of_real_slides(
    service: Service, shared_data: Path, name: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on what the files hold
        assert compare(service, shared_data / "wsi" / name) >= 1


@pytest.mark.parametrize("name", ["ycbcr", "rgb_odd", "deflate", "sparse"])
def test_retrieved_instances_of_a_tiff_open_as_a_slide(
    service: Service, made_slides: dict[str, Path], tmp_path: Path, name: str
) -> None:
    client = service.client(made_slides[name], label=True)
    study, series, _ = place_of(client.search_for_instances()[0])
    for dataset in client.retrieve_study(study):
        assert dataset.SeriesInstanceUID == series
        dataset.save_as(tmp_path / f"{dataset.SOPInstanceUID}.dcm")
        for frame in generate_frames(
            dataset.PixelData, number_of_frames=dataset.NumberOfFrames
        ):
            size = Image.open(io.BytesIO(frame)).size
            assert size == (dataset.Columns, dataset.Rows)
    with WsiDicom.open(tmp_path) as slide, open_slide(made_slides[name]) as reader:
        (full_size, *_) = reader.levels
        assert slide.size.width == full_size.width
        pixels = pixels_of(slide, slide.levels[0], (100, 130, 200, 90))
        wanted = reader.read(0, 100, 130, (200, 90)).astype(int)
        assert np.abs(pixels - wanted).mean() < (4 if name == "deflate" else 0.5)
    # Our own reader takes it for a DICOM slide as well.
    with open_slide(tmp_path) as again:
        assert (again.levels[0].width, again.levels[0].height) == (
            full_size.width,
            full_size.height,
        )


def test_a_composed_level_is_half_of_the_finer_one(
    service: Service, made_slides: dict[str, Path]
) -> None:
    client = service.client(made_slides["ycbcr"])
    found = client.search_for_instances()
    study, series, _ = place_of(found[0])
    with WsiDicom.open_web(WsiDicomWebClient(client), study, series) as slide:
        assert [level.level for level in slide.levels] == [0, 1, 2, 3, 4]
        seen = pixels_of(slide, slide.levels[1], (0, 0, 500, 350))
    wanted = slides.shrunken(slides.picture(1000, 700), 2)
    assert np.abs(seen - wanted).mean() < 4


def test_the_dataset_says_what_the_slide_is(
    service: Service, made_slides: dict[str, Path]
) -> None:
    client = service.client(made_slides["rgb_odd"])
    headers = [
        pydicom.dataset.Dataset.from_json(full(client, one))
        for one in client.search_for_instances()
    ]
    first, second = headers[0], headers[1]
    assert first.SOPClassUID == "1.2.840.10008.5.1.4.1.1.77.1.6"
    assert first.ImageType == ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    assert second.ImageType == ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    assert (first.TotalPixelMatrixColumns, first.TotalPixelMatrixRows) == (1001, 703)
    assert (second.TotalPixelMatrixColumns, second.TotalPixelMatrixRows) == (501, 352)
    assert first.NumberOfFrames == 16 * 11
    assert first.DimensionOrganizationType == "TILED_FULL"
    assert first.PhotometricInterpretation == "RGB"
    assert second.PhotometricInterpretation == "YBR_FULL_422"
    for header, spacing in ((first, 0.0005), (second, 0.001)):
        measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert measures.PixelSpacing == pytest.approx([spacing, spacing])
        assert header.OpticalPathSequence[0].ObjectiveLensPower == 20
        assert "ICCProfile" not in header.OpticalPathSequence[0]
    assert "YBR_FULL_422" in {
        pydicom.dataset.Dataset.from_json(
            full(service.client(made_slides["ycbcr"]), one)
        ).PhotometricInterpretation
        for one in service.client(made_slides["ycbcr"]).search_for_instances()
    }


def test_a_slides_identifiers_are_those_of_its_version_everywhere(
    service: Service, tmp_path: Path
) -> None:
    path = slides.write_slide(tmp_path / "one.tiff", slides.YCBCR)
    before = [place_of(one) for one in service.client(path).search_for_instances()]
    assert len({instance for _, _, instance in before}) == len(before)
    assert all(uid.startswith("2.25.") for place in before for uid in place)
    for other in services(lane=False):
        again = [place_of(one) for one in other.client(path).search_for_instances()]
        assert again == before
    with path.open("ab") as file:
        file.write(b"\0")
    after = [place_of(one) for one in service.client(path).search_for_instances()]
    assert not set(sum(after, ())) & set(sum(before, ()))


def test_the_icc_profile_is_in_the_optical_path_or_named_by_an_address(
    service: Service, tmp_path: Path
) -> None:
    small = bytes(36) + b"acsp" + bytes(160)
    large = bytes(36) + b"acsp" + bytes(range(250)) * 40
    for profile in (small, large):
        spec = DicomSpec(profile=profile, downsamples=(1,))
        path = write_dicom_slide(tmp_path / str(len(profile)), spec)
        client = service.client(path)
        (one,) = client.search_for_instances()
        item = full(client, one)["00480105"]["Value"][0]["00282000"]
        if profile == small:
            assert "InlineBinary" in item
            continue
        # dicomweb-client leaves the port out of Host.
        rest = item["BulkDataURI"].split("/dicomweb/", 1)[1].split("/", 1)[1]
        address = f"{service.address(path)}/{rest}"
        assert (
            service.get(address, Accept="application/octet-stream").content == profile
        )
        assert client.retrieve_bulkdata(address) == [profile]
        assert service.get(f"{address}/1/00282000").status_code == 404


def test_the_label_leaves_only_where_it_is_granted(
    service: Service, made_slides: dict[str, Path], dicom: dict[str, Path]
) -> None:
    for path in (made_slides["ycbcr"], dicom["full"]):
        granted = service.client(path, label=True).search_for_instances()
        withheld = service.client(path).search_for_instances()
        hidden = [one for one in granted if one not in withheld]
        kinds = {
            full(service.client(path, label=True), one)["00080008"]["Value"][2]
            for one in granted
        }
        seen = {
            full(service.client(path), one)["00080008"]["Value"][2] for one in withheld
        }
        assert "LABEL" in kinds
        assert seen <= {"VOLUME", "THUMBNAIL"}
        labels = {place_of(one)[2] for one in granted} - {
            place_of(one)[2] for one in withheld
        }
        label = next(one for one in hidden if place_of(one)[2] in labels)
        for rest in ("/metadata", "/frames/1", "/rendered", ""):
            answer = service.get(service.address(path) + way(label) + rest)
            assert answer.status_code == 404
        client = service.client(path, label=True)
        label = next(
            one
            for one in granted
            if full(client, one)["00080008"]["Value"][2] == "LABEL"
        )
        picture = service.get(
            service.address(path, label=True) + way(label) + "/rendered"
        )
        seen_label = np.asarray(Image.open(io.BytesIO(picture.content)).convert("RGB"))
        assert np.abs(seen_label.astype(int) - slides.LABEL_COLOUR).max() < 12


def test_rendered_pictures_are_what_a_browser_shows(
    service: Service, dicom: dict[str, Path]
) -> None:
    for name in ("full", "rgb", "16 bit", "jpeg2000", "channels"):
        path = dicom[name]
        (one, *_) = service.client(path).search_for_instances()
        address = service.address(path) + way(one)
        for rest, size in (
            ("/frames/2/rendered", (64, 64)),
            ("/frames/2/thumbnail", (64, 64)),
            ("/frames/2/rendered?viewport=20,10", (10, 10)),
            ("/thumbnail", (256, 183)),
            ("/rendered?viewport=100,100", (100, 71)),
        ):
            answer = service.get(address + rest, Accept="image/png, image/jpeg;q=0.5")
            assert answer.status_code == 200
            assert Image.open(io.BytesIO(answer.content)).size == size
        study, series, _ = place_of(one)
        for rest in (f"/studies/{study}", f"/studies/{study}/series/{series}"):
            answer = service.get(f"{service.address(path)}{rest}/thumbnail")
            assert answer.headers["Content-Type"] == "image/jpeg"
    assert service.client(dicom["full"]).retrieve_instance_frames_rendered(
        *place_of(service.client(dicom["full"]).search_for_instances()[0]),
        [1],
        media_types=("image/png",),
    )

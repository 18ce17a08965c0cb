"""One contract for all readers of planes, against the libraries of their formats."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import tifffile
import zarr
import zarr.storage

from tests import slides, stacks
from tile_server.errors import UnreadableSlide
from tile_server.readers import open_slide
from tile_server.readers.planes import Plane, PlaneReader
from tile_server.readers.rendering import Rendered
from tile_server.view import describe

Array = npt.NDArray[Any]
Write = Callable[[Path], Path]


@dataclass(frozen=True)
class Case:
    """A file, and its levels as (t, c, z, y, x), read without our readers."""

    path: Path
    truth: list[Array]


def _made(spec: stacks.StackSpec, write: Any, name: str, **options: Any) -> Any:
    def case(folder: Path, _: Any) -> Case:
        path = write(folder / name, spec, **options)
        return Case(path, stacks.pyramid(stacks.numbers(spec), spec.levels))

    return case


def _real_tiff(name: str) -> Any:
    def case(_: Path, request: pytest.FixtureRequest) -> Case:
        path = request.getfixturevalue("shared_data") / "multichannel" / name
        with tifffile.TiffFile(path) as tiff:
            levels = [level.asarray() for level in tiff.series[0].levels]
        return Case(path, [level[None, :, None] for level in levels])

    return case


def _real_zarr(_: Path, request: pytest.FixtureRequest) -> Case:
    name = "vectra.ome.zarr.zip"
    path = request.getfixturevalue("shared_data") / "multichannel" / name
    with zarr.storage.ZipStore(path, mode="r") as store:
        group: Any = zarr.open_group(store, path="vectra.ome.zarr", mode="r")
        return Case(path, [group[str(k)][:][None, :, None] for k in range(2)])


def _real_nifti(name: str) -> Any:
    def case(_: Path, request: pytest.FixtureRequest) -> Case:
        path = request.getfixturevalue("shared_data") / "mri" / name
        image: Any = nibabel.load(path)
        whole = np.asarray(image.dataobj)
        if whole.dtype == np.float64:
            whole = whole.astype(np.float32)
        whole = whole[..., None] if whole.ndim == 3 else whole
        return Case(path, [whole.transpose(3, 2, 1, 0)[:, None]])

    return case


def _real_dicom(name: str) -> Any:
    def case(_: Path, request: pytest.FixtureRequest) -> Case:
        path = request.getfixturevalue("shared_data") / name
        dataset = pydicom.dcmread(path)
        frames: Array = dataset.pixel_array
        if dataset.SamplesPerPixel == 3:
            return Case(path, [frames.transpose(2, 0, 1)[None, :, None]])
        frames = pydicom.pixels.apply_rescale(frames, dataset)
        frames = frames if frames.ndim == 3 else frames[None]
        if frames.dtype == np.float64:
            whole = np.array_equal(frames, np.rint(frames)) and "CT" in name
            frames = frames.astype(np.int32 if whole else np.float32)
        return Case(path, [frames[None, None]])

    return case


_BIG = stacks.StackSpec(width=2300, height=1900, channels=2)
CASES: dict[str, Callable[[Path, pytest.FixtureRequest], Case]] = {
    "ome_pyramid": _made(stacks.FLUORESCENCE, stacks.write_ome_tiff, "f.ome.tiff"),
    "ome_confocal": _made(stacks.CONFOCAL, stacks.write_ome_tiff, "c.ome.tiff"),
    "ome_floats": _made(stacks.FLOATS, stacks.write_ome_tiff, "g.ome.tiff"),
    "ome_strips": _made(
        stacks.SIGNED, stacks.write_ome_tiff, "s.ome.tiff", tile=None, rowsperstrip=7
    ),
    "ome_zstd": _made(
        stacks.FLUORESCENCE,
        stacks.write_ome_tiff,
        "z.ome.tiff",
        compression="zstd",
        predictor=True,
        tile=(64, 256),
    ),
    "imagej": _made(replace(stacks.CONFOCAL, levels=1), stacks.write_imagej, "ij.tif"),
    "zarr_2": _made(stacks.CONFOCAL, stacks.write_zarr, "c.ome.zarr"),
    "zarr_2_zip": _made(stacks.CONFOCAL, stacks.write_zarr, "c.ome.zarr.zip"),
    "zarr_3": _made(stacks.CONFOCAL, stacks.write_zarr, "d.ome.zarr", zarr_format=3),
    "zarr_3_sharded": _made(
        replace(stacks.FLOATS, levels=2, depths=3),
        stacks.write_zarr,
        "s.ome.zarr",
        zarr_format=3,
        chunks=(1, 1, 1, 64, 64),
        shards=(1, 2, 3, 256, 256),
    ),
    "nifti": _made(stacks.VOLUME, stacks.write_nifti, "v.nii"),
    "nifti_packed": _made(stacks.VOLUME, stacks.write_nifti, "v.nii.gz"),
    "nifti_2": _made(stacks.VOLUME, stacks.write_nifti, "second.nii", second=True),
    "real_ome_strips": _real_tiff("multi-channel.ome.tif"),
    "real_qptiff": _real_tiff("small_vectra.qptiff"),
    "real_ome_pyramid": _real_tiff("vectra_pyramid.ome.tiff"),
    "real_zarr_zip": _real_zarr,
    "real_nifti_flair": _real_nifti("nifti/FLAIR.nii.gz"),
    "real_nifti_4d": _real_nifti("nifti/example4d.nii.gz"),
    "real_nifti_big_endian": _real_nifti("nifti/anatomical.nii"),
    "real_nifti_scaled": _real_nifti(
        "philips_multiframe/reference/001_ground_truth.nii.gz"
    ),
    "real_mr": _real_dicom("mri/siemens_epi_AP/dicom/epi_pe_ap-00001.dcm"),
    "real_mr_scaled": _real_dicom(
        "mri/philips_epi/dicom/201_EPI_asc_CLEAR_0001_01.dcm"
    ),
    "real_mr_rle": _real_dicom("mri/compressed_rle/dicom/IM-0001-0001-0001.dcm"),
    "real_mr_j2k": _real_dicom("mri/compressed_j2k/dicom/IM-0001-0001-0001.dcm"),
    "real_ct": _real_dicom("ct_rtstruct/alderson_lungs/CT/CT_058.dcm"),
    "real_ultrasound": _real_dicom("deid/GREYSCALE_IMAGE.dcm"),
}


@pytest.fixture(params=CASES, scope="module")
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    return CASES[request.param](folder, request)


def planes_in(path: Path) -> PlaneReader:
    reader = open_slide(path)
    assert isinstance(reader, Rendered)
    return reader.source


class TestEveryPlaneReader:
    def test_levels_and_planes_are_those_of_the_file(self, case: Case) -> None:
        with planes_in(case.path) as reader:
            sizes = [(level.height, level.width) for level in reader.levels]
            facts = reader.planes
            times, channels, depths = case.truth[0].shape[:3]
            assert sizes == [level.shape[-2:] for level in case.truth]
            assert (facts.times, len(facts.channels), facts.depths) == (
                times,
                channels,
                depths,
            )
            assert np.dtype(facts.dtype) == case.truth[0].dtype.newbyteorder("=")
            assert not any(level.encoded for level in reader.levels)

    def test_every_plane_holds_the_numbers_of_the_file(self, case: Case) -> None:
        with planes_in(case.path) as reader:
            for number, level in enumerate(case.truth):
                times, channels, depths, height, width = level.shape
                boxes = [
                    (0, 0, min(width, 97), min(height, 61)),
                    (max(width - 150, 0), max(height - 90, 0), 150, 90),
                    (width // 3, height // 3, 140, 70),
                ]
                planes = itertools.product(range(times), range(channels), range(depths))
                for (t, c, z), (x, y, across, down) in itertools.product(planes, boxes):
                    seen = reader.read_plane(
                        number, x, y, (across, down), plane=Plane(c, z, t)
                    )
                    wanted = level[t, c, z, y : y + down, x : x + across]
                    assert seen.dtype == reader.planes.number_type
                    assert np.array_equal(
                        seen[: wanted.shape[0], : wanted.shape[1]],
                        wanted,
                        equal_nan=wanted.dtype.kind == "f",
                    )

    def test_outside_of_the_level_is_zero(self, case: Case) -> None:
        with planes_in(case.path) as reader:
            level = reader.levels[-1]
            last = len(reader.levels) - 1
            seen = reader.read_plane(last, level.width + 3, 0, (20, 10), plane=Plane())
            assert not seen.any()
            around = reader.read_plane(last, -7, -5, (9, 8), plane=Plane())
            assert not around[:5].any()
            assert not around[:, :7].any()

    def test_eight_threads_read_the_same_numbers(self, case: Case) -> None:
        with planes_in(case.path) as reader, ThreadPoolExecutor(8) as pool:
            plane = Plane(len(reader.planes.channels) - 1)
            wanted = reader.read_plane(0, 20, 10, (100, 60), plane=plane)
            seen = pool.map(
                lambda _: reader.read_plane(0, 20, 10, (100, 60), plane=plane),
                range(16),
            )
            assert all(np.array_equal(one, wanted) for one in seen)

    def test_an_unknown_associated_image_is_a_key_error(self, case: Case) -> None:
        with planes_in(case.path) as reader, pytest.raises(KeyError):
            reader.associated_image("nobody")

    def test_the_picture_of_it_can_be_described(self, case: Case) -> None:
        with open_slide(case.path) as reader:
            view = describe(reader)
            assert (view["height"], view["width"]) == case.truth[0].shape[-2:]
            assert reader.read(0, 0, 0, (30, 20)).shape == (20, 30, 3)


def test_an_ome_tiff_tells_names_colours_and_steps(tmp_path: Path) -> None:
    path = stacks.write_ome_tiff(tmp_path / "named.ome.tiff", stacks.CONFOCAL)
    with open_slide(path) as reader:
        facts = reader.facts
        assert (facts.mpp_x, facts.mpp_y) == (0.25, 0.5)
        planes = planes_in(path).planes
    assert [channel.name for channel in planes.channels] == ["dye 0", "dye 1", "dye 2"]
    assert planes.channels[2].colour == (20, 200, 30)
    assert planes.z_step_um == 2.0
    assert planes.t_step_s == pytest.approx(0.04)


def test_a_qptiff_tells_names_colours_and_its_pictures(shared_data: Path) -> None:
    path = shared_data / "multichannel" / "small_vectra.qptiff"
    with open_slide(path) as reader:
        channels = [(one.name, one.colour) for one in planes_in(path).planes.channels]
        assert channels[0] == ("DAPI", (0, 0, 255))
        assert reader.facts.mpp_x == pytest.approx(0.4965, abs=1e-4)
        assert reader.facts.objective == 10
        assert reader.facts.associated == ("label", "macro", "thumbnail")
        with tifffile.TiffFile(path) as tiff:
            label = tiff.pages[5].asarray()
        assert np.array_equal(reader.associated_image("label"), label)


def test_a_large_image_in_strips_is_imported_without_loss(tmp_path: Path) -> None:
    path = stacks.write_ome_tiff(
        tmp_path / "strips.ome.tiff", _BIG, tile=None, rowsperstrip=16
    )
    truth = stacks.numbers(_BIG)[0, :, 0]
    with planes_in(path) as reader:
        assert [(one.width, one.height) for one in reader.levels] == [
            (2300, 1900),
            (1150, 950),
            (575, 475),
            (288, 238),
        ]
        assert reader.levels[0].tile_width == 512
        for channel in range(2):
            seen = reader.read_plane(0, 700, 300, (900, 600), plane=Plane(channel))
            assert np.array_equal(seen, truth[channel, 300:900, 700:1600])
    assert [one.name for one in tmp_path.iterdir()] == ["strips.ome.tiff"]


def test_a_stack_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    path = stacks.write_ome_tiff(tmp_path / "cut.ome.tiff", stacks.FLUORESCENCE)
    whole = path.read_bytes()
    for share in (0.2, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnreadableSlide, match=r"^cut\.ome\.tiff ") as refusal:
            open_slide(path)
        assert str(tmp_path) not in str(refusal.value)


def test_very_many_channels_are_refused_and_many_are_shown_in_part(
    tmp_path: Path,
) -> None:
    spec = stacks.StackSpec(width=4, height=3, channels=600)
    path = stacks.write_nifti(tmp_path / "bands.nii", spec)
    with pytest.raises(UnreadableSlide, match=r"^bands\.nii has 600 channels, more"):
        open_slide(path)
    stacks.write_nifti(path, replace(spec, channels=100))
    with open_slide(path) as reader:
        assert len(describe(reader)["channels"]) == 100
        assert reader.read(0, 0, 0, (4, 3)).shape == (3, 4, 3)


def test_complex_numbers_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "waves.tiff"
    tifffile.imwrite(path, np.ones((60, 70), np.complex64))
    with pytest.raises(UnreadableSlide, match="holds complex64, which cannot be shown"):
        open_slide(path)


def test_one_file_of_several_says_so(tmp_path: Path) -> None:
    path = stacks.write_ome_tiff(tmp_path / "part.ome.tiff", stacks.FLUORESCENCE)
    text = path.read_bytes()
    path.write_bytes(text.replace(b'SizeC="3"', b'SizeC="9"'))
    with pytest.raises(UnreadableSlide, match=r"part\.ome\.tiff"):
        open_slide(path)


def test_a_colour_slide_stays_with_its_own_reader(tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "he.tiff", slides.WHOLE_STREAMS)
    with open_slide(path) as reader:
        assert not isinstance(reader, Rendered)

"""The pixels of a DICOM file as they are meant to be seen, and what its header says of a patient.

The order is the standard's (PS3.4, Annex N.2): stored values, modality LUT or rescale, VOI LUT or
window, then the inversion of MONOCHROME1. Only this module imports pydicom. No text of a header
gets into a message: pydicom's own warnings and errors may quote the values that they are about.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pydicom.config
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    get_decoder,
    pixel_array,
)
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from core.errors import InputError, shortened

from .dicom import INSTALL, Rendering, Source, readable, window_of

# They quote values of the header. Real files break many rules that do not matter here.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)|datasets\.dicom_file")

# Of the groups of an enhanced multi-frame file: what stands in the header of a plain one.
_FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_GREY_STEPS = (
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
)
# Tables of grey values that are computed once and looked up; beyond it, pixel by pixel.
_LARGEST_TABLE = 2**18

Values = np.ndarray


def render(
    source: Source, rendering: Rendering, check_size: Callable[[int, int], None]
) -> Image.Image:
    """What ``datasets.dicom.read_dicom`` gives."""
    with _header_is_whole():
        header = pydicom.dcmread(readable(source), stop_before_pixels=True, force=True)
        syntax = _meta(header).get("TransferSyntaxUID")
        _check_is_image(header)
        check_size(header.Columns, header.Rows)
        frames = int(header.get("NumberOfFrames") or 1)
        steps = _grey_steps(header, rendering.frame)
    if rendering.frame > frames:
        raise InputError(
            f"has {frames} frame{'s'[: frames != 1]}, and DATASET.FRAME is {rendering.frame}"
        )
    colour = header.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2")
    window = window_of(rendering.window)
    _check_window(rendering, steps, header.get("Modality", ""), colour)
    _check_decoder(header)
    with _pixels_are_whole(header):
        if syntax and not syntax.is_deflated:  # of a long film only the frame is read
            stored = pixel_array(readable(source), index=rendering.frame - 1)
        else:
            whole = pydicom.dcmread(readable(source), force=True)
            _meta(whole).TransferSyntaxUID = header.file_meta.TransferSyntaxUID
            stored = pixel_array(whole, index=rendering.frame - 1)
        shown = _colour(stored, header) if colour else _grey(stored, header, steps, window)
    return Image.fromarray(shown)


def patient_and_study(path: str | Path) -> tuple[str, str]:
    """PatientID and StudyInstanceUID, "" for what the header does not have.

    Raises:
        InputError: the header is damaged.
    """
    names = ("PatientID", "StudyInstanceUID")
    with _header_is_whole():
        header = pydicom.dcmread(
            path, stop_before_pixels=True, force=True, specific_tags=list(names)
        )
        patient, study = (str(header.get(name) or "").strip(" \0") for name in names)
    return patient, study


# The header


@contextlib.contextmanager
def _header_is_whole() -> Iterator[None]:
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # pydicom raises many types; their texts may quote a value
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(
            f"a DICOM file with a damaged header ({type(error).__name__}); replace or remove it"
        ) from None


def _meta(header: Dataset) -> FileMetaDataset:
    if not hasattr(header, "file_meta"):
        header.file_meta = FileMetaDataset()
    return header.file_meta


def _check_is_image(header: Dataset) -> None:
    """Check that pixels may be expected, and complete what a file without a preamble lacks."""
    kind = getattr(header.get("SOPClassUID"), "name", "") or getattr(
        _meta(header).get("MediaStorageSOPClassUID"), "name", ""
    )
    needed = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
    if any(not header.get(name) for name in needed):
        if not kind:
            raise InputError("not a DICOM file, or a broken one; replace or remove it")
        raise InputError(f"a DICOM file without an image ({kind}); leave it out or remove it")
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, little = header.original_encoding
        header.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian
            if implicit
            else ExplicitVRLittleEndian
            if little
            else ExplicitVRBigEndian
        )


def _grey_steps(header: Dataset, frame: int) -> Dataset:
    """What turns stored values into grey: of the file, overruled by the frame's own."""
    sources = [header]
    shared = header.get("SharedFunctionalGroupsSequence") or []
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*shared[:1], *own[frame - 1 : frame]):
        sources += [item for name in _FRAME_GROUPS for item in (group.get(name) or [])[:1]]
    steps = Dataset()
    for source in sources:
        for name in _GREY_STEPS:
            if name in source and source[name].value not in (None, ""):
                steps[name] = source[name]
    steps.file_meta = header.file_meta
    return steps


def _check_window(rendering: Rendering, steps: Dataset, modality: str, colour: bool) -> None:
    if not rendering.window:
        return
    if colour:
        raise InputError(
            "a colour image, to which DATASET.WINDOW does not apply; set it to '' or leave the "
            "file out"
        )
    if rendering.in_hounsfield and modality != "CT" and steps.get("RescaleType") != "HU":
        raise InputError(
            f"DATASET.WINDOW is {rendering.window!r}, which is of CT values, and this file is not "
            "CT; give the centre and the width as numbers, or '' for the file's own window"
        )


def _check_decoder(header: Dataset) -> None:
    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    name = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InputError(
            f"its pixels are compressed as {name}, which is not read; export it to PNG first"
        ) from None
    if not decoder.is_available:
        raise InputError(
            f"its pixels are compressed as {name}, and no decoder for it is installed: {INSTALL}"
        )


# Pixels


@contextlib.contextmanager
def _pixels_are_whole(header: Dataset) -> Iterator[None]:
    """Whatever fails in the block is an InputError that names the transfer syntax."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders raise many types on damaged bytes
        if isinstance(error, OSError) and error.errno:
            raise
        missing = isinstance(error, AttributeError) and "Pixel Data" in str(error)
        if missing:
            kind = getattr(header.get("SOPClassUID"), "name", "unknown kind")
            reason = f"a DICOM file without pixels ({kind}); leave it out or remove it"
        else:
            detail = shortened(" ".join(str(error).split()) or type(error).__name__, 240)
            syntax = header.file_meta.TransferSyntaxUID.name
            reason = f"a broken DICOM image ({syntax}: {detail}); replace or remove it"
        raise InputError(reason) from None


def _colour(stored: Values, header: Dataset) -> Values:
    """[H, W, 3] bytes of RGB, which pydicom has made of YBR, or of a palette."""
    bits = int(header.BitsStored)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, header)[..., :3]  # the fourth is how opaque it is
        # Entries of 8 bits may lie in 16.
        bits = 16 if stored.max() > 255 else 8
    if stored.ndim != 3 or stored.shape[-1] != 3:
        raise InputError(
            f"its photometric interpretation {header.PhotometricInterpretation} is not read; "
            "export it to PNG first"
        )
    return _bytes(stored / (2**bits - 1)) if bits != 8 else stored.astype(np.uint8)


def _grey(
    stored: Values, header: Dataset, steps: Dataset, window: tuple[float, float] | None
) -> Values:
    """[H, W] bytes: the modality and the VOI step, MONOCHROME1 inverted, padding black."""
    bits = int(header.BitsStored)
    padding = _padding(stored, header)
    inside = stored if padding is None or padding.all() else stored[~padding]
    first, last = inside.min(), inside.max()
    full = 0 if header.get("PixelRepresentation") else 2**bits - 1
    if bits <= 8 and full and first >= 0 and last <= full and "ModalityLUTSequence" not in steps:
        ends = np.array([0, full])  # 8 bits are shown as they are
    else:
        ends = np.array([first, last])
    if stored.dtype.kind in "iu" and int(stored.max()) - int(stored.min()) < _LARGEST_TABLE:
        lowest = int(stored.min())
        table = _shown(np.arange(lowest, int(stored.max()) + 1), ends, steps, window)
        shown = table[stored.astype(np.int64) - lowest]
    else:
        shown = _shown(stored, ends, steps, window)
    if header.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    if padding is not None:
        shown[padding] = 0  # as transparent pixels
    return shown


def _padding(stored: Values, header: Dataset) -> Values | None:
    """[H, W] whether a pixel is outside the image; None if the file names no such value."""
    if header.get("PixelPaddingValue") is None:
        return None
    value = int(header.PixelPaddingValue)
    other = header.get("PixelPaddingRangeLimit")
    limit = value if other is None else int(other)
    return (stored >= min(value, limit)) & (stored <= max(value, limit))


def _shown(
    values: Values, ends: Values, steps: Dataset, window: tuple[float, float] | None
) -> Values:
    """Bytes of stored values.

    Args:
        ends: the stored values that are black and white where no window is given.
        window: (centre, width) of the user; None for the file's own, if it has one.
    """
    real = apply_modality_lut(values, steps)
    if window is None and steps.get("VOILUTSequence"):
        looked_up = apply_voi(np.rint(real).astype(np.int64), steps)
        bits = int(steps.VOILUTSequence[0].LUTDescriptor[2])
        return _bytes(looked_up / (2**bits - 1))
    own = _own_window(steps) if window is None else _window(*window, "LINEAR_EXACT")
    if own is not None:
        return _bytes(apply_windowing(real, own) / 255)
    low, high = (float(end) for end in np.sort(apply_modality_lut(ends, steps)))
    return _bytes((real.astype(np.float64) - low) / ((high - low) or 1))


def _own_window(steps: Dataset) -> Dataset | None:
    """The first window of the file; None if there is none, or one that shows nothing."""
    if "WindowCenter" not in steps or "WindowWidth" not in steps:
        return None
    centre, width = (
        float(element.value[0] if element.VM > 1 else element.value)
        for element in (steps["WindowCenter"], steps["WindowWidth"])
    )
    function = str(steps.get("VOILUTFunction", "LINEAR")).upper()
    if width < 1 and function == "LINEAR" or width <= 0:
        return None
    return _window(centre, width, function)


def _window(centre: float, width: float, function: str) -> Dataset:
    """A window as pydicom reads it, onto 0 to 255."""
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 8, 0
    window.WindowCenter, window.WindowWidth = centre, width
    window.VOILUTFunction = function
    return window


def _bytes(shares: Values) -> Values:
    """Bytes of shares of white; what is outside 0 to 1 is cut."""
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)

"""DICOM files that tests write, and where the real ones of pydicom-data and pydicom are."""

from pathlib import Path

import pytest

pydicom = pytest.importorskip("pydicom", reason="an optional extra of setup.py")
data_store = pytest.importorskip("data_store", reason="pydicom-data, of the extra dev")

REAL = Path(data_store.__file__).parent / "data"
SMALL = Path(pydicom.__file__).parent / "data/test_files"
KINDS = {"CT": "1.2.840.10008.5.1.4.1.1.2", "OT": "1.2.840.10008.5.1.4.1.1.7"}


def real(name):
    """A real file of pydicom-data, else of pydicom's own small ones."""
    path = REAL / f"{name}.dcm"
    return path if path.exists() else SMALL / f"{name}.dcm"


def write_dicom(path, pixels, kind="OT", photometric="MONOCHROME2", bits=None, **tags):
    """Write a DICOM file of [H, W], [frames, H, W] or [H, W, 3] integers.

    Args:
        tags: keyword=value of further elements, such as PatientID.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.SOPClassUID, file.Modality = KINDS[kind], kind
    file.SOPInstanceUID = pydicom.uid.generate_uid()
    file.set_pixel_data(pixels, photometric, bits or 8 * pixels.dtype.itemsize)
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path

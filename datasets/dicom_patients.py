"""Who DICOM images are of, from their headers, for splits that keep patients apart.

Only salted hashes of PatientID and StudyInstanceUID leave this module.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from core.errors import InputError
from core.processes import usable_cores

from .checks import FileMemory
from .dicom import is_dicom, reader
from .pictures import Picture
from .salt import hashed, salt_name

_MANY = 1000  # below this many, reading the headers takes no time worth announcing


def add_dicom_patients(pictures: Sequence[Picture], memory: FileMemory) -> list[str]:
    """Give DICOM images their patients, where no image has one yet; returns notes for the card.

    The patient is PatientID, or StudyInstanceUID where that is empty. If all files have one and
    the same PatientID, as after an anonymisation, it says nothing and the studies take its place.
    Headers are read without pixels, and once: the hashes are remembered.

    Raises:
        InputError: pydicom is not installed, or a header is damaged.
    """
    if any(picture.patient for picture in pictures):
        return []
    of_dicom = [picture for picture in pictures if is_dicom(picture.impath)]
    known = _hashes(of_dicom, memory)
    patients = {patient for patient, _ in known.values()} - {""}
    studies = {study for _, study in known.values()} - {""}
    by_study = len(patients) < 2 and len(studies) > 1
    for picture in of_dicom:
        patient, study = known.get(picture.id, ("", ""))
        picture.patient = study if by_study else patient or study
    if not any(picture.patient for picture in of_dicom):
        return []
    if by_study:
        why = "the same in all files" if patients else "empty"
        return [f"patients: PatientID is {why}; a study (StudyInstanceUID) counts as a patient"]
    return ["patients: PatientID of the DICOM headers, as hashes that differ between machines"]


def _hashes(pictures: Sequence[Picture], memory: FileMemory) -> dict[str, tuple[str, str]]:
    """{identity: hashes of the patient and the study}; files that are missing are left out."""
    known: dict[str, tuple[str, str]] = {}
    unread: dict[str, tuple[str, os.stat_result]] = {}
    for picture in pictures:
        try:
            stat = memory.stat(picture.impath)
        except OSError:  # named by another check
            continue
        if found := _recalled(memory.recall(picture.id, stat)):
            known[picture.id] = found
        else:
            unread[picture.id] = picture.impath, stat
    if len(unread) > _MANY:
        print(f"Reading {len(unread):,} DICOM headers (once; hashes are kept)", flush=True)
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        read = pool.map(_read, [path for path, _ in unread.values()])
        for (identity, (_, stat)), found in zip(unread.items(), read, strict=True):
            known[identity] = found
            memory.note(identity, stat, "|".join(["patient", salt_name(), *found]))
    memory.save()
    return known


def _recalled(facts: Sequence[str]) -> tuple[str, str] | None:
    for fact in facts:
        if fact.startswith(f"patient|{salt_name()}|"):
            _, _, patient, study = fact.split("|")
            return patient, study
    return None


def _read(path: str) -> tuple[str, str]:
    try:
        patient, study = reader().patient_and_study(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return hashed(patient), hashed(study)

"""SynthChest: drawn chest films in the layout of the pneumonia release, a tenth of its size."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from . import synthetic
from .pneumonia import Pneumonia

SEED = 8  # of the images; the dataset is the same for everybody
COUNTS = {  # a tenth of the release's
    ("train", "NORMAL"): 135,
    ("train", "PNEUMONIA"): 388,
    ("test", "NORMAL"): 23,
    ("test", "PNEUMONIA"): 39,
}
CLASSNAMES = {"NORMAL": "normal lung", "PNEUMONIA": "pneumonia"}


@DATASET_REGISTRY.register()
class SynthChest(Pneumonia):
    """585 drawn chest films, "normal lung" and "pneumonia": synthetic, of no medical meaning.

    Drawn once below ROOT, in the release's own layout, so that the reader of the real data reads
    it. ``attributes.csv`` beside it holds what each image shows. A "patient" of the file names is
    only a number: two images of one are no more alike than any others.
    """

    dataset_dir = "synthchest/chest_xray"
    source = "give another DATASET.ROOT, or delete the folder and it is drawn again"
    drawn_from = (synthetic.CHESTS, SEED)  # row i of attributes.csv is image i of this series
    paper_counts = None

    def prepare(self) -> None:
        synthetic.write_once(self.dataset_dir, write_release)


def write_release(folder: Path) -> None:
    """Draw every image and write the true attributes below ``folder``."""
    shown, index = [], 0
    for (split, class_folder), n in COUNTS.items():
        classname = CLASSNAMES[class_folder]
        for number in range(n):
            pixels, attributes = synthetic.picture(synthetic.CHESTS, SEED, index, classname)
            patient = 1 + number * 2 // 3  # every other patient has two images
            if class_folder == "NORMAL":
                name = f"IM-{patient:04d}-{number:04d}.jpeg"
            else:
                # Bacteria make dense patches; viruses coarsen the lung's markings.
                cause = "bacteria" if attributes["opacity"] == "opaque" else "virus"
                name = f"person{patient}_{cause}_{number}.jpeg"
            identity = f"{split}/{class_folder}/{name}"
            synthetic.write_jpeg(folder / identity, pixels)
            shown.append((identity, classname, attributes))
            index += 1
    synthetic.write_attributes(folder / "attributes.csv", synthetic.CHESTS, shown)

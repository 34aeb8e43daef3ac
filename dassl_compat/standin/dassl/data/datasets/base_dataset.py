"""What a data set is: lists of pictures with labels."""

import os
import random
import tarfile
import zipfile
from collections import defaultdict

from dassl.utils import check_isfile, download_url

from core.errors import InputError


class Datum:
    """One picture: its file, label, domain (where it comes from) and the name of its class.

    The attributes are read-only.
    """

    def __init__(self, impath="", label=0, domain=0, classname=""):
        if not isinstance(impath, str):
            raise TypeError(f"impath must be a string, not {impath!r}")
        if not check_isfile(impath):
            raise InputError(f'no picture at "{impath}"')
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self):
        return self._impath

    @property
    def label(self):
        return self._label

    @property
    def domain(self):
        return self._domain

    @property
    def classname(self):
        return self._classname


class DatasetBase:
    """Lists of Datum: labelled and unlabelled training pictures, validation and test pictures."""

    dataset_dir = ""  # the folder's name below DATASET.ROOT
    domains = []  # the names of all domains

    def __init__(self, train_x=None, train_u=None, val=None, test=None):
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    @property
    def train_x(self):
        return self._train_x

    @property
    def train_u(self):
        return self._train_u

    @property
    def val(self):
        return self._val

    @property
    def test(self):
        return self._test

    @property
    def lab2cname(self):
        return self._lab2cname

    @property
    def classnames(self):
        return self._classnames

    @property
    def num_classes(self):
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source):
        """One more than the highest label."""
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source):
        """{label: class name}, and the class names in the order of their labels."""
        names = {item.label: item.classname for item in data_source}
        return names, [names[label] for label in sorted(names)]

    def check_input_domains(self, source_domains, target_domains):
        """Check the names in DATASET.SOURCE_DOMAINS and TARGET_DOMAINS."""
        self.is_input_domain_valid(source_domains)
        self.is_input_domain_valid(target_domains)

    def is_input_domain_valid(self, input_domains):
        for domain in input_domains:
            if domain not in self.domains:
                raise ValueError(f"domain must be one of {self.domains}, not {domain!r}")

    def download_data(self, url, dst, from_gdrive=True):
        """Download an archive to ``dst`` and unpack it in its folder."""
        os.makedirs(os.path.dirname(os.path.abspath(dst)), exist_ok=True)
        if from_gdrive:
            import gdown

            gdown.download(url, dst, quiet=False)
        else:
            download_url(url, dst)
        print("Extracting file ...")
        folder = os.path.dirname(os.path.abspath(dst))
        if zipfile.is_zipfile(dst):
            with zipfile.ZipFile(dst) as archive:
                archive.extractall(folder)
        elif tarfile.is_tarfile(dst):
            with tarfile.open(dst) as archive:
                archive.extractall(folder, filter="data")  # nothing outside the folder
        else:
            raise InputError(f'"{dst}" is neither a zip nor a tar archive')
        print(f"File extracted to {folder}")

    def generate_fewshot_dataset(self, *data_sources, num_shots=-1, repeat=False):
        """Draw ``num_shots`` pictures of each class, from each source.

        Args:
            data_sources: lists of Datum.
            num_shots: all pictures are kept if less than one.
            repeat: draw a class that has fewer with replacement; all of it is taken otherwise.

        Returns:
            One list, or one for each source if there are several.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        print(f"Creating a {num_shots}-shot dataset")
        output = []
        for data_source in data_sources:
            drawn = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    drawn.extend(random.sample(items, num_shots))
                elif repeat:
                    drawn.extend(random.choices(items, k=num_shots))
                else:
                    drawn.extend(items)
            output.append(drawn)
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source):
        """{label: list of Datum}."""
        return _grouped(data_source, "label")

    def split_dataset_by_domain(self, data_source):
        """{domain: list of Datum}."""
        return _grouped(data_source, "domain")


def _grouped(data_source, attribute):
    groups = defaultdict(list)
    for item in data_source:
        groups[getattr(item, attribute)].append(item)
    return groups

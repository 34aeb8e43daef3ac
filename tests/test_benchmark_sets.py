"""The 11 sets of BiomedCoOp's benchmark as its authors release them, on made copies."""

import re

import pytest
from made_sets import NAMES, SIDES, biomedcoop_set, counts, draw, load

from core.errors import InputError
from core.yaml_files import read_yaml
from scripts.benchmark import Benchmark
from symptoms import load_symptoms

# In the order of the released labels.
CLASSES = {
    "btmri": "glioma tumor, meningioma tumor, pituitary tumor, normal brain",
    "busi": "benign tumor, malignant tumor, normal scan",
    "chmnist": "adipose tissue, complex stroma, debris, empty background, immune cells, "
    "normal mucosal glands, simple stroma, tumour epithelium",
    "covid_19": "covid lungs, lung opacity lungs, viral pneumonia lungs, normal lungs",
    "ctkidney": "cyst kidney, kidney stone, kidney tumor, normal kidney",
    "dermamnist_biomedcoop": "actinic keratosis, basal cell carcinoma, benign keratosis, "
    "dermatofibroma, melanoma, melanocytic nevus, vascular lesion",
    "kneexray": "healthy knee, doubtful osteoarthritis, minimal osteoarthritis, "
    "moderate osteoarthritis, severe osteoarthritis",
    "kvasir": "dyed lifted polyps, dyed resection margins, esophagitis, normal cecum, "
    "normal pylorus, normal z line, polyps, ulcerative colitis",
    "lungcolon": "colon adenocarcinoma, colon benign tissue, lung adenocarcinoma, "
    "lung benign tissue, lung squamous cell carcinoma",
    "octmnist_biomedcoop": "choroidal neovascularization, diabetic macular edema, drusen, "
    "normal OCT scan",
    "retina": "diabetic retinopathy, glaucoma, cataract, normal retina",
}
WITH_PATIENTS = {"chmnist", "kneexray", "retina"}


def classes(name):
    return CLASSES[name].split(", ")


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_read_as_released(tmp_path, capsys, name):
    """Folders, names and split file; the order of the labels; patients where names tell them."""
    given = biomedcoop_set(tmp_path, name, classes(name))

    dataset = load(name, tmp_path)

    assert dataset.classnames == classes(name)
    assert counts(dataset) == tuple(n * len(classes(name)) for n in SIDES.values())
    for side, pictures in dataset.split.items():
        assert {p.id for p in pictures} == set(given[side])
        assert all(p.id.split("/")[0].replace("_", " ") == p.classname for p in pictures)
    known = [bool(p.patient) for pictures in dataset.split.values() for p in pictures]
    assert set(known) == {name in WITH_PATIENTS}
    assert ("patients: not known" in capsys.readouterr().out) == (name not in WITH_PATIENTS)


@pytest.mark.parametrize("name", NAMES)
def test_every_class_of_a_set_has_symptoms(checkout, name):
    settings = read_yaml(checkout / "configs" / "datasets" / f"{name}.yaml")["DATASET"]
    path = checkout / settings.get("SYMPTOMS", f"symptoms/{name}.json")
    phrases = load_symptoms(path, settings["CLASSNAMES"]).phrases
    assert all(4 <= len(found) <= 8 for found in phrases.values())


def test_the_benchmark_has_the_eleven_sets(checkout):
    found = Benchmark.model_validate(
        read_yaml(checkout / "configs" / "benchmarks" / "biomedcoop.yaml")
    )
    assert sorted(found.SETS) == sorted(NAMES)
    assert found.NO_BASE_TO_NEW == ["busi"]
    for name in NAMES:
        config = read_yaml(checkout / "configs" / "datasets" / f"{name}.yaml")["DATASET"]
        assert (len(config["CLASSNAMES"]) < 4) == (name in found.NO_BASE_TO_NEW)


# What leaks, and a split without it


def test_the_card_says_which_patients_leak(tmp_path, capsys):
    """RETINA: the other eye of a patient; CHMNIST: the slide; KneeXray: both knees."""
    for name in ("retina", "chmnist"):
        biomedcoop_set(tmp_path, name, classes(name))
        dataset = load(name, tmp_path)
        sides = [{p.patient for p in dataset.split[side]} for side in ("train", "test")]
        both = len(sides[0] & sides[1])
        images = sum(p.patient in sides[0] for p in dataset.split["test"])
        assert both > 0
        line = f"in both train and test: {both} patients, with {images} of the "
        assert line in capsys.readouterr().out


@pytest.mark.parametrize("seed", [1, 2])
def test_a_split_with_patients_apart_has_the_same_images_and_proportions(tmp_path, capsys, seed):
    given = biomedcoop_set(tmp_path, "kneexray", classes("kneexray"))
    released = load("kneexray", tmp_path)
    options = ["DATASET.SPLIT", "patients", "DATASET.SPLIT_SEED", str(seed)]

    dataset = load("kneexray", tmp_path, *options)

    every = {p.id for pictures in dataset.split.values() for p in pictures}
    assert every == {name for names in given.values() for name in names}
    sides = [{p.patient for p in pictures} for pictures in dataset.split.values()]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    for found, expected in zip(counts(dataset), counts(released), strict=True):
        assert abs(found - expected) <= len(classes("kneexray")) * 2  # an image a class and side
    assert dataset.split_fingerprint != released.split_fingerprint
    assert load("kneexray", tmp_path, *options).split_fingerprint == dataset.split_fingerprint
    out = capsys.readouterr().out
    assert "the released split of 30/15/25 images is not used" in out
    assert f"test, val: drawn with seed {seed}, patients kept apart" in out


def test_images_of_unknown_patients_are_counted_in_a_new_split(tmp_path, capsys):
    """RETINA's third source has names such as _103_4567.jpg."""
    biomedcoop_set(tmp_path, "retina", classes("retina"))
    folder = tmp_path / "RETINA"
    text = (folder / "split_RETINA.json").read_text()
    first = re.search(r'"(cataract/[^"]+)"', text)[1]
    (folder / "split_RETINA.json").write_text(text.replace(first, "cataract/_103_4567.jpg"))
    draw(folder / "RETINA" / "cataract" / "_103_4567.jpg", 2, 999)

    load("retina", tmp_path, "DATASET.SPLIT", "patients")

    assert "drawn one by one, with no known patient: 1 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("btmri", "patients", "DATASET.SPLIT is patients, but no patient is known; set"),
        ("btmri", "clean", "DATASET.SPLIT is 'clean'; choose released or patients"),
    ],
)
def test_a_split_that_cannot_be_drawn_is_one_line(tmp_path, name, value, message):
    biomedcoop_set(tmp_path, name, classes(name))
    with pytest.raises(InputError, match=message) as error:
        load(name, tmp_path, "DATASET.SPLIT", value)
    assert "\n" not in str(error.value)


def test_a_half_downloaded_set_is_one_line(tmp_path):
    """A missing image, and a missing split file, by name."""
    given = biomedcoop_set(tmp_path, "busi", classes("busi"))
    (tmp_path / "BUSI" / "BUSI" / given["test"][0]).unlink()
    with pytest.raises(InputError, match=re.escape(given["test"][0])):
        load("busi", tmp_path)
    (tmp_path / "BUSI" / "split_BUSI.json").unlink()
    with pytest.raises(InputError, match=r"split_BUSI.json.*set DATASET.SPLIT_FILE"):
        load("busi", tmp_path)

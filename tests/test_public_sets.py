"""Public sets as their archives release them, on made copies: true names and columns."""

import re
import shutil

import pytest
from made_sets import NAMES, counts, draw, load, table

from core.errors import InputError
from core.yaml_files import read_yaml
from symptoms import load_symptoms

SETS = (
    "ham10000",
    "isic2018",
    "isic2019",
    "isic2020",
    "pad_ufes_20",
    "chexpert_5x200",
    "rsna_pneumonia",
    "covid_radiography",
    "busi_released",
)
DX = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
ISIC2018 = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
ISIC2019 = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


@pytest.mark.parametrize("name", SETS)
def test_every_class_has_symptoms(checkout, name):
    settings = read_yaml(checkout / "configs" / "datasets" / f"{name}.yaml")["DATASET"]
    path = checkout / settings.get("SYMPTOMS", f"symptoms/{name}.json")
    assert load_symptoms(path, settings["CLASSNAMES"]).phrases
    if settings.get("POSITIVE"):
        assert settings["POSITIVE"] in settings["CLASSNAMES"]


def patients_apart(dataset):
    sides = [{p.patient for p in pictures} - {""} for pictures in dataset.split.values()]
    return not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def names_of(dataset):
    return {p.id for pictures in dataset.split.values() for p in pictures}


def one_hot(names, label):
    return ",".join("1.0" if name == label else "0.0" for name in names)


# Skin


def ham10000(root):
    """Two images of each lesion, in the archive's two folders."""
    rows = []
    for n in range(140):
        dx = DX[n // 2 % 7]
        image = f"ISIC_{24306 + n:07}"
        draw(root / "HAM10000" / f"HAM10000_images_part_{1 + n // 70}" / f"{image}.jpg", n, n)
        rows.append(f"HAM_{n // 2:07},{image},{dx},histo,60.0,male,back")
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    table(root / "HAM10000" / "HAM10000_metadata.csv", header, rows)


def test_ham10000_keeps_lesions_apart(tmp_path):
    ham10000(tmp_path)
    dataset = load("ham10000", tmp_path)
    assert sum(counts(dataset)) == 140 and patients_apart(dataset)
    assert dataset.classnames[5] == "melanocytic nevus"
    assert dataset.split["train"][0].patient.startswith("HAM_")


def isic2018(root):
    folder = root / "ISIC2018"
    n = 0
    for side, count in (("Training", 28), ("Validation", 7), ("Test", 14)):
        rows = []
        for i in range(count):
            n += 1
            image = f"ISIC_{24306 + n:07}"
            draw(folder / f"ISIC2018_Task3_{side}_Input" / f"{image}.jpg", i % 7, n)
            rows.append(f"{image},{one_hot(ISIC2018, ISIC2018[i % 7])}")
        name = f"ISIC2018_Task3_{side}_GroundTruth"
        table(folder / name / f"{name}.csv", f"image,{','.join(ISIC2018)}", rows)
    groups = [f"ISIC_{24307 + i:07},HAM_{i // 2:07},histopathology" for i in range(28)]
    header = "image,lesion_id,diagnosis_confirm_type"
    table(folder / "ISIC2018_Task3_Training_LesionGroupings.csv", header, groups)


def test_isic2018_has_the_challenge_s_split_and_lesions(tmp_path):
    """Three tables of one-hot columns, and a second table that names lesions."""
    isic2018(tmp_path)
    dataset = load("isic2018", tmp_path)
    assert counts(dataset) == (28, 7, 14)
    assert dataset.classnames[:2] == ["melanoma", "melanocytic nevus"]
    by_id = {p.id.rsplit("/", 1)[-1]: p for p in dataset.split["train"]}
    assert by_id["ISIC_0024310.jpg"].classname == "actinic keratosis"
    assert by_id["ISIC_0024310.jpg"].patient == "HAM_0000001"
    assert {p.patient for p in dataset.split["test"]} == {""}
    assert all("Task3_Validation_Input" in p.id for p in dataset.split["val"])


def isic2019(root, labels=ISIC2019[:-1]):
    folder = root / "ISIC2019"
    rows, more = [], []
    for n in range(80):
        image = f"ISIC_{n:07}" + "_downsampled" * (n % 2)
        draw(folder / "ISIC_2019_Training_Input" / f"{image}.jpg", n % 8, n)
        rows.append(f"{image},{one_hot(ISIC2019, labels[n % len(labels)])}")
        lesion = f"BCN_{n // 16 * 8 + n % 8:07}" if n < 64 else ""  # some have no lesion
        more.append(f"{image},55.0,anterior torso,{lesion},female")
    header = f"image,{','.join(ISIC2019)}"
    table(folder / "ISIC_2019_Training_GroundTruth.csv", header, rows)
    header = "image,age_approx,anatom_site_general,lesion_id,sex"
    table(folder / "ISIC_2019_Training_Metadata.csv", header, more)


def test_isic2019_joins_labels_and_lesions(tmp_path):
    isic2019(tmp_path)
    dataset = load("isic2019", tmp_path)
    assert sum(counts(dataset)) == 80 and len(dataset.classnames) == 8
    assert patients_apart(dataset)
    pictures = [p for side in dataset.split.values() for p in side]
    assert sum(bool(p.patient) for p in pictures) == 64
    assert len({p.patient for p in pictures} - {""}) == 32  # two images each


def test_a_row_of_an_unnamed_class_is_one_line(tmp_path):
    """UNK of ISIC 2019's test table is no class of the training table."""
    isic2019(tmp_path, labels=("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "UNK"))
    message = r"GroundTruth.csv, line 9: is 1 for none of the classes; .*name the missing class"
    with pytest.raises(InputError, match=message):
        load("isic2019", tmp_path)


def test_isic2020_keeps_patients_apart(tmp_path):
    rows = []
    for n in range(60):
        image = f"ISIC_{15719 + n:07}"
        draw(tmp_path / "ISIC2020" / "jpeg" / "train" / f"{image}.jpg", n, n)
        kind = ("benign", "malignant")[n % 6 == 0]
        diagnosis = ("unknown", "melanoma")[n % 6 == 0]
        rows.append(
            f"{image},IP_{3075186 + n // 3},female,45.0,head/neck,{diagnosis},{kind},{n % 6 == 0:d}"
        )
    header = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
    header += "benign_malignant,target"
    table(tmp_path / "ISIC2020" / "train.csv", header, rows)

    dataset = load("isic2020", tmp_path)

    assert sum(counts(dataset)) == 60 and patients_apart(dataset)
    assert (dataset.classnames, dataset.positive) == (["benign lesion", "melanoma"], "melanoma")
    assert sum(p.label for side in dataset.split.values() for p in side) == 10


def test_pad_ufes_20_keeps_patients_apart(tmp_path):
    header = (
        "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,"
        "skin_cancer_history,cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,"
        "diameter_1,diameter_2,diagnostic,itch,grew,hurt,changed,bleed,elevation,img_id,biopsed"
    )
    rows = []
    for n in range(72):
        patient, code = n // 2, ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")[n // 2 % 6]
        image = f"PAT_{patient}_{n}_{n + 100}.png"
        draw(tmp_path / "PAD-UFES-20" / "images" / f"imgs_part_{1 + n % 3}" / image, n, n)
        rows.append(
            f"PAT_{patient},{n},{','.join([''] * 15)},{code},{','.join(['UNK'] * 6)},{image},True"
        )
    table(tmp_path / "PAD-UFES-20" / "metadata.csv", header, rows)

    dataset = load("pad_ufes_20", tmp_path)

    assert sum(counts(dataset)) == 72 and patients_apart(dataset)
    assert dataset.classnames[3] == "nevus"


# Chest X-rays


def chexpert(root, cell="0.0"):
    """Also a lateral image, which is not read; index column and all, as pandas writes it."""
    rows = []
    for n in range(50):
        name = ("view1_frontal", "view2_lateral")[n == 49]
        path = f"CheXpert-v1.0/train/patient{1 + n // 2:05}/study{1 + n % 2}/{name}.jpg"
        draw(root / "CheXpert" / path, n, n)
        labels = ["1.0" if n // 2 % 5 == i else "0.0" for i in range(5)]
        labels[1] = cell if n == 0 else labels[1]
        view = ("Frontal", "Lateral")[n == 49]
        rows.append(f"{n},{path},Male,60,{view},AP,{','.join(labels)}")
    header = f",Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(FINDINGS)}"
    table(root / "CheXpert" / "chexpert_5x200.csv", header, rows)


def test_chexpert_5x200_reads_frontal_images_and_patients_from_paths(tmp_path):
    chexpert(tmp_path)
    dataset = load("chexpert_5x200", tmp_path)
    assert sum(counts(dataset)) == 49 and patients_apart(dataset)
    assert not any("lateral" in name for name in names_of(dataset))
    assert dataset.split["train"][0].patient.startswith("patient00")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("-1.0", "line 2, column Cardiomegaly: '-1.0' is neither 0 nor 1"),
        ("1.0", "line 2: is 1 for Atelectasis and Cardiomegaly; a row has one class"),
    ],
)
def test_an_image_of_several_or_uncertain_findings_is_one_line(tmp_path, cell, message):
    chexpert(tmp_path, cell)
    with pytest.raises(InputError, match=message) as error:
        load("chexpert_5x200", tmp_path)
    assert "\n" not in str(error.value)


def rsna(root, ending, last="0"):
    """A row for each box: every third image has two."""
    folder = root / "rsna-pneumonia-detection-challenge"
    rows = []
    for n in range(30):
        name = f"0004cfab-14fd-4e49-80ba-{n:012x}"
        draw(folder / "stage_2_train_images" / f"{name}{ending}", n, n)
        boxes = ["264.0,152.0,213.0,379.0,1"] * (1 + n % 2) if n % 3 == 0 else [",,,,0"]
        rows += [f"{name},{box}" for box in boxes]
    rows.append(f"{name},,,,,{last}")
    table(folder / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", rows)


def test_rsna_pneumonia_reads_an_image_once_for_all_its_boxes(tmp_path, capsys):
    """As PNG, to which many convert it."""
    rsna(tmp_path, ".png")
    dataset = load("rsna_pneumonia", tmp_path)
    assert sum(counts(dataset)) == 30
    assert sum(p.label for side in dataset.split.values() for p in side) == 10
    assert "rows that repeat an image: 6, each image read once" in capsys.readouterr().out


def test_rsna_pneumonia_rows_that_disagree_are_one_line(tmp_path):
    rsna(tmp_path, ".png", last="1")
    with pytest.raises(InputError, match="with another label .'1', not '0'.; correct one"):
        load("rsna_pneumonia", tmp_path)
    with pytest.raises(InputError, match="already; keep one"):
        load("rsna_pneumonia", tmp_path, "DATASET.CSV_REPEATS", "False")


def test_rsna_pneumonia_reads_dicom(tmp_path, capsys):
    """The header's PatientID is the id of the image, so it keeps nobody apart and is not read."""
    files = pytest.importorskip("pydicom.data")
    rsna(tmp_path, ".dcm")
    folder = tmp_path / "rsna-pneumonia-detection-challenge" / "stage_2_train_images"
    small = files.get_testdata_file("CT_small.dcm")
    for path in folder.iterdir():
        shutil.copy(small, path)
    dataset = load("rsna_pneumonia", tmp_path, "DATASET.ALLOW_DUPLICATES", "True")
    assert sum(counts(dataset)) == 30
    assert "patients: not known" in capsys.readouterr().out


def test_covid_radiography_leaves_masks_out(tmp_path, capsys):
    folder = tmp_path / "COVID-19_Radiography_Dataset"
    for label, name in enumerate(("COVID", "Lung_Opacity", "Viral Pneumonia", "Normal")):
        for n in range(12):
            draw(folder / name / "images" / f"{name}-{n + 1}.png", label, n)
            draw(folder / name / "masks" / f"{name}-{n + 1}.png", label, 100 + n)
        (folder / f"{name}.metadata.xlsx").write_bytes(b"PK")
    (folder / "README.md.txt").write_text("about")

    dataset = load("covid_radiography", tmp_path)

    captured = capsys.readouterr()
    assert sum(counts(dataset)) == 48 and all("/images/" in name for name in names_of(dataset))
    assert dataset.classnames[2] == "viral pneumonia lungs"
    assert "left out by DATASET.EXCLUDE: 53 files" in captured.out and not captured.err


def test_busi_as_released_leaves_masks_out(tmp_path, capsys):
    folder = tmp_path / "Dataset_BUSI_with_GT"
    for label, name in enumerate(("benign", "malignant", "normal")):
        for n in range(1, 13):
            draw(folder / name / f"{name} ({n}).png", label, n)
            draw(folder / name / f"{name} ({n})_mask.png", label, 100 + n)
    draw(folder / "benign" / "benign (4)_mask_1.png", 0, 500)

    dataset = load("busi_released", tmp_path)

    assert sum(counts(dataset)) == 36 and not any("mask" in name for name in names_of(dataset))
    assert dataset.classnames == ["benign tumor", "malignant tumor", "normal scan"]
    assert "left out by DATASET.EXCLUDE: 37 files" in capsys.readouterr().out


# Settings of tables, wherever they are used


def test_lists_give_the_split(tmp_path, capsys):
    """As NIH's train_val_list.txt and test_list.txt; what no list has is left out and counted."""
    ham10000(tmp_path)
    names = [f"ISIC_{24306 + n:07}" for n in range(140)]
    lists = {"train": names[:98], "test": names[98:133]}
    options = []
    for side, listed in lists.items():
        (tmp_path / "HAM10000" / f"{side}_list.txt").write_text(
            "\n".join(f"{n}.jpg" for n in listed)
        )
        options += [f"DATASET.CSV_SPLITS.{side}", f"{side}_list.txt"]

    dataset = load("ham10000", tmp_path, *options)

    assert {p.id.rsplit("/")[-1][:-4] for p in dataset.split["test"]} == set(names[98:133])
    assert counts(dataset)[0] + counts(dataset)[1] == 98
    out = capsys.readouterr().out
    assert "left out, in no list of DATASET.CSV_SPLITS: 7 images" in out

    alone = load("ham10000", tmp_path, *options[2:])  # without a list of training images
    assert sum(counts(alone)) == 140


def test_an_image_in_two_lists_is_one_line(tmp_path):
    ham10000(tmp_path)
    for side in ("val", "test"):
        (tmp_path / "HAM10000" / f"{side}.txt").write_text("ISIC_0024306\n")
    options = [word for s in ("val", "test") for word in (f"DATASET.CSV_SPLITS.{s}", f"{s}.txt")]
    with pytest.raises(InputError, match="test.txt, line 1: 'ISIC_0024306' is in .*val.txt too"):
        load("ham10000", tmp_path, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["DATASET.CSV_ROWS", "['sex']"], "CSV_ROWS is .'sex',?.; give a list of COLUMN=VALUE"),
        (["DATASET.CSV_ROWS", "['view=AP']"], "has no column 'view'.*correct DATASET.CSV_ROWS"),
        (["DATASET.CSV_ROWS", "['sex=x']"], "no row has 'sex=x'; correct DATASET.CSV_ROWS"),
        (["DATASET.CSV_JOIN", "none.csv"], "none.csv: there is no such file.*DATASET.CSV_JOIN"),
        (["DATASET.CSV_JOIN", "other.csv"], "other.csv: has no column 'image_id' to find"),
        (["DATASET.CSV_JOIN", "twice.csv"], "twice.csv, line 3: 'a.jpg' is there twice, with d"),
        (["DATASET.CSV_ONE_HOT", "True"], "has no column 'akiec'.*correct DATASET.CLASS_FOLDERS"),
        (["DATASET.CSV_SPLITS.val", "none.txt"], "none.txt: there is no .*CSV_SPLITS.val"),
    ],
)
def test_a_wrong_setting_of_a_table_is_one_line(tmp_path, options, message):
    ham10000(tmp_path)
    table(tmp_path / "HAM10000" / "other.csv", "name,site", ["a,b"])
    table(tmp_path / "HAM10000" / "twice.csv", "image_id,site", ["a,b", "a.jpg,c"])
    with pytest.raises(InputError, match=message) as error:
        load("ham10000", tmp_path, *options)
    assert "\n" not in str(error.value)


def test_the_page_has_every_set_and_the_settings_of_its_examples(checkout):
    """docs/datasets.md: a row for each configuration; each line of an example is in its file."""
    page = (checkout / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted([*SETS, *NAMES, "chexpert", "nih_chestxray14"])
    named = r"\(`(?:configs/datasets/)?(\w+)\.yaml`\).*?```yaml\n(.*?)```"
    examples = re.findall(named, page, re.DOTALL)
    assert len(examples) == 7
    for name, text in examples:
        lines = (checkout / "configs" / "datasets" / f"{name}.yaml").read_text().splitlines()
        assert set(text.splitlines()) <= set(lines), name

"""MedMNIST's .npz files, made with the true keys, shapes and types: read, bounded, refused."""

import json
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_datasets import load
from torch.utils.data import DataLoader
from torchvision import transforms as T

import explain
import predict
import train
from core.errors import InputError, command_line
from core.yaml_files import read_yaml
from datasets import arrays, npz
from datasets.arrays import address_of, file_of, open_arrays
from datasets.checks import FileMemory, check_pictures
from datasets.features import _identity
from datasets.medmnist import COUNTS, MedMNIST
from datasets.multi_label import label_of
from datasets.pictures import pictures_at, read_picture
from datasets.settings import CHECKS
from datasets.views import Views, read_dataset
from engine.config import METHODS, has_own_protocol, load_cfg, read_symptoms
from results.record import read_record
from symptom_generator.montage import image_fingerprint
from symptoms import load_symptoms

ROOT = Path(__file__).resolve().parents[1]
SETS = {  # classes, channels
    "pathmnist": (9, 3),
    "dermamnist": (7, 3),
    "octmnist": (4, 1),
    "pneumoniamnist": (2, 1),
    "retinamnist": (5, 3),
    "breastmnist": (2, 1),
    "bloodmnist": (8, 3),
    "tissuemnist": (8, 1),
    "organamnist": (11, 1),
    "organcmnist": (11, 1),
    "organsmnist": (11, 1),
}


def content(counts=(12, 6, 6), size=28, rgb=False, n_cls=2, dtype=np.uint8, seed=0):
    """The six arrays of a file, all images different."""
    rng = np.random.default_rng(seed)
    made = {}
    for side, n in zip(("train", "val", "test"), counts, strict=True):
        shape = (n, size, size, 3) if rgb else (n, size, size)
        made[f"{side}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        made[f"{side}_labels"] = (np.arange(n) % n_cls).astype(dtype)[:, None]
    return made


def save(folder, flag="breastmnist", size=28, plain=False, **settings):
    """A made file, compressed as the release's are; its path and arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    made = content(size=size, **settings)
    path = folder / (f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz")
    (np.savez if plain else np.savez_compressed)(path, **made)
    return path, made


def medmnist(
    folder, flag="breastmnist", size=28, names=("malignant", "normal, benign"), **settings
):
    return load("MedMNIST", folder, FLAG=flag, SIZE=size, CLASSNAMES=list(names), **settings)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A cache folder of its own, and no file open from an earlier test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arrays.close_all()


@pytest.fixture
def large(monkeypatch):
    """Every file is too large for the memory."""
    monkeypatch.setattr(arrays, "IN_MEMORY", 0)


def pixels(picture, **settings):
    return np.asarray(read_picture(picture.impath, **settings))


# Reading


@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "disk"])
@pytest.mark.parametrize("plain", [True, False], ids=["stored", "deflated"])
@pytest.mark.parametrize("rgb", [True, False], ids=["rgb", "grey"])
def test_every_image_has_its_entrys_pixels(tmp_path, monkeypatch, in_memory, plain, rgb):
    """Under every way to hold the arrays, in the file's order and its split."""
    if not in_memory:
        monkeypatch.setattr(arrays, "IN_MEMORY", 0)
        monkeypatch.setattr(npz, "BLOCK", 5 * 28 * 28)  # several blocks, the last one shorter
    _, made = save(tmp_path, rgb=rgb, plain=plain, dtype=np.int64)
    dataset = medmnist(tmp_path)

    for side, pictures in dataset.split.items():
        assert [p.id for p in pictures] == [f"{side}/{i:05d}" for i in range(len(pictures))]
        assert [p.label for p in pictures] == made[f"{side}_labels"][:, 0].tolist()
        for picture, expected in zip(pictures, made[f"{side}_images"], strict=True):
            as_rgb = expected if rgb else np.repeat(expected[:, :, None], 3, axis=2)
            assert np.array_equal(pixels(picture), as_rgb)
            assert np.array_equal(pixels(picture, keep_grey=True), expected)
    assert dataset.classnames == ["malignant", "normal, benign"]


@pytest.mark.parametrize("size", [64, 128, 224])
def test_other_sizes_have_files_of_their_own(tmp_path, size, capsys):
    save(tmp_path, size=size, counts=(4, 2, 2))
    dataset = medmnist(tmp_path, size=size)
    assert pixels(dataset.test[0]).shape == (size, size, 3)
    assert (
        f"given by breastmnist_{size}.npz, {size} x {size} pixels, grey" in capsys.readouterr().out
    )


def test_the_order_of_names_is_that_of_the_file_beyond_99999_images():
    """TissueMNIST has 165,466 training images."""
    made = {"train": SimpleNamespace(shape=(165466,)), "val": SimpleNamespace(shape=(23640,))}
    assert MedMNIST._digits.func(SimpleNamespace(_arrays=made)) == 6


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_the_same_bytes(tmp_path, large, method):
    """In any order; a spawned one, to which the path alone is handed over, opens the file again."""
    _, made = save(tmp_path, rgb=True)
    views = Views(medmnist(tmp_path).train_x, T.Compose([T.ToTensor()]), as_bytes=True)
    order = [5, 0, 11, 3]
    loader = DataLoader(
        views,
        batch_sampler=[[(0, i)] for i in order],
        num_workers=2,
        multiprocessing_context=method,
    )
    for batch, i in zip(loader, order, strict=True):
        assert np.array_equal(batch["img"][0].permute(1, 2, 0), made["train_images"][i])


# Memory and copies


@pytest.mark.parametrize("plain", [True, False], ids=["stored", "deflated"])
def test_memory_does_not_grow_with_a_large_file(tmp_path, large, monkeypatch, plain):
    """Preparing and reading 12 MB take less than 2 MB."""
    monkeypatch.setattr(npz, "BLOCK", 2**18)
    save(tmp_path, size=224, counts=(200, 20, 20), plain=plain)
    tracemalloc.start()
    dataset = medmnist(tmp_path, size=224)
    for picture in dataset.train_x:
        read_picture(picture.impath)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_a_small_file_leaves_no_copy(tmp_path):
    save(tmp_path)
    medmnist(tmp_path)
    assert not (tmp_path / "cache/vip-for-dassl/arrays").exists()


def copies(tmp_path):
    return sorted(tmp_path.glob("cache/vip-for-dassl/arrays/*/*.bin"))


def test_a_large_file_is_copied_once_and_said_so(tmp_path, large, capsys):
    """The copy is private; what is stored plainly is read in place."""
    save(tmp_path)
    medmnist(tmp_path)
    assert capsys.readouterr().out.count("Copying the images of") == 1
    assert [path.name for path in copies(tmp_path)] == ["test.bin", "train.bin", "val.bin"]
    assert {path.stat().st_mode & 0o077 for path in copies(tmp_path)} == {0}

    arrays.close_all()
    medmnist(tmp_path)
    assert "Copying" not in capsys.readouterr().out

    save(tmp_path, "octmnist", plain=True)
    medmnist(tmp_path, "octmnist")
    assert "Checking the images of" in capsys.readouterr().out
    assert len(copies(tmp_path)) == 3


def test_an_interrupted_copy_is_made_again(tmp_path, large, monkeypatch):
    path, made = save(tmp_path)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "savez", killed)
        open_arrays(path)
    copies(tmp_path)[0].write_bytes(b"half")
    assert np.array_equal(open_arrays(path)["test"].image(1), made["test_images"][1])


def test_copies_are_counted_against_the_limit(tmp_path, large):
    """The one unused longest goes, unless a process has it open; then the new one is refused."""
    one, made = save(tmp_path, "breastmnist")
    other, _ = save(tmp_path, "octmnist", seed=1)
    limit = 1.5 * 24 * 28 * 28 / 1e9
    kept = open_arrays(one, limit)
    with pytest.raises(InputError, match=r"those in use fill .* of DATASET.COPIES_GB.*; set XDG"):
        open_arrays(other, limit)
    assert np.array_equal(kept["train"].image(0), made["train_images"][0])

    arrays.close_all()
    open_arrays(other, limit)
    assert len(copies(tmp_path)) == 3


def test_a_process_has_two_files_open(tmp_path, large):
    """More let the first go, and with it its copy's lock; it is opened again when needed."""
    paths = [save(tmp_path, flag, seed=n)[0] for n, flag in enumerate(list(SETS)[:3])]
    for path in paths:
        open_arrays(path)
    assert (
        [key[0] for key in arrays._open]
        == [key[0] for key in arrays._held]
        == [str(path) for path in paths[1:]]
    )


def test_a_changed_file_is_read_anew(tmp_path):
    path, _ = save(tmp_path)
    before = open_arrays(path)["train"].image(0)
    save(tmp_path, seed=1, counts=(13, 6, 6))
    assert not np.array_equal(open_arrays(path)["train"].image(0), before)


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path, large):
    save(tmp_path)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="cannot be prepared in .*; set XDG_CACHE_HOME") as error:
        medmnist(tmp_path)
    assert "\n" not in str(error.value)


# An address, wherever an image may stand


def test_an_address_is_told_from_a_path():
    assert address_of("a b/x_224.npz#train/00005") == arrays.Address("a b/x_224.npz", "train", 5)
    for path in ("x.npz", "x.npz#train", "x.npz#train/a", "x.png#train/00005", "train/00005"):
        assert address_of(path) is None
        assert file_of(path) == path


def test_features_and_copies_are_known_by_image_and_file(tmp_path):
    """Two images of one file differ; so does an image of a file that was replaced."""
    path, _ = save(tmp_path)
    images = medmnist(tmp_path).train_x
    known = {_identity([image]) for image in images} | {_identity(images)}
    assert len(known) == 13
    save(tmp_path, counts=(13, 6, 6))
    assert _identity(images[:1]) not in known
    assert image_fingerprint(images[0]) != image_fingerprint(images[1])
    check_pictures({image.id: image.impath for image in images}, FileMemory(tmp_path))


def test_an_image_of_a_file_can_be_named(tmp_path):
    """On the command line too; a place that the file does not have is one line."""
    path, _ = save(tmp_path)
    assert pictures_at([f"{path}#test/00002"]) == [
        (Path(f"{path}#test/00002"), "breastmnist.npz#test/00002")
    ]
    with pytest.raises(InputError, match="no image test/00006; it has 12 in train, 6 in val"):
        read_picture(f"{path}#test/00006")
    with pytest.raises(InputError, match="there is no such image"):
        pictures_at([tmp_path / "other.npz#test/00002"])


def test_copies_within_the_file_are_said(tmp_path, capsys):
    """The release's split has them, so they are no error."""
    made = content()
    made["test_images"][4] = made["train_images"][2]
    np.savez_compressed(tmp_path / "breastmnist.npz", **made)
    dataset = medmnist(tmp_path)
    assert [[p.id for p in group] for group in dataset.duplicates] == [
        ["test/00004", "train/00002"]
    ]
    assert "identical files in two splits: 1 images" in capsys.readouterr().out


def test_images_are_left_out_by_pattern_and_listed_by_a_split_file(tmp_path):
    """A corrected split names images by their identities, as written by write_split."""
    save(tmp_path)
    dataset = medmnist(tmp_path, EXCLUDE=["train/00003", "test/*5"])
    assert [len(dataset.split[side]) for side in ("train", "val", "test")] == [11, 6, 5]

    dataset.write_split(tmp_path / "split.json")
    assert (
        medmnist(tmp_path, SPLIT_FILE="split.json").split_fingerprint == dataset.split_fingerprint
    )

    names = dataset.classnames
    sides = {"train": ("test/0", "train/7"), "test": ("val/00000", "val/00001")}
    rows = {
        side: [[name, i, names[i]] for i, name in enumerate(found)] for side, found in sides.items()
    }
    rows["val"] = [["val/00005", 1, names[1]]]
    (tmp_path / "split.json").write_text(json.dumps(rows))
    dataset = medmnist(tmp_path, SPLIT_FILE="split.json")
    assert {p.id for p in dataset.train_x} == {"test/00000", "train/00007"}

    rows["test"][0][0] = "val/00006"
    (tmp_path / "split.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match="names 'val/00006', which is not below"):
        medmnist(tmp_path, SPLIT_FILE="split.json")


# What is refused


def damaged(path, made, how):
    if how == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "not a zip":
        path.write_bytes(b"<html>Too many requests</html>")
    elif how == "flipped":
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("train_images.npy")
        data[info.header_offset + info.compress_size // 2] ^= 255
        path.write_bytes(data)
    else:
        made.update(how({key: value.copy() for key, value in made.items()}))
        np.savez(path, allow_pickle=True, **{k: v for k, v in made.items() if v is not None})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("half", "is damaged or only half downloaded"),
        ("not a zip", "is damaged or only half downloaded .*not a zip"),
        ("flipped", "train_images.npy"),
        (
            lambda made: {"val_images": None},
            "has no val_images; download it again from https://zen",
        ),
        (lambda made: {"test_labels": None}, "has no test_labels; download"),
        (lambda made: {"train_images": made["train_images"][:, :20]}, "have 28 x 20 pixels, and"),
        (lambda made: {"val_images": made["val_images"][:, :9, :9]}, "have 9 x 9 pixels, and"),
        (lambda made: {"test_images": made["test_images"] / 255}, "holds float64 values; images"),
        (lambda made: {"test_images": made["test_images"][..., None]}, "has the shape"),
        (lambda made: {"test_images": made["test_images"].astype(object)}, "holds pickled objects"),
        (lambda made: {"test_labels": made["test_labels"].astype(object)}, "holds pickled objects"),
        (lambda made: {"val_images": np.asfortranarray(made["val_images"])}, "column by column"),
        (lambda made: {"val_labels": made["val_labels"][1:]}, r"of shape \(5, 1\), and 6 images"),
        (lambda made: {"val_labels": made["val_labels"] / 2}, "val_labels is float64 of shape"),
        (
            lambda made: {"val_labels": made["val_labels"] + 1},
            "from 1 to 2, and DATASET.CLASSNAMES",
        ),
        (lambda made: {"train_labels": made["train_labels"].repeat(14, 1)}, "image has 14 labels"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "disk"])
def test_a_wrong_file_is_one_line(tmp_path, monkeypatch, how, message, in_memory):
    """It names the file; nothing is left of it in the cache."""
    if not in_memory:
        monkeypatch.setattr(arrays, "IN_MEMORY", 0)
    path, made = save(tmp_path, plain=True)
    damaged(path, made, how)
    with pytest.raises(InputError, match=message) as error:
        medmnist(tmp_path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_bit_flipped_in_a_compressed_array_is_found(tmp_path, large):
    """Nothing of the copy is used."""
    path, made = save(tmp_path)
    damaged(path, made, "flipped")
    with pytest.raises(InputError, match="is damaged"):
        medmnist(tmp_path)
    assert not list(tmp_path.rglob("digests.npz"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FLAG": "dermnist"}, "DATASET.FLAG is 'dermnist'; choose one of pathmnist, chestmnist"),
        ({"FLAG": ""}, "DATASET.FLAG is ''; choose one of pathmnist"),
        ({"FLAG": "organmnist3d"}, "DATASET.FLAG is a 3D set, which is not read"),
        ({"FLAG": "octmnist"}, "octmnist.npz: is missing; download it from https://zenodo.org"),
        ({"SIZE": 224}, r"missing \(breastmnist.npz is there: DATASET.SIZE 28\); download"),
        ({"SIZE": 100}, "DATASET.SIZE is 100; choose 28, 64, 128 or 224"),
        ({"CLASSNAMES": []}, "CLASSNAMES is empty; name the classes as in configs/datasets/breast"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, settings, message):
    save(tmp_path)
    settings = {"FLAG": "breastmnist", "SIZE": 28, "CLASSNAMES": ["a", "b"], **settings}
    with pytest.raises(InputError, match=message) as error:
        load("MedMNIST", tmp_path, **settings)
    assert "\n" not in str(error.value)


# Several findings an image: ChestMNIST


FINDINGS = read_yaml(ROOT / "configs/datasets/chestmnist.yaml")["DATASET"]["CLASSNAMES"]


def save_chest(folder, counts=(12, 6, 6), **labels):
    """A made ChestMNIST: every third image has no finding, the others have some; its arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    made = content(counts)
    for seed, (side, n) in enumerate(zip(("train", "val", "test"), counts, strict=True)):
        rows = np.random.default_rng(seed).random((n, 14)) < 0.3
        rows[::3] = False
        made[f"{side}_labels"] = rows.astype(np.uint8)
    made.update(labels)
    np.savez_compressed(folder / "chestmnist.npz", **made)
    return made


def chestmnist(root, *opts):
    opts = ["DATASET.SIZE", "28", *opts]
    cfg, _ = load_cfg("ViP", "chestmnist", "tiny", (), opts, root=str(root))
    return read_dataset(cfg)


def test_chestmnist_has_the_labels_of_its_rows(tmp_path, capsys):
    """In the file's order of findings, split and images; the card counts images of a finding."""
    made = save_chest(tmp_path / "medmnist")
    dataset = chestmnist(tmp_path)
    for side, pictures in dataset.split.items():
        rows = made[f"{side}_labels"]
        assert [p.id for p in pictures] == [f"{side}/{i:05d}" for i in range(len(pictures))]
        assert [label_of(p) for p in pictures] == [tuple(row) for row in rows.tolist()]
        assert [dataset.class_counts[side][name] for name in FINDINGS] == rows.sum(0).tolist()
        assert np.array_equal(pixels(pictures[1], keep_grey=True), made[f"{side}_images"][1])
    assert dataset.train_x == dataset.split["train"]
    assert dataset.classnames == [*FINDINGS, *(f"no {name}" for name in FINDINGS)]
    read_symptoms(ROOT / "symptoms/nih_chestxray14.json", dataset.classnames, None, True)
    said = capsys.readouterr().out
    assert "MultiLabelMedMNIST: 24 images" in said and "the file names no patients" in said


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["DATASET.MULTI_LABEL", "False"], "each image has 14 labels, .*set DATASET.MULTI_LABEL T"),
        (["DATASET.CLASSNAMES", "['a','b']"], "train_labels has 14 labels an image, and DATASET"),
        (["DATASET.CLASSNAMES", "[]"], "DATASET.CLASSNAMES is empty; DATASET.MULTI_LABEL needs"),
        (["DATASET.FLAG", "breastmnist"], "has 1 labels an image.*; set DATASET.MULTI_LABEL False"),
        (["DATASET.NUM_SHOTS", "4"], "DATASET.NUM_SHOTS does not apply with DATASET.MULTI_LABEL"),
        (["DATASET.SPLIT_FILE", "x.json"], "DATASET.SPLIT_FILE does not apply .*an image.; leave"),
    ],
)
def test_a_wrong_setting_of_findings_is_one_line(tmp_path, opts, message):
    save_chest(tmp_path / "medmnist")
    save(tmp_path / "medmnist")
    with pytest.raises(InputError, match=message) as error:
        chestmnist(tmp_path, *opts)
    assert "\n" not in str(error.value)


def test_a_finding_that_is_neither_0_nor_1_is_one_line(tmp_path):
    save_chest(tmp_path / "medmnist", val_labels=np.full((6, 14), 2, np.uint8))
    with pytest.raises(InputError, match="val_labels has the label 2; a finding is 0 or 1; downl"):
        chestmnist(tmp_path)


@pytest.mark.slow
def test_a_run_of_several_findings_finds_what_is_there(tmp_path, capsys):
    """A made ChestMNIST with two bright halves as findings; the last is drawn nowhere."""
    made = save_chest(tmp_path / "medmnist", (120, 60, 60))
    for side in ("train", "val", "test"):
        labels, images = made[f"{side}_labels"], made[f"{side}_images"] // 8
        labels[:, :2] = np.random.default_rng(9).random((len(labels), 2)) < 0.5
        images[labels[:, 0] == 1, :14] += 200
        images[labels[:, 1] == 1, 14:] += 200
        made[f"{side}_images"] = images
    np.savez_compressed(tmp_path / "medmnist/chestmnist.npz", **made)
    words = ["--trainer", "LinearProbe", "--dataset", "chestmnist", "--backbone", "tiny"]
    words += ["--root", str(tmp_path), "--output-dir", str(tmp_path / "run")]
    train.main([*words, "DATASET.SIZE", "28", "FEATURES.KEEP", "False"])
    figures = read_record(tmp_path / "run").finding_metrics.findings
    assert figures["atelectasis"].auroc > 0.9 and figures["cardiomegaly"].auroc > 0.9
    assert figures["hernia"].auroc < 0.8


# Named configurations


def test_every_set_has_its_configuration():
    assert {*SETS, "chestmnist"} == set(COUNTS)
    for flag in COUNTS:
        assert (ROOT / f"configs/datasets/{flag}.yaml").exists()


@pytest.mark.parametrize("flag", SETS)
def test_a_named_set_reads_with_its_names_and_symptoms(tmp_path, capsys, flag):
    """As many names as the file has classes; the symptom file has each; the note is on the card."""
    n_cls, channels = SETS[flag]
    save(tmp_path / "medmnist", flag, n_cls=n_cls, counts=(2 * n_cls,) * 3, rgb=channels == 3)
    cfg, _ = load_cfg("ViP", flag, "tiny", (), ["DATASET.SIZE", "28"], root=str(tmp_path))
    dataset = MedMNIST(cfg)
    assert len(dataset.classnames) == n_cls
    load_symptoms(ROOT / f"symptoms/{flag}.json", dataset.classnames)
    assert bool(dataset.positive) == (n_cls == 2)
    assert cfg.DATASET.NOTE in capsys.readouterr().out.splitlines() or not cfg.DATASET.NOTE
    assert cfg.DATASET.SIZE == 28 and CHECKS["SIZE"][0](224)


def test_the_lesions_of_dermamnist_are_on_its_card():
    cfg, _ = load_cfg("ViP", "dermamnist", "tiny")
    assert "several images of a lesion and this split ignores it" in cfg.DATASET.NOTE


@pytest.mark.parametrize("trainer", METHODS)
def test_no_method_flips_left_organs_into_right_ones(trainer):
    """Under the shared protocol, and under a method's own."""
    for protocol in ["shared", *(["own"] if has_own_protocol(trainer) else [])]:
        for flag in ("organamnist", "organcmnist", "organsmnist"):
            cfg, _ = load_cfg(trainer, flag, "tiny", (), ["PROTOCOL", protocol])
            assert "random_flip" not in cfg.INPUT.TRANSFORMS
    assert "random_flip" in load_cfg("ViP", "dermamnist", "tiny")[0].INPUT.TRANSFORMS


@pytest.mark.slow
def test_a_run_trains_predicts_and_explains(tmp_path, capsys):
    """ViP with tiny on a made DermaMNIST whose classes differ in color."""
    made = content((140, 35, 35), rgb=True, n_cls=7)
    for side in ("train", "val", "test"):
        label = made[f"{side}_labels"][:, 0].astype(int)
        made[f"{side}_images"] //= 8
        for channel, bit in enumerate((1, 2, 4)):
            made[f"{side}_images"][..., channel] += (((label & bit) > 0) * 200)[
                :, None, None
            ].astype(np.uint8)
    (tmp_path / "medmnist").mkdir()
    path = tmp_path / "medmnist/dermamnist.npz"
    np.savez_compressed(path, **made)
    run = tmp_path / "run"
    words = ["--trainer", "ViP", "--dataset", "dermamnist", "--backbone", "tiny"]
    words += ["--root", str(tmp_path), "--output-dir", str(run)]
    train.main([*words, "DATASET.SIZE", "28", "OPTIM.MAX_EPOCH", "8", "OPTIM.LR", "0.02"])
    results = json.loads((run / "results.json").read_text())
    assert "images of one lesion are in training and test" in capsys.readouterr().out

    table = tmp_path / "p.csv"
    image = f"{path}#test/00003"
    predict.main([str(run), "--images", image, "--output", str(table)])
    assert table.read_text().splitlines()[1].startswith(image)
    explain.main([str(run), "--split", "test", "--limit", "3"])
    explain.main([str(run), "--images", image])
    assert "test/00003" in (run / "explanations/explanations.csv").read_text()
    assert results["dataset"] == "dermamnist"
    with pytest.raises(SystemExit) as stopped:
        command_line(lambda: predict.main([str(run), "--images", f"{path}#test/99"]))()
    assert stopped.value.code == 2

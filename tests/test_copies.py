"""Copies in a dataset: found, shown, listed, and left out on request."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from test_own_data import own

from core.errors import InputError
from datasets.copies import BITS, Copies, hashes, near_pairs
from reporting import check_dataset


def drawn(seed, size=200):
    """A smooth grey image, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def compressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


@pytest.fixture
def planted(tmp_path):
    """40 images in three splits, and four copies: exact, smaller, compressed, cropped to 95 %."""
    root = tmp_path / "data" / "own"
    seed = 0
    for side, count in (("train", 10), ("val", 4), ("test", 6)):
        for name in ("a", "b"):
            (root / side / name).mkdir(parents=True)
            for i in range(count):
                drawn(seed).save(root / side / name / f"{i}.png")
                seed += 1

    def image(path):
        return Image.open(root / path)

    exact = (root / "test/a/0.png").read_bytes()
    (root / "train/a/exact.png").write_bytes(exact)
    image("val/a/1.png").resize((90, 90)).save(root / "train/a/small.png")
    compressed(image("train/b/2.png")).save(root / "test/b/compressed.jpg", quality=40)
    image("train/b/3.png").crop((5, 5, 195, 195)).save(root / "train/a/cropped.png")
    (tmp_path / "own.yaml").write_text("DATASET:\n  NAME: ImageFolder\n  PATH: own\n")
    return tmp_path


def check(planted, *words):
    where = [str(planted / "own.yaml"), "--root", str(planted / "data")]
    check_dataset.main(["check", *where, "--output-dir", str(planted / "out"), *words])
    lines = (planted / "out" / "exclude.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_planted_copies_are_found_and_nothing_else(planted, capsys):
    """Of a pair in two splits, train's is left out; of a pair in train, the later one."""
    assert sorted(check(planted)) == [
        "train/a/exact.png",
        "train/a/small.png",
        "train/b/2.png",
        "train/b/3.png",
    ]
    printed = capsys.readouterr().out
    assert "exact copies: 1 groups of 2 images; in two splits: 1; in two classes: 0" in printed
    assert "near copies: 3 groups of 6 images; in two splits: 2; in two classes: 1" in printed
    assert "to leave out: 4 images (4 of train)" in printed


def test_the_page_shows_the_copies_side_by_side(planted):
    """Those in two splits first, each image with its split, class and fate."""
    check(planted)
    page = (planted / "out" / "copies.html").read_text()
    assert page.count('<img src="data:image/jpeg') == 8
    assert page.count("to leave out</strong>") == 4
    assert page.index("in two splits</h3>") < page.index("train/a/cropped.png")
    assert not re.search(r"(src|href)=\"(?!data:)", page) and str(planted) not in page


def test_only_the_same_bytes_count_on_request(planted):
    assert check(planted, "--exact") == ["train/a/exact.png"]


def test_the_list_is_what_the_setting_reads(planted):
    """A path in a line, exactly as the dataset names it; what is not there is said."""
    check(planted)
    root = planted / "data" / "own"
    with pytest.raises(InputError, match="holds the same bytes"):
        own(root)
    with open(planted / "out" / "exclude.txt", "a") as file:
        file.write("a/1.png\n")  # the end of a path is not a path

    dataset = own(root, EXCLUDE_FILE=str(planted / "out" / "exclude.txt"))

    assert [len(dataset.split[side]) for side in ("train", "val", "test")] == [19, 8, 13]
    assert "left out by DATASET.EXCLUDE_FILE: 4 images; not among the images: a/1.png" in (
        dataset.notes
    )
    assert check(planted, "DATASET.EXCLUDE_FILE", str(planted / "out" / "exclude.txt")) == []


def test_a_test_image_is_never_left_out():
    pictures = [type("P", (), {"id": name}) for name in "abcd"]
    side_of = {"a": "train", "b": "test", "c": "test", "d": "val"}

    assert Copies([0, 0, 0, 0], {}).left_out(pictures, side_of) == [0, 3]


def test_what_is_only_like_a_copy_that_is_left_out_stays():
    """b is near a and c, which are not near each other: without b, both stay."""
    pictures = [type("P", (), {"id": name}) for name in "abc"]
    copies = Copies([0, 1, 2], {0: {1: 20}, 1: {0: 20, 2: 20}, 2: {1: 20}})

    assert copies.groups() == [[0, 1, 2]] and copies.distance(0, 2) is None
    assert copies.left_out(pictures, dict.fromkeys("abc", "train")) == [1]


def test_pairs_are_those_of_counting_bit_by_bit():
    """In blocks as in one piece."""
    rng = np.random.default_rng(0)
    base = rng.random((20, 1, BITS)) < 0.5
    found = (base[rng.integers(0, 20, 600)] ^ (rng.random((600, 2, BITS)) < 0.05)).astype(bool)
    near = near_pairs(found, 20)

    expected = {}
    for one in range(600):
        for other in range(600):
            wholes = (found[one, 0] != found[other, 0]).sum()
            cropped = (found[one, 1] != found[other, 0]).sum()
            enlarged = (found[one, 0] != found[other, 1]).sum()
            bits = min(wholes, cropped, enlarged)
            if one != other and bits <= 20:
                expected.setdefault(one, {})[other] = bits
    assert near == expected and len(near) > 100


def test_images_that_are_all_alike_are_no_copies(monkeypatch):
    monkeypatch.setattr("datasets.copies.MOST_PAIRS", 10)
    with pytest.raises(InputError, match="give a smaller --near"):
        near_pairs(np.zeros((6, 2, BITS), dtype=bool), 3)


def test_tiny_images_have_hashes(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    assert hashes([tmp_path / "a.png"]).shape == (1, 2, BITS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--near", "-1"], "at least 0|from 0"),
        (["--near", "many"], "whole number"),
        (["OPTIM.LR", "0.1"], "OPTIM.LR has no effect here"),
        (["DATASET.EXCLUDE_FILE", "none.txt"], "none.txt: there is no such file"),
    ],
)
def test_wrong_input_is_named(planted, words, told):
    with pytest.raises(InputError, match=told):
        check(planted, *words)
    assert not (planted / "out").exists()

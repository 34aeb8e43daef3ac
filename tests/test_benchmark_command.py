"""benchmark.sh: which sets it runs, what it says of missing ones, and a true run of three sets."""

import pytest
from made_sets import biomedcoop_set

from core.errors import InputError
from core.yaml_files import read_yaml
from results.runs import find_runs
from scripts import base_to_new, benchmark, compare, few_shot

THREE = ("btmri", "busi", "retina")


@pytest.fixture
def data(tmp_path, checkout):
    """Three of the sets; RETINA's split file is not there yet."""
    for name in THREE:
        settings = read_yaml(checkout / "configs" / "datasets" / f"{name}.yaml")["DATASET"]
        biomedcoop_set(tmp_path / "data", name, settings["CLASSNAMES"])
    return tmp_path / "data"


@pytest.fixture
def words(data, tmp_path, monkeypatch, checkout):
    monkeypatch.chdir(checkout)
    folders = ["--root", str(data), "--output", str(tmp_path / "output")]
    return lambda *more: ["biomedcoop", "tiny", *folders, *more]


@pytest.fixture
def started(monkeypatch):
    """(part, dataset, shots, other settings) of what would run; nothing runs."""
    calls = []

    def shots_of(args):
        calls.append(("few-shot", args.dataset, args.shots, args.opts))
        return 0

    def halves_of(args):
        calls.append(("base-to-new", args.dataset, args.opts[-1], args.opts[:-2]))
        return int(args.dataset == "retina")

    monkeypatch.setattr(few_shot, "run_shots", shots_of)
    monkeypatch.setattr(base_to_new, "run_all", halves_of)
    return calls


def test_every_set_at_hand_is_run_and_the_missing_are_named(words, started, capsys):
    """BUSI has no base-to-new. A failed run is in the exit status."""
    status = benchmark.main(words("--shots", "2", "--", "OPTIM.MAX_EPOCH", "1"))

    opts = ["OPTIM.MAX_EPOCH", "1"]
    assert started == [
        *(("base-to-new", name, "16", opts) for name in ("retina", "btmri")),
        *(("few-shot", name, [2], opts) for name in ("retina", "btmri", "busi")),
    ]
    assert status == 1
    out = capsys.readouterr().out
    missing = [line for line in out.splitlines() if " is missing (" in line]
    assert len(missing) == 8
    assert missing[0].startswith("ctkidney is missing (") and missing[0].endswith(
        "CTKidney/CTKidney): get CTKidney.zip from "
        "https://huggingface.co/datasets/TahaKoleilat/BiomedCoOp"
    )


def test_one_part_with_the_benchmark_s_shots(words, started):
    benchmark.main(words("--only", "few-shot"))
    assert {(part, tuple(shots)) for part, _, shots, _ in started} == {
        ("few-shot", (1, 2, 4, 8, 16))
    }


def test_a_set_without_its_split_file_is_missing(words, started, data, capsys):
    (data / "RETINA" / "split_RETINA.json").unlink()
    benchmark.main(words())
    assert "retina" not in {name for _, name, *_ in started}
    out = capsys.readouterr().out
    assert "RETINA/split_RETINA.json): get RETINA.zip from" in out


def test_wrong_words_are_one_line(words, started, tmp_path):
    (tmp_path / "other.yaml").write_text("SETS: [busi]\nSHOTS: [1]\nSEEDS: [1]\n")
    nowhere = str(tmp_path / "nowhere")
    for line, message in (
        (["imagenet", "tiny"], "there is no configs/benchmarks/imagenet.yaml; choose one of bio"),
        (words("--root", nowhere), f"no dataset of biomedcoop is in {nowhere}; get NAME.zip"),
        (words("DATASET.NUM_SHOTS", "4"), "benchmark.sh chooses DATASET.NUM_SHOTS itself"),
        ([str(tmp_path / "other.yaml"), "tiny"], "other.yaml: BASE_TO_NEW_SHOTS: Field required"),
    ):
        with pytest.raises(InputError, match=message) as error:
            benchmark.main(line)
        assert "\n" not in str(error.value)
    assert not started


def test_few_shot_takes_its_numbers(monkeypatch, checkout):
    """--shots of few_shot.sh; the default stays."""
    monkeypatch.chdir(checkout)
    ran = []
    monkeypatch.setattr(compare, "run_all", lambda args: ran.append(args.opts[-1]) or 0)
    monkeypatch.setattr(few_shot, "call", lambda command: 0)
    assert few_shot.main(["derm7pt", "tiny", "--shots", "4", "16", "4"]) == 0
    assert few_shot.main(["derm7pt", "tiny"]) == 0
    assert ran == ["4", "16", "1", "2", "4", "8", "16"]


@pytest.mark.slow
def test_three_sets_from_their_files_to_the_means(words, tmp_path, capfd):
    """One method with the embedded backbone; the same command again runs nothing."""
    line = words("--methods", "CoOp", "--shots", "2", "--seeds", "1")
    line += ["--", "OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "0"]

    assert benchmark.main(line) == 0

    out = capfd.readouterr().out
    assert "Means over 3 of the 11 datasets of the benchmark" in out
    assert "mean over 3 datasets, few-shot, ACC" in out
    assert "mean over 2 datasets, base to new, 16 shots a class" in out
    output = tmp_path / "output"
    assert len(find_runs(output)) == 3 + 2 * 2
    written = {path: path.stat().st_mtime_ns for path in output.rglob("results.json")}
    assert benchmark.main(line) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("results.json")} == written
    means = out[out.index("Means over") :]
    assert capfd.readouterr().out.endswith(means)

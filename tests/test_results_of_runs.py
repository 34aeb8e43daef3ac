"""What real runs leave in results.json: the cost of encoding apart, and the positive class."""

import pytest

import train
from results.choices import Choices
from results.cost import cost_tables
from results.record import read_record
from results.runs import find_runs


@pytest.fixture
def recorded(toy, toy_args, short):
    """``recorded(trainer, *options)``: the record of such a run, made after those before it."""

    def run(trainer, *options):
        folder = toy / "output" / "-".join([trainer, *options])
        train.main(["--trainer", trainer, *toy_args[:-1], str(folder), *short, *options])
        return read_record(folder)

    return run


def test_features_are_encoded_once_and_read_later(recorded, toy):
    """Each method used the same images; the first encoded them, and both cost the same."""
    own = ["FEATURES.DIR", str(toy / "features")]
    first, later = recorded("CoOp", *own), recorded("KgCoOp", *own)
    supervised = recorded("Supervised")

    used = {"training views": 3 * 20, "val": 8, "test": 12}
    for record in (first, later):
        assert {name: use.images for name, use in record.features.items()} == used
    assert {name: use.encoded for name, use in first.features.items()} == used
    assert not any(use.encoded or use.seconds for use in later.features.values())
    assert first.seconds["encode"] > 0 and later.seconds["encode"] == 0
    assert first.seconds["encode"] == pytest.approx(
        sum(use.seconds for use in first.features.values())
    )
    assert supervised.features is None and supervised.seconds["encode"] == 0

    (table,) = cost_tables(find_runs(toy / "output"), Choices())
    encoding = {row[0].split()[0]: row[3] for row in table.rows}
    assert encoding["CoOp"] == pytest.approx(encoding["KgCoOp"])
    assert encoding["CoOp"] == pytest.approx(first.seconds["encode"])
    assert encoding["Supervised"] is None


def test_the_record_says_what_tables_need_of_a_method_and_dataset(recorded, toy):
    record = recorded("ZeroshotCLIP")
    assert (record.format, record.positive, record.place, record.seeded) == (2, None, 10, False)
    record = recorded("CoOp", "DATASET.NUM_SHOTS", "2", "DATASET.POSITIVE", "red")
    assert (record.positive, record.place, record.seeded) == ("red", 30, True)
    assert record.class_counts["train"] == {"red": 2, "blue": 2}
    assert record.training_split_counts == {"red": 10, "blue": 10}

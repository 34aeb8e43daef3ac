"""The table of settings: which a run reads, and which values each may have."""

from typing import Literal

import pytest
from dassl.config import get_cfg_default
from yacs.config import CfgNode

import train
from backbones.settings import DESCRIPTIONS
from core.errors import InputError
from engine.config import default_cfg, flatten, load_cfg
from engine.method import METHODS, Method
from engine.settings import RULES, rules_for

# Read by what the methods inherit, and without effect on their runs.
READ_WITHOUT_EFFECT = {
    "DATASET.SOURCE_DOMAINS",  # counted; nothing uses the number
    "INPUT.NO_TRANSFORM",  # True would leave images that no encoder can read
    "OPTIM.STAGED_LR",  # True needs a whole model, and what learns here is a list of parameters
    "TEST.COMPUTE_CMAT",  # of Dassl's evaluator, which these methods do not call
    "TEST.EVALUATOR",
    "TEST.PER_CLASS_RESULT",
}

# For the branches that the protocol does not take.
TRANSFORMS = ["random_crop", "random_flip", "colorjitter", "normalize"]
OTHER_WAYS = {
    "CoOp": ["OPTIM.NAME", "adam", "OPTIM.LR_SCHEDULER", "single_step"],
    "KgCoOp": ["OPTIM.NAME", "rmsprop", "OPTIM.WARMUP_TYPE", "linear"],
    "CoCoOp": ["INPUT.TRANSFORMS", str(TRANSFORMS)],
}


@pytest.fixture
def reads(monkeypatch):
    """A set that collects each setting that is read, as a dotted key."""
    seen, names = set(), {}
    plain, build = CfgNode.__getattr__, train_run(names, monkeypatch)

    def read(node, name):
        if id(node) in names:
            seen.add(f"{names[id(node)][1]}{name}")
        return plain(node, name)

    monkeypatch.setattr(CfgNode, "__getattr__", read)
    monkeypatch.setattr("engine.run.run", build)
    return seen


def train_run(names, monkeypatch):
    """``engine.run.run`` on a configuration whose nodes are first written down in ``names``.

    The trainer goes on with a copy that has the backbone's preprocessing; its nodes are too.
    """
    from engine import trainer
    from engine.run import run

    def note(node, prefix=""):
        names[id(node)] = node, prefix  # the node too, so that its id stays its own
        for key, value in node.items():
            if isinstance(value, CfgNode):
                note(value, f"{prefix}{key}.")

    def recorded(cfg, *args, **kwargs):
        note(cfg)
        return run(cfg, *args, **kwargs)

    prepare = trainer.with_preprocessing

    def prepared(cfg, backbone):
        copy = prepare(cfg, backbone)
        note(copy)
        return copy

    monkeypatch.setattr(trainer, "with_preprocessing", prepared)
    return recorded


@pytest.mark.slow
def test_the_table_holds_what_the_methods_read(reads, toy, toy_args, short):
    """Every setting that training any method reads has a rule, and no rule is for one unread."""
    for name in METHODS:
        words = ["--trainer", name, *toy_args[:-1], str(toy / name), *short]
        train.main([*words, *OTHER_WAYS.get(name, [])])
    known = flatten(default_cfg())
    rules = rules_for(known, METHODS)
    read = {key for key in reads if key in known}

    assert {key for key in read if rules[key] is None} <= READ_WITHOUT_EFFECT
    # The installed Dassl has further transforms, whose settings the stand-in does not declare.
    elsewhere = {f"MODEL.BACKBONE.{name}" for name in DESCRIPTIONS}  # by `python -m backbones`
    elsewhere |= {"PROTOCOL", "RUN.TUNED"}  # from a file or an option, and by the tables
    assert RULES.keys() & known.keys() - elsewhere <= read


UNREAD = [
    *("DATALOADER.TRAIN_X.SAMPLER nope", "DATALOADER.TRAIN_U.BATCH_SIZE 7"),
    *("DATALOADER.K_TRANSFORMS 2", "DATALOADER.RETURN_IMG0 True", "DATALOADER.TEST.SAMPLER x"),
    *("DATASET.SOURCE_DOMAINS ['a']", "DATASET.TARGET_DOMAINS ['a']", "DATASET.NUM_LABELED 3"),
    *("DATASET.VAL_PERCENT 0.2", "INPUT.NO_TRANSFORM True", "MODEL.INIT_WEIGHTS a.pt"),
    *("MODEL.BACKBONE.PRETRAINED False", "MODEL.HEAD.NAME mlp", "OPTIM.STAGED_LR True"),
    *("OPTIM.NEW_LAYERS ['a']", "OPTIM.BASE_LR_MULT 0.2", "TEST.NO_TEST True"),
    *("TEST.EVALUATOR nope", "TEST.PER_CLASS_RESULT True", "TRAIN.COUNT_ITER smaller_one"),
]


def load(toy, *opts, trainer="ViP", files=()):
    places = str(toy / "toy.yaml"), str(toy / "random.yaml")
    return load_cfg(trainer, *places, files=files, opts=opts, root=str(toy / "data"))


@pytest.mark.parametrize("words", UNREAD)
def test_a_setting_that_nothing_reads_is_refused_when_changed(toy, words):
    """From the command line and from a file; its default may stand in a file."""
    key, value = words.split(" ", 1)
    with pytest.raises(InputError, match=f"^{key} has no effect"):
        load(toy, key, value)
    default = flatten(get_cfg_default())[key]
    assert load(toy, key, repr(default))[1] == {}


def test_every_unread_setting_of_dassl_is_refused(toy):
    """Not only those of the list above."""
    known = flatten(default_cfg())
    rules = rules_for(known, METHODS)
    unread = {key for key in known if rules[key] is None}

    assert {words.split()[0] for words in UNREAD} <= unread
    assert "TEST.NO_TEST" in unread and "OPTIM.LR" not in unread


BAD = [
    ("SEED", "4294967296", "should be at most 4294967295"),
    ("SEED", "1.5", "a whole number"),
    ("OPTIM.LR", "-1", "OPTIM.LR is -1.0; it should be greater than 0"),
    ("OPTIM.LR", "1e999", "a finite number"),
    ("OPTIM.LR", "nan", "a number"),
    ("OPTIM.LR", "None", "a number"),
    ("OPTIM.LR", "True", "a number"),
    ("OPTIM.LR", "9" * 400, "a finite number"),
    ("OPTIM.LR.X", "3", "there is no setting OPTIM.LR.X"),
    ("OPTIM", "3", "OPTIM is a group of settings"),
    ("optim.lr", "3", "there is no setting optim.lr; did you mean OPTIM.LR"),
    ("OPTIM.WEIGHT_DECAY", "1e999", "a finite number"),
    ("OPTIM.WEIGHT_DECAY", "-1", "should be at least 0"),
    ("OPTIM.MOMENTUM", "1", "less than 1"),
    ("OPTIM.MAX_EPOCH", "-1", "OPTIM.MAX_EPOCH is -1; it should be at least 1"),
    ("OPTIM.MAX_EPOCH", "0", "at least 1"),
    ("OPTIM.NAME", "foo", "'sgd'"),
    ("OPTIM.STEPSIZE", "5", "a list"),
    ("OPTIM.STEPSIZE", "[" * 100_000, "a list"),
    ("DATASET.NUM_SHOTS", "0", "give -1 for all images, or at least 1"),
    ("DATASET.NUM_SHOTS", "-7", "give -1 for all images, or at least 1"),
    ("DATASET.VAL_FRACTION", "1.0", "less than 1"),
    ("DATASET.VAL_FRACTION", "nan", "a number"),
    ("DATASET.SUBSAMPLE_CLASSES", "half", "choose all, base or new"),
    ("DATASET.PATIENTS_APART", "1", "True or False"),
    ("DATASET.CSV", "'a\\0b'", "plain text"),
    ("DATASET.CSV", "'\\ud800'", "plain text"),
    ("INPUT.PIXEL_MEAN", "[0.1,0.2]", "missing"),
    ("INPUT.PIXEL_MEAN", "[0.1,0.2,1e999]", "entry 3; it should be a finite number"),
    ("INPUT.PIXEL_STD", "[0.1,0.2,0]", "entry 3; it should be greater than 0"),
    ("INPUT.RRCROP_SCALE", "(2.0,-1.0)", "should be"),
    ("INPUT.RRCROP_SCALE", "(0.9,0.1)", "first number should not be greater"),
    ("INPUT.SIZE", "(224,)", "missing"),
    ("INPUT.SIZE", "(0, 0)", "at least 1"),
    ("INPUT.TRANSFORMS", "['foo']", "entry 1"),
    ("DATALOADER.NUM_WORKERS", "-1", "at least 0"),
    ("DATALOADER.TRAIN_X.BATCH_SIZE", "0", "at least 1"),
    ("FEATURES.MAX_GB", "-1", "at least 0"),
    ("FEATURES.BLOCK", "-1", "at least 0"),
    ("FEATURES.KEEP", "maybe", "True or False"),
    ("TRAIN.CHECKPOINT_FREQ", "-2", "at least 0"),
    ("TEST.SPLIT", "train", "'val' or 'test'"),
    ("TRAINER.VIP.N_CTX", "0", "at least 1"),
    ("TRAINER.VIP.CSC", "yes", "True or False"),
    ("TRAINER.VIP.MERGE", "sum", "'prompt', 'mean' or 'max'"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD, ids=[f"{b[0]} {b[1]}"[:50] for b in BAD])
def test_a_value_that_cannot_be_names_its_key(toy, key, value, message):
    """One line, in bounds, from the command line and from a YAML file alike."""
    with pytest.raises(InputError) as raised:
        load(toy, key, value)
    text = str(raised.value)

    assert key in text and message in text
    assert len(text) < 400 and "\n" not in text


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "-1", "[1]", "{X: 1}", "abc"])
def test_a_file_s_value_names_file_and_key(toy, number):
    (toy / "more.yaml").write_text(f"OPTIM:\n  LR: {number}\n")
    with pytest.raises(InputError, match=r"more\.yaml: .*OPTIM\.LR"):
        load(toy, files=[toy / "more.yaml"])


def test_numbers_of_every_method_have_a_range(toy):
    """A new option's number is at least finite; -1 of the known ones is refused."""
    for name, method in METHODS.items():
        for option, default in method.defaults().items():
            key = f"TRAINER.{name.upper()}.{option}"
            if isinstance(default, int | float) and not isinstance(default, bool):
                with pytest.raises(InputError, match=f"^{key} is -1"):
                    load(toy, key, "-1", trainer=name)


def test_a_method_s_own_rule_comes_first():
    """Before the type of its default."""

    class Three(Method):
        DEFAULTS = {"N_CTX": 3, "W": 1.0}
        RULES = {"N_CTX": Literal[3]}

    rules = rules_for({"TRAINER.THREE.N_CTX": 3, "TRAINER.THREE.W": 1.0}, {"Three": Three})
    assert rules["TRAINER.THREE.N_CTX"] == Literal[3]
    assert rules["TRAINER.THREE.W"] == Three.rule("W")
    with pytest.raises(InputError, match="N_CTX is 4; it should be 3"):
        Three(N_CTX=4)


def test_text_stays_text(toy):
    """A file named 1 or None is no number; a quoted literal loses its quotes, as in Dassl."""
    assert load(toy, "DATASET.CSV", "1")[0].DATASET.CSV == "1"
    assert load(toy, "DATASET.CSV", "None")[0].DATASET.CSV == "None"
    assert load(toy, "DATASET.CSV", "'a.csv'")[0].DATASET.CSV == "a.csv"


def test_an_empty_group_in_a_file_changes_nothing(toy):
    (toy / "more.yaml").write_text("OPTIM:\nTEST:\n")
    assert load(toy, files=[toy / "more.yaml"]) == load(toy)


def test_what_trains_nothing_has_no_variants_of_training(toy):
    """Zero-shot is one run for all learning rates, epochs and shots; its texts still matter."""
    opts = ["OPTIM.LR", "0.5", "OPTIM.MAX_EPOCH", "2", "DATASET.NUM_SHOTS", "4"]
    opts += ["DATALOADER.TRAIN_X.BATCH_SIZE", "8", "INPUT.RRCROP_SCALE", "(0.5, 1.0)"]

    assert load(toy, *opts, trainer="ZeroshotCLIP") == load(toy, trainer="ZeroshotCLIP")
    assert load(toy, *opts, trainer="CoOp")[1].keys() == set(opts[::2])
    texts = ["TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms"]
    assert load(toy, *opts, *texts, trainer="ZeroshotCLIP")[1].keys() == {texts[0]}

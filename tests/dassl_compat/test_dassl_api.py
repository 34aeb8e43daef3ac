"""The names of Dassl that are supported: no fewer, and in the stand-in no more."""

import importlib

import pytest
from dassl.engine import SimpleTrainer, TrainerBase, TrainerX

import dassl_compat

NAMES = {
    "dassl.config": "get_cfg_default",
    "dassl.data": "DataManager DatasetWrapper",
    "dassl.data.datasets": "DATASET_REGISTRY DatasetBase Datum build_dataset",
    "dassl.data.transforms": "INTERPOLATION_MODES build_transform",
    "dassl.engine": "SimpleTrainer TRAINER_REGISTRY TrainerBase TrainerX build_trainer",
    "dassl.evaluation": "Classification EVALUATOR_REGISTRY build_evaluator",
    "dassl.metrics": "compute_accuracy",
    "dassl.optim": "build_lr_scheduler build_optimizer",
    "dassl.utils": "AverageMeter MetricMeter Registry check_isfile collect_env_info "
    "count_num_param listdir_nohidden load_checkpoint load_pretrained_weights mkdir_if_missing "
    "open_specified_layers read_image read_json resume_from_checkpoint save_checkpoint "
    "set_random_seed setup_logger tolist_if_not write_json",
}
METHODS = {
    TrainerBase: "after_epoch after_train before_epoch before_train close_writer detect_anomaly "
    "get_model_names init_writer load_model model_backward model_backward_and_update model_update "
    "model_zero_grad register_model resume_model_if_exist run_epoch save_model set_model_mode "
    "train update_lr write_scalar",
    SimpleTrainer: "build_data_loader build_model check_cfg get_current_lr model_inference "
    "parse_batch_test test",
    TrainerX: "forward_backward parse_batch_train",
}


@pytest.mark.parametrize("module", NAMES)
def test_a_module_has_its_names(module):
    found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("trainer", METHODS, ids=lambda trainer: trainer.__name__)
def test_a_trainer_has_its_methods(trainer):
    """A trainer of the CoOp family overrides or calls these."""
    assert [name for name in METHODS[trainer].split() if not hasattr(trainer, name)] == []


@pytest.mark.skipif(dassl_compat.USING_INSTALLED_DASSL, reason="the installed Dassl has more")
def test_the_standin_exports_nothing_else():
    """A new name is added to the list above, with its user in the package's docstring."""
    for module in ("dassl.data", "dassl.data.datasets", "dassl.metrics", "dassl.utils"):
        assert importlib.import_module(module).__all__ == NAMES[module].split()
    for trainer in METHODS:
        own = {name for name in vars(trainer) if not name.startswith("_")}
        known = {name for methods in METHODS.values() for name in methods.split()}
        assert own - known <= {"model"}

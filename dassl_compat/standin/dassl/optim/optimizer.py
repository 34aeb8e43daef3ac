import torch
from torch import nn

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(model, optim_cfg, param_groups=None):
    """Make the optimizer that ``optim_cfg.NAME`` names.

    Args:
        model: a module, or an iterable of parameters or of parameter groups.
        optim_cfg: the OPTIM node.
        param_groups: parameter groups to optimize instead of all of ``model``.
    """
    name = optim_cfg.NAME
    if name not in AVAI_OPTIMS:
        raise ValueError(f"OPTIM.NAME must be one of {AVAI_OPTIMS}, not {name!r}")
    if param_groups is None:
        if optim_cfg.STAGED_LR:
            param_groups = _staged_groups(model, optim_cfg)
        else:
            param_groups = model.parameters() if isinstance(model, nn.Module) else model

    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    betas = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    if name == "sgd":
        return torch.optim.SGD(
            param_groups,
            momentum=optim_cfg.MOMENTUM,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
            **common,
        )
    if name == "rmsprop":
        return torch.optim.RMSprop(
            param_groups, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common
        )
    if name == "radam":
        return torch.optim.RAdam(param_groups, betas=betas, decoupled_weight_decay=True, **common)
    if name == "adamw":
        return torch.optim.AdamW(param_groups, betas=betas, **common)
    return torch.optim.Adam(param_groups, betas=betas, amsgrad=name == "amsgrad", **common)


def _staged_groups(model, optim_cfg):
    """Two groups: what is pre-trained at BASE_LR_MULT times the rate, and the new layers."""
    if not isinstance(model, nn.Module):
        raise TypeError("OPTIM.STAGED_LR needs the model itself, not a list of parameters")
    new_layers = optim_cfg.NEW_LAYERS
    if isinstance(new_layers, str):
        new_layers = (new_layers,)
    old, new = [], []
    for name, child in model.named_children():
        (new if name in new_layers else old).extend(child.parameters())
    return [
        {"params": old, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT},
        {"params": new},
    ]

"""Which device and which precision a backbone runs in."""

import torch

from core.errors import InputError, first_line

PRECISIONS = ("fp32", "fp16", "amp", "bf16")


def usable_device(name: str | torch.device, option: str = "--device") -> torch.device:
    """``name`` as a device of this machine; "auto" is a GPU where there is one.

    Raises:
        InputError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)[:120]
        raise InputError(f"{option} {str(name)[:40]}: cannot be used here ({reason})") from None
    return device


def usable_precision(precision: str, device: torch.device) -> str:
    """The precision that ``device`` can run; prints a note where it is not the one asked for.

    Raises:
        InputError: ``precision`` is not one of ``PRECISIONS``.
    """
    if precision not in PRECISIONS:
        raise InputError(f"PREC is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        print("fp16 needs a GPU: this run uses fp32 on the CPU")
        return "fp32"
    if precision == "amp" and device.type == "cpu":
        print("amp on a CPU computes in bf16")
    return precision

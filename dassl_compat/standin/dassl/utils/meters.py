"""Latest values and averages."""

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor


class AverageMeter:
    """The latest value and the average of all."""

    def __init__(self) -> None:
        self.val = self.avg = self.sum = 0.0
        self.count = 0

    def update(self, val: float | Tensor, n: int = 1) -> None:
        """Add a value that counts ``n`` times."""
        self.val = val.item() if isinstance(val, Tensor) else val
        self.sum += self.val * n
        self.count += n
        self.avg = self.sum / self.count


class MetricMeter:
    """One AverageMeter for each name; as a string, ``name latest (average)`` for each."""

    def __init__(self, delimiter: str = " ") -> None:
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: Mapping[str, float | Tensor] | None) -> None:
        """Add a value for each name; None adds nothing."""
        if input_dict is None:
            return
        if not isinstance(input_dict, Mapping):
            raise TypeError(f"MetricMeter.update() takes a dictionary, not {type(input_dict)}")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(
            f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items()
        )

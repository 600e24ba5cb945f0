"""An exponential moving average of a model's weights, which generalises better than the last of them.

After step t (from 0): average ← average + (1 − d) (weights − average), d = min(decay, (1 + t) / (10 + t)), so that the
start, which says nothing yet, is soon forgotten (Polyak & Juditsky 1992, doi 10.1137/0330046; the rise of d as in
TensorFlow's ExponentialMovingAverage). Buffers, which no step changes, are left alone.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["Average"]


class Average:
    """The average of the parameters of `model`, as they are now at first."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = dict(model.named_parameters())
        self._values = {name: value.detach().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step number `step` (from 0)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._values.values()), list(self._parameters.values()), share)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the average as its parameters for the time of the block."""
        before = {name: value.detach().clone() for name, value in self._parameters.items()}
        self.keep()
        try:
            yield
        finally:
            self._put(before)

    def keep(self) -> None:
        """Make the average the model's parameters."""
        self._put(self._values)

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold."""
        return self._values

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, value in self._values.items():
            value.copy_(state[name])

    @torch.no_grad()
    def _put(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])

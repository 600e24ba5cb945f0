"""The optimizer of a training, AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), and its learning rate."""

import math
from typing import Any

import torch

from mdlatent.models.base import LatentModel

__all__ = ["adamw", "learning_rate", "load", "set_rate"]


def adamw(model: LatentModel, options: dict[str, Any], device: str) -> torch.optim.Optimizer:
    """For all parameters of `model`; `options` is the section `train`."""
    optimizer = torch.optim.AdamW(
        model.parameter_groups(), lr=options["learning_rate"], weight_decay=options["weight_decay"], fused=True
    )
    _fit(optimizer, device)
    return optimizer


def load(optimizer: torch.optim.Optimizer, state: dict[str, Any], device: str) -> None:
    """Go on from a state of its, which may have been saved on another device."""
    optimizer.load_state_dict(state)
    _fit(optimizer, device)


def _fit(optimizer: torch.optim.Optimizer, device: str) -> None:
    """On a GPU rates are tensors: a recorded step (replay.py) reads them anew."""
    for group in optimizer.param_groups:
        group["capturable"] = device == "cuda"
        group["lr"] = torch.zeros((), device=device) if device == "cuda" else 0.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, of each group times its `rate_scale`."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate * group["rate_scale"])
        else:
            group["lr"] = rate * group["rate_scale"]


def learning_rate(step: int, n_warmup: int, n_steps: int, peak: float) -> float:
    """Rate of step `step` (from 0): a straight rise to `peak`, then half a cosine down to 0."""
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))

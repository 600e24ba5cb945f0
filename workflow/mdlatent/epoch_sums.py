"""What is added up over the frames of an epoch, by all processes, and the row of the history that it makes."""

import logging
from typing import Any

import torch

from mdlatent.models.base import LatentModel
from mdlatent.parallel import Group

__all__ = ["active_dimensions", "as_rows", "empty", "history_row", "own"]

log = logging.getLogger("mdlatent")

ACTIVE_VARIANCE = 0.01  # of the posterior means over the frames (Burda et al. 2016, arXiv 1509.00519)

Row = dict[str, Any]


def active_dimensions(variance_of_means: torch.Tensor) -> int:
    """Latent dimensions (d,) that depend on the frame at all; the others have collapsed onto the prior."""
    return int((variance_of_means > ACTIVE_VARIANCE).sum())


def empty(model: LatentModel, device: str) -> torch.Tensor:
    """Sums over the frames of an epoch, all zero, float64: number, loss, reconstruction, KL, gradient norm; seconds;
    posterior means (d), their squares (d)."""
    return torch.zeros(6 + 2 * model.latent_dim, dtype=torch.float64, device=device)


def as_rows(sums: torch.Tensor, group: Group) -> torch.Tensor:
    """(size, k): this process's sums in its row, zeros elsewhere; added up, everyone's."""
    rows = torch.zeros((group.size, len(sums)), dtype=sums.dtype)
    rows[group.rank] = sums.cpu()
    return rows


def own(rows: torch.Tensor, group: Group) -> torch.Tensor:
    """The reverse; where the checkpoint is one of another number of processes, process 0 takes all."""
    rows = rows.reshape(-1, rows.shape[-1])
    if len(rows) == group.size:
        return rows[group.rank].clone()
    if group.is_main:
        log.warning(
            "the checkpoint is one of %d processes, now there are %d: the batches stay the same, but sums are rounded "
            "differently, so that the weights will agree with those of an undisturbed run to rounding only",
            len(rows), group.size,
        )  # fmt: skip
        return rows.sum(0)
    return torch.zeros_like(rows[0])


def history_row(epoch: int, sums: torch.Tensor, beta: float, rate: float, dim: int) -> Row:
    """One row of the history from the sums of an epoch."""
    mean = (sums / sums[0]).cpu()
    variance = mean[6 + dim :] - mean[6 : 6 + dim].square()
    return {
        "epoch": epoch,
        "train_loss": float(mean[1]),
        "validation_loss": None,
        "train_reconstruction": float(mean[2]),
        "validation_reconstruction": None,
        "kl_nats": float(mean[3]),
        "beta": beta,
        "learning_rate": rate,
        "active_dimensions": active_dimensions(variance),
        "gradient_norm": float(mean[4]),
        "seconds": 0.0,
    }

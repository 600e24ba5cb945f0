"""The convolutional autoencoder as one would write it down: what ours is compared with.

The same layers, weights and numbers as `mdlatent.models.conv2d`, but in PyTorch's own memory order throughout.
"""

import torch
from torch import Tensor, nn

from mdlatent import models
from mdlatent.models.matrix_vae import MatrixVAE


class PlainConv2dVAE(MatrixVAE):
    """As `Conv2dVAE`."""

    family = "conv2d"

    def __init__(self, n_atoms: int, latent_dim: int) -> None:
        super().__init__(n_atoms, latent_dim)
        n, half = n_atoms, (n_atoms + 1) // 2
        quarter = (half + 1) // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.SELU(),
            nn.LayerNorm((8, n, n)),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.SELU(),
            nn.LayerNorm((16, half, half)),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.SELU(),
            nn.LayerNorm((32, quarter, quarter)),
            nn.Flatten(),
            nn.Linear(32 * quarter**2, 2 * latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 32 * quarter**2),
            nn.SELU(),
            nn.Unflatten(1, (32, quarter, quarter)),
            nn.LayerNorm((32, quarter, quarter)),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1 - half % 2),
            nn.SELU(),
            nn.LayerNorm((16, half, half)),
            nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1 - n % 2),
            nn.SELU(),
            nn.LayerNorm((8, n, n)),
            nn.ConvTranspose2d(8, 1, 3, padding=1),
            nn.Sigmoid(),
        )

    def _to_input(self, matrices: Tensor) -> Tensor:
        return matrices[:, None]

    def _to_matrices(self, output: Tensor) -> Tensor:
        return output[:, 0]


def largest_difference(n_atoms: int, coordinates: Tensor) -> float:
    """Largest relative difference between ours and this in the loss of frames (B, n, 3) in nm and in its gradients.

    Gradients are compared parameter by parameter, relative to the largest of each.
    """
    torch.manual_seed(0)
    ours, plain = models.build("conv2d", n_atoms, 3), PlainConv2dVAE(n_atoms, 3)
    for theirs, mine in zip(plain.parameters(), ours.parameters(), strict=True):
        theirs.data.copy_(as_plain(mine.data))
    losses = []
    for model in (ours, plain):
        model.scale_nm.fill_(1.25 * float(torch.cdist(coordinates, coordinates).max()))
        losses.append(model.loss(coordinates, 1e-3, torch.ones(len(coordinates), 3))["loss"])
        losses[-1].backward()
    found = [abs(float(losses[0].detach() / losses[1].detach()) - 1)]
    for theirs, mine in zip(plain.parameters(), ours.parameters(), strict=True):
        assert theirs.grad is not None
        assert mine.grad is not None
        found.append(float((as_plain(mine.grad) - theirs.grad).abs().max() / theirs.grad.abs().max()))
    return max(found)


def as_plain(values: Tensor) -> Tensor:
    """Weights of a norm (H, W, C) as (C, H, W); others as they are."""
    return values.permute(2, 0, 1) if values.dim() == 3 else values

"""Superposition of structures: the best rotation, never a reflection."""

import numpy as np
import pytest
import torch

from mdlatent.alignment import centred, rotations


def test_superposition_against_the_plain_one():
    x, y = (centred(torch.randn(50, 9, 3, generator=torch.Generator().manual_seed(k))) for k in (0, 1))
    u, _, vt = np.linalg.svd((x.transpose(1, 2) @ y).double().numpy())
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    np.testing.assert_allclose(rotations(x, y).numpy(), u @ vt, atol=1e-5)


def test_superposition_is_a_rotation_even_where_it_is_not_unique():
    mirrored = torch.randn(1, 6, 3) * torch.tensor([-1.0, 1.0, 1.0])
    line = torch.linspace(-1, 1, 5)[None, :, None] * torch.tensor([1.0, 2.0, 3.0])
    for x in (mirrored, line, torch.zeros(1, 4, 3), torch.tensor([[[1.0, 0, 0], [-1, 0, 0], [0, 0, 0]]])):
        for y in (x, -x, torch.randn_like(x)):
            turn = rotations(centred(x), centred(y))[0].float()
            torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-5, rtol=0)
            assert float(torch.det(turn)) == pytest.approx(1, abs=1e-5)

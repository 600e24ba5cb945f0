"""The norm of large matrices on a GPU: the numbers and slopes of PyTorch's own."""

import torch
from torch import nn

from mdlatent.models.matrix_norm import split_norm


def example(kind=torch.float64, frames=3, shape=(2, 5, 4)):
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(frames, *shape, dtype=kind)
    weight, bias = torch.randn(2, *shape, dtype=kind)
    return [one.requires_grad_() for one in (x, weight, bias)]


def test_same_numbers_and_slopes_as_layer_norm():
    mine, theirs = example(), example()
    found = split_norm(*mine, 1e-5)
    expected = nn.functional.layer_norm(theirs[0], theirs[1].shape, theirs[1], theirs[2], 1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pull = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, mine, pull), torch.autograd.grad(expected, theirs, pull), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_slopes_are_those_of_the_numbers():
    assert torch.autograd.gradcheck(lambda *some: split_norm(*some, 1e-5), example(frames=2, shape=(2, 3, 2)))


def test_what_came_in_is_left_as_it_was():
    x, weight, bias = example()
    before = x.detach().clone()
    pull = torch.ones_like(x)
    split_norm(x, weight, bias, 1e-5).backward(pull)
    assert torch.equal(x, before)
    assert torch.equal(pull, torch.ones_like(pull))

"""How the forward pass of a module has to be recorded as TorchScript for what it gives to run anywhere.

A recording keeps tensors that the code has at hand, and the device of those that it makes out of nothing, for good:
loaded for a GPU, or moved to one, it would fail. As buffers of the module they go where it goes.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, chunk, jit
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from torch import nn

__all__ = ["hold_constants", "substitutes"]


def hold_constants(module: "nn.Module", example: Tensor) -> list[tuple[Any, Tensor]]:
    """Make buffers of `module` of all tensors that `module(example)` takes from elsewhere or makes out of nothing.

    Returns the latter and the functions that made them, in that order, for `substitutes`. All of them must be the same
    for every input.
    """
    found = _Constants(module, example)
    with found:
        jit.trace(module, example, check_trace=False)  # some code goes another way while it is recorded
    for number, tensor in enumerate(found.constants):
        module.register_buffer(f"constant{number}", tensor)
    return found.made


class _Constants(TorchFunctionMode):
    def __init__(self, module: "nn.Module", example: Tensor) -> None:
        super().__init__()
        # Kept, so that none is freed and its id given to another.
        self.known = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        self.place = example.data_ptr()  # what is recorded is the same numbers as another tensor
        self.constants: list[Tensor] = []
        self.made: list[tuple[Any, Tensor]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = _tensors((args, kwargs))
        self.constants += self._new(inputs)
        result = function(*args, **(kwargs or {}))
        if not inputs:
            self.constants += self._new(_tensors(result))
            self.made += [(function, result)] if isinstance(result, Tensor) else []
        self._new(_tensors(result))
        return result

    def _new(self, tensors: list[Tensor]) -> list[Tensor]:
        """Those that were not known; from now on they are."""
        new = {id(tensor): tensor for tensor in tensors if id(tensor) not in self.known}
        self.known |= new
        return [tensor for tensor in new.values() if tensor.data_ptr() != self.place]


@contextlib.contextmanager
def substitutes(made: list[tuple[Any, Tensor]]) -> Iterator[None]:
    """Around the recording: `made` in place of what is made out of nothing, and `chunk` as slices.

    Where not all chunks are used (mean and log-variance), the gradient that TorchScript derives by itself, from the
    second run on, fails: "mat1 and mat2 shapes cannot be multiplied" (torch 2.12 and 2.13).
    """
    left = [*made]

    class Substitutes(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if left and function is left[0][0] and not _tensors((args, kwargs)):
                return left.pop(0)[1]
            replaced = _slices if function in (chunk, Tensor.chunk) else function
            return replaced(*args, **(kwargs or {}))

    with Substitutes():
        yield


def _slices(tensor: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    n = tensor.shape[dim]
    size = -(-n // chunks)
    return tuple(tensor.narrow(dim, k, min(size, n - k)) for k in range(0, n, size))


def _tensors(value: Any) -> list[Tensor]:
    """Those with a dimension at least: while a module is recorded, sizes are tensors without one."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.dim()]

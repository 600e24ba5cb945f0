"""Tensors in nested values: taken out, so that they can travel by themselves, and put back."""

from typing import Any

from torch import Tensor

__all__ = ["put_tensors", "take_tensors"]


class _Place(int):
    """Stands for tensor number so-and-so."""


def take_tensors(value: Any, tensors: list[Tensor]) -> dict[str, Any]:
    """`value` with its tensors taken out into `tensors` (contiguous, on the CPU), and their shapes and types."""

    def walk(part: Any) -> Any:
        if isinstance(part, Tensor):
            tensors.append(part.detach().cpu().contiguous())
            return _Place(len(tensors) - 1)
        if isinstance(part, dict):
            return {key: walk(one) for key, one in part.items()}
        if isinstance(part, list | tuple):
            return type(part)(walk(one) for one in part)
        return part

    plain = walk(value)
    return {"value": plain, "tensors": [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]}


def put_tensors(part: Any, tensors: list[Tensor]) -> Any:
    """The reverse of `take_tensors`."""
    if isinstance(part, _Place):
        return tensors[part]
    if isinstance(part, dict):
        return {key: put_tensors(one, tensors) for key, one in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(put_tensors(one, tensors) for one in part)
    return part

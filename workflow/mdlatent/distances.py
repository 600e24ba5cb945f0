"""Pair distances of frames in nm: numba on the CPU, torch where gradients or a GPU are needed.

Both take direct differences: relative error below 3e-7 in float32 anywhere in space, exactly 0 on the diagonal,
symmetric to the bit. NaN and infinite coordinates give NaN or infinity in the rows of those atoms only.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

STREAM_BYTES, STREAM_ATOMS = 32 * 2**20, 128  # larger results of rows at least so long are written past the caches


def n_pairs(n_atoms: int) -> int:
    """Number of pairs of `n_atoms` atoms."""
    return n_atoms * (n_atoms - 1) // 2


@cache
def pairs(n_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (i, j), i < j, of the pairs in packed order (the upper triangle row by row): two (n_pairs,) int64.

    The arrays are shared between callers and read-only.
    """
    i, j = np.triu_indices(n_atoms, 1)
    i.flags.writeable = j.flags.writeable = False
    return i, j


def full(coordinates: np.ndarray, out: np.ndarray | None = None, boxes: np.ndarray | None = None) -> np.ndarray:
    """Distance matrices of frames: (frames, n, 3) nm → (frames, n, n) float32 nm.

    Give `out` to fill a buffer again: fresh memory costs three times as much as the distances. With `boxes`
    (frames, 3, 3) nm, vectors as rows, distances are those to the nearest periodic images.
    """
    from mdlatent import kernels, streaming

    coordinates, n = _checked(coordinates)
    out = _buffer(out, (len(coordinates), n, n))
    if boxes is not None:
        _periodic(coordinates, boxes, True, out.reshape(len(coordinates), -1))
    elif _streams(out, n):
        lead = streaming.to_line(out)
        x, y, z = (streaming.room(n, lead) for _ in range(3))
        kernels.full_streamed(coordinates, x, y, z, lead, out.reshape(-1))
    else:
        _unstreamed(coordinates, True, out.reshape(len(out), n * n))
    return out


def packed(coordinates: np.ndarray, out: np.ndarray | None = None, boxes: np.ndarray | None = None) -> np.ndarray:
    """Distances of the pairs i < j (see `pairs`): (frames, n, 3) nm → (frames, n (n − 1) / 2) float32 nm.

    `out` and `boxes` as for `full`.
    """
    coordinates, n = _checked(coordinates)
    out = _buffer(out, (len(coordinates), n_pairs(n)))
    if boxes is None:
        _unstreamed(coordinates, False, out)
    else:
        _periodic(coordinates, boxes, False, out)
    return out


def _unstreamed(coordinates: np.ndarray, whole: bool, out: np.ndarray) -> None:
    from mdlatent import kernels, streaming

    x, y, z = (streaming.room(coordinates.shape[1], 0) for _ in range(3))
    kernels.unstreamed(coordinates, x, y, z, whole, out)


def _periodic(coordinates: np.ndarray, boxes: np.ndarray, whole: bool, out: np.ndarray) -> None:
    from mdlatent import kernels, periodic, streaming

    boxes = np.asarray(boxes, np.float64)
    if boxes.shape != (len(coordinates), 3, 3) or not periodic.is_real(boxes).all():
        raise ValueError(f"got boxes of shape {boxes.shape}, expected one real box (3, 3) in nm for each frame")
    boxes = periodic.reduced(boxes)
    rectangular = ~boxes[:, ~np.eye(3, dtype=bool)].any(axis=1)
    n = coordinates.shape[1]
    lead = streaming.to_line(out) if whole and _streams(out, n) else -1
    room = tuple(streaming.room(n, max(0, lead)) for _ in range(3))
    kernels.periodic(coordinates, boxes, np.linalg.inv(boxes), rectangular, room, lead, whole, out)


def _streams(out: np.ndarray, n_atoms: int) -> bool:
    """Whether `out` had better be written past the caches: nobody finds it there, and rows are long enough."""
    return out.nbytes >= STREAM_BYTES and n_atoms >= STREAM_ATOMS


def full_torch(coordinates: "torch.Tensor") -> "torch.Tensor":
    """`full` for tensors, on any device, differentiable: (frames, n, 3) → (frames, n, n).

    The gradient of a distance of zero, which is not defined, is taken as zero. Under `torch.no_grad` the same numbers
    (but for the last bit) come from the kernels of the CPU, many times as fast.
    """
    if _plain(coordinates):
        return _from_numpy(full(coordinates.detach().numpy()))
    x, y, z = coordinates.unbind(-1)
    dx, dy, dz = (c[..., :, None] - c[..., None, :] for c in (x, y, z))
    return _safe_root(dx**2 + dy**2 + dz**2)


def packed_torch(coordinates: "torch.Tensor") -> "torch.Tensor":
    """`packed` for tensors, as `full_torch`: (frames, n, 3) → (frames, n (n − 1) / 2)."""
    if _plain(coordinates):
        return _from_numpy(packed(coordinates.detach().numpy()))
    i, j = _pairs_torch(coordinates.shape[-2], str(coordinates.device))
    dx, dy, dz = (c[..., j] - c[..., i] for c in coordinates.unbind(-1))
    return _safe_root(dx**2 + dy**2 + dz**2)


def _plain(coordinates: "torch.Tensor") -> bool:
    """Whether these are frames as numpy has them, and nobody asks for gradients or traces what is done."""
    import torch

    return (
        type(coordinates) is torch.Tensor
        and coordinates.device.type == "cpu"
        and coordinates.dtype == torch.float32
        and coordinates.ndim == 3
        and not torch.is_grad_enabled()
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
    )


def _from_numpy(values: np.ndarray) -> "torch.Tensor":
    import torch

    return torch.from_numpy(values)


def _safe_root(squared: "torch.Tensor") -> "torch.Tensor":
    import torch

    zero = squared == 0  # not `> 0`, which would hide NaN
    root = torch.where(zero, torch.ones_like(squared), squared).sqrt()
    return torch.where(zero, torch.zeros_like(root), root)


@cache
def _pairs_torch(n_atoms: int, device: str) -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch

    i, j = torch.triu_indices(n_atoms, n_atoms, 1, device=device)
    return i, j


def _checked(coordinates: np.ndarray) -> tuple[np.ndarray, int]:
    if coordinates.ndim != 3 or coordinates.shape[2] != 3:
        raise ValueError(f"got coordinates of shape {coordinates.shape}, expected (frames, atoms, 3)")
    return np.ascontiguousarray(coordinates, dtype=np.float32), coordinates.shape[1]


def _buffer(out: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    if out is None:
        return np.empty(shape, np.float32)
    if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(f"got out of {out.dtype} {out.shape}, expected contiguous float32 {shape}")
    return out

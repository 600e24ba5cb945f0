"""Ways through a latent space that keep to where the frames are: a straight line may lead where nothing was seen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mdlatent.latents import Latents

__all__ = ["Points", "smooth"]

MAX_POINTS = 5000  # through which a path may go
N_NEIGHBOURS = 15
SMOOTHINGS = 20


class Points:
    """Points of a latent: at most 5,000, evenly spaced among the frames, and the rows that must be among them."""

    def __init__(self, latent: "Latents", rows: Sequence[int]):
        from scipy.spatial import KDTree

        n = len(latent)
        even = np.linspace(0, n - 1, min(n, MAX_POINTS)).round().astype(np.int64)
        self.rows = np.union1d(even, np.asarray(rows, np.int64))
        self.z = latent.z[self.rows].astype(np.float64)
        self.tree = KDTree(self.z)

    def distance(self, z: np.ndarray) -> np.ndarray:
        """Latent distance of each of the points (k, d) to the nearest one kept."""
        return self.tree.query(z)[0]

    def path(self, start: int, stop: int, n: int) -> np.ndarray:
        """`n` points (n, d) float32 in the latent from row `start` to row `stop`, along where the frames are.

        The shortest way on the graph of nearest neighbours whose edges weigh the square of their length: many short
        steps through dense parts cost less than a long one across an empty part (Alamgir & von Luxburg 2012, arXiv
        1206.6381). Then smoothed and spaced evenly. Where the graph falls apart, it gets more neighbours until it
        holds together.
        """
        places = np.searchsorted(self.rows, [start, stop])
        k = min(N_NEIGHBOURS, len(self.rows) - 1)
        while (way := self._shortest(int(places[0]), int(places[1]), k)) is None:
            k = min(2 * k, len(self.rows) - 1)
        return smooth(self.z[way], n).astype(np.float32)

    def _shortest(self, start: int, stop: int, k: int) -> list[int] | None:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import dijkstra

        if start == stop:
            return [start, stop]
        n = len(self.z)
        length, other = self.tree.query(self.z, k + 1)
        weight = np.maximum(length[:, 1:] ** 2, 1e-300)  # frames at the same point are neighbours all the same
        graph = csr_array((weight.ravel(), (np.repeat(np.arange(n), k), other[:, 1:].ravel())), shape=(n, n))
        cost, before = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
        if not np.isfinite(cost[stop]):
            return None
        way = [stop]
        while way[-1] != start:
            way.append(int(before[way[-1]]))
        return way[::-1]


def smooth(points: np.ndarray, n: int) -> np.ndarray:
    """`n` points (n, d) float64 at even distances along the polygon `points` (k, d), with its corners rounded.

    The ends stay where they are; every other point moves to the middle of its neighbours and itself, 20 times.
    """
    points = _even(points, max(n, len(points)))
    for _ in range(SMOOTHINGS):
        points[1:-1] = (points[:-2] + points[1:-1] + points[2:]) / 3
    return _even(points, n)


def _even(points: np.ndarray, n: int) -> np.ndarray:
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    places = np.linspace(0, along[-1], n)
    return np.stack([np.interp(places, along, column) for column in np.asarray(points, np.float64).T], axis=1)

"""The spanning tree that HDBSCAN cuts, exactly and fast for many points in few dimensions; compiled with numba.

Points i and j are max(core_i, core_j, |x_i − x_j|) apart, core_i being the distance of i to its `min_samples`-th
neighbour ("mutual reachability"; Campello et al. 2013, doi:10.1007/978-3-642-37456-2_14). The minimum spanning tree of
that is found by Borůvka's method: in each round every component is joined to its nearest other one, which is looked up
in a tree of boxes (March, Ram & Gray 2010, doi:10.1145/1835804.1835882). Three things make it fast: the search begins
with what the neighbours of each point say; the largest component is not asked, since all others are; and points are
kept in the order of the tree, so that what is near is near in memory.

Memory is 8 (min_samples + 10) bytes a point beside the points themselves.
"""

import numpy as np

from mdlatent.compiling import njit

LEAF = 16  # points in the smallest boxes
BLOCK = 50_000  # points whose neighbours are looked up at a time


def linkage(points: np.ndarray, min_samples: int) -> np.ndarray:
    """Single linkage of points (n, d) by mutual reachability: (n − 1, 4) float64 rows as of scipy's hierarchies.

    A row is two clusters that join, their distance and the number of points in both; rows ascend by distance.
    n must exceed `min_samples`.
    """
    from scipy.spatial import cKDTree

    order = cKDTree(points, leafsize=LEAF).indices
    z = np.ascontiguousarray(points[order], np.float64)
    tree = cKDTree(z, leafsize=LEAF)
    n, core = len(z), np.empty(len(z))
    neighbours = np.empty((n, min_samples), np.int32)
    for start in range(0, n, BLOCK):
        distance, index = tree.query(z[start : start + BLOCK], k=min_samples + 1)
        core[start : start + BLOCK] = distance[:, -1] ** 2
        neighbours[start : start + BLOCK] = index[:, 1:]
    del tree
    ends, weight = _edges(z, core, neighbours)
    ranks = np.lexsort((ends[:, 1], ends[:, 0], weight))
    return _joined(order[ends[ranks]], np.sqrt(weight[ranks]))


@njit(cache=True)
def _find(parent, i):
    """Root of i; the way there is halved."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True)
def _edges(z, core, neighbours):
    """Edges (n − 1, 2) and their squared lengths (n − 1,); `core` is squared."""
    n = len(z)
    ends, weight = np.empty((n - 1, 2), np.int64), np.empty(n - 1)
    parent, size = np.arange(n), np.ones(n, np.int64)
    found = 0
    # The nearest of i by mutual reachability is any neighbour with a smaller core distance: it is core_i away.
    for i in range(n):
        for j in neighbours[i]:
            if core[j] <= core[i]:
                found = _join(parent, size, i, j, core[i], ends, weight, found)
                break
    levels = 0
    while n >> levels > LEAF:
        levels += 1
    low, high, least = _boxes(z, core, levels)
    inside = np.empty(len(low), np.int64)
    component = np.empty(n, np.int64)
    best, here, there = np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64)
    while found < n - 1:
        largest = 0
        for i in range(n):
            component[i] = _find(parent, i)
            best[i] = np.inf
            if size[component[i]] > size[component[largest]]:
                largest = i
        largest = component[largest]
        _components_of_boxes(component, levels, inside)
        for i in range(n):
            c = component[i]
            for j in neighbours[i]:
                if component[j] != c:
                    w = max(core[i], core[j], _square(z, i, j))
                    if w < best[c]:
                        best[c], here[c], there[c] = w, i, j
                    if w < best[component[j]]:
                        best[component[j]], here[component[j]], there[component[j]] = w, j, i
        _nearest_of_components(z, core, component, largest, levels, low, high, least, inside, best, here, there)
        for c in range(n):
            if component[c] == c and c != largest:
                found = _join(parent, size, here[c], there[c], best[c], ends, weight, found)
    return ends, weight


@njit(cache=True)
def _join(parent, size, i, j, w, ends, weight, found):
    """Add the edge i–j unless both are in one component already; returns the number of edges."""
    a, b = _find(parent, i), _find(parent, j)
    if a == b:
        return found
    if size[a] < size[b]:
        a, b = b, a
    parent[b] = a
    size[a] += size[b]
    ends[found, 0], ends[found, 1], weight[found] = i, j, w
    return found + 1


@njit(cache=True)
def _square(z, i, j):
    total = 0.0
    for d in range(z.shape[1]):
        total += (z[i, d] - z[j, d]) ** 2
    return total


@njit(cache=True)
def _boxes(z, core, levels):
    """Lowest and highest coordinates, and least core distance, in the boxes of a binary tree.

    Box h of level l (2^l ≤ h < 2^(l+1)) holds the points n (h − 2^l) / 2^l and following.
    """
    n, dim = z.shape
    low, high = np.full((2 << levels, dim), np.inf), np.full((2 << levels, dim), -np.inf)
    least = np.full(2 << levels, np.inf)
    for k in range(1 << levels):
        h = (1 << levels) + k
        for i in range((n * k) >> levels, (n * (k + 1)) >> levels):
            least[h] = min(least[h], core[i])
            for d in range(dim):
                low[h, d], high[h, d] = min(low[h, d], z[i, d]), max(high[h, d], z[i, d])
    for h in range((1 << levels) - 1, 0, -1):
        least[h] = min(least[2 * h], least[2 * h + 1])
        for d in range(dim):
            low[h, d], high[h, d] = min(low[2 * h, d], low[2 * h + 1, d]), max(high[2 * h, d], high[2 * h + 1, d])
    return low, high, least


@njit(cache=True)
def _components_of_boxes(component, levels, inside):
    """The component that all points of a box are in, or −1, into `inside`."""
    n = len(component)
    for k in range(1 << levels):
        first, last = (n * k) >> levels, (n * (k + 1)) >> levels
        same = component[first]
        for i in range(first + 1, last):
            if component[i] != same:
                same = -1
                break
        inside[(1 << levels) + k] = same
    for h in range((1 << levels) - 1, 0, -1):
        inside[h] = inside[2 * h] if inside[2 * h] == inside[2 * h + 1] else -1


@njit(cache=True)
def _nearest_of_components(z, core, component, largest, levels, low, high, least, inside, best, here, there):
    """Nearest pair (here, there) and its squared distance `best` of each component but the largest."""
    n = len(z)
    stack, bounds = np.empty(2 * levels + 2, np.int64), np.empty(2 * levels + 2)
    first_leaf = 1 << levels
    for i in range(n):
        c = component[i]
        if c == largest or core[i] >= best[c]:
            continue
        stack[0], bounds[0], depth = 1, 0.0, 1
        while depth:
            depth -= 1
            h = stack[depth]
            if bounds[depth] >= best[c] or inside[h] == c:
                continue
            if h >= first_leaf:
                k = h - first_leaf
                for j in range((n * k) >> levels, (n * (k + 1)) >> levels):
                    if component[j] != c and core[j] < best[c]:
                        w = max(core[i], core[j], _square(z, i, j))
                        if w < best[c]:
                            best[c], here[c], there[c] = w, i, j
                continue
            one, two = _bound(z, i, low, high, least, 2 * h), _bound(z, i, low, high, least, 2 * h + 1)
            near = 0 if one <= two else 1
            stack[depth], bounds[depth] = 2 * h + 1 - near, max(one, two)
            stack[depth + 1], bounds[depth + 1] = 2 * h + near, min(one, two)
            depth += 2


@njit(cache=True)
def _bound(z, i, low, high, least, h):
    """Nothing in box h is nearer to point i by mutual reachability, squared."""
    total = 0.0
    for d in range(z.shape[1]):
        gap = max(low[h, d] - z[i, d], z[i, d] - high[h, d], 0.0)
        total += gap * gap
    return max(total, least[h])


@njit(cache=True)
def _joined(ends, distance):
    """The linkage of edges (m, 2) that ascend in distance (m,)."""
    m = len(ends)
    parent, size, cluster = np.arange(m + 1), np.ones(m + 1, np.int64), np.arange(m + 1)
    result = np.empty((m, 4))
    for k in range(m):
        a, b = _find(parent, ends[k, 0]), _find(parent, ends[k, 1])
        result[k, 0], result[k, 1] = min(cluster[a], cluster[b]), max(cluster[a], cluster[b])
        if size[a] < size[b]:
            a, b = b, a
        parent[b] = a
        size[a] += size[b]
        cluster[a] = m + 1 + k
        result[k, 2], result[k, 3] = distance[k], size[a]
    return result

"""Times of the parts of a simulation, whose clocks may start again."""

import numpy as np

__all__ = ["join_clocks"]


def join_clocks(parts: list[np.ndarray]) -> np.ndarray:
    """Join the times of consecutive parts, (k,) float64 in ps each, to one rising clock.

    A part that starts no later than the one before it ended is moved behind it by the median step of the two; a part
    that goes on (with or without a pause) is left as it is.
    """
    joined: list[np.ndarray] = []
    for times in parts:
        if len(times) and joined and not times[0] > joined[-1][-1]:
            steps = np.concatenate([np.diff(joined[-1]), np.diff(times)])
            step = float(np.median(steps)) if len(steps) else 1.0
            times = times - times[0] + joined[-1][-1] + step
        if len(times):
            joined.append(times)
    return np.concatenate(joined) if joined else np.empty(0)

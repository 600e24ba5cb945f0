"""Made-up frames for trying sizes and speed: `mdlatent train --synthetic FRAMES --n-atoms N`, without a study.

Each frame is a random walk of N steps of 0.38 nm, the distance of neighbouring CA atoms, independent of the others.
There is nothing to learn from them but their mean; losses mean nothing, sizes, memory and speed do.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import files, frames
from mdlatent.errors import ConfigError

__all__ = ["SPLIT", "options", "random_walks", "store"]

STEP_NM = 0.38
CHUNK = 64  # frames made at once
SPLIT = {"by": "simulation", "test_simulations": ["test"], "validation_simulations": ["validation"]}


def random_walks(n_frames: int, n_atoms: int, random: np.random.Generator) -> np.ndarray:
    """(n_frames, n_atoms, 3) float32 in nm."""
    steps = random.standard_normal((n_frames, n_atoms, 3), np.float32)
    steps *= STEP_NM / np.linalg.norm(steps, axis=2, keepdims=True)
    return np.cumsum(steps, axis=1, dtype=np.float32)


@contextlib.contextmanager
def store(n_frames: int, n_atoms: int, seed: int) -> Iterator[Path]:
    """The index of a frame store in a temporary folder: `n_frames` to train on, an eighth each to validate and test.

    Same sizes and seed, same frames. Raises ConfigError for sizes that cannot be.
    """
    if n_frames < 1:
        raise ConfigError(f"--synthetic: got {n_frames} frames, expected at least 1")
    if n_atoms < 3:
        raise ConfigError(f"--n-atoms: got {n_atoms}, expected at least 3")
    lengths = {"train": n_frames, "validation": max(1, n_frames // 8), "test": max(1, n_frames // 8)}
    with tempfile.TemporaryDirectory(prefix="mdlatent-synthetic-") as name:
        folder, random, entries = Path(name), np.random.default_rng(seed), []
        for simulation, length in lengths.items():
            path = folder / f"{simulation}.h5"
            about = {"synthetic": seed}
            with frames.write_part(path, simulation=simulation, part=0, n_atoms=n_atoms, provenance=about) as writer:
                for start in range(0, length, CHUNK):
                    numbers = np.arange(start, min(start + CHUNK, length))
                    writer.append(random_walks(len(numbers), n_atoms, random), numbers, numbers.astype(float))
            part = {"file": path.name, "trajectory": "none", "n_frames": length, "n_frames_source": length}
            entry = {"name": simulation, "role": "train", "n_frames": length, "topology": "none"}
            entries.append(entry | {"parts": [part | {"first_frame": 0}]})
        index = {"n_atoms": n_atoms, "n_frames": sum(lengths.values()), "simulations": entries}
        files.write_json(folder / "index.json", index | {"atoms": [f"SYN{k + 1}-CA" for k in range(n_atoms)]})
        yield folder / "index.json"


def options(text: str, model: str) -> str:
    """`--options` of a training on made-up frames: what is not given is the default, the split is that of the store.

    Without a section `models`, `model` is a family.
    """
    try:
        given: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--options: got {text[:80]!r}, with --synthetic expected a JSON object: {error}") from error
    if "split" in given:
        raise ConfigError(
            "--options: got a section `split`, but made-up frames have a split of their own; leave it out"
        )
    return json.dumps({"models": [{"family": model}], "train": {}} | given | {"split": SPLIT})

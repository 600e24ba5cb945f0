"""A small frame store for tests, written as the featurize and index_frames stages write it."""

from pathlib import Path

import numpy as np

from mdlatent import files, frames


def chain(n_frames: int, n_atoms: int, seed: int = 0) -> np.ndarray:
    """A chain that bends slowly in a few ways and trembles: (n_frames, n_atoms, 3) float32, nm."""
    random = np.random.default_rng(seed)
    t, s = np.linspace(0, 20, n_frames)[:, None], np.linspace(0, 1, n_atoms)[None]
    x = 0.3 * n_atoms**0.6 * s + 0 * t
    y = 0.5 * np.sin(t) * s**2 + 0.3 * np.cos(0.37 * t) * np.sin(np.pi * s)
    z = 0.4 * np.sin(1.7 * t) * np.cos(np.pi * s)
    coordinates = np.stack([x, y, z], -1) + 0.02 * random.standard_normal((n_frames, n_atoms, 3))
    return coordinates.astype(np.float32)


def write_store(
    folder: Path,
    simulations: dict[str, np.ndarray],
    atoms: list[str] | None = None,
    n_parts: int = 1,
    roles: dict[str, str] | None = None,
) -> Path:
    """Write a store of the simulations {name: (frames, atoms, 3) nm}, 2 ps between frames; returns its index."""
    n_atoms = next(iter(simulations.values())).shape[1]
    entries = []
    for name, coordinates in simulations.items():
        parts, first = [], 0
        for k, piece in enumerate(np.array_split(coordinates, n_parts)):
            path = folder / name / f"part{k:03d}.h5"
            with frames.write_part(path, simulation=name, part=k, n_atoms=n_atoms, provenance={}) as writer:
                writer.append(piece, np.arange(len(piece)), 2.0 * (first + np.arange(len(piece))))
            parts.append(
                {
                    "file": f"{name}/{path.name}",
                    "trajectory": f"../trajectories/{name}/part{k:03d}.dcd",
                    "n_frames": len(piece),
                    "n_frames_source": len(piece),
                    "first_frame": first,
                }
            )
            first += len(piece)
        entries.append(
            {
                "name": name,
                "role": (roles or {}).get(name, "train"),
                "n_frames": len(coordinates),
                "n_frames_source": len(coordinates),
                "n_atoms_total": n_atoms,
                "time_step_ps": None,
                "topology": f"../trajectories/{name}/topology.pdb",
                "parts": parts,
            }
        )
    index = {
        "n_atoms": n_atoms,
        "n_frames": sum(len(x) for x in simulations.values()),
        "atoms": atoms or [f"ALA{k + 1}-CA" for k in range(n_atoms)],
        "simulations": entries,
    }
    files.write_json(folder / "index.json", index)
    return folder / "index.json"

"""A small study on real frames for the tests of what comes after embedding: frame store and latent tables."""

import json
import os
from pathlib import Path

import mdtraj
import numpy as np
import pandas

from mdlatent import featurize, index_frames, select_atoms
from mdlatent.frames import FrameStore


def pair_distances(coordinates: np.ndarray) -> np.ndarray:
    """(frames, pairs) float64 of the upper triangle."""
    i, j = np.triu_indices(coordinates.shape[1], 1)
    return np.linalg.norm(coordinates[:, i].astype(float) - coordinates[:, j], axis=-1)


def principal_components(values: np.ndarray, n: int) -> np.ndarray:
    """(frames, n) float32."""
    values = values - values.mean(0)
    u, s, _ = np.linalg.svd(values, full_matrices=False)
    return (u[:, :n] * s[:n]).astype(np.float32)


class Study:
    """`folder` is S of the file contract; `model` and seed 0 are made up."""

    def __init__(self, folder: Path, model: str = "planted-d2"):
        self.folder, self.model = folder, model
        self.index = folder / "frames" / "index.json"
        self.latent = folder / "latent" / model / "seed0"
        self.clusters = folder / "clusters" / model / "seed0"

    def add_frames(self, simulations: dict[str, list[mdtraj.Trajectory]], ending: str, stride: int = 1, **rows) -> None:
        """Write the parts of each simulation as trajectories and read them into the frame store as featurize does."""
        options = json.dumps({"featurize": {"selection": "name CA", "stride": stride}})
        table = []
        for name, parts in simulations.items():
            folder = self.folder / "trajectories" / name
            folder.mkdir(parents=True)
            parts[0][0].save_pdb(str(folder / "topology.pdb"))
            row = {
                "name": name,
                "role": "train",
                "topology": str(folder / "topology.pdb"),
                "time_step_ps": 20.0,
                "parts": [],
            }
            for number, part in enumerate(parts):
                path = folder / f"part{number:03d}{ending}"
                part.save(str(path))
                stored = self.folder / "frames" / name / f"part{number:03d}.h5"
                row["parts"].append({"file": str(stored), "trajectory": str(path)})
            table.append(row | rows)
        atoms = self.folder / "frames" / "atoms.json"
        short = [row | {"first_part": row["parts"][0]["trajectory"]} for row in table]
        select_atoms.main(["--simulations", json.dumps(short), "--output", str(atoms), "--options", options])
        for row in short:
            own = self.folder / "frames" / row["name"] / "atoms.json"
            select_atoms.main(["--simulations", json.dumps([row]), "--output", str(own), "--options", options])
        for row in table:
            for number, part in enumerate(row["parts"]):
                arguments = [f"--simulation={row['name']}", f"--part={number}", f"--topology={row['topology']}"]
                arguments += [f"--trajectory={part['trajectory']}", f"--output={part['file']}"]
                featurize.main([*arguments, f"--atoms={atoms}", f"--options={options}"])
        self._write_index(table)

    def _write_index(self, table: list[dict]) -> None:
        """As index_frames does, without its demands on the length of a study."""
        atoms = json.loads((self.folder / "frames" / "atoms.json").read_text())
        entries, total = [], 0
        for row in table:
            parts = index_frames.read_parts(row, atoms["n_atoms"], self.index.parent)
            n = sum(part["n_frames"] for part in parts)
            total += n
            entries.append(
                {"name": row["name"], "role": row["role"], "n_frames": n, "time_step_ps": row["time_step_ps"]}
                | {"topology": os.path.relpath(row["topology"], self.index.parent), "parts": parts}
            )
        content = {"n_atoms": atoms["n_atoms"], "n_frames": total, "atoms": atoms["atoms"], "simulations": entries}
        self.index.write_text(json.dumps(content))

    def pretend_frames(self, lengths: dict[str, int]) -> None:
        """An index without coordinates, for what does not read them."""
        self.index.parent.mkdir(parents=True)
        part = {"file": "none.h5", "trajectory": "none.dcd", "first_frame": 0}
        entries = [
            {"name": name, "role": "train", "n_frames": n, "time_step_ps": 1.0, "topology": "none.pdb"}
            | {"parts": [part | {"n_frames": n, "n_frames_source": n}]}
            for name, n in lengths.items()
        ]
        content = {"n_atoms": 3, "n_frames": sum(lengths.values()), "atoms": ["a", "b", "c"], "simulations": entries}
        self.index.write_text(json.dumps(content))

    def write_latent(
        self, z: np.ndarray, split: str | np.ndarray = "train", error_nm: float | np.ndarray = 0.03
    ) -> None:
        """The latent (frames, d) of all simulations one after the other, as embed writes it."""
        self.latent.mkdir(parents=True, exist_ok=True)
        with FrameStore(self.index) as store:
            for simulation in store.simulations:
                rows = slice(simulation.start, simulation.stop)
                pretended = not simulation.parts[0].file.exists()
                frame = np.arange(simulation.n_frames) if pretended else store.frame_numbers(simulation)
                columns = {
                    "simulation": simulation.name,
                    "frame": frame.astype(np.int64),
                    "time_ps": frame * simulation.time_step_ps,
                    "split": split if isinstance(split, str) else split[rows],
                    **{f"z{k}": z[rows, k].astype(np.float32) for k in range(z.shape[1])},
                    "reconstruction_rmse_nm": np.broadcast_to(np.float32(error_nm), len(z))[rows],
                }
                pandas.DataFrame(columns).to_parquet(self.latent / f"{simulation.name}.parquet", index=False)

    def cluster_arguments(self, **options) -> list[str]:
        """Arguments of the stage `cluster`."""
        text = json.dumps({"cluster": options})
        return [
            f"--frames={self.index}",
            f"--latent={self.latent}",
            f"--output-dir={self.clusters}",
            f"--options={text}",
        ]

"""The command `mdlatent`: one sub-command per stage, each in a module of the same name.

Only the module that is asked for is imported, so that `mdlatent --help` answers at once.
"""

import importlib
import sys

from mdlatent import __version__, stage

STAGES = {
    "catalogue": "list the public data sets that a study can name",
    "check": "check a study's configuration and input files before anything runs",
    "describe": "say how large a model is and what memory its training takes",
    "fetch": "bring one file of a simulation from its source and verify it",
    "simulate": "run molecular dynamics with OpenMM",
    "select_atoms": "choose the atoms of every simulation that are mapped",
    "featurize": "read one trajectory part into the frame store",
    "read_simulations": "bring and read many small simulations in one go",
    "index_frames": "list the stored frames of a study and check that they suffice",
    "compute_distances": "write the distances of stored frames (only when asked for)",
    "compare_reference": "measure the distance of every frame to a reference structure",
    "train": "train or fit one model with one seed",
    "embed": "map the frames of one simulation into the latent space",
    "cluster": "find states in the latent space with HDBSCAN",
    "decoded": "write structures that a model decodes at its states and between them",
    "fit_tica": "fit the slowest linear coordinates, to compare models with",
    "evaluate": "measure a model on held-out time",
    "compare_seeds": "compare the states that the seeds of a model find",
    "export": "write a trained encoder as TorchScript, for PLUMED, OpenMM-Torch or plain torch",
    "conformers": "make conformers of molecules given as SMILES",
    "report": "write the report page and summary.json",
}


def main(argv: list[str] | None = None) -> None:
    """Dispatch `mdlatent STAGE …` to `mdlatent.STAGE.main`."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, STAGES))
        print("usage: mdlatent STAGE [options]    (mdlatent STAGE --help says more)\n")
        print("\n".join(f"  {name:{width}}  {says}" for name, says in STAGES.items()))
        return
    if argv[0] == "--version":
        print(__version__)
        return
    name = argv[0].replace("-", "_")
    if name not in STAGES:
        print(f"error: got stage {argv[0]!r}, expected one of: {', '.join(STAGES)}", file=sys.stderr)
        sys.exit(2)
    stage.run(importlib.import_module(f"mdlatent.{name}").main, argv[1:])


if __name__ == "__main__":
    main()

"""Bring, check and read many small simulations in one go: a job for each step of each would cost more than the work.

For every simulation it does what the stages fetch (files of this machine only), select_atoms and featurize do, and
leaves the same files; then it lists them all in one index. What is there already and made from the same files, with
the same settings and code, is left alone: a simulation that is added to the others makes none of them be read again.
One that fails does not stop the others; the next start goes on with what is missing.
"""

import json
import logging
from pathlib import Path

from mdlatent import files, stage

log = logging.getLogger("mdlatent")


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("read_simulations", __doc__)
    parser.add_argument(
        "--simulations",
        required=True,
        help="JSON (`-`: on standard input): as for index_frames, and with `uris`, the addresses of files that are to "
        'be brought first: {"trajectories/a/topology.pdb": "data/a.pdb", …}',
    )
    parser.add_argument("--like", type=Path, help="as for select_atoms")
    parser.add_argument("--code", default="", help="digest of the program: what another one made is made again")
    parser.add_argument("--output", type=Path, required=True, help="index of these simulations")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    from mdlatent import index_frames
    from mdlatent.simulation_reader import Reader, read_all

    options = stage.read_options(args.options, "featurize")["featurize"]
    simulations = json.loads(stage.given(args.simulations))
    reader = Reader(options, args.like, args.code)
    read_all(simulations, reader)
    atoms = index_frames.merged_atoms([Path(simulation["atoms"]) for simulation in simulations])
    files.write_json(args.output, index_frames.build_index(simulations, atoms, None, args.output.parent))
    log.info("%s: %d simulations, %d parts read anew", args.output, len(simulations), reader.n_read)


if __name__ == "__main__":
    stage.run(main)

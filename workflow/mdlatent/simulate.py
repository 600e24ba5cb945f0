"""Simulate a peptide from its sequence with OpenMM: topology.pdb and part000.dcd with all atoms.

The run is minimised, equilibrated, then saved every `save_interval_ps`. Its state is kept in --state-dir at least once
a minute: killed at any moment, the same command goes on from there to the same frames; on the platforms Reference and
CPU to the same bits as a run that was never stopped. A longer `length_ns` later continues the same run; any other
change of settings moves the old state aside and starts anew. `platform: auto` times each platform on the peptide
itself; the choice is kept with the run's state. The frames depend on it: pin a platform where a fresh run must give
the same ones again.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import __version__, files, sources, stage
from mdlatent.errors import ConfigError

if TYPE_CHECKING:
    import openmm
    from openmm import app

    from mdlatent.dynamics import Plan
    from mdlatent.run_state import RunState

log = logging.getLogger("mdlatent")

NUMBERS_VERSION = 1  # raise it when a change here alters the frames of the same settings and seed


def simulate(
    simulation: Mapping[str, Any], settings: Mapping[str, Any], output: Path, state_folder: Path, threads: int = 1
) -> None:
    """Run one simulation, or the rest of it, and write topology.pdb, part000.dcd and their records to `output`.

    `simulation` is its row of the table (name, simulate, seed, temperature_k), `settings` the section `simulate`.
    Raises ConfigError (impossible peptide or settings), DataError (it flew apart), Interrupted (told to stop).
    """
    import openmm

    from mdlatent import dynamics, peptide, production
    from mdlatent.run_state import RunState

    settings = {**settings, "temperature_k": float(simulation.get("temperature_k") or settings["temperature_k"])}
    seed = int(simulation.get("seed") or 0)
    residues = peptide.parse(simulation["simulate"])
    dynamics.check(residues, settings)
    plan = dynamics.plan(settings)

    topology, start_nm = peptide.build(residues)
    configuration = {
        "residues": residues,
        "seed": seed,
        "numbers_version": NUMBERS_VERSION,
        "settings": {key: value for key, value in settings.items() if key != "length_ns"},
    }
    state = RunState(state_folder, _key(configuration), topology.getNumAtoms())
    if state.checkpoint and state.checkpoint.n_frames >= plan.n_frames:
        log.info("%s: all %d frames are in %s already", simulation["name"], plan.n_frames, state_folder)
    else:
        log.info(
            "%s: %d atoms, %s, %s", simulation["name"], state.n_atoms, settings["force_field"], settings["solvent"]
        )
        system = dynamics.make_system(topology, settings)
        if state.checkpoint is None:
            platform, speeds = dynamics.choose_platform(system, start_nm, settings, threads)
            context = dynamics.open_context(system, settings, platform, threads, dynamics.seed_for(seed, "noise"))
            log.info("%s: minimising on %s", simulation["name"], platform)
            minimised_nm = dynamics.start(context, start_nm, seed)
            first = {"from_step": 0, "platform": platform, "openmm": openmm.__version__, "threads": threads}
            state.begin({"configuration": configuration, "steps_per_s": speeds, "segments": [first]})
            with files.write_beside(state.topology) as temporary:
                temporary.write_text(pdb_text(topology, minimised_nm), encoding="utf-8")
        else:
            context = _go_on(state, system, settings, seed, threads)
        try:
            production.run(context, plan, state, settings, simulation["name"])
        finally:
            state.close()
    write_outputs(simulation, settings, plan, state, output)


def _key(configuration: Mapping[str, Any]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:16]


def _go_on(
    state: "RunState", system: "openmm.System", settings: Mapping[str, Any], seed: int, threads: int
) -> "openmm.Context":
    """A context at the state's checkpoint: exactly there with the engine it was made with, else with fresh noise."""
    import openmm

    from mdlatent import dynamics

    checkpoint, last = state.checkpoint, state.setup["segments"][-1]
    assert checkpoint is not None
    platform = last["platform"]
    if platform not in dynamics.platforms():
        platform = dynamics.choose_platform(system, checkpoint.positions, settings, threads)[0]
    # The seed counts only if the engine's checkpoint cannot be read: never the same noise as at the start again.
    noise = dynamics.seed_for(seed, f"noise from step {checkpoint.step}")
    context = dynamics.open_context(system, settings, platform, threads, noise)
    now = {"from_step": checkpoint.step, "platform": platform, "openmm": openmm.__version__, "threads": threads}
    try:
        if any(now[key] != last[key] for key in ("platform", "openmm", "threads")):
            raise openmm.OpenMMException(f"it was made with {_engine(last)}, here is {_engine(now)}")
        context.loadCheckpoint(checkpoint.engine)
        log.info("going on from step %d, %d frames, in %s", checkpoint.step, checkpoint.n_frames, state.folder)
    except openmm.OpenMMException as error:
        context.setPositions(checkpoint.positions)
        context.setVelocities(checkpoint.velocities)
        state.add_segment(now)
        log.warning(
            "going on from step %d with fresh noise, since the random state cannot be restored: %s. The frames are as "
            "good, but not those of an undisturbed run",
            checkpoint.step,
            error,
        )
    return context


def _engine(segment: Mapping[str, Any]) -> str:
    return f"OpenMM {segment['openmm']} on {segment['platform']} with {segment['threads']} thread(s)"


def pdb_text(topology: "app.Topology", positions_nm: Any) -> str:
    """The structure as a PDB file, without the date that OpenMM's own header bears."""
    import io

    from openmm import app, unit

    text = io.StringIO()
    app.PDBFile.writeModel(topology, positions_nm * unit.nanometer, text, keepIds=True)
    app.PDBFile.writeFooter(topology, text)
    return text.getvalue()


def write_outputs(
    simulation: Mapping[str, Any], settings: Mapping[str, Any], plan: "Plan", state: "RunState", output: Path
) -> None:
    """Write topology.pdb, part000.dcd and a record of each (`<file>.source.json`) to the folder `output`."""
    from mdlatent import dcd_writer, dynamics

    common = {
        "uri": f"simulate:{simulation['simulate']}",
        "kind": "simulate",
        "citation": dynamics.citations(settings),
        "n_atoms": state.n_atoms,
        "mdlatent": __version__,
        "dynamics": {
            **settings,
            "sequence": simulation["simulate"],
            "residues": state.setup["configuration"]["residues"],
            "seed": state.setup["configuration"]["seed"],
            "engine": "OpenMM",
            "integrator": "LangevinMiddleIntegrator",
            "rigid_hydrogen_bonds": settings["time_step_fs"] > dynamics.RIGID_HYDROGEN_BONDS_ABOVE_FS,
            "hydrogen_mass_u": dynamics.HEAVY_HYDROGEN_U
            if settings["time_step_fs"] > dynamics.HEAVY_HYDROGENS_ABOVE_FS
            else None,
            "segments": state.setup["segments"],
            "platform_steps_per_s": state.setup["steps_per_s"],
        },
    }
    structure = output / "topology.pdb"
    with files.write_beside(structure) as temporary:
        shutil.copyfile(state.topology, temporary)
        _write_record(structure, temporary, common)
    trajectory = output / "part000.dcd"
    with files.write_beside(trajectory) as temporary:
        dcd_writer.write(
            temporary,
            state.read_frames(plan.n_frames),
            state.n_atoms,
            plan.n_frames,
            plan.interval,
            settings["time_step_fs"] / 1000,
        )
        extra = {"n_frames": plan.n_frames, "time_step_ps": settings["save_interval_ps"]}
        _write_record(trajectory, temporary, common | extra)
    log.info("%s: %d frames of %d atoms", trajectory, plan.n_frames, state.n_atoms)


def _write_record(path: Path, written: Path, record: Mapping[str, Any]) -> None:
    """The record of `path`, whose content lies in `written`: written first, so that no file stands without one."""
    about = {"file": path.name, "sha256": files.digest(written), "bytes": written.stat().st_size}
    files.write_json(sources.record_path(path), about | dict(record))


def main(argv: list[str] | None = None) -> None:
    """Run one simulation of a study's table."""
    parser = stage.parser("simulate", __doc__)
    parser.add_argument(
        "--simulation", required=True, metavar="JSON", help="its row of the table: name, simulate, seed …"
    )
    stage.add_options(parser)
    parser.add_argument("--output-dir", type=Path, required=True, help="where topology.pdb and part000.dcd go")
    parser.add_argument("--state-dir", type=Path, required=True, help="where the run's state is kept, to go on from")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the platform CPU (default 1)")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    try:
        simulation = json.loads(args.simulation)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--simulation: got {args.simulation[:80]!r}, which is not valid JSON: {error}") from error
    if not isinstance(simulation, dict) or not {"name", "simulate"} <= set(simulation):
        raise ConfigError(f"--simulation: got {args.simulation[:80]!r}, expected an object with `name` and `simulate`")
    settings = stage.read_options(args.options, "simulate")["simulate"]
    stage.limit_threads(args.threads)
    simulate(simulation, settings, args.output_dir, args.state_dir, args.threads)


if __name__ == "__main__":
    stage.run(main)

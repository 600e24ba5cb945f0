"""Molecular dynamics with OpenMM: the system of a peptide, the integrator, and which platform is fastest for it.

Langevin dynamics with the LFMiddle splitting (Zhang et al., J. Phys. Chem. A 123, 6056 (2019),
doi:10.1021/acs.jpca.9b02771), no cutoff, no box. Everything random follows from the simulation's seed.
"""

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdlatent import peptide
from mdlatent.errors import ConfigError

if TYPE_CHECKING:
    import openmm
    from openmm import app

log = logging.getLogger("mdlatent")

RIGID_HYDROGEN_BONDS_ABOVE_FS = 1.0
HEAVY_HYDROGENS_ABOVE_FS = 2.0
HEAVY_HYDROGEN_U = 3.0
BURST_S = 0.3  # timing of one platform
MINIMISE_TOLERANCE = 10.0  # kJ/(mol nm), root mean square force

_FORCE_FIELDS = {  # not amber14-all.xml: the same for a peptide, without reading DNA and lipids
    "amber14-all": ("amber14/protein.ff14SB.xml", "Maier et al. 2015, doi:10.1021/acs.jctc.5b00255"),
    "amber99sbildn": ("amber99sbildn.xml", "Lindorff-Larsen et al. 2010, doi:10.1002/prot.22711"),
    "amber03": ("amber03.xml", "Duan et al. 2003, doi:10.1002/jcc.10349"),
    "charmm36": ("charmm36.xml", "Best et al. 2012, doi:10.1021/ct300400x"),
}
_SOLVENTS = {
    "vacuum": "",
    "obc2": "Onufriev, Bashford, Case 2004, doi:10.1002/prot.20033",
    "gbn2": "Nguyen, Roe, Simmerling 2013, doi:10.1021/ct3010485",
}
_ENGINE = "Eastman et al. 2024 (OpenMM 8), doi:10.1021/acs.jpcb.3c06662"


@dataclass(frozen=True)
class Plan:
    """How many steps: `equilibration` first, then a frame every `interval`, `n_frames` of them."""

    equilibration: int
    interval: int
    n_frames: int

    @property
    def total(self) -> int:
        """All steps."""
        return self.equilibration + self.interval * self.n_frames

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which a frame is due, or at which equilibration ends."""
        if step < self.equilibration:
            return self.equilibration
        return step + self.interval - (step - self.equilibration) % self.interval

    def frames_at(self, step: int) -> int:
        """How many frames are due up to and with this step."""
        return max(0, step - self.equilibration) // self.interval


def plan(settings: Mapping[str, Any]) -> Plan:
    """Numbers of steps for the section `simulate`. Raises ConfigError where times are no multiples of each other."""
    step_fs, save_ps, length_ns = settings["time_step_fs"], settings["save_interval_ps"], settings["length_ns"]
    interval = round(save_ps * 1000 / step_fs)
    if interval < 1 or abs(interval * step_fs - save_ps * 1000) > 1e-6 * step_fs:
        near = max(1, interval) * step_fs / 1000
        raise ConfigError(
            f"simulate.save_interval_ps: got {save_ps:g} ps, expected a multiple of the time step of {step_fs:g} fs; "
            f"the nearest is {near:g} ps"
        )
    n_frames = int(length_ns * 1000 / save_ps + 1e-9)
    if n_frames < 1:
        raise ConfigError(
            f"simulate.length_ns: got {length_ns:g} ns, expected at least one interval between saved frames "
            f"(save_interval_ps is {save_ps:g})"
        )
    return Plan(round(settings["equilibration_ps"] * 1000 / step_fs), interval, n_frames)


def check(residues: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Raise ConfigError where a peptide and the section `simulate` do not go together. Quick: builds nothing."""
    plan(settings)
    if settings["force_field"] == "charmm36" and any(name in peptide.CAPS for name in residues):
        raise ConfigError(
            f"simulate.force_field: got charmm36 for {'-'.join(residues)}; as it comes with OpenMM it knows no caps as "
            "residues. Leave the ends free, or take amber14-all, amber99sbildn or amber03"
        )


def citations(settings: Mapping[str, Any]) -> str:
    """What to cite for a simulation with these settings."""
    names = (_ENGINE, _FORCE_FIELDS[settings["force_field"]][1], _SOLVENTS[settings["solvent"]])
    return "; ".join(name for name in names if name)


def make_system(topology: "app.Topology", settings: Mapping[str, Any]) -> "openmm.System":
    """OpenMM system of a topology with hydrogens, for the section `simulate`.

    Raises ConfigError if the force field lacks a residue.
    """
    import openmm
    from openmm import app, unit

    file, step_fs = _FORCE_FIELDS[settings["force_field"]][0], settings["time_step_fs"]
    solvent = ["implicit/gbn2.xml"] if settings["solvent"] == "gbn2" else []
    try:
        system = app.ForceField(file, *solvent).createSystem(
            topology,
            nonbondedMethod=app.NoCutoff,
            constraints=app.HBonds if step_fs > RIGID_HYDROGEN_BONDS_ABOVE_FS else None,
            hydrogenMass=HEAVY_HYDROGEN_U * unit.dalton if step_fs > HEAVY_HYDROGENS_ABOVE_FS else None,
        )
    except ValueError as error:
        raise ConfigError(
            f"simulate.force_field: {settings['force_field']} cannot describe this peptide: {error}. Choose another "
            "force field, other caps or another protonation state"
        ) from error
    if settings["solvent"] == "obc2":
        _add_obc2(system, topology)
    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    nonbonded.setReactionFieldDielectric(1.0)
    return system


def _add_obc2(system: "openmm.System", topology: "app.Topology") -> None:
    """OBC2 by OpenMM's own kernel: 35 times as fast for 22 atoms as the interpreted one of implicit/obc2.xml.

    Same radii and surface term; the energies of the two differ by 1 part in 10⁴ (rounded constants).
    """
    import openmm
    from openmm.app.internal.customgbforces import GBSAOBC2Force

    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    solvent = openmm.GBSAOBCForce()
    solvent.setNonbondedMethod(openmm.GBSAOBCForce.NoCutoff)
    for index, (radius, scale) in enumerate(GBSAOBC2Force.getStandardParameters(topology)):
        solvent.addParticle(nonbonded.getParticleParameters(index)[0], radius, scale)
    system.addForce(solvent)


def seed_for(seed: int, purpose: str) -> int:
    """A seed for OpenMM, 1 … 2³¹ − 1 (0 would mean "any"), different for each purpose of one simulation's seed."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % (2**31 - 1) + 1


def open_context(
    system: "openmm.System", settings: Mapping[str, Any], platform_name: str, threads: int, seed: int
) -> "openmm.Context":
    """A context with the Langevin integrator on a platform. Raises ConfigError if the platform cannot be used here."""
    import openmm

    integrator = openmm.LangevinMiddleIntegrator(
        settings["temperature_k"], settings["friction_per_ps"], settings["time_step_fs"] / 1000
    )
    integrator.setRandomNumberSeed(seed)
    try:
        platform = openmm.Platform.getPlatformByName(platform_name)
        wanted = {"Threads": str(threads), "DeterministicForces": "true", "Precision": "mixed"}
        properties = {name: value for name, value in wanted.items() if name in platform.getPropertyNames()}
        return openmm.Context(system, integrator, platform, properties)
    except openmm.OpenMMException as error:
        raise ConfigError(
            f"simulate.platform: {platform_name} cannot be used here ({error}); this OpenMM has "
            f"{', '.join(platforms())}. Set one of these, or auto"
        ) from error


def platforms() -> list[str]:
    """Names of the platforms of this OpenMM."""
    import openmm

    return [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]


def time_platforms(
    system: "openmm.System", positions_nm: np.ndarray, settings: Mapping[str, Any], threads: int
) -> dict[str, float]:
    """Steps per second of this very system on each platform that works here, each run for 0.3 s."""
    speeds = {}
    # A hundredth of the step: the same work, and a start structure not yet minimised cannot fly apart.
    careful = {**settings, "time_step_fs": settings["time_step_fs"] / 100}
    for name in platforms():
        try:
            context = open_context(system, careful, name, threads, seed=1)
            context.setPositions(positions_nm)
            speeds[name] = _steps_per_s(context)
        except Exception as error:  # a driver that is installed but does not work: OpenMM raises several kinds
            log.info("platform %s cannot be used here: %s", name, error)
    if not speeds:
        raise ConfigError(f"simulate.platform: none of {', '.join(platforms())} works here; reinstall OpenMM")
    return speeds


def _steps_per_s(context: "openmm.Context") -> float:
    integrator = context.getIntegrator()
    integrator.step(1)  # kernels are compiled here
    context.getState(positions=True)
    start, n_steps, burst = time.perf_counter(), 0, 1
    while (elapsed := time.perf_counter() - start) < BURST_S:
        integrator.step(burst)
        context.getState(positions=True)  # waits for what a GPU still has to do
        n_steps, burst = n_steps + burst, min(2 * burst, 1000)
    return n_steps / elapsed


def choose_platform(
    system: "openmm.System", positions_nm: np.ndarray, settings: Mapping[str, Any], threads: int
) -> tuple[str, dict[str, float]]:
    """The platform to run on and the measured speeds (none if it is set): `auto` takes the fastest."""
    if settings["platform"] != "auto":
        return settings["platform"], {}
    speeds = {name: round(speed, 1) for name, speed in time_platforms(system, positions_nm, settings, threads).items()}
    best = max(speeds, key=lambda name: speeds[name])
    told = ", ".join(f"{name} {speed:.0f}" for name, speed in sorted(speeds.items(), key=lambda item: -item[1]))
    log.info("platform %s is the fastest for this system (steps/s: %s)", best, told)
    return best, speeds


def start(context: "openmm.Context", positions_nm: np.ndarray, seed: int) -> np.ndarray:
    """Minimise and draw velocities. Returns the minimised positions, (atoms, 3) float64 nm."""
    import openmm

    context.setPositions(positions_nm)
    context.applyConstraints(1e-6)
    openmm.LocalEnergyMinimizer.minimize(context, MINIMISE_TOLERANCE)
    temperature = context.getIntegrator().getTemperature()
    context.setVelocitiesToTemperature(temperature, seed_for(seed, "velocities"))
    return positions(context)


def positions(context: "openmm.Context") -> np.ndarray:
    """Current positions, (atoms, 3) float64 nm."""
    return np.asarray(context.getState(positions=True).getPositions(asNumpy=True)._value, np.float64)

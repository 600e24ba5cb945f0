"""Peptides from their sequence: what a sequence means, and that the start structure is sound."""

import itertools

import numpy as np
import openmm
import pytest
from openmm import app

from mdlatent import dynamics, peptide
from mdlatent.errors import ConfigError
from mdlatent.peptide_geometry import SIDE_CHAINS, THREE_LETTERS

SETTINGS = {
    "force_field": "amber14-all", "solvent": "vacuum", "temperature_k": 300.0, "length_ns": 1.0,
    "save_interval_ps": 1.0, "time_step_fs": 2.0, "friction_per_ps": 1.0, "equilibration_ps": 0.0,
    "platform": "Reference",
}  # fmt: skip
ALL = "ACE-" + "".join(THREE_LETTERS) + "-NME"


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("ACE-ALA-NME", ["ACE", "ALA", "NME"]),
        ("NLY", ["ASN", "LEU", "TYR"]),
        ("ACE-AG-HIP-NH2", ["ACE", "ALA", "GLY", "HIP", "NH2"]),
        ("A-L-A", ["ALA", "LEU", "ALA"]),
        ("ACE-A", ["ACE", "ALA"]),
        (" GG-NME ", ["GLY", "GLY", "NME"]),
    ],
)
def test_parse(sequence, expected):
    assert peptide.parse(sequence) == expected


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("", "empty"),
        ("NLXIQ", "'X' is no amino acid"),
        ("nly", "capitals"),
        ("ACE-XYZ-NME", "'XYZ' is neither a residue or cap"),
        ("ACE-Ala-NME", "did you mean 'ALA'?"),
        ("ALA-ACE-NME", "ACE closes the first end"),
        ("ACE-NME-ALA", "NME closes the last end"),
        ("ACE-NME", "no amino acid between the caps"),
        ("ACE--NME", "nothing between"),
        ("ALA", "'A-L-A'"),
        ("A", "'ACE-ALA-NME'"),
        ("A" * 1001, "at most 1000"),
        ("Ü1", "no amino acid"),
    ],
)
def test_wrong_sequences_say_what_is_wrong(sequence, expected):
    with pytest.raises(ConfigError, match="simulate: got the sequence") as caught:
        peptide.parse(sequence)
    assert expected in str(caught.value)


def residues(topology, positions):
    for residue in topology.residues():
        yield residue, {atom.name: positions[atom.index] for atom in residue.atoms()}


def handedness(atoms, centre, a, b, c):
    """Signed volume of centre, a, b, c in nm³: its sign tells mirror images apart."""
    return np.cross(atoms[a] - atoms[centre], atoms[b] - atoms[centre]) @ (atoms[c] - atoms[centre])


def dihedral(a, b, c, d):
    b1, b2, b3 = b - a, c - b, d - c
    n1, n2 = np.cross(b1, b2), np.cross(b2, b3)
    return np.degrees(np.arctan2(np.linalg.norm(b2) * b1 @ n2, n1 @ n2))


def check_stereochemistry(topology, positions):
    found = list(residues(topology, positions))
    for residue, atoms in found:
        if "CB" in atoms:
            assert handedness(atoms, "CA", "N", "C", "CB") > 0.001, f"{residue} is not L"
        if residue.name == "ILE":
            assert handedness(atoms, "CB", "CA", "CG1", "CG2") > 0.001, "not (2S,3S)"
        if residue.name == "THR":
            assert handedness(atoms, "CB", "CA", "OG1", "CG2") > 0.001, "not (2S,3R)"
    for (first, a), (second, b) in itertools.pairwise(found):
        if second.name == "NH2":
            continue
        ends = a["CH3" if first.name == "ACE" else "CA"], a["C"], b["N"], b["C" if second.name == "NME" else "CA"]
        assert abs(dihedral(*ends)) > 120, f"{first}-{second} is not trans"


def minimised(topology, positions, settings):
    context = dynamics.open_context(dynamics.make_system(topology, settings), settings, "Reference", 1, 1)
    return context, dynamics.start(context, positions, 0)


@pytest.mark.parametrize("sequence", [ALL, ALL[4:-4], "ACE-W-NH2", "P-ASH-GLH-LYN-HID-HIE-HIP-P"])
def test_start_structure(sequence):
    names = peptide.parse(sequence)
    topology, start = peptide.build(names)
    assert [residue.name for residue in topology.residues()] == [
        peptide.PROTONATION[name][0] if name in peptide.PROTONATION else name for name in names
    ]
    check_stereochemistry(topology, start)
    bonds = np.array([[a.index, b.index] for a, b in topology.bonds()])
    lengths = np.linalg.norm(start[bonds[:, 0]] - start[bonds[:, 1]], axis=1)
    assert 0.085 < lengths.min() < lengths.max() < 0.19
    distances = np.linalg.norm(start[:, None] - start[None], axis=2) + np.eye(len(start))
    assert distances.min() > 0.085, "two atoms lie on each other"
    assert np.array_equal(start, peptide.build(names)[1]), "built twice, not the same"

    context, positions = minimised(topology, start, SETTINGS)
    assert np.isfinite(positions).all()
    check_stereochemistry(topology, positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    assert np.sqrt((forces**2).mean()) < 1000  # kJ/(mol nm); constraint forces are part of it


def test_each_residue_has_all_its_atoms():
    """Each of the 20 is known to the force field with the right number of atoms."""
    n_atoms = {
        "ALA": 10, "ARG": 24, "ASN": 14, "ASP": 12, "CYS": 11, "GLN": 17, "GLU": 15, "GLY": 7, "HIS": 17, "ILE": 19,
        "LEU": 19, "LYS": 22, "MET": 17, "PHE": 20, "PRO": 14, "SER": 11, "THR": 14, "TRP": 24, "TYR": 21, "VAL": 16,
    }  # fmt: skip
    assert set(n_atoms) == set(SIDE_CHAINS)
    topology, _ = peptide.build(peptide.parse(ALL))
    found = {residue.name: len(list(residue.atoms())) for residue in topology.residues()}
    assert found == {**n_atoms, "ACE": 6, "NME": 6}


@pytest.mark.parametrize("force_field", ["amber14-all", "amber99sbildn", "amber03"])
@pytest.mark.parametrize("solvent", ["vacuum", "obc2", "gbn2"])
def test_force_fields_and_solvents(force_field, solvent):
    settings = SETTINGS | {"force_field": force_field, "solvent": solvent}
    charge = {}
    for sequence in ("ACE-EK-NME", "GDKR"):
        topology, start = peptide.build(peptide.parse(sequence))
        system = dynamics.make_system(topology, settings)
        nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
        charge[sequence] = sum(nonbonded.getParticleParameters(i)[0]._value for i in range(len(start)))
        context = dynamics.open_context(system, settings, "CPU", 1, 1)
        context.setPositions(start)
        assert np.isfinite(context.getState(energy=True).getPotentialEnergy()._value)
        assert len(dynamics.citations(settings).split("; ")) == (2 if solvent == "vacuum" else 3)
    assert charge == pytest.approx({"ACE-EK-NME": 0, "GDKR": 1}, abs=1e-4)


def test_obc2_is_that_of_openmm():
    topology, start = peptide.build(peptide.parse("GDWKP"))
    ours = dynamics.make_system(topology, SETTINGS | {"solvent": "obc2"})
    theirs = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
    )
    energies = []
    for system in (ours, theirs):
        context = dynamics.open_context(system, SETTINGS, "Reference", 1, 1)
        context.setPositions(start)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    assert energies[0] == pytest.approx(energies[1], rel=2e-4)


def test_charmm_takes_no_caps():
    with pytest.raises(ConfigError, match="knows no caps"):
        dynamics.check(["ACE", "ALA", "NME"], SETTINGS | {"force_field": "charmm36"})
    dynamics.check(["ALA", "ALA"], SETTINGS | {"force_field": "charmm36"})


def test_constraints_and_masses_follow_the_time_step():
    topology, _ = peptide.build(peptide.parse("ACE-ALA-NME"))
    n_hydrogens = sum(atom.element.symbol == "H" for atom in topology.atoms())
    for step_fs, n_constraints, heaviest in ((1, 0, 1.1), (2, n_hydrogens, 1.1), (4, n_hydrogens, 3.0)):
        system = dynamics.make_system(topology, SETTINGS | {"time_step_fs": step_fs})
        masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles())]
        assert system.getNumConstraints() == n_constraints
        assert min(masses) <= heaviest
        assert (min(masses) > 2.9) == (step_fs > 2)
        assert sum(masses) == pytest.approx(144.17, abs=0.1)

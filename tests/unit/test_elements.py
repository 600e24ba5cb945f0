"""Elements that a topology file leaves out."""

from mdlatent import elements, select_atoms
from mdlatent.trajectory import load_topology

# As CHARMM and X-PLOR write it: no element column, names from column 13 on.
WITHOUT_ELEMENTS = """\
ATOM      1 N    MET     1     -11.053  26.680  12.742  1.00 84.71      4AKE
ATOM      2 HT1  MET     1     -10.557  27.134  11.954  1.00  0.00      4AKE
ATOM      3 CA   MET     1     -10.057  26.134  11.154  1.00  0.00      4AKE
ATOM      4 HG1  MET     1      -9.557  27.134  10.954  1.00  0.00      4AKE
ATOM      5 SD   MET     1      -8.557  27.134  10.954  1.00  0.00      4AKE
HETATM    6 CA   CA      2      -1.557  27.134  10.954  1.00  0.00      4AKE
END
"""


def test_atoms_of_residues_have_the_element_of_their_name(tmp_path):
    (tmp_path / "top.pdb").write_text(WITHOUT_ELEMENTS)
    topology = load_topology(tmp_path / "top.pdb")
    assert [atom.element.symbol for atom in topology.atoms] == ["N", "H", "C", "H", "S", "Ca"]
    heavy = select_atoms.select(topology, "symbol != H", "a", "top.pdb")
    assert heavy.tolist() == [0, 2, 4, 5]


def test_right_elements_stay(trpcage):
    import mdtraj

    topology = mdtraj.load_topology(str(trpcage[0]))
    before = [atom.element.symbol for atom in topology.atoms]
    assert elements.mend(topology) == 0
    assert [atom.element.symbol for atom in topology.atoms] == before

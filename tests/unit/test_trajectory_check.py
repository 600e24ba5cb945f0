"""Trajectories that are cut off, empty, broken, or of other atoms are refused with a reason; odd but whole ones not."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from mdlatent import fetch, trajectory_check, trajectory_formats
from mdlatent.errors import DataError

N_ATOMS, N_FRAMES = 12, 7


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One small trajectory in every format that mdtraj writes, and its topology."""
    import mdtraj

    folder = tmp_path_factory.mktemp("formats")
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(N_ATOMS // 4):
        residue = topology.add_residue("GLY", chain)
        for name, element in (("N", "N"), ("CA", "C"), ("C", "C"), ("O", "O")):
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(element), residue)
    xyz = np.random.default_rng(0).normal(size=(N_FRAMES, N_ATOMS, 3)).astype(np.float32)
    box = np.full((N_FRAMES, 3), 5.0), np.full((N_FRAMES, 3), 90.0)
    trajectory = mdtraj.Trajectory(xyz, topology, unitcell_lengths=box[0], unitcell_angles=box[1])
    trajectory[0].save(str(folder / "topology.pdb"))
    trajectory[0].atom_slice(range(8)).save(str(folder / "smaller.pdb"))
    for ending in ("dcd", "xtc", "trr", "nc", "gro", "xyz", "lammpstrj", "mdcrd", "pdb"):
        trajectory.save(str(folder / f"run.{ending}"))
    return folder


@pytest.mark.parametrize("ending", ["dcd", "xtc", "trr", "nc", "gro", "xyz", "lammpstrj", "mdcrd", "pdb"])
def test_whole_trajectories(made, ending, capfd):
    found = trajectory_check.check_pair(made / "topology.pdb", made / f"run.{ending}")
    assert found == {"n_atoms": N_ATOMS, "n_frames": N_FRAMES}
    assert "dcdplugin" not in capfd.readouterr().out


@pytest.mark.parametrize("ending", ["dcd", "xtc", "trr", "nc", "gro", "xyz", "lammpstrj", "pdb"])
def test_every_cut_is_seen(made, tmp_path, ending):
    content = (made / f"run.{ending}").read_bytes()
    for kept in np.linspace(0.55, 0.98, 12):
        cut = tmp_path / f"run.{ending}"
        cut.write_bytes(content[: int(kept * len(content))])
        if ending == "pdb" and cut.read_bytes().rstrip().endswith(b"ENDMDL"):
            continue
        try:
            found = trajectory_check.check_pair(made / "topology.pdb", cut)
        except DataError as error:
            assert "run." in str(error) and ("truncated" in str(error) or "cannot be read" in str(error))
        else:
            # nothing but a cut exactly between frames may pass (text: the last line's end may be missing)
            assert found["n_frames"] < N_FRAMES and ending in ("gro", "xyz", "lammpstrj")


@pytest.mark.parametrize("ending", ["dcd", "xtc", "trr", "nc", "gro", "xyz", "lammpstrj", "pdb"])
def test_other_atoms(made, ending):
    with pytest.raises(DataError, match=rf"run\.{ending} has 12 atoms, smaller\.pdb has 8"):
        trajectory_check.check_pair(made / "smaller.pdb", made / f"run.{ending}")


def test_few_atoms_in_xtc(tmp_path):
    """Up to nine atoms are stored uncompressed, with another layout."""
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("UNK", topology.add_chain())
    for _ in range(5):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    mdtraj.Trajectory(np.zeros((3, 5, 3), np.float32), topology).save_xtc(str(tmp_path / "few.xtc"))
    assert trajectory_formats.read(tmp_path / "few.xtc", ".xtc") == trajectory_formats.Layout(5, 3)


def test_header_of_a_dcd_may_claim_other_numbers(made, tmp_path, caplog):
    content = bytearray((made / "run.dcd").read_bytes())
    content[8:12] = struct.pack("<i", 500)
    (tmp_path / "odd.dcd").write_bytes(content)
    found = trajectory_check.check_pair(made / "topology.pdb", tmp_path / "odd.dcd")
    assert found["n_frames"] == N_FRAMES
    assert "header claims 500 frames, the file holds 7 complete ones" in caplog.text


def test_dcd_of_the_other_byte_order_and_with_fixed_atoms(tmp_path):
    """Fixed atoms stand only in the first frame; all numbers are written with the other end first."""
    n, n_fixed, frames = 10, 4, 3

    def record(content: bytes) -> bytes:
        return struct.pack(">i", len(content)) + content + struct.pack(">i", len(content))

    control = [frames, 0, 1, 0, 0, 0, 0, 0, n_fixed] + [0] * 10 + [24]
    content = record(b"CORD" + struct.pack(">20i", *control)) + record(struct.pack(">i", 1) + b" " * 80)
    content += record(struct.pack(">i", n)) + record(struct.pack(f">{n - n_fixed}i", *range(5, 11)))
    content += record(b"\0" * 4 * n) * 3 + record(b"\0" * 4 * (n - n_fixed)) * 3 * (frames - 1)
    path = tmp_path / "fixed.dcd"
    path.write_bytes(content)
    assert trajectory_formats.read(path, ".dcd") == trajectory_formats.Layout(n, frames, claimed_frames=frames)
    path.write_bytes(content[:-5])
    layout = trajectory_formats.read(path, ".dcd")
    assert layout and layout.n_frames == 2 and layout.left_over == 3 * (4 * 6 + 8) - 5


def test_no_frames_and_no_bytes(made, tmp_path):
    content = (made / "run.dcd").read_bytes()
    frame = (len(content) - 276) // N_FRAMES
    header = content[: len(content) - N_FRAMES * frame]
    (tmp_path / "none.dcd").write_bytes(header)
    with pytest.raises(DataError, match=r"none.dcd has no frame"):
        trajectory_check.check_pair(made / "topology.pdb", tmp_path / "none.dcd")
    (tmp_path / "empty.xtc").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty.xtc is empty"):
        trajectory_check.check_pair(made / "topology.pdb", tmp_path / "empty.xtc")
    with pytest.raises(DataError, match="there is no such file"):
        trajectory_check.check_pair(made / "topology.pdb", tmp_path / "gone.xtc")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n" + b" " * 100, "Git LFS pointer"),
        (b"<!DOCTYPE html><html>" + b" " * 100, "web page"),
        (b"\x1f\x8b" + b"0" * 100, "compressed with gzip"),
    ],
)
@pytest.mark.parametrize("ending", ["dcd", "xtc", "trr", "gro"])
def test_something_else_under_the_name(made, tmp_path, content, says, ending):
    path = tmp_path / f"odd.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        trajectory_check.check_pair(made / "topology.pdb", path)


def test_frames_missing_in_the_middle_of_an_xtc(made, tmp_path):
    content = (made / "run.xtc").read_bytes()
    (tmp_path / "hole.xtc").write_bytes(content[:300] + content[340:])
    with pytest.raises(DataError, match=r"damaged: no frame begins at byte|truncated"):
        trajectory_check.check_pair(made / "topology.pdb", tmp_path / "hole.xtc")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_coordinates_that_are_not_finite(made, tmp_path, bad):
    import mdtraj

    trajectory = mdtraj.load(str(made / "run.dcd"), top=str(made / "topology.pdb"))
    trajectory.xyz[0, 4, 1] = bad
    trajectory.save_dcd(str(tmp_path / "bad.dcd"))
    with pytest.raises(DataError, match=r"not finite \(atom 5\)"):
        trajectory_check.check_pair(made / "topology.pdb", tmp_path / "bad.dcd")


def test_topologies(made, tmp_path):
    assert trajectory_check.count_atoms(made / "topology.pdb") == N_ATOMS
    assert trajectory_check.count_atoms(made / "run.dcd") == N_ATOMS
    (tmp_path / "odd.pdb").write_text("hello\n")
    with pytest.raises(DataError, match=r"odd.pdb (names no atom|cannot be read as a topology)"):
        trajectory_check.topology_atoms(tmp_path / "odd.pdb")


def test_fetch_leaves_nothing_of_a_bad_trajectory(made, tmp_path):
    options = {"attempts": 1, "timeout_s": 1.0, "backoff_s": 0.0, "cache": str(tmp_path / "cache")}
    (tmp_path / "cut.dcd").write_bytes((made / "run.dcd").read_bytes()[:-10])
    output = tmp_path / "out" / "part000.dcd"
    with pytest.raises(DataError, match=r"part000\.dcd is truncated: .* bytes after the last complete frame"):
        fetch.fetch(str(tmp_path / "cut.dcd"), output, options, made / "topology.pdb")
    assert list(output.parent.iterdir()) == []
    record = fetch.fetch(str(made / "run.dcd"), output, options, made / "topology.pdb")
    assert (record["n_atoms"], record["n_frames"]) == (N_ATOMS, N_FRAMES)
    assert record["sha256"] == hashlib.sha256((made / "run.dcd").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("topology", "trajectory", "n_atoms", "n_frames"),
    [
        ("adk_transitions/adk_closed.pdb", "adk_transitions/adk_dims.dcd", 3341, 98),
        ("adk_transitions/adk_closed.pdb", "adk_transitions/adk_dims2.dcd", 3341, 102),
        ("gpcr_5ht1b/top.pdb", "gpcr_5ht1b/traj.xtc", 5067, 250),
        ("bpti_small/bpti.gro", "bpti_small/bpti.xtc", 892, 500),
        ("asp7/asp7.pdb", "asp7/asp7.xtc", 57, 10001),
        ("ala2_msmbuilder/ala2.pdb", "ala2_msmbuilder/trajectory-0.dcd", 22, 9999),
    ],
)
def test_published_trajectories(field_data: Path, topology, trajectory, n_atoms, n_frames):
    found = trajectory_check.check_pair(field_data / topology, field_data / trajectory)
    assert found == {"n_atoms": n_atoms, "n_frames": n_frames}

"""Reading trajectories into the frame store, and molecules broken across the box."""

import json
import warnings
from pathlib import Path

import h5py
import mdtraj as md
import numpy as np
import pytest

from mdlatent import distances, featurize, periodic, stage, trajectory
from mdlatent.errors import DataError

OPTIONS = {"selection": "name CA", "stride": 1, "make_whole": "auto"}
PRECISION_NM = {"xtc": 6e-4, "gro": 6e-4, "pdb": 6e-5, "xyz": 6e-5, "lammpstrj": 6e-5}  # half the last digit written
TRICLINIC_NM = np.array([[4.0, 0, 0], [1.3, 3.6, 0], [-1.1, 1.2, 3.4]])


@pytest.fixture(scope="module")
def short(trpcage, tmp_path_factory) -> md.Trajectory:
    """700 frames of Trp-cage: more than two chunks and not a whole number of them."""
    trajectory = md.load(trpcage[1], top=trpcage[0])[1000:1700]
    trajectory.time = 20.0 * np.arange(700)
    return trajectory


def saved(trajectory: md.Trajectory, folder: Path, suffix: str) -> tuple[Path, Path]:
    topology, path = folder / "topology.pdb", folder / f"part000.{suffix}"
    trajectory[0].save_pdb(str(topology))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trajectory.save(str(path))
    return topology, path


def read(topology: Path, path: Path, output: Path, **options) -> h5py.File:
    chosen = OPTIONS | options
    top = trajectory.load_topology(topology)
    featurize.featurize(
        trajectory.Trajectory(path, top, topology), top.select(chosen["selection"]), chosen, output,
        simulation="a", part=0, provenance={"source": path.name},
    )  # fmt: skip
    return h5py.File(output)


@pytest.mark.parametrize("stride", [1, 3, 800])
@pytest.mark.parametrize("suffix", ["dcd", "xtc", "trr", "nc", "h5", "xyz", "lammpstrj", "pdb", "gro"])
def test_every_format_gives_what_mdtraj_gives(short, tmp_path, suffix, stride):
    part = short[:20] if suffix in ("pdb", "gro") else short[:300]
    topology, path = saved(part, tmp_path, suffix)
    with read(topology, path, tmp_path / "out.store", stride=stride) as found:
        expected = part.xyz[::stride, part.top.select("name CA")]
        np.testing.assert_allclose(found["coordinates"][:], expected, atol=PRECISION_NM.get(suffix, 2e-6))
        np.testing.assert_array_equal(found["frame"][:], np.arange(len(part))[::stride])
        assert found.attrs["n_frames_source"] == len(part)
        if suffix in ("xtc", "trr", "nc", "h5"):
            np.testing.assert_allclose(found["time_ps"][:], part.time[::stride])
        elif suffix != "gro":
            assert np.isnan(found["time_ps"][:]).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["out.store", "topology.pdb", path.name])


def test_the_demo_is_read_to_the_bit(trpcage, tmp_path):
    with read(*trpcage, tmp_path / "out.h5") as found:
        expected = md.load(trpcage[1], top=trpcage[0])
        np.testing.assert_array_equal(found["coordinates"][:], expected.xyz[:, expected.top.select("name CA")])
        provenance = json.loads(found.attrs["provenance"])
    assert provenance["source"] == trpcage[1].name and provenance["stride"] == 1 and provenance["made_whole"]


def test_either_byte_order_and_kind_of_cell_of_dcd(short, tmp_path):
    _, path = saved(short[:5], tmp_path, "dcd")
    raw = path.read_bytes()
    n = short.n_atoms
    header = 92 + 4 + int.from_bytes(raw[92:96], "little") + 4 + 12
    body = np.frombuffer(raw[header:], "<i4").reshape(5, -1).copy()
    cells = body[:, 1:13].copy().view("<f8")
    assert (np.abs(cells[:, [1, 3, 4]]) < 1e-6).all()  # mdtraj writes cosines
    cells[:, [1, 3, 4]] = [90, 80, 70]
    big = np.frombuffer(raw[:header], "<i4").astype(">i4").tobytes()
    title = raw[96 : header - 16]
    big = big[:4] + raw[4:8] + big[8:96] + big[96:100] + title[4:] + big[header - 16 :]
    frames = b"".join(
        row[:1].astype(">i4").tobytes() + cell.astype(">f8").tobytes() + row[13:].astype(">i4").tobytes()
        for row, cell in zip(body, cells, strict=True)
    )
    other = tmp_path / "big.dcd"
    other.write_bytes(big + frames)
    assert n == trajectory.DCDReader(other).n_atoms
    xyz, cell = trajectory.DCDReader(other).read(0, 5, 1, np.arange(n))
    np.testing.assert_allclose(xyz, short.xyz[:5], atol=1e-6)
    np.testing.assert_allclose(cell[:, :3], short.unitcell_lengths[:5], rtol=1e-6)
    np.testing.assert_allclose(cell[:, 3:], np.tile([70.0, 80, 90], (5, 1)), atol=1e-4)
    cosines = trajectory.DCDReader(path).read(0, 5, 1, np.arange(n))[1]
    np.testing.assert_allclose(cosines[:, 3:], 90, atol=1e-4)


def wrapped(whole: md.Trajectory, box: np.ndarray, seed: int = 0) -> md.Trajectory:
    """The trajectory moved at random and every atom put into the box on its own."""
    move = np.random.default_rng(seed).random((len(whole), 1, 3)) @ box
    fraction = (whole.xyz + move) @ np.linalg.inv(box)
    broken = md.Trajectory((fraction - np.floor(fraction)) @ box, whole.top, whole.time)
    broken.unitcell_vectors = np.tile(box, (len(whole), 1, 1)).astype(np.float32)
    return broken


def of_selection(file: h5py.File) -> np.ndarray:
    return distances.packed(file["coordinates"][:])


@pytest.mark.parametrize("suffix", ["dcd", "xtc"])
@pytest.mark.parametrize("box", [np.diag([3.5, 3.7, 4.1]), TRICLINIC_NM], ids=["rectangular", "triclinic"])
def test_wrapped_atoms_come_together_again(short, tmp_path, box, suffix):
    part = short[:300]
    broken = wrapped(part, box)
    topology, path = saved(broken, tmp_path, suffix)
    selection = "name CA or name CZ2 or name OH"
    with read(topology, path, tmp_path / "out.h5", selection=selection) as found:
        atoms = part.top.select(selection)
        expected = distances.packed(part.xyz[:, atoms])
        assert np.abs(distances.packed(broken.xyz[:, atoms]) - expected).max() > 1  # it was broken indeed
        np.testing.assert_allclose(of_selection(found), expected, atol=3e-3 if suffix == "xtc" else 5e-6)


def test_as_mdtraj_mends(short, tmp_path):
    broken = wrapped(short[:50], TRICLINIC_NM)
    mended = broken.make_molecules_whole(inplace=False)
    topology, path = saved(broken, tmp_path, "dcd")
    with read(topology, path, tmp_path / "out.h5", selection="all") as found:
        np.testing.assert_allclose(of_selection(found), distances.packed(mended.xyz), atol=5e-6)


def test_without_bonds_in_the_file_atoms_follow_residues_and_chain(short, tmp_path):
    ca = short[:40].atom_slice(short.top.select("name CA"))
    assert ca.top.n_bonds == 0
    broken = wrapped(ca, np.diag([3.5, 3.7, 4.1]))
    topology, path = saved(broken, tmp_path, "dcd")
    with read(topology, path, tmp_path / "out.h5") as found:
        np.testing.assert_allclose(of_selection(found), distances.packed(ca.xyz), atol=5e-6)


def test_never_leaves_them_broken_and_keeps_every_bit(short, tmp_path):
    broken = wrapped(short[:40], TRICLINIC_NM)
    topology, path = saved(broken, tmp_path, "trr")
    with read(topology, path, tmp_path / "out.h5", make_whole="never") as found:
        np.testing.assert_array_equal(found["coordinates"][:], broken.xyz[:, broken.top.select("name CA")])


def test_a_ligand_far_off_and_two_chains_are_put_next_to_each_other(short, tmp_path):
    part = short[:30]
    three = md.Topology()
    for _ in range(3):
        three = three.join(part.top, keep_resSeq=True)
    apart = np.array([0, 1.3, 2.6])  # a row of three: the third is nearer to the first's image than to the first
    xyz = np.concatenate([part.xyz * 0.3 + [x, 0, 0] for x in apart], axis=1).astype(np.float32)
    box = np.diag([4.5, 4.0, 4.0])
    whole = md.Trajectory(xyz, three)
    topology, path = saved(wrapped(whole, box, seed=3), tmp_path, "dcd")
    with read(topology, path, tmp_path / "out.h5") as found:
        np.testing.assert_allclose(of_selection(found), distances.packed(xyz[:, three.select("name CA")]), atol=5e-6)


@pytest.mark.parametrize("box", [None, np.zeros((3, 3)), 0.1 * np.eye(3)], ids=["absent", "zero", "1 Å"])
def test_dummy_boxes_are_none(short, tmp_path, box):
    part = short[:10]
    part = md.Trajectory(part.xyz, part.top)
    if box is not None:
        part.unitcell_vectors = np.tile(box, (10, 1, 1)).astype(np.float32)
    topology, path = saved(part, tmp_path, "trr")
    with read(topology, path, tmp_path / "out.h5") as found:
        np.testing.assert_array_equal(found["coordinates"][:], part.xyz[:, part.top.select("name CA")])
        assert not json.loads(found.attrs["provenance"])["made_whole"]
    with pytest.raises(DataError, match=r"featurize\.make_whole is `always`, but its first frame has"):
        read(topology, path, tmp_path / "always.h5", make_whole="always")
    assert not (tmp_path / "always.h5").exists()


@pytest.mark.parametrize("suffix", ["dcd", "xtc", "trr", "lammpstrj", "xyz"])
def test_truncated_files_are_named_with_the_frame(short, tmp_path, suffix):
    topology, path = saved(short[:300], tmp_path, suffix)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.8321)])
    with pytest.raises(DataError, match=rf"part000\.{suffix}: .*frame 2[45]\d .*cut short"):
        read(topology, path, tmp_path / "out.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "topology.pdb"])


def test_damaged_frame_in_a_dcd(short, tmp_path):
    topology, path = saved(short[:300], tmp_path, "dcd")
    raw = bytearray(path.read_bytes())
    frame = trajectory.DCDReader(path)._dtype.itemsize
    start = len(raw) - 20 * frame
    raw[start : start + frame] = b"\xff" * frame
    path.write_bytes(raw)
    with pytest.raises(DataError, match="frame 280 is damaged"):
        read(topology, path, tmp_path / "out.h5", stride=2)


@pytest.mark.parametrize("suffix", ["dcd", "xtc", "pdb"])
def test_topology_of_other_atoms(short, tmp_path, suffix):
    _, path = saved(short[:3], tmp_path, suffix)
    other = tmp_path / "other.pdb"
    short[0].atom_slice(short.top.select("not element H")).save_pdb(str(other))
    with pytest.raises(DataError, match=r"has 304 atoms per frame, .*other.pdb has \d+; give the topology"):
        read(other, path, tmp_path / "out.h5")


@pytest.mark.parametrize(("value", "suffix"), [(np.nan, "dcd"), (np.inf, "trr"), (-np.inf, "dcd")])
def test_not_finite_coordinates_are_named(short, tmp_path, value, suffix):
    part = short[:280][:]
    part.xyz = part.xyz.copy()
    part.xyz[270, 16, 1] = value
    topology, path = saved(part, tmp_path, suffix)
    with pytest.raises(DataError, match=rf"frame 270, atom 16 \(LEU2-N\): coordinate y is {value}"):
        read(topology, path, tmp_path / "out.h5", selection="all")
    assert not (tmp_path / "out.h5").exists()


def test_no_frames_no_file_and_no_trajectory(short, tmp_path):
    topology, path = saved(short[:3], tmp_path, "dcd")
    size = trajectory.DCDReader(path)._dtype.itemsize
    path.write_bytes(path.read_bytes()[: -3 * size])
    with pytest.raises(DataError, match="has no frames"):
        read(topology, path, tmp_path / "out.h5")
    with pytest.raises(DataError, match="there is no such trajectory file"):
        read(topology, tmp_path / "none.dcd", tmp_path / "out.h5")
    (tmp_path / "text.xtc").write_text("not a trajectory")
    with pytest.raises(DataError, match=r"text\.xtc"):
        read(topology, tmp_path / "text.xtc", tmp_path / "out.h5")
    (tmp_path / "text.pdb").write_text("hello")
    with pytest.raises(DataError, match=r"text\.pdb"):
        trajectory.load_topology(tmp_path / "text.pdb")


def test_memory_does_not_grow_with_the_file(short, tmp_path, monkeypatch):
    """No more than one chunk of frames is ever asked for."""
    topology, path = saved(short, tmp_path, "xtc")
    monkeypatch.setattr(trajectory, "CHUNK_BYTES", 12 * short.n_atoms * 7)
    sizes = []
    top = trajectory.load_topology(topology)
    for chunk in trajectory.Trajectory(path, top).chunks(np.arange(5)):
        sizes.append(len(chunk.frames))
    assert set(sizes) == {7} and sum(sizes) == 700


def test_only_what_holds_the_selection_together_is_read(short):
    ca = short.top.select("name CA")
    forest = periodic.spanning_forest(short.n_atoms, periodic.links(short.top), ca)
    names = {short.top.atom(int(i)).name for i in forest.read}
    assert names == {"CA", "C", "N"}
    seen = set(np.flatnonzero(~np.isin(np.arange(len(forest.read)), forest.child)))
    for child, parent in zip(forest.child, forest.parent, strict=True):
        assert parent in seen  # parents are in place before their children
        seen.add(child)
    np.testing.assert_array_equal(forest.read[forest.selected], ca)


def test_command_line(trpcage, tmp_path, capsys):
    atoms = tmp_path / "atoms.json"
    indices = trajectory.load_topology(trpcage[0]).select("name CA").tolist()
    atoms.write_text(
        json.dumps(
            {"selection": "name CA", "simulations": {"a": {"n_atoms_total": 304, "indices": indices, "atoms": []}}}
        )
    )
    arguments = [
        "--part", "part000", "--topology", str(trpcage[0]), "--trajectory", str(trpcage[1]), "--atoms", str(atoms),
        "--options", '{"featurize": {"stride": 10}}', "--output", str(tmp_path / "a" / "part000.h5"),
        "--log", str(tmp_path / "log.txt"),
    ]  # fmt: skip
    featurize.main([*arguments, "--simulation", "a"])
    with h5py.File(tmp_path / "a" / "part000.h5") as file:
        assert file["coordinates"].shape == (500, 20, 3) and file["coordinates"].dtype == np.float32
        assert dict(file.attrs)["n_frames_source"] == 4999
    with pytest.raises(SystemExit) as stop:
        stage.run(featurize.main, [*arguments, "--simulation", "b"])
    assert stop.value.code == 1
    assert "got simulation 'b', expected one of a" in (tmp_path / "log.txt").read_text()


def test_receptor_and_ligand(field_data, tmp_path):
    folder = field_data / "gpcr_5ht1b"
    whole = next(md.iterload(str(folder / "traj.xtc"), top=str(folder / "top.pdb"), chunk=20))
    broken = wrapped(whole, whole.unitcell_vectors[0].astype(np.float64))
    topology, path = saved(broken, tmp_path, "dcd")
    selection = "name N CA C O or (resname LIG and not element H)"
    with read(topology, path, tmp_path / "out.h5", selection=selection) as found:
        expected = distances.packed(whole.xyz[:, whole.top.select(selection)])
        np.testing.assert_allclose(of_selection(found), expected, atol=1e-5)


def test_rhombic_box_of_real_data(field_data, tmp_path):
    folder = field_data / "asp7"
    whole = md.load(folder / "asp7.xtc", top=folder / "asp7.pdb", stride=30)[:100].make_molecules_whole()
    broken = wrapped(whole, whole.unitcell_vectors[0].astype(np.float64))
    topology, path = saved(broken, tmp_path, "trr")
    with read(topology, path, tmp_path / "out.h5", selection="all") as found:
        np.testing.assert_allclose(of_selection(found), distances.packed(whole.xyz), atol=1e-5)


def test_index_of_a_grown_simulation_reads_through(trpcage, tmp_path):
    """Two parts of one trajectory are the trajectory."""
    whole = md.load(trpcage[1], top=trpcage[0])[:100]
    ca = whole.top.select("name CA")
    for k, part in enumerate((whole[:60], whole[60:])):
        topology, path = saved(part, tmp_path, "dcd")
        read(topology, path, tmp_path / f"part{k}.h5").close()
    found = np.concatenate([h5py.File(tmp_path / f"part{k}.h5")["coordinates"][:] for k in range(2)])
    np.testing.assert_allclose(found, whole.xyz[:, ca], atol=2e-6)

"""Which atoms are mapped."""

import json
from pathlib import Path

import mdtraj as md
import numpy as np
import pytest

from mdlatent import reduction, select_atoms, stage, trajectory
from mdlatent.errors import ConfigError, DataError


def run(folder, simulations, **options):
    output, log = folder / "atoms.json", folder / "log.txt"
    arguments = ["--simulations", json.dumps(simulations), "--options", json.dumps({"featurize": options})]
    select_atoms.main([*arguments, "--output", str(output), "--log", str(log)])
    return json.loads(output.read_text())


@pytest.fixture
def trp(trpcage):
    return {"name": "trp", "role": "train", "topology": str(trpcage[0]), "first_part": str(trpcage[1])}


@pytest.fixture
def trp_without_hydrogens(trpcage, tmp_path):
    top = md.load(trpcage[0])
    path = tmp_path / "heavy.pdb"
    top.atom_slice(top.top.select("not element H")).save_pdb(str(path))
    return {"name": "heavy", "role": "embed", "topology": str(path), "first_part": "none"}


def test_default_is_the_alpha_carbons(trp, tmp_path):
    atoms = run(tmp_path, [trp])
    assert (
        atoms["n_atoms"] == 20
        and atoms["atoms"][0] == "ASN1-CA"
        and atoms["simulations"]["trp"]["n_atoms_total"] == 304
    )
    top = md.load_topology(trp["topology"])
    assert atoms["simulations"]["trp"]["indices"] == top.select("name CA").tolist()


def test_every_simulation_has_its_own_indices_of_the_same_atoms(trp, trp_without_hydrogens, tmp_path):
    found = run(tmp_path, [trp, trp_without_hydrogens], selection="backbone", max_atoms=15)["simulations"]
    assert found["trp"]["atoms"] == found["heavy"]["atoms"] and len(found["trp"]["atoms"]) == 15
    assert found["trp"]["indices"] != found["heavy"]["indices"]
    top = md.load_topology(trp_without_hydrogens["topology"])
    assert [str(top.atom(i)) for i in found["heavy"]["indices"]] == found["heavy"]["atoms"]


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        ("nam CA", ConfigError, "got 'nam CA', which mdtraj cannot understand"),
        ("name CA and", ConfigError, "cannot understand"),
        ("", ConfigError, "cannot understand"),
        ("resid < x", ConfigError, "cannot understand"),
        ("name ZZ", DataError, "'name ZZ' matches no atom of the 304 in simulation 'trp'"),
        ("name CA and resid 0 1", DataError, "matches only 2 atoms"),
        ("index 5", DataError, "matches only 1 atom "),
    ],
)
def test_bad_selections(trp, tmp_path, selection, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, [trp], selection=selection)
    assert not (tmp_path / "atoms.json").exists()


def test_different_sizes_name_both_simulations(trp, trp_without_hydrogens, tmp_path):
    with pytest.raises(DataError, match="304 atoms in simulation 'trp', but 154 in 'heavy'"):
        run(tmp_path, [trp, trp_without_hydrogens], selection="all")


def test_same_names_may_stand_for_other_residues(trp, tmp_path):
    mutant = tmp_path / "mutant.pdb"
    mutant.write_text(Path(trp["topology"]).read_text().replace("ASN A   1", "ALA A   1"))
    run(tmp_path, [trp, trp | {"name": "mutant", "topology": str(mutant)}])
    assert (
        "1 atoms have other names than in the first simulation, e.g. ALA1-CA for ASN1-CA"
        in (tmp_path / "log.txt").read_text()
    )


@pytest.mark.parametrize(("n", "most"), [(1208, 400), (20, 3), (20, 19), (20, 20), (5, 9)])
def test_even_spacing(n, most):
    kept = select_atoms.even(n, most)
    assert len(kept) == len(set(kept)) == min(n, most)
    assert kept[0] == 0 and kept[-1] == n - 1
    assert np.ptp(np.diff(kept)) <= 1


def test_a_choice_is_taken_over_for_other_simulations(trp, trp_without_hydrogens, tmp_path):
    options = {"selection": "name N CA C O", "max_atoms": 30, "reduction": "informative"}
    chosen = run(tmp_path, [trp], **options)
    chosen_at = (tmp_path / "atoms.json").rename(tmp_path / "informative.json")
    like = ["--like", str(chosen_at), "--options", json.dumps({"featurize": options}), "--output", str(tmp_path / "o")]
    select_atoms.main(["--simulations", json.dumps([trp_without_hydrogens]), *like])
    found = json.loads((tmp_path / "o").read_text())
    assert found["atoms"] == chosen["atoms"]
    wider = {"featurize": options | {"selection": "all"}}
    with pytest.raises(DataError, match="matches 154 atoms here, but 80 in trp"):
        select_atoms.main(
            ["--simulations", json.dumps([trp_without_hydrogens]), *like[:2], "--options", json.dumps(wider)]
            + ["--output", str(tmp_path / "p")]
        )


def slaves(n_frames=300, seed=0):
    """Twelve atoms; all but 3, 7 and 11 move as weighted sums of those three, and a little on their own."""
    random = np.random.default_rng(seed)
    free = random.standard_normal((n_frames, 3, 3))
    weights = random.random((12, 3))
    weights[[3, 7, 11]] = np.eye(3)
    return np.einsum("ak,tki->tai", weights, free) + 1e-3 * random.standard_normal((n_frames, 12, 3))


def test_informative_choice_leaves_least_unexplained():
    """The greedy steps against brute force over the residual of a full regression."""
    frames = slaves()
    x = (frames - frames.mean(axis=0)).reshape(len(frames), -1)

    def unexplained(kept):
        columns = (3 * np.array(kept)[:, None] + np.arange(3)).ravel()
        return np.linalg.norm(x - x[:, columns] @ np.linalg.lstsq(x[:, columns], x, rcond=None)[0]) ** 2

    kept: list[int] = []
    for _ in range(3):
        kept.append(min(set(range(12)) - set(kept), key=lambda a: unexplained([*kept, a])))
        np.testing.assert_array_equal(reduction.choose_columns(frames, len(kept)), sorted(kept))
    assert unexplained(kept) < 1e-4 * (x**2).sum()


def test_choice_does_not_depend_on_the_order_of_frames_or_the_unit():
    frames = slaves(seed=4)
    kept = reduction.choose_columns(frames, 5)
    np.testing.assert_array_equal(kept, reduction.choose_columns(frames[::-1] * 10, 5))
    np.testing.assert_array_equal(reduction.choose_columns(frames, 12), np.arange(12))


def test_superposition_removes_every_motion_of_the_whole():
    random = np.random.default_rng(0)
    shape = random.standard_normal((1, 30, 3))
    turns = np.linalg.qr(random.standard_normal((50, 3, 3)))[0]
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    moved = shape @ turns + 5 * random.standard_normal((50, 1, 3))
    np.testing.assert_allclose(np.ptp(reduction.superpose(moved), axis=0), 0, atol=1e-9)
    mirrored = moved * [1, 1, -1]
    both = reduction.superpose(np.concatenate([moved, mirrored]))
    assert np.ptp(both, axis=0).max() > 0.5  # never by a reflection


def test_informative_on_the_demo(trp, tmp_path):
    options = {"selection": "name N CA C O", "max_atoms": 30, "reduction": "informative"}
    first = run(tmp_path, [trp], **options)
    assert first["n_atoms"] == 30 and first["atoms"] != [first["atoms"][0]] * 30
    assert run(tmp_path, [trp], **options) == first
    frames = reduction.sample_frames(
        [trp], {"trp": trajectory.load_topology(trp["topology"])}, {"trp": np.arange(304)}, "auto"
    )
    assert 250 <= len(frames) <= reduction.MAX_FRAMES


def test_informative_beats_even_on_later_frames_of_the_receptor(field_data):
    """1,208 → 400 atoms of 5-HT1B, chosen on the first half: the figures are those of benchmarks/reduction.py."""
    folder = field_data / "gpcr_5ht1b"
    whole = md.load(folder / "traj.xtc", top=folder / "top.pdb")
    frames = reduction.superpose(whole.xyz[:, whole.top.select("name CA")].astype(float))
    half = len(frames) // 2
    x = (frames - frames[:half].mean(axis=0)).reshape(len(frames), -1)

    def error(kept):
        mask = np.repeat(np.isin(np.arange(frames.shape[1]), kept), 3)
        known = x[:half, mask]
        weights = np.linalg.solve(known.T @ known + 0.05 * np.eye(mask.sum()), known.T @ x[:half, ~mask])
        return np.sqrt(((x[half:, mask] @ weights - x[half:, ~mask]) ** 2).mean())

    n = frames.shape[1]
    assert error(reduction.choose_columns(frames[:half], 100)) < 0.85 * error(select_atoms.even(n, 100))


def test_command_line_says_it_without_a_traceback(trp):
    with pytest.raises(SystemExit) as stop:
        stage.run(
            select_atoms.main,
            [
                "--simulations",
                json.dumps([trp]),
                "--options",
                '{"featurize": {"selection": "name ZZ"}}',
                "--output",
                "x.json",
            ],
        )
    assert stop.value.code == 1

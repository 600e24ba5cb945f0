"""Pools whose structures a learned force field moves at the end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mdlatent.conformers import many_rmsd, pool, ranker
from mdlatent.conformers.embedding import Deadline
from mdlatent.conformers.field_net import FieldNet
from mdlatent.conformers.generators import generate, shipped_field
from mdlatent.conformers.learned_field import LearnedField
from mdlatent.conformers.molecules import from_smiles, heavy_indices, positions
from mdlatent.conformers.stereo_signs import signs
from mdlatent.errors import ConfigError

MOL = from_smiles("CC(C)C[C@@H](N)C(=O)NCCO").mol
OPTIONS = pool.Options(torsions="uniform", draws=6, seeds=0.5, most=60)


def field(size: float) -> LearnedField:
    """A field with corrections of some size; 0 is MMFF94s."""
    torch.manual_seed(0)
    net = FieldNet(width=8, layers=2)
    for name, head in net.heads.items():
        if name in ("torsion", "charge"):
            torch.nn.init.normal_(head[2].weight, std=size)
    return LearnedField(net.weights(), {})


def build(some: LearnedField | None) -> pool.Pool:
    return pool.build(MOL, 4, 0, OPTIONS, None, Deadline(60), some)


def apart(one: pool.Pool, other: pool.Pool) -> np.ndarray:
    """RMSD in Å of each structure to itself."""
    heavy = heavy_indices(MOL)
    same = many_rmsd.automorphisms(MOL, 100)
    return many_rmsd.rmsd_between(one.coordinates[:, heavy], other.coordinates[:, heavy], same).diagonal()


def test_structures_move_energies_that_they_are_judged_by_do_not() -> None:
    plain, moved = build(None), build(field(0.5))
    assert np.array_equal(plain.own_kcal, moved.own_kcal) and np.array_equal(plain.well_kcal, moved.well_kcal)
    assert np.median(apart(plain, moved)) > 0.1
    assert (signs(MOL, moved.coordinates) == signs(MOL, plain.coordinates)).all()
    assert np.array_equal(build(field(0.5)).coordinates, moved.coordinates)


def test_ranker_that_was_learned_with_a_field_asks_for_it(tmp_path: Path) -> None:
    learned = ranker.Ranker(np.zeros(len(ranker.FEATURES + ranker.FIELD_FEATURES)), {})
    learned.weights[len(ranker.FEATURES)] = -1.0  # the energy of the field alone
    learned.save(tmp_path / "ranker.npz")
    learned = ranker.Ranker.load(tmp_path / "ranker.npz")
    made = build(field(0.5))
    assert made.field_kcal is not None
    chosen = pool.choose(MOL, made, 1, replace(OPTIONS, precision_weight=1e6), learned)
    assert made.field_kcal[chosen[0]] < np.quantile(made.field_kcal, 0.1)
    with pytest.raises(ConfigError, match="--field"):
        pool.choose(MOL, build(None), 1, OPTIONS, learned)


def test_relaxed_ones_stay_where_the_field_is_that_of_the_relaxation() -> None:
    plain, same = build(None), build(field(0.0))
    wells = plain.own_kcal == plain.well_kcal
    assert wells.sum() > 3
    assert np.median(apart(plain, same)[wells]) < 0.03


def test_what_the_field_breaks_is_left_as_it_was() -> None:
    broken = field(0.5)
    broken.weights["heads.bond.2.bias"] = np.full(2, np.nan, np.float32)
    assert np.array_equal(build(broken).coordinates, build(None).coordinates)


@pytest.mark.parametrize("generator", ["torsions", "torsions_unranked"])
def test_generators_take_a_field(generator: str) -> None:
    with_field = positions(generate(generator, MOL, 3, field=field(0.5), options=OPTIONS))
    assert not np.array_equal(with_field, positions(generate(generator, MOL, 3, options=OPTIONS)))


@pytest.mark.parametrize("generator", ["torsions_mmff", "torsions_uniform", "etkdg_pool"])
def test_what_is_told_to_have_learned_nothing_more_takes_none(generator: str) -> None:
    with_field = positions(generate(generator, MOL, 3, field=field(0.5), options=OPTIONS))
    assert np.array_equal(with_field, positions(generate(generator, MOL, 3, options=OPTIONS)))


def test_shipped_field_says_where_it_comes_from() -> None:
    known = shipped_field().provenance
    assert {"source", "files", "molecules_sha256", "n_molecules", "validation", "rdkit"} <= set(known)

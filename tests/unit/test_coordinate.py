"""The family `coordinate`: it starts as principal components, and knows left from right."""

import numpy as np
import pytest
import torch

from coordinate_models import frames, linear_rmsd_nm, prepared, rmsd_nm, trained
from mdlatent import distances
from mdlatent.alignment import align, centred
from mdlatent.models import pair_features
from mdlatent.models.coordinate_start import set_components
from mdlatent.models.principal import principal_components

# The start


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_start_is_the_principal_components_of_the_coordinates(store, dim):
    model = prepared(store, dim, refine_steps=0)
    everything = frames(store)
    torch.testing.assert_close(
        rmsd_nm(model, everything), linear_rmsd_nm(everything[:300], everything, dim), atol=2e-5, rtol=1e-3
    )
    z, log_variance = model.encode(everything[:300])
    scales = model.deviations_nm[:dim] / model.deviations_nm[0]
    torch.testing.assert_close(z.std(0), scales, atol=5e-3, rtol=0)
    inner = -torch.nn.functional.softplus(torch.tensor(5.0))  # before training, of the unit-variance z
    torch.testing.assert_close(log_variance, (inner + 2 * scales.log()).expand(300, dim))
    refined = prepared(store, dim, refine_steps=2)
    assert rmsd_nm(refined, everything).square().mean() <= rmsd_nm(model, everything).square().mean()


@pytest.mark.parametrize("signed", ["dihedrals", "none"])
def test_start_from_internal_quantities_alone_is_near_it(store, signed):
    model, everything = prepared(store, signed_features=signed), frames(store)
    linear = linear_rmsd_nm(everything[:300], everything, 3)
    assert rmsd_nm(model, everything).mean() < 1.05 * linear.mean()


def test_components_by_iteration_are_those_by_covariance():
    random = np.random.default_rng(0)
    rows = (random.standard_normal((300, 40)) * 0.8 ** np.arange(40)) @ np.linalg.qr(random.standard_normal((40, 40)))[
        0
    ]

    def chunks():
        return iter([part.copy() for part in np.array_split(rows, 4)])

    exact = principal_components(chunks, 300, 5, 40, "test")
    near = principal_components(chunks, 300, 5, 10, "test", 1e-3)
    np.testing.assert_allclose(near.variance, exact.variance, rtol=1e-2)
    np.testing.assert_allclose(np.sum(near.directions * exact.directions, 1), 1, atol=2e-2)
    np.testing.assert_allclose(exact.variance, np.linalg.svd(rows - rows.mean(0))[1][:5] ** 2 / 299, rtol=1e-6)


def test_components_that_few_frames_do_not_span_are_zero():
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32))
    components, deviations = torch.ones(6, 20), torch.ones(6)
    set_components(lambda: iter([rows]), 4, components, deviations)
    assert (deviations[:3] > 0).all()
    assert not deviations[3:].any()
    assert not components[3:].any()


# The map


@pytest.mark.parametrize("signed", ["aligned", "dihedrals", "none"])
def test_map_ignores_position_and_orientation(store, signed):
    model = prepared(store, signed_features=signed)
    trained(store, model, epochs=2)
    coordinates = frames(store, 0, 40)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)))[0]
    turn = turn * torch.det(turn)
    moved = coordinates @ turn + torch.tensor([3.0, -2.0, 5.0])
    torch.testing.assert_close(model.encode(moved)[0], model.encode(coordinates)[0], atol=2e-3, rtol=2e-3)
    one, other = (model.loss(x, 1e-3, torch.ones(40, 3)) for x in (coordinates, moved))
    torch.testing.assert_close(one["loss"], other["loss"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("signed", "sees"), [("aligned", True), ("dihedrals", True), ("none", False)])
def test_only_signed_features_see_the_hand(store, signed, sees):
    model = prepared(store, signed_features=signed, refine_steps=0)
    inputs = model.inputs(frames(store, 0, 20)), model.inputs(frames(store, 0, 20) * torch.tensor([1.0, 1.0, -1.0]))
    assert (float((inputs[0] - inputs[1]).abs().max()) > 0.05) == sees


def test_order_of_atoms_matters_and_is_kept(store):
    model, coordinates = prepared(store), frames(store, 0, 20)
    order = torch.tensor([5, *range(1, 5), 0, *range(6, 12)])
    assert float(rmsd_nm(model, coordinates[:, order]).mean()) > 2 * float(rmsd_nm(model, coordinates).mean())
    torch.testing.assert_close(
        model.decode_coordinates(torch.zeros(1, 3))[0], model.mean_nm, atol=1e-6, rtol=0
    )  # atoms come out in the order in which they went in


def test_trained_structures_have_the_right_hand(helices):
    model = prepared(helices, 2)
    trained(helices, model)
    coordinates = frames(helices, 340, 400)
    decoded = model.decode_coordinates(model.encode(coordinates)[0]).detach()
    mirrored = decoded * torch.tensor([1.0, 1.0, -1.0])
    right, wrong = (
        (align(x, centred(coordinates)) - centred(coordinates)).square().sum(2).mean(1).sqrt()
        for x in (decoded, mirrored)
    )
    assert (3 * right < wrong).all()


def test_error_of_embedding_is_that_of_all_pairs(store):
    model, coordinates = prepared(store), frames(store, 0, 30)
    z, error = model.embed(coordinates)
    plain = (model.decode(z) - distances.packed_torch(coordinates)).square().mean(1).sqrt()
    torch.testing.assert_close(error, plain, atol=1e-6, rtol=1e-4)
    model.compiled = True
    torch.testing.assert_close(model.embed(coordinates)[1], plain, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("decoders", [1, 3])
def test_slopes_are_derivatives_of_the_decoder(store, decoders):
    model = prepared(store, decoders=decoders).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    z, h = torch.randn(4, 3, dtype=torch.float64), 1e-5
    slopes = model._slopes(z)
    for k, step in enumerate(torch.eye(3, dtype=torch.float64) * h):
        numeric = (model._scores(z + step) - model._scores(z - step)) / (2 * h)
        torch.testing.assert_close(slopes[:, :, k], numeric, atol=1e-6, rtol=1e-6)


def test_refinement_lowers_the_error(store):
    model = prepared(store, refine_steps=0)
    trained(store, model)
    errors = []
    for model.refine_steps in (0, 1, 3):
        errors.append(float(rmsd_nm(model, frames(store, 330, 400)).square().mean()))
    assert errors[2] <= errors[1] < errors[0]


def test_dihedrals_are_those_of_the_backbone_first():
    atoms = ["ACE1-CH3", "ACE1-C", "ACE1-O", "ALA2-N", "ALA2-CA", "ALA2-CB", "ALA2-C", "ALA2-O", "NME3-N", "NME3-C"]
    fours = pair_features.choose_dihedrals(atoms)
    assert fours[0].tolist() == [1, 3, 4, 6]  # φ
    assert fours[1].tolist() == [3, 4, 6, 8]  # ψ
    assert len(fours) == pair_features.n_dihedrals(10) == 7
    angle = torch.tensor(0.7)
    points = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [float(angle.cos()), float(angle.sin()), 1]])[None]
    sine, cosine = pair_features.dihedral_numbers(points, torch.tensor([[0, 1, 2, 3]]))[0]
    assert (abs(float(sine)), float(cosine)) == pytest.approx((float(angle.sin()), float(angle.cos())), abs=1e-6)

"""The family `coordinate`: it starts as principal components, only betters them, and knows left from right."""

import json
import signal

import numpy as np
import pytest
import torch

from frame_store import chain, write_store
from mdlatent import distances, models, train, training
from mdlatent.alignment import align, centred, rotations
from mdlatent.errors import ConfigError, Interrupted
from mdlatent.feed import Feed, noise, partners
from mdlatent.frames import FrameStore
from mdlatent.models import bonds, pair_features
from mdlatent.models.coordinate_start import set_components
from mdlatent.models.kinetics import vamp2
from mdlatent.models.principal import principal_components
from mdlatent.refit import is_wanted, refit
from support import peak_growth

SETTINGS = {
    "epochs": 8, "batch_size": 32, "learning_rate": 3e-3, "weight_decay": 1e-4, "beta": 2e-3, "beta_warmup_epochs": 2,
    "checkpoint_epochs": 1, "ema_decay": 0.99, "patience_epochs": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    coordinates = chain(400, 12)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((400, 3, 3)))[0]
    turn *= np.linalg.det(turn)[:, None, None]  # rotations
    coordinates = (coordinates @ turn + np.random.default_rng(2).standard_normal((400, 1, 3))).astype(np.float32)
    with FrameStore(write_store(tmp_path_factory.mktemp("store"), {"a": coordinates}, n_parts=2)) as opened:
        yield opened


@pytest.fixture(scope="module")
def helices(tmp_path_factory):
    """A right-handed helix that winds tighter and looser and stretches: two dimensions, far from linear."""
    random = np.random.default_rng(3)
    t, k = np.arange(400)[:, None], np.arange(14)[None]
    angle = np.deg2rad(90 + 10 * np.sin(t / 17)) * k
    rise = (0.15 + 0.05 * np.sin(t / 29)) * k
    coordinates = np.stack([0.25 * np.cos(angle), 0.25 * np.sin(angle), rise], -1)
    coordinates = (coordinates + 0.003 * random.standard_normal(coordinates.shape)).astype(np.float32)
    with FrameStore(write_store(tmp_path_factory.mktemp("helices"), {"a": coordinates})) as opened:
        yield opened


def prepared(store, latent_dim=3, seed=0, rows=None, **options):
    torch.manual_seed(seed)
    model = models.build("coordinate", store.n_atoms, latent_dim, options)
    model.prepare(store, np.arange(300) if rows is None else rows)
    return model


def trained(store, model, seed=0, train_rows=range(270), validation_rows=range(280, 330), **changes):
    lag = {"lag_frames": model.lag_frames}
    feed = Feed(store, np.array(train_rows), 32, seed, **lag)
    validation = Feed(store, np.array(validation_rows), 32, shuffle=model.lag_frames > 0, **lag)
    return training.train(model, feed, validation, SETTINGS | changes, seed)


def frames(store, start=0, stop=None):
    return torch.from_numpy(store.read(start, stop or store.n_frames))


@torch.no_grad()
def rmsd_nm(model, coordinates):
    decoded = model.decode_coordinates(model.encode(coordinates)[0])
    return (align(coordinates, centred(decoded)) - centred(decoded)).square().sum(2).mean(1).sqrt()


def linear_rmsd_nm(training_frames, coordinates, dim):
    """Principal components of superposed coordinates by plain numpy."""
    mean = centred(training_frames[:1])[0]
    for _ in range(20):
        mean = align(training_frames.double(), mean.double()).mean(0).float()
    flat = (align(training_frames, mean) - mean).flatten(1).double().numpy()
    centre = flat.mean(0)
    basis = np.linalg.svd(flat - centre, full_matrices=False)[2][:dim]
    x = (align(coordinates, mean) - mean).flatten(1).double().numpy()
    decoded = torch.from_numpy(((x - centre) @ basis.T @ basis + centre).reshape(coordinates.shape)).float() + mean
    return (align(coordinates, centred(decoded)) - centred(decoded)).square().sum(2).mean(1).sqrt()


# Superposition


def test_superposition_against_the_plain_one():
    x, y = (centred(torch.randn(50, 9, 3, generator=torch.Generator().manual_seed(k))) for k in (0, 1))
    u, _, vt = np.linalg.svd((x.transpose(1, 2) @ y).double().numpy())
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    np.testing.assert_allclose(rotations(x, y).numpy(), u @ vt, atol=1e-5)


def test_superposition_is_a_rotation_even_where_it_is_not_unique():
    mirrored = torch.randn(1, 6, 3) * torch.tensor([-1.0, 1.0, 1.0])
    line = torch.linspace(-1, 1, 5)[None, :, None] * torch.tensor([1.0, 2.0, 3.0])
    for x in (mirrored, line, torch.zeros(1, 4, 3), torch.tensor([[[1.0, 0, 0], [-1, 0, 0], [0, 0, 0]]])):
        for y in (x, -x, torch.randn_like(x)):
            turn = rotations(centred(x), centred(y))[0].float()
            torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-5, rtol=0)
            assert float(torch.det(turn)) == pytest.approx(1, abs=1e-5)


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


# Training


@pytest.mark.parametrize(
    "options",
    [
        {}, {"signed_features": "dihedrals"}, {"kinetic_weight": 0.1, "lag_frames": 2},
        {"decoders": 3, "interpolate": True, "lag_frames": 1, "bond_tolerance": 0.05},
    ],
)  # fmt: skip
def test_gradient_reaches_every_parameter(store, options):
    model = prepared(store, **options)
    for network in (model.encoder, *model._networks()):  # zero layers let nothing through
        torch.nn.init.normal_(network[-1].weight, 0, 0.01)
    feed = Feed(store, np.arange(64), 16, lag_frames=model.lag_frames)
    model.loss(next(feed.batches(1)), 1e-2, torch.randn(16, model.n_noise))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_one_frame_can_be_learnt(store):
    model, coordinates = prepared(store, 2, refine_steps=0), frames(store, 350, 351)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(coordinates, 0.0, None)["loss"].backward()
        optimizer.step()
    assert 10 * float(rmsd_nm(model, coordinates)) < 0.02  # Å


def test_loss_is_a_mean_over_frames_whatever_the_batch(store):
    model, coordinates = prepared(store), frames(store, 0, 6)
    draw = torch.from_numpy(noise(0, 1, 0, (6, 3)))
    whole = model.loss(coordinates, 0.1, draw)
    halves = [model.loss(coordinates[part], 0.1, draw[part]) for part in (slice(0, 3), slice(3, 6))]
    for name in ("loss", "reconstruction", "kl_nats"):
        torch.testing.assert_close(whole[name], sum(half[name] for half in halves) / 2)


def test_training_betters_the_start_and_no_dimension_dies(helices):
    model, held_out = prepared(helices, 2), frames(helices, 340, 400)
    before = float(rmsd_nm(model, held_out).mean())
    result = trained(helices, model, epochs=20)
    assert result.weights.startswith("epoch")
    assert float(rmsd_nm(model, held_out).mean()) < 0.6 * before
    assert result.rows[-1]["active_dimensions"] == 2


def test_where_training_does_not_help_the_start_is_kept(store):
    """Few frames of pure noise: there is nothing to learn."""
    random = torch.Generator().manual_seed(0)
    rows = np.arange(30)
    model = prepared(store, rows=rows)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    honest = model.loss

    def misleading(coordinates, beta, draw):
        if draw is not None:
            coordinates = torch.randn(coordinates.shape, generator=random)
        return honest(coordinates, beta, draw)

    model.loss = misleading
    result = trained(store, model, train_rows=rows, validation_rows=range(50, 80), epochs=4)
    del model.loss
    assert result.weights.startswith("those before training (principal components)")
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_a_frame_far_from_all_others_does_not_blow_up(store):
    model = prepared(store)
    with torch.no_grad():
        model.encoder[-1].bias[3:] = 300.0
    parts = model.loss(frames(store, 0, 20), 1e-3, torch.ones(20, 3))
    parts["loss"].backward()
    assert torch.isfinite(parts["loss"])
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_three_atoms(tmp_path):
    coordinates = np.random.default_rng(0).standard_normal((120, 3, 3)).astype(np.float32)
    with FrameStore(write_store(tmp_path, {"a": coordinates})) as small:
        model = prepared(small, 2, rows=np.arange(80), signed_features="dihedrals")
        trained(small, model, train_rows=range(80), validation_rows=range(90, 120), epochs=2)
        z, error = model.embed(frames(small))
    assert z.shape == (120, 2)
    assert torch.isfinite(error).all()


def test_twelve_hundred_atoms_in_little_memory(tmp_path):
    with FrameStore(write_store(tmp_path, {"a": chain(80, 1208)})) as large, peak_growth() as memory:
        model = prepared(large, rows=np.arange(64))
        trained(large, model, train_rows=range(64), validation_rows=range(70, 80), epochs=1)
        assert torch.isfinite(model.embed(frames(large, 0, 8))[1]).all()
    assert memory["bytes"] < 0.2e9  # a batch of distance matrices would be as much
    assert model.n_parameters < 500_000


@pytest.mark.parametrize("n_atoms", [3, 4, 65, 101, 5000])
def test_parameters_and_features_are_linear_in_the_atoms(n_atoms):
    model = models.build("coordinate", n_atoms, 3)
    assert model.n_parameters <= models.build("coordinate", 5000, 3).n_parameters
    assert model.feature_mean.numel() <= 2016 + 6 * n_atoms


# Kinetics


def test_vamp2_of_known_processes():
    random = np.random.default_rng(0)
    x = np.zeros((20000, 2))
    for t in range(1, len(x)):
        x[t] = x[t - 1] * [0.95, 0.5] + random.standard_normal(2)
    x = torch.from_numpy(x) @ torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64) + 7
    assert float(vamp2(x[:-1], x[1:])) == pytest.approx(0.95**2 + 0.5**2, abs=0.03)
    assert float(vamp2(x[:3], x[1:4])) == 0


def test_partners_cross_no_gap_and_no_simulation(tmp_path):
    with FrameStore(write_store(tmp_path, {"a": chain(10, 4), "b": chain(10, 4, 1)})) as two:
        rows = np.array([0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12])
        later = partners(two, rows, 2)
        found = {int(rows[k]): int(rows[other]) for k, other in enumerate(later) if other >= 0}
        assert found == {0: 2, 1: 3, 5: 7, 6: 8, 7: 9, 10: 12}
        whole = two.read(0, 20)
        for budget_bytes in (10**9, 4 * 48 * 2):
            feed = Feed(two, rows, 4, budget_bytes=budget_bytes, lag_frames=2)
            seen = 0
            for number, batch in enumerate(feed.batches(3)):
                for pair, place in zip(batch.numpy(), feed.order(3)[4 * number :], strict=False):
                    row = int(rows[place])
                    np.testing.assert_array_equal(pair[0], whole[row])
                    if row in found:
                        np.testing.assert_array_equal(pair[1], whole[found[row]])
                    else:
                        assert np.isnan(pair[1]).all()
                    seen += 1
            assert seen == len(rows)
            assert feed.tally.take()[0] == len(rows)


def test_kinetic_term_raises_the_kinetics(store):
    rows, scores = np.arange(270), []
    later = partners(store, rows, 5)
    for weight in (0.0, 1.0):
        model = prepared(store, 1, kinetic_weight=weight, lag_frames=5, refine_steps=0)
        trained(store, model, epochs=10)
        z = model.encode(frames(store, 0, 270))[0].detach()
        scores.append(float(vamp2(z[later >= 0], z[later[later >= 0]])))
    assert scores[1] > scores[0] + 0.02


def test_time_lagged_decodes_to_what_comes_later(store):
    model = prepared(store, time_lagged=True, lag_frames=5)
    now, later = frames(store, 0, 20), frames(store, 5, 25)
    pairs = torch.stack([now, later], 1)
    pairs[3, 1] = torch.nan
    z = model.encode(now)[0]
    errors = model._error(model.decode_coordinates(z), torch.cat([later[:3], now[3:4], later[4:]]))
    torch.testing.assert_close(model.loss(pairs, 0.0, None)["reconstruction"], errors.mean())


@pytest.mark.parametrize("error", ["rmsd", "square"])
def test_error_is_that_of_superposed_atoms_and_distances(store, error):
    model = prepared(store, error=error, distance_weight=0.0)
    coordinates = frames(store, 0, 20)
    plain = rmsd_nm(prepared(store, refine_steps=0), coordinates) / model.scale_nm
    model.refine_steps = 0
    wanted = plain if error == "rmsd" else plain.square()
    torch.testing.assert_close(
        model.loss(coordinates, 0.0, None)["reconstruction"], wanted.mean(), rtol=1e-4, atol=1e-5
    )


def test_gradient_at_a_perfect_structure_is_finite(store):
    model = prepared(store)
    decoded = model.decode_coordinates(torch.zeros(2, 3, requires_grad=True))
    error = model._error(decoded, decoded.detach())
    error.sum().backward()
    assert float(error.detach().max()) < 2e-3
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# Several decoders, structures between frames, bonds


def test_structures_are_decoded_to_the_mean_of_the_decoders(helices):
    model = prepared(helices, 2, decoders=3)
    trained(helices, model, epochs=2)
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    each = [model._structure(model._member(k, z)).detach() for k in range(3)]
    assert float((each[0] - each[1]).abs().max()) > 1e-4
    torch.testing.assert_close(model.decode_coordinates(z * model.scales).detach(), sum(each) / 3, atol=1e-6, rtol=0)


def test_decoders_are_trained_on_their_own_errors_with_noise_of_their_own(store):
    model, coordinates = prepared(store, decoders=2), frames(store, 0, 20)
    for network in model._networks():
        torch.nn.init.normal_(network[-1].weight, 0, 0.1)
    draw = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    draw[:, 3:] *= 9  # so that the two errors differ
    mean, log_variance = model._encode(coordinates)
    errors = []
    for k in range(2):
        z = mean + (0.5 * log_variance).exp() * draw[:, 3 * k : 3 * k + 3]
        errors.append(model._error(model._structure(model._member(k, z)), coordinates).mean())
    assert float((errors[0] - errors[1]).abs().detach()) > 0.01
    torch.testing.assert_close(model.loss(coordinates, 0.0, draw)["reconstruction"], (errors[0] + errors[1]) / 2)


def test_training_sees_what_lies_between_two_frames(store):
    model = prepared(store, interpolate=True, lag_frames=1)
    assert model.n_noise == 4
    now, later = frames(store, 0, 20), frames(store, 1, 21)
    pairs = torch.stack([now, later], 1)
    pairs[3, 1] = torch.nan  # it has no partner and stays what it is
    z = [model._encode(x)[0] for x in (now, later)]
    draw = torch.zeros(20, 4)
    for normal, share in ((-9.0, 0.0), (0.0, 0.5), (0.6744898, 0.75), (9.0, 1.0)):
        draw[:, 3] = normal
        shares = torch.full((20, 1, 1), share)
        shares[3] = 0
        target = centred(now) * (1 - shares) + align(later, centred(now)) * shares
        decoded = model._decode(z[0] * (1 - shares[:, 0]) + z[1] * shares[:, 0])
        wanted = model._error(decoded, target).mean()
        torch.testing.assert_close(model.loss(pairs, 0.0, draw)["reconstruction"], wanted, rtol=1e-4, atol=1e-6)
    plain = model._error(model._decode(model._refined(now, 1)[0]), now).mean()
    torch.testing.assert_close(model.loss(pairs, 0.0, None)["reconstruction"], plain)
    with pytest.raises(ConfigError, match=r"interpolate.*time_lagged"):
        models.build("coordinate", 5, 2, {"interpolate": True, "time_lagged": True})


def test_noise_of_a_given_size(store):
    model, coordinates = prepared(store, noise=0.2), frames(store, 0, 20)
    draw = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    wanted = model._error(model._decode(model._encode(coordinates)[0] + 0.2 * draw), coordinates).mean()
    torch.testing.assert_close(model.loss(coordinates, 0.0, draw)["reconstruction"], wanted)
    deviation = (0.5 * model.encode(coordinates)[1]).exp()
    torch.testing.assert_close(deviation, (0.2 * model.scales).expand(20, 3))


def test_bonds_that_hardly_vary_are_kept():
    random = np.random.default_rng(0)
    coordinates = chain(300, 9).astype(np.float64)
    steps = np.diff(coordinates, axis=1)
    steps *= 0.38 / np.linalg.norm(steps, axis=2, keepdims=True)
    steps *= 1 + 0.02 * random.standard_normal((300, 8, 1))
    steps[:, 4] *= 1 + 0.2 * random.standard_normal((300, 1))  # one that varies
    x = np.cumsum(np.concatenate([np.zeros((300, 1, 3)), steps], 1), 1)
    lengths = bonds.bond_lengths(iter(np.array_split(x, 7)), 0.04)
    measured = np.linalg.norm(np.diff(x, axis=1), axis=2)
    np.testing.assert_allclose(lengths, np.where(np.arange(8) == 4, 0, measured.mean(0)), rtol=1e-6)
    y = torch.from_numpy(x + 0.02 * random.standard_normal(x.shape))
    wanted = torch.from_numpy(lengths)
    kept = bonds.keep(y, wanted)
    after = (kept[:, 1:] - kept[:, :-1]).norm(dim=2)
    before = (y[:, 1:] - y[:, :-1]).norm(dim=2)
    kind = wanted > 0
    assert float((after - wanted)[:, kind].square().mean()) < 0.02**2 * float(
        (before - wanted)[:, kind].square().mean()
    )
    torch.testing.assert_close(kept.mean(1), y.mean(1))
    direction = torch.from_numpy(random.standard_normal((2, *x.shape))).transpose(0, 1)  # (B, d, N, 3)
    same, slopes = bonds.keep_with_slopes(y, direction, wanted)
    assert torch.equal(same, kept)
    for k in range(2):
        numeric = (
            bonds.keep(y + 1e-6 * direction[:, k], wanted) - bonds.keep(y - 1e-6 * direction[:, k], wanted)
        ) / 2e-6
        torch.testing.assert_close(slopes[:, k], numeric, atol=1e-6, rtol=1e-5)


def test_decoded_structures_have_the_bonds_of_training_and_are_nearer(helices):
    """Helices decoded with one dimension less than they have."""
    everything = frames(helices)
    with torch.no_grad():
        model = prepared(helices, 1, bond_tolerance=0.2)
        decoded = model.decode_coordinates(model.encode(everything)[0])
        off = ((decoded[:, 1:] - decoded[:, :-1]).norm(dim=2) - model.bonds_nm).abs()
        errors = []
        for steps in (0, 3):
            model.refine_steps = steps
            errors.append(float(rmsd_nm(model, everything).square().mean()))
    assert (model.bonds_nm > 0).all()
    assert float(off.max()) < 1e-4
    assert errors[1] < errors[0]


# Training anew on validation frames too


def refitted(store, rows, before, **changes):
    settings = SETTINGS | {"refit": "always"} | changes
    return refit(lambda: models.build("coordinate", store.n_atoms, 2), store, rows, settings, 0, before)


@pytest.mark.parametrize(
    ("refit", "epoch", "wanted"),
    [("never", 20, False), ("early", 30, True), ("early", 31, False), ("always", 40, True), ("always", 0, False)],
)
def test_refit_is_done_where_it_is_asked_for(refit, epoch, wanted):
    before = training.Trained([], "", epoch, None)
    assert is_wanted({"epochs": 40, "refit": refit}, before) == wanted


def test_refit_learns_from_validation_frames_and_from_no_other(helices, tmp_path):
    """Other test frames, the same model; other validation frames, another one."""
    rows = {"train": np.arange(150), "validation": np.arange(150, 300)}
    before = training.Trained([], "epoch 3 of 8", 3, None)
    weights = []
    for changed in (None, 350, 200):
        coordinates = helices.read(0, 400).copy()
        if changed:
            coordinates[changed:] = coordinates[changed:, ::-1]
        with FrameStore(write_store(tmp_path / str(changed), {"a": coordinates})) as other:
            weights.append(refitted(other, rows, before)[0].decoder[0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_refit_betters_what_more_frames_can_better(helices):
    rows = {"train": np.arange(60), "validation": np.arange(60, 300)}
    model = prepared(helices, 2, rows=rows["train"])
    before = trained(helices, model, train_rows=rows["train"], validation_rows=rows["validation"], epochs=20)
    after, result = refitted(helices, rows, before, epochs=20)
    held_out = frames(helices, 320, 400)
    assert rmsd_nm(after, held_out).mean() < 0.9 * rmsd_nm(model, held_out).mean()
    assert result.weights.startswith(before.weights)
    assert result.rows is before.rows


def test_refit_is_a_whole_training_of_so_many_epochs(store):
    """To the bit: its rate falls to 0 at its own last epoch, not at that of the training before."""
    before = training.Trained([], "epoch 3 of 8", 3, None)
    both = np.concatenate([np.arange(90), np.arange(100, 120)])
    after, _ = refitted(store, {"train": both[:90], "validation": both[90:]}, before)
    plain = prepared(store, 2, rows=both)
    trained(store, plain, train_rows=both, validation_rows=both[:0], epochs=3)
    assert all(torch.equal(a, b) for a, b in zip(after.parameters(), plain.parameters(), strict=True))


def test_refit_ends_at_the_epoch_that_was_best(store):
    seen = []
    before = training.Trained([], "epoch 3 of 8", 3, None)
    rows = {"train": np.arange(90), "validation": np.arange(100, 120)}
    build = lambda: models.build("coordinate", store.n_atoms, 2)  # noqa: E731
    refit(build, store, rows, SETTINGS | {"refit": "always"}, 0, before, note=seen.append)
    assert [record["epoch"] for record in seen] == [1, 2, 3]
    assert all(record["refit"] and record["frames"] == 110 for record in seen)


# Through the stages


def arguments(index, folder, options=None, **settings):
    settings = {"epochs": 4, "batch_size": 32, "checkpoint_epochs": 1, "device": "cpu", "patience_epochs": 3} | settings
    content = {
        "models": [{"family": "coordinate", "latent_dim": 2, "options": options or {}}],
        "train": settings,
        "split": {"gap_frames": 2},
    }
    return [
        "--frames", str(index), "--model", "coordinate-d2", "--seed", "0", "--options", json.dumps(content),
        "--output-dir", str(folder / "out"), "--checkpoints", str(folder / "checkpoints"),
        "--log", str(folder / "train.log"),
    ]  # fmt: skip


class StopAfter:
    def __init__(self, n):
        self.left = n

    def __bool__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("options", [{}, {"kinetic_weight": 0.1, "lag_frames": 3}], ids=["plain", "kinetic"])
def test_stopped_at_any_step_the_result_is_the_same(store, tmp_path, monkeypatch, options):
    anew = "never" if options else "always"  # and stopped in its midst
    train.main(arguments(store.path, tmp_path / "whole", options, refit=anew))
    monkeypatch.setattr(training, "StopSignal", lambda: StopAfter(5))
    stops = 0
    while not (tmp_path / "pieces/out/model.pt").exists():
        try:
            train.main(arguments(store.path, tmp_path / "pieces", options, refit=anew))
        except Interrupted:
            stops += 1
    assert stops >= (2 if options else 8)
    assert not (tmp_path / "pieces/checkpoints").exists()
    assert (tmp_path / "whole/out/model.pt").read_bytes() == (tmp_path / "pieces/out/model.pt").read_bytes()


def test_few_frames_are_no_error_and_never_worse_than_the_start(tmp_path):
    """30 frames: 11 for training, fewer than a batch."""
    with FrameStore(write_store(tmp_path / "frames", {"a": chain(30, 12)})) as few:
        train.main(arguments(few.path, tmp_path, batch_size=64, epochs=6))
        model, _ = models.load(tmp_path / "out/model.pt")
        rows = np.flatnonzero(np.isin(np.arange(30), [5, 17, 29]))
        assert torch.isfinite(rmsd_nm(model, torch.from_numpy(few.read(0, 30))[rows])).all()


def test_saved_model_comes_back_the_same(store, tmp_path):
    model, coordinates = prepared(store, signed_features="dihedrals", width=16).eval(), frames(store, 0, 9)
    models.save(tmp_path / "model.pt", model, {"atoms": ["A"]})
    again, _ = models.load(tmp_path / "model.pt")
    assert again.options == model.options
    for one, other in zip(model.embed(coordinates), again.embed(coordinates), strict=True):
        assert torch.equal(one, other)

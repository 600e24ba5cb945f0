"""Options of the family `coordinate`: kinetics, errors, several decoders, structures between frames, noise, bonds."""

import numpy as np
import pytest
import torch

from coordinate_models import frames, prepared, rmsd_nm, trained
from frame_store import chain, write_store
from mdlatent import models
from mdlatent.alignment import align, centred
from mdlatent.errors import ConfigError
from mdlatent.feed import Feed, partners
from mdlatent.frames import FrameStore
from mdlatent.models import bonds
from mdlatent.models.kinetics import vamp2

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

"""Training: every frame once an epoch, same seed same bits, and no interruption changes the result."""

import csv
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from frame_store import chain, write_store
from mdlatent import epoch_sums, models, optimizer, train, training
from mdlatent.errors import DataError, Interrupted
from mdlatent.feed import Feed, iterate_rows, noise, read_rows
from mdlatent.frames import FrameStore
from training_parts import StopAfter

WORKFLOW = Path(train.__file__).parent.parent


@pytest.fixture(autouse=True)
def _signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def index(tmp_path):
    return write_store(tmp_path / "frames", {"a": chain(200, 8), "b": chain(130, 8, 1)}, n_parts=2)


def arguments(index, folder, seed=0, model="conv2d-d2", **settings):
    settings = {"epochs": 6, "batch_size": 16, "checkpoint_epochs": 1, "device": "cpu"} | settings
    options = {
        "models": [{"family": "conv2d", "latent_dim": 2}, {"family": "pca_distances", "latent_dim": 2}],
        "train": settings,
        "split": {"gap_frames": 2},
    }
    return [
        "--frames", str(index), "--model", model, "--seed", str(seed), "--options", json.dumps(options),
        "--output-dir", str(folder / "out"), "--checkpoints", str(folder / "checkpoints"),
        "--log", str(folder / "train.log"),
    ]  # fmt: skip


def history(folder):
    with open(folder / "out" / "history.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def same(one, other):
    a, b = (models.load(folder / "out" / "model.pt")[0].state_dict() for folder in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


# The feed


@pytest.mark.parametrize("budget_bytes", [10**9, 64 * 96], ids=["in memory", "windows"])
@pytest.mark.parametrize("n_rows", [1, 15, 16, 17, 300])
def test_every_frame_exactly_once_an_epoch(index, budget_bytes, n_rows):
    with FrameStore(index) as store:
        rows = np.random.default_rng(0).permutation(store.n_frames)[:n_rows]
        rows.sort()
        feed = Feed(store, rows, 16, seed=3, budget_bytes=budget_bytes)
        everything = np.concatenate(list(iterate_rows(store, rows, 50)))
        orders = []
        for epoch in (1, 2):
            batches = [batch.numpy() for batch in feed.batches(epoch)]
            assert len(batches) == feed.n_batches
            assert all(len(batch) == 16 for batch in batches[:-1])
            got = np.concatenate(batches)
            np.testing.assert_array_equal(got, everything[feed.order(epoch)])
            assert sorted(feed.order(epoch)) == list(range(n_rows))
            orders.append(tuple(feed.order(epoch)))
            for first in range(feed.n_batches):  # going on in the middle of an epoch
                rest = np.concatenate([batch.numpy() for batch in feed.batches(epoch, first)])
                np.testing.assert_array_equal(rest, got[16 * first :])
        if n_rows > 2:
            assert orders[0] != orders[1]


def test_windows_mix_frames_far_apart(index):
    with FrameStore(index) as store:
        feed = Feed(store, np.arange(store.n_frames), 16, budget_bytes=320 * 96)
        assert not feed.in_memory
        assert np.ptp(feed.order(1)[:16]) > 100


def test_rows_are_read_in_the_order_asked_for(index):
    with FrameStore(index) as store:
        whole = store.read(0, store.n_frames)
        rows = np.array([329, 0, 7, 100, 101, 102, 199, 200, 5, 250])
        np.testing.assert_array_equal(read_rows(store, rows), whole[rows])
        assert len(read_rows(store, rows[:0])) == 0


def test_noise_depends_on_its_place_alone():
    draws = [noise(*place, (4, 2)) for place in ((0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0))]
    assert len({draw.tobytes() for draw in draws}) == 4
    assert np.array_equal(draws[0], noise(0, 1, 0, (4, 2)))


# The loop


def test_learning_rate_rises_for_an_epoch_and_falls_to_nothing():
    rates = [optimizer.learning_rate(step, 10, 100, 0.5) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[9] == rates[10] == 0.5
    assert rates[55] == pytest.approx(0.25)
    assert rates[-1] < 1e-3


def test_same_seed_same_model_and_history(index, tmp_path):
    for name in "ab":
        train.main(arguments(index, tmp_path / name, epochs=3))
    train.main(arguments(index, tmp_path / "c", seed=1, epochs=3))
    assert (tmp_path / "a/out/model.pt").read_bytes() == (tmp_path / "b/out/model.pt").read_bytes()
    assert not same(tmp_path / "a", tmp_path / "c")
    for one, other in zip(history(tmp_path / "a"), history(tmp_path / "b"), strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


def test_what_a_training_writes(index, tmp_path):
    train.main(arguments(index, tmp_path, epochs=8, beta=1e-5, beta_warmup_epochs=2))
    rows = history(tmp_path)
    assert tuple(rows[0]) == training.COLUMNS
    assert [int(row["epoch"]) for row in rows] == list(range(1, 9))
    assert [float(row["beta"]) for row in rows[:4]] == [0, 5e-6, 1e-5, 1e-5]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    for row in rows:
        loss = float(row["train_reconstruction"]) + float(row["beta"]) * float(row["kl_nats"])
        assert float(row["train_loss"]) == pytest.approx(loss, rel=1e-6)
    record = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    best = min(rows[2:], key=lambda row: float(row["validation_loss"]))
    assert record["weights"].startswith(f"epoch {best['epoch']} of 8")
    assert record["train"]["epochs"] == 8
    assert record["measured"]["parameters"] == models.build("conv2d", 8, 2).n_parameters
    assert record["measured"]["frames_per_cpu_second"] > 0
    assert 0 < record["measured"]["peak_memory_gb"] < 10
    assert {"torch", "python", "mdlatent"} <= set(record["versions"])
    _, metadata = models.load(tmp_path / "out/model.pt")
    assert metadata["atoms"] == [f"ALA{k + 1}-CA" for k in range(8)]
    assert metadata["split"]["gap_frames"] == 2
    assert not (tmp_path / "checkpoints").exists()


def test_chosen_weights_are_those_of_the_best_epoch(index):
    with FrameStore(index) as store:
        model, options = models.build("conv2d", 8, 2), settings(epochs=3, learning_rate=0.5)
        model.prepare(store, np.arange(100))
        feed = Feed(store, np.arange(100), 16)
        validation = Feed(store, np.arange(110, 140), 16, shuffle=False)
        states = []

        def keep(rows):
            states.append({name: value.clone() for name, value in model.state_dict().items()})

        trained = training.train(model, feed, validation, options, 0, on_epoch=keep)
        best = int(np.argmin([row["validation_loss"] for row in trained.rows]))
        assert all(torch.equal(value, states[best][name]) for name, value in model.state_dict().items())


def test_without_validation_frames_the_last_weights_count(index):
    with FrameStore(index) as store:
        model = models.build("conv2d", 8, 2)
        model.prepare(store, np.arange(100))
        empty = Feed(store, np.arange(0), 16, shuffle=False)
        trained = training.train(model, Feed(store, np.arange(100), 16), empty, settings(), 0)
    assert "no validation frames" in trained.weights
    assert all(row["validation_loss"] is None for row in trained.rows)


def settings(**changes):
    return {
        "epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "weight_decay": 0.0, "beta": 1e-6,
        "beta_warmup_epochs": 0, "checkpoint_epochs": 1,
    } | changes  # fmt: skip


def test_the_average_is_validated_and_kept(index):
    with FrameStore(index) as store:
        model, decay = models.build("conv2d", 8, 2), 0.9
        model.prepare(store, np.arange(100))
        average = {name: value.detach().clone() for name, value in model.named_parameters()}
        feed, validation = Feed(store, np.arange(100), 16), Feed(store, np.arange(110, 140), 16, shuffle=False)
        steps, losses = [], []

        def follow(model, optimizer, *rest):
            added = honest(model, optimizer, *rest)
            share = 1 - min(decay, (1 + len(steps)) / (10 + len(steps)))
            for name, value in model.named_parameters():
                average[name] += share * (value.detach() - average[name])
            steps.append(0)
            return added

        def measure(rows):
            twin = models.build("conv2d", 8, 2)
            twin.load_state_dict(model.state_dict() | average)
            losses.append(training._validate(twin, validation, training.Group())["plain"])
            assert rows[-1]["validation_reconstruction"] == pytest.approx(losses[-1], rel=1e-4)

        honest = training._step
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "_step", follow)
            training.train(model, feed, validation, settings(epochs=3, ema_decay=decay), 0, on_epoch=measure)
        assert len(steps) == 21
        kept = training._validate(model, validation, training.Group())["plain"]
        assert kept == pytest.approx(min(losses), rel=1e-4)


def test_training_ends_once_patience_has_run_out(index):
    with FrameStore(index) as store:
        model = models.build("conv2d", 8, 2)
        model.prepare(store, np.arange(100))
        feed, validation = Feed(store, np.arange(100), 16), Feed(store, np.arange(110, 140), 16, shuffle=False)
        options = settings(epochs=200, learning_rate=0.01, patience_epochs=3)
        trained = training.train(model, feed, validation, options, 0)
    losses = [row["validation_loss"] for row in trained.rows]
    assert len(losses) == np.argmin(losses) + 1 + 3 < 200
    assert trained.weights.startswith(f"epoch {np.argmin(losses) + 1} of {len(losses)}, stopped early")


def test_fewer_frames_than_a_batch(index, tmp_path):
    with pytest.raises(DataError, match=r"training has \d+ frames, train\.batch_size is 1000: set it to at most \d+"):
        train.main(arguments(index, tmp_path, batch_size=1000, epochs=2))
    assert not (tmp_path / "model.pt").exists()
    train.demand_batch(10, "pca_distances", 1000)  # fitted in one step
    train.demand_batch(10, "coordinate", 1000)  # starts fitted


def test_a_batch_in_pieces_gives_the_same_step(monkeypatch):
    coordinates, draw = torch.from_numpy(chain(16, 8)), torch.randn(16, 2)
    gradients, sums = [], []
    for budget in (10**9, 5 * 264 * 64):
        monkeypatch.setitem(training.STEP_BYTES, "cpu", budget)
        torch.manual_seed(0)
        model = models.build("conv2d", 8, 2)
        model.scale_nm.fill_(5.0)
        sums.append(training._step(model, torch.optim.SGD(model.parameters(), 0.0), coordinates, 1e-3, draw))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(*sums, rtol=1e-5, atol=1e-7)


def test_loss_that_is_not_finite_is_an_error_that_says_what_to_do(index, tmp_path, monkeypatch):
    honest = models.family_class("conv2d").loss

    def broken(self, coordinates, beta, draw):
        return honest(self, coordinates * (math.nan if draw is not None else 1), beta, draw)

    monkeypatch.setattr(models.family_class("conv2d"), "loss", broken)
    with pytest.raises(DataError, match=r"no longer finite in epoch 1, step 1 .* lower train.learning_rate"):
        train.main(arguments(index, tmp_path))
    assert not (tmp_path / "out/model.pt").exists()


def test_collapse_is_counted_and_said(caplog):
    variance = torch.tensor([0.5, 0.0099, 0.0101, 0.0])
    assert epoch_sums.active_dimensions(variance) == 2

    def warned(active, beta, before=None, last=False):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "mdlatent"):
            row = {"epoch": 2, "active_dimensions": active, "beta": beta}
            training._warn_of_collapse(row, [before] if before else [], 3, last)
        return caplog.text

    before = {"active_dimensions": 3, "beta": 1e-5}
    assert "epoch 2: 1 of 3 latent dimensions are active" in warned(1, 1e-5, before)
    assert not warned(3, 1e-5, before)
    assert not warned(1, 2e-5, before)  # it still rises
    assert "1 of 3" in warned(1, 2e-5, before, last=True)
    assert not warned(0, 0.0)


def test_nan_coordinates_are_refused(tmp_path):
    coordinates = chain(100, 6)
    coordinates[3, 2, 1] = math.nan
    index = write_store(tmp_path / "frames", {"a": coordinates})
    with pytest.raises(DataError, match="NaN or infinite"):
        train.main(arguments(index, tmp_path))


def test_pca_is_fitted_in_one_step(index, tmp_path):
    train.main(arguments(index, tmp_path, model="pca_distances-d2"))
    (row,) = history(tmp_path)
    assert row["epoch"] == "0"
    assert row["kl_nats"] == row["gradient_norm"] == ""
    assert 0 < float(row["train_reconstruction"]) < 0.1
    record = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    assert record["measured"]["validation_distance_rmse_nm"] == pytest.approx(
        math.sqrt(float(row["validation_reconstruction"])), abs=1e-4
    )


# Interruptions


@pytest.mark.parametrize("family", ["conv2d", "resnet1d", "coordinate"])
def test_precision_is_that_of_the_steps_of_matrix_families(index, tmp_path, family):
    """About the same is learned; `coordinate`, whose superpositions need all digits, does not heed it."""
    found = {}
    for precision in ("float32", "bf16"):
        options = {"models": [{"family": family, "latent_dim": 2}], "split": {"gap_frames": 2}}
        options["train"] = {"epochs": 10, "batch_size": 16, "device": "cpu", "precision": precision}
        folder = tmp_path / precision
        words = ["--frames", str(index), "--model", family, "--options", json.dumps(options)]
        train.main([*words, "--output-dir", str(folder / "out"), "--checkpoints", str(folder / "checkpoints")])
        found[precision] = float(history(folder)[-1]["train_reconstruction"])
    assert same(tmp_path / "float32", tmp_path / "bf16") == (family == "coordinate")
    assert found["bf16"] == pytest.approx(found["float32"], rel=0.1)


@pytest.mark.parametrize("every_n_checks", [1, 3, 7])
def test_stopped_at_any_step_the_result_is_the_same(index, tmp_path, monkeypatch, every_n_checks):
    """With averaged weights, which a checkpoint must hold too."""
    changes = {"epochs": 2, "batch_size": 32, "ema_decay": 0.9, "patience_epochs": 1}
    train.main(arguments(index, tmp_path / "whole", **changes))
    monkeypatch.setattr(training, "StopSignal", lambda: StopAfter(every_n_checks))
    stops = 0
    while not (tmp_path / "pieces/out/model.pt").exists():
        try:
            train.main(arguments(index, tmp_path / "pieces", **changes))
        except Interrupted as error:
            assert str(tmp_path / "pieces/checkpoints") in str(error)
            stops += 1
    assert stops >= 1
    assert same(tmp_path / "whole", tmp_path / "pieces")
    a, b = history(tmp_path / "whole"), history(tmp_path / "pieces")
    assert [{**row, "seconds": 0} for row in a] == [{**row, "seconds": 0} for row in b]


def start(index, folder, **changes):
    command = [sys.executable, "-m", "mdlatent.train", *arguments(index, folder, **changes)]
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def wait_for_checkpoint(process, folder, deadline_s=60):
    end = time.monotonic() + deadline_s
    while not list((folder / "checkpoints").glob("[!.]*.pt")):
        assert process.poll() is None, (folder / "train.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_and_terminated_processes_go_on_to_the_same_bits(index, tmp_path):
    changes = {"epochs": 8, "batch_size": 8}
    folder = tmp_path / "broken"
    process = start(index, folder, **changes)
    wait_for_checkpoint(process, folder)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "out/model.pt").exists()
    process = start(index, folder, **changes)
    while "going on from" not in (folder / "train.log").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    assert process.wait() == 75
    assert "told to stop" in (folder / "train.log").read_text()
    train.main(arguments(index, folder, **changes))
    assert "going on from" in (folder / "train.log").read_text()
    train.main(arguments(index, tmp_path / "whole", **changes))
    assert same(tmp_path / "whole", folder)
    assert not (folder / "checkpoints").exists()


def test_checkpoint_of_other_settings_or_data_is_not_used(index, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopSignal", lambda: StopAfter(3))
        with pytest.raises(Interrupted):
            train.main(arguments(index, tmp_path))
    train.main(arguments(index, tmp_path, learning_rate=0.002))
    assert "going on from" not in (tmp_path / "train.log").read_text()
    assert "moved to" in (tmp_path / "train.log").read_text()
    assert (tmp_path / "checkpoints.old-1").is_dir()

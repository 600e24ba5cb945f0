"""Several processes: the same weights in each, the same by DDP and by Horovod, and what one process would learn."""

import json

import numpy as np
import pytest
import torch

import launchers
from launchers import need_horovod
from mdlatent.feed import Tally

PROBE = "distributed.probe"
BATCH = 6


@pytest.fixture(scope="module")
def probe(index, tmp_path_factory):
    """Run the probe by a launcher and return the results of each process; the same run is done once."""
    done = {}

    def run(launcher, size=2, **wanted):
        wanted = {"backend": "auto", "optimizer": "adamw", "n_frames": [100], "batch_size": 16, "epochs": 3} | wanted
        key = json.dumps([launcher, size, wanted])
        if key not in done:
            output = tmp_path_factory.mktemp("probe") / "result"
            process = launchers.start(launcher, PROBE, [str(index), str(output), json.dumps(wanted)], size)
            launchers.finish(process)
            size = 1 if launcher == "python" else size
            done[key] = [torch.load(f"{output}.rank{rank}.pt", weights_only=False) for rank in range(size)]
        return done[key]

    return run


def state_of(results, n=0):
    return results[n]["model"]


def relative(one, other):
    """Largest relative difference of the losses of each epoch."""
    pairs = [(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in ("train_loss", "validation_loss")]
    return max(abs(a - b) / abs(b) for a, b in pairs)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_both_processes_end_with_the_same_bits(probe, same, optimizer):
    first, second = probe("torchrun", optimizer=optimizer)
    assert same(state_of(first), state_of(second))
    assert first[0]["rows"] == second[0]["rows"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("launcher", ["horovodrun", "mpirun", "torchrun"])
def test_horovod_gives_the_same_bits_as_ddp(probe, same, launcher, optimizer):
    need_horovod(mpi=launcher == "mpirun")
    first, second = probe(launcher, backend="horovod", optimizer=optimizer)
    assert same(state_of(first), state_of(second))
    ddp, _ = probe("torchrun", optimizer=optimizer)
    assert same(state_of(first), state_of(ddp))
    assert first[0]["rows"] == ddp[0]["rows"]


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_learn_what_one_learns(probe, size):
    """Plain SGD, the last batch of an epoch smaller and so the shares unequal."""
    (one,) = probe("python", optimizer="sgd")
    several, *_ = probe("torchrun", size, optimizer="sgd")
    assert relative(several[0]["rows"], one[0]["rows"]) < 1e-5
    for name, value in state_of(one).items():
        torch.testing.assert_close(state_of(several)[name], value, rtol=1e-4, atol=1e-6)


def test_coordinate_by_several_is_what_one_learns(probe, same):
    """Superposition, averaged weights, the choice between start and trained weights."""
    wanted = {"optimizer": "sgd", "family": "coordinate", "settings": {"ema_decay": 0.9}}
    (one,) = probe("python", **wanted)
    first, second = probe("torchrun", **wanted)
    assert same(state_of(first), state_of(second))
    assert relative(first[0]["rows"], one[0]["rows"]) < 1e-4
    for name, value in state_of(one).items():
        torch.testing.assert_close(state_of(first)[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", ["ddp", "horovod"])
def test_every_number_of_frames_up_to_two_batches_and_one(probe, same, backend):
    """Each frame once an epoch, also where a process has none of a batch; the mean over the batch is exact."""
    if backend == "horovod":
        need_horovod()
    counts = list(range(1, 2 * BATCH + 2))
    wanted = {"optimizer": "sgd", "n_frames": counts, "batch_size": BATCH, "epochs": 2}
    (one,) = probe("python", **wanted)
    first, second = probe("torchrun", backend=backend, **wanted)
    for k, n in enumerate(counts):
        expected = Tally()
        expected.add(np.arange(n))
        for epoch in (0, 1):
            a, b = first[k]["notes"][epoch], second[k]["notes"][epoch]
            assert a["frames"] + b["frames"] == n
            assert (int(a["checksum"], 16) + int(b["checksum"], 16)) % 2**64 == expected.checksum
        assert same(state_of(first, k), state_of(second, k))
        assert relative(first[k]["rows"], one[k]["rows"]) < 1e-5, n


def test_three_processes_with_less_than_a_frame_each(probe, same):
    results = probe("torchrun", 3, optimizer="sgd", n_frames=[1, 2, 4], batch_size=2, epochs=2)
    (one,) = probe("python", optimizer="sgd", n_frames=[1, 2, 4], batch_size=2, epochs=2)
    for k in range(3):
        assert same(state_of(results[0], k), state_of(results[2], k))
        assert relative(results[0][k]["rows"], one[k]["rows"]) < 1e-5


@pytest.mark.parametrize("backend", ["ddp", "horovod"])
def test_running_statistics_are_the_same_bits_in_every_process(probe, same, backend):
    """Also where a process has no frame of the last batch; `state_dict` holds the statistics."""
    if backend == "horovod":
        need_horovod()
    options = {"encoder_filters": 8, "decoder_filters": 8}
    wanted = {"family": "resnet1d", "family_options": options, "n_frames": [1, 25, 28], "batch_size": 8, "epochs": 2}
    first, *others = probe("torchrun", 3 if backend == "ddp" else 2, backend=backend, **wanted)
    for k in range(3):
        state = state_of(first, k)
        assert any("running_square" in name for name in state)
        assert all(torch.isfinite(value).all() for value in state.values())
        for other in others:
            assert same(state, state_of(other, k))
            assert first[k]["rows"] == other[k]["rows"]
    if backend == "horovod":
        ddp, _ = probe("torchrun", 2, backend="ddp", **wanted)
        assert same(state_of(first, 2), state_of(ddp, 2))

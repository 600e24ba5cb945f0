"""The training loop: AdamW, one epoch of warm-up and a cosine, the weights that are best on the validation frames kept.

A run that is stopped or killed at any time and started again ends with the same weights, bit for bit on the same kind
of device: the order of frames follows from (seed, epoch), the noise from (seed, epoch, step), and a checkpoint holds
everything else.
"""

import contextlib
import ctypes
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from mdlatent.checkpoint import Checkpoints
from mdlatent.errors import ConfigError, DataError, Interrupted
from mdlatent.feed import Feed, noise
from mdlatent.models.base import LatentModel

__all__ = ["COLUMNS", "StopSignal", "Trained", "active_dimensions", "choose_device", "learning_rate", "train"]

log = logging.getLogger("mdlatent")

COLUMNS = (
    "epoch", "train_loss", "validation_loss", "train_reconstruction", "validation_reconstruction", "kl_nats", "beta",
    "learning_rate", "active_dimensions", "gradient_norm", "seconds",
)  # fmt: skip
CLIP_NORM = 1.0
ACTIVE_VARIANCE = 0.01  # of the posterior means over the frames (Burda et al. 2016, arXiv 1509.00519)
CHECKPOINT_S = 900.0  # a checkpoint at least this often, where epochs take long
REPORT_S = 5.0
STEP_BYTES = {"cpu": 1_000_000_000, "cuda": 16_000_000_000}  # memory for the activations of one pass

Row = dict[str, Any]


@dataclass
class Trained:
    """What came out of a training; the model itself holds the chosen weights."""

    rows: list[Row]  # one per epoch, keys COLUMNS
    weights: str  # which epoch's weights were taken, and why
    frames_per_cpu_second: float | None


class StopSignal:
    """True once the process was told to stop (SIGTERM; SIGUSR1, which Slurm can send some time before the end)."""

    def __init__(self) -> None:
        self.name = ""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name

    def __bool__(self) -> bool:
        return bool(self.name)


def choose_device(wanted: str, threads: int) -> str:
    """The device to work on (`wanted`: auto, cpu, cuda), with torch set to reproducible results and `threads` threads.

    Raises ConfigError if a GPU is wanted and there is none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is reproducible only with this
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    _keep_freed_memory()
    torch.backends.cudnn.benchmark = False
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: got `cuda`, but torch sees no GPU here; choose `auto` or `cpu`")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of returning it to the system at once.

    A step frees and asks again for the same large blocks; fresh pages cost a third of its time at 400 atoms.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    with contextlib.suppress(OSError, AttributeError):  # another C library: slower, not wrong
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def learning_rate(step: int, n_warmup: int, n_steps: int, peak: float) -> float:
    """Rate of step `step` (from 0): a straight rise to `peak`, then half a cosine down to 0."""
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))


def active_dimensions(variance_of_means: torch.Tensor) -> int:
    """Latent dimensions (d,) that depend on the frame at all; the others have collapsed onto the prior."""
    return int((variance_of_means > ACTIVE_VARIANCE).sum())


def train(
    model: LatentModel,
    feed: Feed,
    validation: Feed,
    options: dict[str, Any],
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[list[Row]], None] = lambda rows: None,
    stop: Any = False,
) -> Trained:
    """Train `model` in place on `feed`, watched on `validation` (may be empty); `options` is the section `train`.

    `on_epoch` is called with the history so far at the end of every epoch. Where `stop` becomes true, the step is
    finished, a checkpoint written and Interrupted raised. Raises DataError if the loss stops being finite.
    """
    epochs, n_batches = options["epochs"], feed.n_batches
    n_steps = epochs * n_batches
    n_warmup = min(n_batches, max(1, n_steps // 5))
    optimizer = torch.optim.AdamW(
        model.parameter_groups(), lr=options["learning_rate"], weight_decay=options["weight_decay"], fused=True
    )
    rows: list[Row] = []
    best: dict[str, Any] = {"epoch": 0, "loss": math.inf, "model": None}
    epoch, first, sums = 1, 0, _sums(model, feed.device)  # `first` batch of `epoch` to do; `sums` over those done

    if checkpoints and (state := checkpoints.load()):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rows, best, epoch, first = state["rows"], state["best"], state["epoch"], state["step"]
        sums = state["sums"].to(feed.device)
        on_epoch(rows)

    def save() -> None:
        if checkpoints:
            checkpoints.save(
                {
                    "epoch": epoch, "step": first, "sums": sums.cpu(), "rows": rows, "best": best,
                    "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                }
            )  # fmt: skip

    begin = reported = saved = time.monotonic()
    cpu_s, frames_done, steps_done = time.process_time(), 0, 0
    while epoch <= epochs:
        beta = _beta(epoch, options)
        model.train()
        epoch_begin = time.monotonic()
        for batch in feed.batches(epoch, first):
            step = (epoch - 1) * n_batches + first
            rate = learning_rate(step, n_warmup, n_steps, options["learning_rate"])
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate_scale"]
            draw = torch.from_numpy(noise(seed, epoch, first, (len(batch), model.latent_dim))).to(feed.device)
            sums += _step(model, optimizer, batch, beta, draw)
            if not math.isfinite(float(sums[:5].sum())):
                raise DataError(
                    f"the loss is no longer finite in epoch {epoch}, step {first + 1} of {n_batches}; lower "
                    f"train.learning_rate (now {options['learning_rate']:g}) or train.beta (now {options['beta']:g})"
                )
            first += 1
            frames_done, steps_done, now = frames_done + len(batch), steps_done + 1, time.monotonic()
            if now - reported >= REPORT_S:
                reported = now
                left_s = (now - begin) / steps_done * (n_steps - step - 1)
                last = f", validation loss {rows[-1]['validation_loss']:.3g}" if rows and len(validation) else ""
                log.info(
                    "epoch %d of %d, step %d of %d: loss %.3g%s, about %.0f s left",
                    epoch, epochs, first, n_batches, float(sums[1] / sums[0]), last, left_s,
                )  # fmt: skip
            if first < n_batches and (stop or now - saved >= CHECKPOINT_S):
                sums[5] += now - epoch_begin
                epoch_begin = now
                save()
                saved = time.monotonic()
                _stop_if(stop, epoch, checkpoints)

        row = _row(epoch, sums, beta, rate, model.latent_dim)
        if len(validation):
            reconstruction, kl = _validate(model, validation)
            row |= {"validation_reconstruction": reconstruction, "validation_loss": reconstruction + beta * kl}
        row["seconds"] = float(sums[5]) + time.monotonic() - epoch_begin
        _warn_of_collapse(row, rows, model.latent_dim, last=epoch == epochs)
        rows.append(row)
        _keep_best(best, row, model, comparable=beta == options["beta"])
        on_epoch(rows)
        epoch, first, sums = epoch + 1, 0, _sums(model, feed.device)
        if epoch <= epochs and (stop or (epoch - 1) % options["checkpoint_epochs"] == 0):
            save()
            saved = time.monotonic()
            _stop_if(stop, epoch, checkpoints)

    cpu_s = time.process_time() - cpu_s
    weights = f"last epoch ({epochs}): there were no validation frames to choose by"
    if best["model"] is not None:
        model.load_state_dict(best["model"])
        weights = f"epoch {best['epoch']} of {epochs}: smallest validation loss, {best['loss']:.4g}"
    model.eval()
    return Trained(rows, weights, frames_done / cpu_s if frames_done and cpu_s else None)


def _step(
    model: LatentModel, optimizer: torch.optim.Optimizer, batch: torch.Tensor, beta: float, draw: torch.Tensor
) -> torch.Tensor:
    """One step of the optimizer; returns what it adds to the sums of the epoch (see `_sums`).

    A batch whose activations would not fit the memory is taken in pieces whose gradients are added.
    """
    optimizer.zero_grad()
    added = _sums(model, str(batch.device))
    size = max(1, STEP_BYTES[batch.device.type] // model.bytes_per_frame)
    for piece, drawn in zip(batch.split(size), draw.split(size), strict=True):
        parts = model.loss(piece, beta, drawn)
        (parts["loss"] * (len(piece) / len(batch))).backward()
        means = parts["mean"].double()
        scalars = torch.stack([parts[name].detach() for name in ("loss", "reconstruction", "kl_nats")]).double()
        added[0] += len(piece)
        added[1:4] += len(piece) * scalars
        added[6:] += torch.cat([means.sum(0), means.square().sum(0)])
    added[4] = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM) * len(batch)
    optimizer.step()
    return added


def _sums(model: LatentModel, device: str) -> torch.Tensor:
    """Sums over the frames of an epoch, all zero, float64: number, loss, reconstruction, KL, gradient norm; seconds;
    posterior means (d), their squares (d)."""
    return torch.zeros(6 + 2 * model.latent_dim, dtype=torch.float64, device=device)


def _row(epoch: int, sums: torch.Tensor, beta: float, rate: float, dim: int) -> Row:
    """One row of the history from the sums of an epoch."""
    mean = (sums / sums[0]).cpu()
    variance = mean[6 + dim :] - mean[6 : 6 + dim].square()
    return {
        "epoch": epoch,
        "train_loss": float(mean[1]),
        "validation_loss": None,
        "train_reconstruction": float(mean[2]),
        "validation_reconstruction": None,
        "kl_nats": float(mean[3]),
        "beta": beta,
        "learning_rate": rate,
        "active_dimensions": active_dimensions(variance),
        "gradient_norm": float(mean[4]),
        "seconds": 0.0,
    }


def _beta(epoch: int, options: dict[str, Any]) -> float:
    """Weight of the KL term: a straight rise from 0 in the first epoch to its full value after the warm-up."""
    warmup = min(options["beta_warmup_epochs"], options["epochs"] - 1)
    return options["beta"] if epoch > warmup else options["beta"] * (epoch - 1) / warmup


@torch.no_grad()
def _validate(model: LatentModel, feed: Feed) -> tuple[float, float]:
    """Mean reconstruction error and KL (nats) of the posterior means over all frames of `feed`."""
    model.eval()
    reconstruction = kl = 0.0
    size = max(1, STEP_BYTES[torch.device(feed.device).type] // model.bytes_per_frame)
    for batch in feed.batches():
        for piece in batch.split(size):
            parts = model.loss(piece, 0.0, None)
            reconstruction += len(piece) * float(parts["reconstruction"])
            kl += len(piece) * float(parts["kl_nats"])
    return reconstruction / len(feed), kl / len(feed)


def _keep_best(best: dict[str, Any], row: Row, model: LatentModel, comparable: bool) -> None:
    """Remember the weights if the epoch is the best so far; losses compare only where β has its full value."""
    loss = row["validation_loss"]
    if loss is not None and comparable and loss < best["loss"]:
        state = {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}
        best.update(epoch=row["epoch"], loss=loss, model=state)


def _warn_of_collapse(row: Row, rows: list[Row], dim: int, last: bool) -> None:
    """Say when dimensions die while β stands still (as it rises they come and go), or are dead in the end."""
    active, before = row["active_dimensions"], dim
    if rows and rows[-1]["beta"] == row["beta"]:
        before = rows[-1]["active_dimensions"]
    elif not last:
        return
    if active < before or (last and active < dim):
        log.warning(
            "epoch %s: %s of %s latent dimensions are active (posterior collapse); lower train.beta to keep them",
            row["epoch"], active, dim,
        )  # fmt: skip


def _stop_if(stop: Any, epoch: int, checkpoints: Checkpoints | None) -> None:
    if stop:
        where = f"the state is in {checkpoints.folder}" if checkpoints else "nothing was saved"
        raise Interrupted(f"training was told to stop in epoch {epoch}; {where}; the same command goes on from there")

"""The training loop: AdamW, one epoch of warm-up and a cosine, the weights that are best on the validation frames kept.

With `ema_decay`, an exponential moving average of the weights goes along (averaging.py); it is what is validated and
kept. With `patience_epochs`, training ends once so many epochs in a row are no better. A model that is usable from the
start (`LatentModel.starts_fitted`) stays as it was where training does not better it on the validation frames. With
`refit`, what comes out only says for how many epochs to train again, then on all frames (refit.py).

A run that is stopped or killed at any time and started again ends with the same weights, bit for bit on the same kind
of device: the order of frames follows from (seed, epoch), the noise from (seed, epoch, step), and a checkpoint holds
everything else.

Several processes do the same steps together (parallel.py): of each batch and its noise every one takes its share, and
all hold the same weights, bit for bit. Process 0 alone writes. A run may go on with another number of processes: the
batches stay the same, but sums are rounded differently, so that the weights then agree to rounding only.
"""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from mdlatent import epoch_sums, replay
from mdlatent.averaging import Average
from mdlatent.checkpoint import Checkpoints
from mdlatent.errors import DataError, Interrupted
from mdlatent.feed import Feed, noise
from mdlatent.model_memory import STEP_BYTES, frames_in_one_pass
from mdlatent.models.base import LatentModel
from mdlatent.optimizer import adamw, learning_rate, load, set_rate
from mdlatent.parallel import Group, Loss

__all__ = ["COLUMNS", "StopSignal", "Trained", "train"]

log = logging.getLogger("mdlatent")

COLUMNS = (
    "epoch", "train_loss", "validation_loss", "train_reconstruction", "validation_reconstruction", "kl_nats", "beta",
    "learning_rate", "active_dimensions", "gradient_norm", "seconds",
)  # fmt: skip
CLIP_NORM = 1.0
CHECKPOINT_S = 900.0  # a checkpoint at least this often, where epochs take long
REPORT_S = 5.0

Row = dict[str, Any]


@dataclass
class Trained:
    """What came out of a training; the model itself holds the chosen weights."""

    rows: list[Row]  # one per epoch, keys COLUMNS
    weights: str  # which epoch's weights were taken, and why
    epoch: int  # that epoch, chosen on validation frames; 0 where none was
    frames_per_cpu_second: float | None  # of all processes together


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


def train(
    model: LatentModel,
    feed: Feed,
    validation: Feed,
    options: dict[str, Any],
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[list[Row]], None] = lambda rows: None,
    stop: Any = False,
    group: Group | None = None,
    note: Callable[[Row], None] = lambda record: None,
) -> Trained:
    """Train `model` in place on `feed`, watched on `validation` (may be empty); `options` is the section `train`.

    `on_epoch` is called with the history so far at the end of every epoch. Where `stop` becomes true, the step is
    finished, a checkpoint written and Interrupted raised. Raises DataError if the loss stops being finite.

    With a `group`, `feed` and `validation` give this process's shares; `checkpoints` and `on_epoch` are process 0's and
    without effect in the others; if `stop` is true in one, all stop after the same step. `note` is told at each end of
    an epoch, and at a stop, which batches of it this process worked on and which frames it had of them (`feed.Tally`).
    """
    group = group or Group()
    if not group.is_main:
        checkpoints, on_epoch = None, lambda rows: None
    epochs, n_batches = options["epochs"], feed.n_batches
    n_steps = epochs * n_batches
    n_warmup = min(n_batches, max(1, n_steps // 5))
    optimizer = adamw(model, options, feed.device)
    rows: list[Row] = []
    best: dict[str, Any] = {"epoch": 0, "loss": math.inf, "plain": math.inf, "model": None}
    epoch, first, sums = (
        1,
        0,
        epoch_sums.empty(model, feed.device),
    )  # `first` batch of `epoch` to do; `sums` over those done
    loss = group.wrap(model, feed.any_frame())
    idle = feed.any_frame() if group.size > 1 else None  # for an empty share
    # Not in checkpoints: a run that goes on has prepared the same start again.
    start_loss, start_model = math.inf, None
    if model.starts_fitted and len(validation):
        start_loss = _validate(model, validation, group)["plain"]
        start_model = _weights(model) if group.is_main else None
    average = Average(model, options["ema_decay"]) if options.get("ema_decay") else None

    state = checkpoints.load() if checkpoints else None
    kept = state["best"]["model"] if state else None  # process 0 alone keeps the best weights
    if state and group.size > 1:
        state = {**state, "best": {**state["best"], "model": None}}
    if state := group.broadcast(state):
        model.load_state_dict(state["model"])
        load(optimizer, state["optimizer"], feed.device)
        if average:
            average.load(state["average"])
        rows, best, epoch, first = state["rows"], state["best"], state["epoch"], state["step"]
        best["model"] = kept
        sums = epoch_sums.own(state["sums"], group).to(feed.device)
        del state  # it holds a second copy of all weights
        on_epoch(rows)
    begun = first

    def step_of(batch: torch.Tensor, beta: float | torch.Tensor, draw: torch.Tensor, length: int) -> torch.Tensor:
        return _step(model, optimizer, batch, beta, draw, loss, group, length, idle)

    if replay.fits(model, feed.batch_size, feed.device, group):
        step_of = replay.Replayed(step_of, feed.batch_size)

    def save() -> None:
        every = group.sum(epoch_sums.as_rows(sums, group)).cpu()
        if checkpoints:
            checkpoints.save(
                {
                    "epoch": epoch, "step": first, "sums": every, "rows": rows, "best": best,
                    "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "average": average.state() if average else None,
                }
            )  # fmt: skip

    def noted(stop_batch: int) -> None:
        frames, checksum = feed.tally.take()
        note({"epoch": epoch, "batches": [begun, stop_batch], "frames": frames, "checksum": f"{checksum:016x}"})

    begin = reported = saved = time.monotonic()
    cpu_s, frames_done, steps_done = time.process_time(), 0, 0
    while epoch <= epochs and not _out_of_patience(epoch, best, options):
        beta = _beta(epoch, options)
        model.train()
        epoch_begin = time.monotonic()
        for batch in feed.batches(epoch, first):
            step = (epoch - 1) * n_batches + first
            rate = learning_rate(step, n_warmup, n_steps, options["learning_rate"])
            set_rate(optimizer, rate)
            length = feed.batch_length(first)
            drawn = noise(seed, epoch, first, (length, model.n_noise))[group.rank :: group.size]
            draw = torch.from_numpy(drawn).to(feed.device)
            sums += step_of(batch, beta, draw, length)
            if average:
                average.update(step)
            bad, told, due = group.any(
                not math.isfinite(float(sums[:5].sum())), stop, time.monotonic() - saved >= CHECKPOINT_S
            )
            if bad:
                raise DataError(
                    f"the loss is no longer finite in epoch {epoch}, step {first + 1} of {n_batches}; lower "
                    f"train.learning_rate (now {options['learning_rate']:g}) or train.beta (now {options['beta']:g})"
                )
            first += 1
            frames_done, steps_done, now = frames_done + len(batch), steps_done + 1, time.monotonic()
            if now - reported >= REPORT_S:
                reported = now
                left_s = (now - begin) / steps_done * (epochs * n_batches - step - 1)
                last = f", validation loss {rows[-1]['validation_loss']:.3g}" if rows and len(validation) else ""
                log.info(
                    "epoch %d of %d, step %d of %d: loss %.3g%s, about %.0f s left",
                    epoch, epochs, first, n_batches, float(sums[1] / sums[0]), last, left_s,
                )  # fmt: skip
            if first < n_batches and (told or due):
                sums[5] += now - epoch_begin
                epoch_begin = now
                save()
                saved = time.monotonic()
                if told:
                    noted(first)
                    _stop(epoch, checkpoints, group)

        noted(n_batches)
        begun = 0
        row = epoch_sums.history_row(epoch, group.sum(sums), beta, rate, model.latent_dim)
        with average.applied() if average else contextlib.nullcontext():
            plain = math.inf
            if len(validation):
                parts = _validate(model, validation, group)
                plain = parts["plain"]
                row["validation_reconstruction"] = parts["reconstruction"]
                row["validation_loss"] = plain + beta * parts["kl"]
            row["seconds"] = float(sums[5]) + time.monotonic() - epoch_begin
            _warn_of_collapse(row, rows, model.latent_dim, last=epoch == epochs)
            rows.append(row)
            _keep_best(best, row, plain, model, beta == options["beta"], group.is_main)
        on_epoch(rows)
        epoch, first, sums = epoch + 1, 0, epoch_sums.empty(model, feed.device)
        if epoch <= epochs and not _out_of_patience(epoch, best, options):
            (told,) = group.any(stop)
            if told or (epoch - 1) % options["checkpoint_epochs"] == 0:
                save()
                saved = time.monotonic()
            if told:
                _stop(epoch, checkpoints, group)

    if options.get("refit", "never") != "never":
        save()  # one that is stopped in what follows need not do any of this again
    done, cpu_s = group.sum(torch.tensor([frames_done, time.process_time() - cpu_s], dtype=torch.float64)).tolist()
    weights, chosen = f"last epoch ({epochs}): there were no validation frames to choose by", 0
    if start_loss <= best["plain"] and math.isfinite(start_loss):
        model.load_state_dict(group.broadcast(start_model))
        weights = (
            f"those before training (principal components): their validation error, {start_loss:.4g}, is not above "
            f"that of the best epoch, {best['plain']:.4g}"
        )
    elif best["epoch"]:
        chosen = best["epoch"]
        model.load_state_dict(group.broadcast(best["model"]))
        done_epochs = f"{epoch - 1}, stopped early" if epoch <= epochs else f"{epochs}"
        weights = f"epoch {best['epoch']} of {done_epochs}: smallest validation loss, {best['loss']:.4g}"
    elif average:
        average.keep()
    model.eval()
    return Trained(rows, weights, chosen, done / cpu_s if done and cpu_s else None)


def _step(
    model: LatentModel,
    optimizer: torch.optim.Optimizer,
    batch: torch.Tensor,
    beta: float | torch.Tensor,
    draw: torch.Tensor,
    loss: Loss | None = None,
    group: Group | None = None,
    length: int | None = None,
    idle: torch.Tensor | None = None,
) -> torch.Tensor:
    """One step of the optimizer; returns what it adds to the sums of the epoch (see `epoch_sums.empty`).

    A batch whose activations would not fit the memory is taken in pieces whose gradients are added. `batch` is this
    process's share of one of `length` frames; where it is empty, the frame `idle` is taken with weight 0.
    """
    group, loss = group or Group(), loss or model.loss
    length = len(batch) if length is None else length
    optimizer.zero_grad()
    added = epoch_sums.empty(model, str(batch.device))
    size = max(1, frames_in_one_pass(model.bytes_per_frame, len(batch), batch.device.type))
    pieces = list(zip(batch.split(size), draw.split(size), strict=True))
    if not len(batch):
        assert idle is not None
        model.eval()  # it leaves no trace in statistics either
        with group.adding(last=True):
            (loss(idle, beta, idle.new_zeros(1, model.n_noise))["loss"] * 0.0).backward()
        model.train()
        pieces = []
    for number, (piece, drawn) in enumerate(pieces):
        with group.adding(last=number == len(pieces) - 1):
            parts = loss(piece, beta, drawn)
            (parts["loss"] * (group.scale * len(piece) / length)).backward()
        means = parts["mean"].double()
        scalars = torch.stack([parts[name].detach() for name in ("loss", "reconstruction", "kl_nats")]).double()
        added[0] += len(piece)
        added[1:4] += len(piece) * scalars
        added[6:] += torch.cat([means.sum(0), means.square().sum(0)])
    group.finish_gradients()
    added[4] = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM) * len(batch)
    optimizer.step()
    model.settle(group.sum)
    return added


def _beta(epoch: int, options: dict[str, Any]) -> float:
    """Weight of the KL term: a straight rise from 0 in the first epoch to its full value after the warm-up."""
    warmup = min(options["beta_warmup_epochs"], options["epochs"] - 1)
    return options["beta"] if epoch > warmup else options["beta"] * (epoch - 1) / warmup


@torch.no_grad()
def _validate(model: LatentModel, feed: Feed, group: Group) -> dict[str, float]:
    """Means over all frames of `feed`, of all processes, with posterior means as z: `plain`, the loss without the KL
    term, `reconstruction` and `kl` (nats)."""
    model.eval()
    total = torch.zeros(3, dtype=torch.float64)
    size = max(1, STEP_BYTES[torch.device(feed.device).type] // model.bytes_per_frame)
    for batch in feed.batches():
        for piece in batch.split(size) if len(batch) else ():
            parts = model.loss(piece, 0.0, None)
            scalars = torch.stack([parts[name] for name in ("loss", "reconstruction", "kl_nats")])
            total += len(piece) * scalars.double().cpu()
    plain, reconstruction, kl = (group.sum(total) / len(feed)).tolist()
    return {"plain": plain, "reconstruction": reconstruction, "kl": kl}


def _out_of_patience(epoch: int, best: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether `patience_epochs` epochs before `epoch` were no better; the first that compare are those of full β."""
    patience = options.get("patience_epochs")
    return patience is not None and best["epoch"] > 0 and epoch - 1 - best["epoch"] >= patience


def _weights(model: LatentModel) -> dict[str, torch.Tensor]:
    return {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}


def _keep_best(
    best: dict[str, Any], row: Row, plain: float, model: LatentModel, comparable: bool, with_weights: bool = True
) -> None:
    """Remember the weights if the epoch is the best so far; losses compare only where β has its full value."""
    loss = row["validation_loss"]
    if loss is not None and comparable and loss < best["loss"]:
        best.update(epoch=row["epoch"], loss=loss, plain=plain)
        if with_weights and best["model"]:  # in place: a second copy of a large model is one too many
            for key, value in model.state_dict().items():
                best["model"][key].copy_(value)
        elif with_weights:
            best["model"] = _weights(model)


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


def _stop(epoch: int, checkpoints: Checkpoints | None, group: Group) -> None:
    group.wait_for_main()  # until the checkpoint is written: a launcher ends the others once one has ended
    where = f"the state is in {checkpoints.folder}" if checkpoints else "process 0 saved the state"
    if group.size == 1 and not checkpoints:
        where = "nothing was saved"
    raise Interrupted(f"training was told to stop in epoch {epoch}; {where}; the same command goes on from there")

"""The production run of a simulation: steps, frames, checkpoints, progress, and stopping when told to."""

import logging
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from mdlatent import dynamics
from mdlatent.dynamics import Plan
from mdlatent.errors import DataError, Interrupted
from mdlatent.run_state import Checkpoint, RunState

if TYPE_CHECKING:
    import openmm

log = logging.getLogger("mdlatent")

CHECKPOINT_S = 60.0
REPORT_S = 10.0
CHUNK_S = 0.5  # so soon a signal is noticed


def run(context: "openmm.Context", plan: Plan, state: RunState, settings: Mapping[str, Any], name: str) -> None:
    """Run from where `state` stands to the last frame, saving on the way. Raises DataError, Interrupted."""
    import openmm

    integrator = context.getIntegrator()
    step = state.checkpoint.step if state.checkpoint else 0
    n_frames = state.checkpoint.n_frames if state.checkpoint else 0
    first_step, chunk = step, 10
    began = saved = told = time.monotonic()
    with stop_signal() as told_to_stop:
        while n_frames < plan.n_frames:
            n = min(chunk, plan.next_stop(step) - step)
            before = time.perf_counter()
            try:
                integrator.step(n)
                frame_nm = dynamics.positions(context) if step + n == plan.next_stop(step) else None
            except openmm.OpenMMException as error:
                if "nan" in str(error).lower():
                    raise _flew_apart(name, step, settings) from error
                raise
            step += n
            chunk = max(1, min(2 * chunk, int(n * CHUNK_S / max(time.perf_counter() - before, 1e-6))))
            if frame_nm is not None:
                if not np.isfinite(frame_nm).all():
                    raise _flew_apart(name, step, settings)
                if plan.frames_at(step) > n_frames:
                    state.append(frame_nm)
                    n_frames += 1
            now = time.monotonic()
            if now - told >= REPORT_S:
                _report(name, step, plan, settings, (step - first_step) / (now - began))
                told = now
            if now - saved >= CHECKPOINT_S or told_to_stop or n_frames == plan.n_frames:
                state.save(_checkpoint(context, step, n_frames))
                saved = now
            if told_to_stop and n_frames < plan.n_frames:
                raise Interrupted(
                    f"{name}: stopped by {told_to_stop[0]} after {n_frames} of {plan.n_frames} frames; run the same "
                    f"command again and it goes on from {state.folder}"
                )


def _checkpoint(context: "openmm.Context", step: int, n_frames: int) -> Checkpoint:
    state = context.getState(positions=True, velocities=True)
    return Checkpoint(
        step,
        n_frames,
        np.asarray(state.getPositions(asNumpy=True)._value, np.float64),
        np.asarray(state.getVelocities(asNumpy=True)._value, np.float64),
        context.createCheckpoint(),
    )


def _flew_apart(name: str, step: int, settings: Mapping[str, Any]) -> DataError:
    step_fs = settings["time_step_fs"]
    return DataError(
        f"simulation {name!r}: positions are no longer finite near step {step} ({step * step_fs / 1e6:.4g} ns): "
        f"the peptide flew apart. Lower simulate.time_step_fs (it is {step_fs:g}; 2 is safe at 300 K) or temperature_k "
        f"(it is {settings['temperature_k']:g})"
    )


def _report(name: str, step: int, plan: Plan, settings: Mapping[str, Any], steps_per_s: float) -> None:
    ns = settings["time_step_fs"] / 1e6
    log.info(
        "%s: %.4g of %.4g ns (%.0f %%), %.3g ns/day, about %.0f s left",
        name,
        step * ns,
        plan.total * ns,
        100 * step / plan.total,
        steps_per_s * ns * 86400,
        (plan.total - step) / steps_per_s,
    )


@contextmanager
def stop_signal() -> Iterator[list[str]]:
    """Yields a list that holds the signal's name once the process was told to stop (SIGTERM, SIGINT, SIGUSR1)."""
    received: list[str] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Run as several processes by the tests: train with plain settings and write what each process ends with.

Usage: probe.py FRAMES OUTPUT JSON, where JSON holds: backend, optimizer (adamw, sgd), n_frames (numbers of training
frames, one training each), batch_size, epochs, family (default conv2d), its family_options,
settings. OUTPUT.rank<k>.pt then holds a list of results.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from mdlatent import launch, lifeline, models, parallel, training
from mdlatent.device import choose_device
from mdlatent.feed import Feed
from mdlatent.frames import FrameStore
from training_parts import Sgd

SETTINGS = {"learning_rate": 2e-3, "weight_decay": 1e-3, "beta": 1e-6, "beta_warmup_epochs": 0, "checkpoint_epochs": 99}


def main(frames: str, output: str, text: str) -> None:
    wanted = json.loads(text)
    me = launch.find()
    device = choose_device("cpu", 1)
    together = lifeline.together(me, Path(output))
    with together as line, parallel.joined(wanted["backend"], line, device) as group:
        if wanted["optimizer"] == "sgd":
            torch.optim.AdamW = Sgd
        results = [train(frames, group, wanted, n) for n in wanted["n_frames"]]
        torch.save(results, f"{output}.rank{group.rank}.pt")


def train(frames: str, group: parallel.Group, wanted: dict, n: int) -> dict:
    settings = SETTINGS | {"epochs": wanted["epochs"], "batch_size": wanted["batch_size"]} | wanted.get("settings", {})
    # Another start in each process: they must begin from process 0's weights all the same.
    torch.manual_seed(group.rank)
    notes = []
    with FrameStore(frames) as store:
        model = models.build(wanted.get("family", "conv2d"), store.n_atoms, 2, wanted.get("family_options"))
        model.prepare(store, np.arange(store.n_frames))
        share = {"rank": group.rank, "size": group.size}
        feed = Feed(store, np.arange(n), settings["batch_size"], 7, **share)
        validation = Feed(store, np.arange(200, 219), settings["batch_size"], shuffle=False, **share)
        trained = training.train(model, feed, validation, settings, 7, group=group, note=notes.append)
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in trained.rows]
    return {"n": n, "model": model.state_dict(), "rows": rows, "notes": notes}


if __name__ == "__main__":
    main(*sys.argv[1:])
    lifeline.leave(0)

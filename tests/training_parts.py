"""What tests of training put in the place of its parts."""

import torch


class StopAfter:
    """False a number of times, then true."""

    def __init__(self, n):
        self.left = n

    def __bool__(self):
        self.left -= 1
        return self.left < 0


class Sgd(torch.optim.SGD):
    """In place of AdamW, whose normalisation blows rounding errors up."""

    def __init__(self, parameters, lr, weight_decay, **others):
        super().__init__(parameters, lr=lr, weight_decay=weight_decay)

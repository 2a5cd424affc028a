"""Learning rate over the epochs of one stage."""

import math

from torch.optim import Optimizer


class WarmupCosineLR:
    """Linear rise over `warmup_epochs`, then half a cosine down towards zero, over the `epochs` from `first_epoch` on.

    It has the two methods that nnU-Net calls on a scheduler. The rate depends on the epoch alone, so there is no state
    to save and a resumed training goes on where it was. The first and the last epoch have small rates, but none is 0.
    """

    def __init__(self, optimizer: Optimizer, lr: float, first_epoch: int, epochs: int, warmup_epochs: int = 0):
        self.optimizer = optimizer
        self.lr, self.first_epoch, self.epochs, self.warmup_epochs = lr, first_epoch, epochs, warmup_epochs
        self.step(first_epoch)

    def at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted like the trainer's from the beginning of the training."""
        done = epoch - self.first_epoch
        if done < self.warmup_epochs:
            return self.lr * (done + 1) / (self.warmup_epochs + 1)
        progress = (done - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))

    def step(self, current_epoch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.at(current_epoch)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

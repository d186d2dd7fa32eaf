"""How many epochs a training has, and how far it is; planned anew when it takes longer than it may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Attributes:
    epochs: in all.
    turned: the epochs that were done when it was planned last.
    at_turn: which share of the schedule was done then.
    """

    epochs: int
    turned: int = 0
    at_turn: float = 0.0

    def at(self, epochs_done: float) -> float:
        """Which share of the schedule is done after so many epochs: 1 after the last, without a jump where it was
        planned anew, so that the rate always falls to zero."""
        return self.at_turn + (1 - self.at_turn) * (epochs_done - self.turned) / (self.epochs - self.turned)

    def replanned(self, done: int, most: int, seconds_left: float, seconds_an_epoch: float) -> Schedule:
        """The schedule after `done` epochs: as many as `most`, or as fit into the time that is left; `done` epochs if
        none fits. One that is done stays done."""
        if done >= self.epochs:
            return self
        epochs = min(most, done + max(0, int(seconds_left / seconds_an_epoch)))
        return self if epochs == self.epochs else Schedule(epochs, done, self.at(done))

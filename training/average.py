"""An exponential moving average of a network's weights, which is what gets exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Follows a network with ``average += (1 - decay) * (weights - average)``.

    The first steps use a smaller decay, so that the average forgets the random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = {
            name: value.detach().clone() for name, value in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in network.state_dict().items():
            self.weights[name].lerp_(value, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        return self.weights

    def load_state_dict(self, weights: dict[str, Tensor]) -> None:
        self.weights = {name: value.clone() for name, value in weights.items()}
        self.steps = 10_000

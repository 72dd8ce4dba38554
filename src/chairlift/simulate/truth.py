"""What things really take: a cost table that nobody corrects, looked up once for each question."""

from __future__ import annotations

from chairlift.scheduling.costs import Costs, Shape
from chairlift.simulate.workload import Job, alone


class Truth:
    """Answers in seconds; all replicas of a simulation may share one.

    Args:
        costs: Must not change.
    """

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self.row_entries = costs.row_entries
        """Entries of every row."""
        self._steps: dict[tuple[Shape, int], float] = {}
        self._encodes: dict[Shape, float] = {}
        self._decodes: dict[Shape, float] = {}
        self._alone: dict[tuple[Shape, int, int], float] = {}

    def step(self, shape: Shape, rows: int) -> float:
        """Of a step of so many rows together."""
        if (shape, rows) not in self._steps:
            self._steps[shape, rows] = self._costs.step(shape).seconds(rows * self.row_entries)
        return self._steps[shape, rows]

    def encode(self, shape: Shape) -> float:
        """Of one row."""
        if shape not in self._encodes:
            self._encodes[shape] = self._costs.encode(shape)
        return self._encodes[shape]

    def decode(self, shape: Shape) -> float:
        """Of one row."""
        if shape not in self._decodes:
            self._decodes[shape] = self._costs.decode(shape)
        return self._decodes[shape]

    def alone(self, shape: Shape, job: Job) -> float:
        """Of a job, of that shape, that has a replica to itself."""
        key = shape, job.steps, job.n
        if key not in self._alone:
            self._alone[key] = alone(self._costs, job)
        return self._alone[key]

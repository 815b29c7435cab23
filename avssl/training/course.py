"""The course of a run: which phase it is in, where that began, what is left, and the learning rate of each step."""

from __future__ import annotations

from typing import Any

from avssl.training import optim
from avssl.training.phases import Phase


class Course:
    """Steps are counted over the whole run. The place is two integers: the number of the phase and the step that it
    began after. They are kept, not derived from the lengths, which may be changed when a run is continued.
    """

    def __init__(self, phases: list[Phase], rows: int):
        self.phases, self._rows = phases, rows
        self._lengths = [phase.length(rows) for phase in phases]
        self.index, self.began = 0, 0

    @property
    def phase(self) -> Phase:
        """The phase that the run is in; also after its last step, until the next one is entered."""
        return self.phases[self.index]

    def is_over(self, step: int) -> bool:
        """Whether the phase has had all its steps when `step` is done."""
        return step - self.began >= self._lengths[self.index]

    def enter_next(self, step: int) -> None:
        """The next phase begins after `step`."""
        self.index, self.began = self.index + 1, step

    def total_steps(self, step: int) -> int:
        """Steps of the run in all; `step` of them are done (perhaps more than the phase still has by the config)."""
        return max(step, self.began + self._lengths[self.index]) + sum(self._lengths[self.index + 1 :])

    def learning_rate(self, step: int) -> float:
        """The rate that `step` of the current phase is taken with."""
        phase = self.phase
        warmup = optim.warmup_length(phase.schedule, self._rows / phase.data.batch_size)
        return optim.learning_rate(phase.schedule, phase.optim.lr, step - self.began, self._lengths[self.index], warmup)

    def describe(self) -> str:
        """A sentence for the log where a phase begins."""
        return (
            f"phase {self.phase.name!r} ({self.index + 1} of {len(self.phases)}) begins after step {self.began}:"
            f" {self._lengths[self.index]} steps"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"phase": self.index, "began": self.began}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.index, self.began = state["phase"], state["began"]

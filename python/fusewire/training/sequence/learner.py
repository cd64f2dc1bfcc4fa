"""What a step of a sequence model changes: weights, optimiser, and the state that it carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from fusewire.models.language import Recurrent, RecurrentState
from fusewire.training.processes import Processes
from fusewire.training.seeds import RandomStreams


class SequenceLearner:
    """A model, its optimiser, its carried state and its randomness.

    Args:
        model: freshly initialised, from the numbers of `streams`.
        shared: what `Processes.share` or `Processes.shard` made of it.
        optimizer: over the parameters of `shared`.
        batch: rows of a batch, over all processes.
        processes: those of the run.
        streams: made before the model.
    """

    def __init__(
        self,
        model: nn.Module,
        shared: nn.Module,
        optimizer: Optimizer,
        batch: int,
        processes: Processes,
        streams: RandomStreams,
    ) -> None:
        self.model, self.shared, self.optimizer = model, shared, optimizer
        self.processes, self.streams = processes, streams
        self.rows = processes.rows(batch)
        self.carried = CarriedState(model, batch, self.rows)
        streams.diverge(processes.rank)

    def models(self) -> Mapping[str, nn.Module]:
        """The model and what it carries, put together from all processes."""
        self.carried.gather(self.processes)
        return {"model": self.model, "carried": self.carried}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """The one optimiser."""
        return {"model": self.optimizer}


class CarriedState(nn.Module):
    """What a recurrent model remembers between batches, cut off from the gradient.

    A module with buffers, (batch, layers, hidden_size), so that a checkpoint keeps it like weights;
    empty for a model that starts afresh with every batch.

    Args:
        model: its sizes and device decide the buffers.
        batch: rows per batch, over all processes.
        rows: those of this process.
    """

    def __init__(self, model: nn.Module, batch: int, rows: slice | None = None) -> None:
        super().__init__()
        self._rows = rows or slice(0, batch)
        self._pair = False
        if isinstance(model, Recurrent):
            initial = model.initial_state(batch)
            self._pair = isinstance(initial, tuple)
            for index, part in enumerate(initial if isinstance(initial, tuple) else (initial,)):
                self.register_buffer(str(index), part.transpose(0, 1).contiguous())

    def get(self) -> RecurrentState | None:
        """The state after the batch before, of the rows of this process."""
        parts = tuple(part.transpose(0, 1).contiguous() for part in self._own())
        return (parts[0], parts[1]) if self._pair else next(iter(parts), None)

    def set(self, state: RecurrentState | None) -> None:
        """Keeps the state after a batch, both parts of an LSTM's, without their history."""
        if state is None:
            return
        parts = state if isinstance(state, tuple) else (state,)
        for own, part in zip(self._own(), parts, strict=True):
            own.copy_(part.detach().transpose(0, 1))

    def gather(self, processes: Processes) -> None:
        """Fetches the rows of the other processes."""
        for whole, own in zip(self.buffers(), self._own(), strict=True):
            whole.copy_(processes.gather_rows(own))

    def _own(self) -> Iterator[Tensor]:
        return (part[self._rows] for part in self.buffers())


def decaying_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups that decay matrices only: shrinking a bias or a gain regularises nothing."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]

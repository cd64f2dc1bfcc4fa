"""What a step of a sequence model changes: weights, optimiser, and the state that it carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from fusewire.errors import InputError
from fusewire.models.language import Recurrent, RecurrentState, unbounded_weights
from fusewire.training.processes import Processes
from fusewire.training.seeds import RandomStreams

_SLOWLY = 0.1  # of the learning rate


class SequenceLearner:
    """A model, its optimiser, its carried state and its randomness.

    Args:
        model: freshly initialised, from the numbers of `streams`.
        shared: what `Processes.share` or `Processes.shard` made of it.
        optimizer: over the parameters of `shared`.
        batch: rows of a batch, over all processes.
        processes: those of the run.
        streams: made before the model.
        accumulate: parts in which the rows of a process are read.

    Attributes:
        parts: the rows of this process, as they are read one after another.

    Raises:
        InputError: the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        model: nn.Module,
        shared: nn.Module,
        optimizer: Optimizer,
        batch: int,
        processes: Processes,
        streams: RandomStreams,
        accumulate: int = 1,
    ) -> None:
        self.model, self.shared, self.optimizer = model, shared, optimizer
        self.processes, self.streams = processes, streams
        rows = processes.rows(batch)
        self.parts = _parts(rows, accumulate)
        self.carried = CarriedState(model, batch, rows)
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

    def get(self, rows: slice) -> RecurrentState | None:
        """The state after the batch before, of some rows; a later `set` leaves it alone."""
        packed = torch.contiguous_format
        parts = tuple(
            part[rows].transpose(0, 1).clone(memory_format=packed) for part in self.buffers()
        )
        return (parts[0], parts[1]) if self._pair else next(iter(parts), None)

    def set(self, rows: slice, state: RecurrentState | None) -> None:
        """Keeps the state of some rows after a batch, both an LSTM's, without their history."""
        if state is None:
            return
        parts = state if isinstance(state, tuple) else (state,)
        for whole, part in zip(self.buffers(), parts, strict=True):
            whole[rows] = part.detach().transpose(0, 1).to(whole.dtype)

    def gather(self, processes: Processes) -> None:
        """Fetches the rows of the other processes."""
        for whole in self.buffers():
            whole.copy_(processes.gather_rows(whole[self._rows]))


def _parts(rows: slice, count: int) -> Sequence[slice]:
    total = rows.stop - rows.start
    if total % count:
        raise InputError(f"{total} rows of a batch cannot be read in {count} equal parts")
    size = total // count
    return [slice(start, start + size) for start in range(rows.start, rows.stop, size)]


def decaying_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups that decay matrices only: shrinking a bias or a gain regularises nothing.

    Recurrent weights of ReLU layers learn at a tenth of the rate. Adam moves all of them by the
    rate in each step, mostly in one direction, so that the factor by which a step lengthens the
    state rises by width times rate; and once it is above 1, the carried state overflows before the
    gradient has turned it back.
    """
    slow = unbounded_weights(model)
    held = {id(parameter) for parameter in slow}
    others = [parameter for parameter in model.parameters() if id(parameter) not in held]
    groups: list[dict[str, object]] = [
        {"params": [each for each in others if each.dim() >= 2], "weight_decay": weight_decay},
        {"params": [each for each in others if each.dim() < 2], "weight_decay": 0.0},
    ]
    if slow:
        groups.append({"params": slow, "weight_decay": weight_decay, "scale": _SLOWLY})
    return groups

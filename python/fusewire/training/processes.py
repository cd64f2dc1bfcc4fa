"""Where a run computes: in one process, or in those that `torchrun` started together.

The processes of a run share each batch: all know the whole order of the data, each takes its rows.
Gradients are averaged by PyTorch's `DistributedDataParallel`, so that a step in many processes is
the step of one process with the whole batch, to rounding.
"""

from __future__ import annotations

import atexit
import gc
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch

# Its functions have the group of all processes as a default. Imported once there is one, as DDP
# does, they would hold it to the end of the process, and its threads with it.
import torch.distributed.nn
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from fusewire.errors import InputError, ToldError
from fusewire.training.devices import require_device

T = TypeVar("T")


class Processes:
    """The processes of a run; every one of them makes this object and calls its methods in step.

    Args:
        device: where to compute, such as "cpu" or "cuda".

    Raises:
        InputError: the device cannot be used.

    Example:
        >>> processes = Processes("cpu")
        >>> processes.rank, processes.count, processes.rows(8)
        (0, 1, slice(0, 8, None))
    """

    def __init__(self, device: str) -> None:
        require_device(device)
        wanted = torch.device(device)
        _forget_other_device(wanted)
        if wanted.type == "cuda" and wanted.index is not None:
            torch.cuda.set_device(wanted)
        others_group = dist.is_initialized()
        self._accelerator = Accelerator(
            cpu=wanted.type == "cpu",
            # Buffers move the same in every process; sending them would change tensors that an
            # earlier call of the same network still needs for its gradient.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        if dist.is_initialized() and not others_group:
            atexit.register(_leave_group)
        self.device = self._accelerator.device
        if self.device.type != wanted.type:
            raise InputError(f'device "{device}" cannot be used: accelerate chose {self.device}')
        self.rank = self._accelerator.process_index
        self.count = self._accelerator.num_processes
        self.is_main = self._accelerator.is_main_process

    def share(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device; the result averages gradients over all processes."""
        with warnings.catch_warnings():
            # PyTorch has a new name for the option, which accelerate does not pass on.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")
            shared: nn.Module = self._accelerator.prepare_model(model)
        return shared

    def shard(self, model: nn.Module, blocks: list[nn.Module], methods: Sequence[str]) -> nn.Module:
        """Spreads a model's parameters over all processes (FSDP2), in place.

        Args:
            model: its optimiser must be made afterwards.
            blocks: parts whose parameters are fetched together, such as a Transformer's layers.
            methods: those of the model, beside `forward`, that use its parameters.
        """
        model.to(self.device)
        if self.count > 1:
            mesh = init_device_mesh(self.device.type, (self.count,))
            for part in (*blocks, model):
                fully_shard(part, mesh=mesh)
            for method in methods:
                register_fsdp_forward_method(model, method)
        return model

    def rows(self, batch: int) -> slice:
        """The rows of a batch that belong to this process.

        Raises:
            InputError: the batch cannot be shared out evenly.
        """
        if batch % self.count:
            raise InputError(
                f"batch must be a multiple of the number of processes, {self.count}, got {batch}"
            )
        share = batch // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Averages numbers over all processes."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        if self.count > 1:
            stacked = self._accelerator.reduce(stacked, "mean")
        return dict(zip(values, stacked.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any of the processes."""
        if self.count == 1:
            return flag
        total = self._accelerator.reduce(torch.tensor(float(flag), device=self.device))
        return bool(total.item() > 0)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Joins the rows of all processes, (rows of one, ...) to (rows of all, ...)."""
        if self.count == 1:
            return rows
        joined: Tensor = self._accelerator.gather(rows.contiguous())
        return joined

    def gather(self, value: T) -> list[T]:
        """Collects one object of each process, in order of their ranks."""
        return [value] if self.count == 1 else list(gather_object([value]))

    def agreed(self, value: T) -> T:
        """What the first process says."""
        if self.count == 1:
            return value
        agreed: T = broadcast_object_list([value])[0]
        return agreed

    def by_main(self, act: Callable[[], T]) -> T | None:
        """Lets the first process do what the others wait for, such as writing files.

        Args:
            act: is called in the first process only.

        Returns:
            What `act` gave, None in the others.

        Raises:
            InputError: `act` failed: in the first process its own error, in the others `ToldError`,
                so that all of them stop.
        """
        if self.count == 1:
            return act()
        given: T | None = None
        failure: Exception | None = None
        if self.is_main:
            try:
                given = act()
            except Exception as error:  # told to the others before it goes on
                failure = error
        told = self.agreed(None if failure is None else str(failure))
        if failure is not None:
            raise failure
        if told is not None:
            raise ToldError(told)
        return given

    def wait(self) -> None:
        """Returns when every process has come here."""
        self._accelerator.wait_for_everyone()


def _leave_group() -> None:
    # A thread of the group that lets go of a tensor while Python ends would abort the process.
    # They are joined once nothing holds the group, such as a model in a cycle of references.
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def _forget_other_device(wanted: torch.device) -> None:
    # accelerate keeps the device of a process's first run for all that follow.
    state = PartialState._shared_state
    if state and state["device"].type != wanted.type:
        AcceleratorState._reset_state(reset_partial_state=True)

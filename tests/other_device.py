"""A device that is not there: its tensors live on the CPU, and refuse what those of a GPU refuse.

`python -m tests.other_device fit ...` is the command line on this device, `-c` runs Python in sight of it. The stream takes every
branch that is taken off the CPU, and ends with an error where tensors of two devices meet, where a CPU's generator is to draw on
the device, and where numpy is to look at it. What a GPU computes otherwise, and which operations it lacks, it cannot tell.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry, CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "other"
_aten = torch.ops.aten
_COPIES = (_aten._to_copy.default, _aten.copy_.default)
_INDEXING = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(NAME, 0)


class DeviceTensor(Tensor):
    """A tensor of the device.

    Args:
        held: its numbers, on the CPU.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        # A sparse one says that it is dense; its own operations find what it holds all the same.
        seen = held if held.layout is torch.strided else torch.empty(held.shape, device="meta")
        places = {"strides": seen.stride(), "storage_offset": seen.storage_offset()}
        found = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=DEVICE, **places)
        found.held = held
        return found

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})

    # What torch has for tensors of its own kind alone.

    def tolist(self) -> Any:
        return self.held.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"{self.held!r} on {DEVICE}"

    def __format__(self, form: str) -> str:
        return format(self.held, form)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy.")


torch.serialization.add_safe_globals([DeviceTensor])


class OtherDevice(TorchDispatchMode):
    """The context in which the device can be asked for."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on what is held, once a GPU would have taken its arguments."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [leaf for leaf in tensors if isinstance(leaf, DeviceTensor)]
    is_result_there = bool(there)
    if function in _INDEXING and there:
        if not isinstance(args[0], DeviceTensor):
            raise RuntimeError(f"{function}: indices of {DEVICE} for a tensor of the CPU")
    elif function in _COPIES:
        is_result_there = isinstance(args[0], DeviceTensor)
    elif there and any(not isinstance(leaf, DeviceTensor) and leaf.dim() for leaf in tensors):
        raise RuntimeError(
            f"{function}: found tensors on {DEVICE} and the CPU: {[(leaf.device, leaf.shape) for leaf in tensors]}"
        )
    if kwargs.get("device") is not None:
        is_result_there = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if is_result_there and kwargs.get("generator") is not None:
        raise RuntimeError(f"{function}: a generator of the CPU cannot draw on {DEVICE}")
    found = function(*tree_map(_held, args), **tree_map(_held, kwargs))
    if not is_result_there:
        return found
    # An operation in place gives back the very tensor that it was given.
    given = {id(leaf.held): leaf for leaf in there}
    return tree_map(lambda leaf: given[id(leaf)] if id(leaf) in given else _lifted(leaf), found)


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, DeviceTensor) else leaf


def _lifted(leaf: Any) -> Any:
    return DeviceTensor(leaf) if isinstance(leaf, Tensor) else leaf


def _copied(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _held(target).copy_(_held(source))
    return target


# What `torch.tensor` asks of a device itself, past every mode.
_library = torch.library.Library("aten", "IMPL", "PrivateUse1")
_library.impl(
    "empty_strided", lambda size, stride, *, dtype, **_: DeviceTensor(torch.empty_strided(size, stride, dtype=dtype))
)
_library.impl("_copy_from", _copied)


class OtherAccelerator(CPUAccelerator):
    """One such device."""

    def setup_device(self, device: torch.device) -> None:
        """There is nothing to set up."""

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]


class OneOtherDevice(SingleDeviceStrategy):
    """A process with one such device."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(device=DEVICE, **settings)


def main(arguments: list[str]) -> None:
    """Run the command line on the device."""
    from ccd_lightning import cli

    AcceleratorRegistry.register(NAME, OtherAccelerator)
    StrategyRegistry.register(NAME, OneOtherDevice)
    torch.accelerator.synchronize = lambda *_: None
    with OtherDevice():
        cli.main([*arguments, "--trainer.accelerator", NAME, "--trainer.strategy", NAME])


if __name__ == "__main__":
    if sys.argv[1] == "-c":
        with OtherDevice():
            exec(sys.argv[2])
    else:
        main(sys.argv[1:])
    # Python cannot always end the thread in which autograd waits for the device.
    sys.stdout.flush()
    os._exit(0)

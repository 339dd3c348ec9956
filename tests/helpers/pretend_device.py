"""A pretended device: its tensors live in the CPU's memory, but what a host would wait for is counted.

Such a tensor says that its device is `meta`, so that tensors made beside it are of its kind. What CUDA would refuse, an
operation on tensors of the device and of the CPU, is refused; what CUDA would wait for is counted: reading a value,
copies in either direction, and operations whose result has a size that depends on values.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

aten = torch.ops.aten
SIZE_BY_VALUE = (
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.repeat_interleave,
    aten.bincount,
    aten.equal,
)
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
COPIES = (aten._to_copy, aten.copy_)


class Pretended(Tensor):
    """A tensor on the pretended device; the operations on it are those of `Device`."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        layout = {"strides": held.stride(), "dtype": held.dtype, "device": "meta"}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{operation} outside the pretended device")


class Device(TorchDispatchMode):
    """Runs what is inside the `with` block; `waits` says which operations the host would have waited for, how often."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        ours = [each for each in given if isinstance(each, Pretended)]
        others = [each for each in given if not isinstance(each, Pretended) and each.ndim]
        assert not any(each.is_meta for each in others), "torch.tensor(..., device=) waits unseen: write .to(device)"
        asked = kwargs.get("device")
        is_ours = bool(ours) if asked is None else torch.device(asked).type == "meta"
        kind = operation.overloadpacket
        if kind in COPIES:
            is_ours = isinstance(args[0], Pretended) if kind == aten.copy_ else is_ours
            waits = bool(ours) != is_ours or len(ours) < len(given) and bool(ours)
        elif kind in INDEXING:
            waits = bool(ours) and self._index_waits(args)
            assert isinstance(args[0], Pretended) or not ours, f"{operation}: indices of another device"
        else:
            assert not (ours and others), f"{operation}: tensors of two devices"
            waits = bool(ours) and (kind in SIZE_BY_VALUE or kind == aten._local_scalar_dense)
        self.waits[str(kind)] += waits
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = tree_map_only(Pretended, lambda each: each.held, (args, kwargs))
        if kind == aten._to_copy and not kwargs.get("dtype"):
            kwargs["dtype"] = args[0].dtype  # a new tensor, though both lie in the CPU's memory
        result = operation(*args, **kwargs)
        return tree_map_only(Tensor, Pretended, result) if is_ours else result

    @staticmethod
    def _index_waits(args: Any) -> bool:
        indices = [index for index in args[1] if index is not None]
        fills = len(args) > 2 and args[2].numel() == 1  # x[mask] = 0 is a masked fill
        has_mask = any(index.dtype == torch.bool for index in indices)
        return has_mask and not fills or any(not isinstance(index, Pretended) for index in indices)

    def put(self, held: Tensor) -> Tensor:
        """Returns a tensor on the device, uncounted."""
        return Pretended(held)

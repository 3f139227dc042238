# SPDX-License-Identifier: Apache-2.0
"""Constants of the recurrence in code space, and when they have to be made again.

With ``x_k = p_k - b_k`` the recurrence of one block is

    x_k = P_k + offset_k - sum_{j<k} G_kj v_j        P_k = W_k z, G_kj = W_k O_j
    n_k = number of thresholds tau / s_k that x_k reaches
    v_k = value_k[n_k]                               q / s_k + b_k of each digit

and ``offset_k = c_k - b_k - sum_{j<k} W_k e_j`` over the active stages ``j``. Everything is
computed in float64 and rounded to float32 once, so backends that agree on ``P`` agree on every
digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from affectcodec import _native
from affectcodec.config import BDRFSQConfig
from affectcodec.ops import fsq
from affectcodec.ops.bd_rfsq.params import BlockParams
from affectcodec.ops.registry import OPS


def describe(config: BDRFSQConfig) -> tuple[int, ...]:
    """A quantizer as the operators take it; see ``affectcodec/ops/registry.py``."""
    numbers = [0 if config.bound == "tanh" else 1, config.num_stages, len(config.blocks)]
    for block in config.blocks:
        numbers += [block.width, block.code_dim, *block.levels]
    return tuple(numbers)


class Folded(NamedTuple):
    """Constants of one block, float32; ``K d`` rows, row ``k d + i`` is dim ``i`` of stage ``k``.

    ``cross [K d, K d]`` is ``G``, zero from a row's own stage on. ``offset [K + 1, K d]`` holds the
    constant of each row for each number of active stages. ``threshold [K d, L - 1]`` is filled up
    with +inf, ``value [K d, L]`` with the last value. ``bias [K + 1, D]`` is the sum of ``e``
    over the first stages.
    """

    cross: Tensor
    offset: Tensor
    threshold: Tensor
    value: Tensor
    bias: Tensor


def fold_block(params: BlockParams, levels: Sequence[int], bound: str) -> Folded:
    """Constants of one block; the compiled backends hold the same numbers in their own order."""
    W, c, O, e, logit, shift = (tensor.detach().double() for tensor in params)  # noqa: E741
    stages, dim, width = W.shape
    rows, most = stages * dim, max(levels)
    W_all = W.reshape(rows, width)
    O_all = O.permute(1, 0, 2).reshape(width, rows)
    stage = torch.arange(stages, device=W.device).repeat_interleave(dim)
    cross = torch.where(stage[:, None] > stage[None, :], W_all @ O_all, 0.0)
    through = torch.where(
        stage[:, None] > torch.arange(stages, device=W.device), W_all @ e.t(), 0.0
    )
    sums = torch.nn.functional.pad(through.cumsum(1), (1, 0))  # [rows, K + 1]
    offset = (c - shift).reshape(rows, 1) - sums
    scale = torch.nn.functional.softplus(logit).reshape(rows, 1) + 0.1
    tau = fsq.threshold_table(levels, bound, dtype=torch.float64, device=W.device)
    threshold = tau.repeat(stages, 1) / scale
    digit = torch.arange(most, device=W.device)
    top = torch.tensor(levels, device=W.device).unsqueeze(1) - 1
    grid = (2.0 * torch.minimum(digit, top) - top) / top
    value = grid.repeat(stages, 1) / scale + shift.reshape(rows, 1)
    bias = torch.nn.functional.pad(e.cumsum(0), (0, 0, 1, 0))
    folded = (cross, offset.t(), threshold, value, bias)
    return Folded(*(tensor.to(torch.float32).contiguous() for tensor in folded))


def digits_of(projections: Tensor, folded: Folded, dim: int) -> Tensor:
    """Digits int32 ``[N, K d]`` of given projections ``W z``, float32 ``[N, K d]``.

    The recurrence in the very order of operations that every backend keeps: one product and one
    subtraction at a time, never fused. Slow; for tests.
    """
    rows = projections.shape[1]
    x = projections + folded.offset[-1]
    digits = torch.empty(projections.shape, dtype=torch.int32, device=projections.device)
    for first in range(0, rows, dim):
        for row in range(first, first + dim):
            reached = x[:, row, None] >= folded.threshold[row]
            digits[:, row] = reached.sum(1)
        for row in range(first, first + dim):
            value = folded.value[row][digits[:, row].long()]
            x[:, first + dim :] -= folded.cross[first + dim :, row] * value[:, None]
    return digits


class FoldCache:
    """Folded weights of one module, made again when a parameter has changed.

    A parameter is known by its address and its version. In-place operations raise the version,
    under ``no_grad`` as well, with one exception that matters: fused optimizers do not. They need
    gradients, so nothing is kept while a parameter has one, and what is kept is dropped when a
    gradient arrives. Writes through ``.data`` cannot be seen at all; ``forget`` is for them.
    """

    def __init__(self) -> None:
        # One attribute, replaced as a whole: another thread sees the old entry or the new one.
        self._entry: _Entry | None = None
        self._hooks: list[Any] = []

    def forget(self, _: Any = None) -> None:
        self._entry = None
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook.remove()

    def __deepcopy__(self, memo: Any) -> FoldCache:
        return FoldCache()

    def __reduce__(self) -> tuple[Any, ...]:
        return (FoldCache, ())

    def get(
        self,
        blocks: dict[str, Any],
        parameters: Callable[[], Sequence[Tensor]],
        description: tuple[int, ...],
        backend: str,
    ) -> Tensor:
        """Folded weights for ``backend``.

        Args:
            blocks: the modules that hold the parameters.
            parameters: all of them in order; called only where they have to be folded.
        """
        if torch.compiler.is_compiling():
            return fold(parameters(), description, backend)
        try:
            stamp = _stamp(blocks)
        except RuntimeError:  # an inference tensor counts no versions, a fake one has no address
            stamp = None
        if stamp is None:
            return fold(parameters(), description, backend)
        entry = self._entry
        if entry is not None and entry.stamp == stamp and entry.backend == backend:
            return entry.weights
        params = parameters()
        # Not an inference tensor: the entry may be used inside and outside of inference mode.
        with torch.inference_mode(False):
            weights = fold(params, description, backend)
        self.forget()
        if all(p.is_leaf and p.grad is None for p in params):
            trained = [p for p in params if p.requires_grad]
            self._hooks = [p.register_post_accumulate_grad_hook(self.forget) for p in trained]
            self._entry = _Entry(stamp, backend, weights, [p.detach() for p in params])
        return weights


class _Entry(NamedTuple):
    stamp: Any
    backend: str
    weights: Tensor
    held: list[Tensor]  # so that no other tensor can come to lie at the same address


def _stamp_in_python(blocks: dict[str, Any]) -> list[int] | None:
    """Address and version of each parameter; None where a block does not hold six of its own."""
    numbers: list[int] = []
    for block in blocks.values():
        own = block._parameters.values()
        if len(own) != 6 or any(p is None for p in own):
            return None
        for parameter in own:
            numbers += (parameter.data_ptr(), parameter._version)
    return numbers


# Taken at every call: for one frame the loop in Python would cost as much as the kernel.
_stamp: Callable[[dict[str, Any]], Any] = getattr(
    _native.load("affectcodec._cpu").module, "stamp", _stamp_in_python
)


def fold(params: Sequence[Tensor], description: tuple[int, ...], backend: str) -> Tensor:
    """Folded weights of one backend; the parameters are read as float32."""
    ready = [p.detach().to(torch.float32).contiguous() for p in params]
    weights: Tensor = OPS["fold"].kernel(backend)(ready, description)
    return weights

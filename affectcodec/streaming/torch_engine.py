# SPDX-License-Identifier: Apache-2.0
"""A step of many streams in PyTorch, on the device of the codec: eager, or compiled.

Every step computes all slots, in the same place of the same shapes, and keeps what belongs to the
slots that have a frame. General matrix libraries round by shape; with the shape fixed, a slot's
output does not depend on what its neighbours do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from affectcodec.codec import AffectCodec
from affectcodec.nn.causal import StreamState
from affectcodec.nn.spectral import OverlapAddSynthesis, PitchFeatures
from affectcodec.streaming.engine import Arrays, Floats, Ints, check_slots
from affectcodec.streaming.state import checked_arrays

Step = Callable[[Tensor, StreamState], Tensor]
_Network = TypeVar("_Network", bound=nn.Module)
_FEW_ROWS = 4  # up to here loops over the weights were measured to beat the matrix library


def packed(network: _Network, slots: int) -> _Network:
    """A copy of a network whose weights lie in the order in which its compiled products read them.

    Loops over few rows sum along the inputs. Of the matrix library's products those that have more
    outputs than inputs are 2 to 4 times as fast if weights lie along the outputs.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        if slots > _FEW_ROWS:
            if isinstance(module, nn.Linear) and module.out_features >= module.in_features:
                module.weight.data = module.weight.data.t().contiguous().t()
        elif isinstance(module, OverlapAddSynthesis):
            module.basis = module.basis.t().contiguous().t()
        elif isinstance(module, PitchFeatures):
            module.correlation = module.correlation.t().contiguous().t()
    return network


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """``x [R, K] @ weight [K, N]`` as a sum, which the compiler makes a loop of its own.

    One row is bound by the reading of weights. Here they are read in their order, and what goes
    before or follows shares one function with it.
    """
    if x.device.type != "cpu" or len(x) > _FEW_ROWS or not x.is_floating_point():
        return NotImplemented
    x = x.contiguous()
    # What as_strided reads lies in memory. Without it the norm or the GELU before a product would
    # be fused into it and computed anew for each of its outputs.
    x = torch.as_strided(x, x.shape, x.stride())
    return (x[:, None] * weight.t()).sum(-1)


def _product_and_bias(
    bias: Tensor, x: Tensor, weight: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    out = _product(x, weight)
    return out if out is NotImplemented else alpha * out + beta * bias


_PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.mm.default: _product,
    torch.ops.aten.addmm.default: _product_and_bias,
}


def compiled(step: Step, example: Tensor, start: StreamState) -> Step:
    """``step`` through ``torch.compile`` for inputs as ``example`` and ``start`` are.

    Nothing checks later inputs but the sizes that the compiled code asserts. The state that it is
    given is written as eager does.
    """
    names = list(start)

    def pure(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(names, tensors, strict=True))
        out = step(x, state)
        return (out, *(state[name] for name in names))

    graph = make_fx(pure, decomposition_table=_PRODUCTS)(example, *start.values())
    options: dict[str, Any] = {
        # An engine's shapes, dtypes and device never change; to check them took a tenth of a step.
        "guard_filter_fn": torch.compiler.skip_all_guards_unsafe
    }
    if len(example) <= _FEW_ROWS:
        # Threads would meet after each of hundreds of short loops. Where they share their cores
        # with other work that took over a second a frame, against 3 ms on one thread.
        options["cpp.threads"] = 1
    run = torch.compile(graph.forward, fullgraph=True, dynamic=False, options=options)
    run(example, *start.values())  # here it is compiled, and never again

    def mutating(x: Tensor, state: StreamState) -> Tensor:
        out, *after = run(x, *(state[name] for name in names))
        state.update(zip(names, after, strict=True))
        return out

    return mutating


class _TorchEngine:
    """State of all slots as tensors ``[slots, ...]``, zero at the start of a stream."""

    def __init__(
        self, codec: AffectCodec, slots: int, network: Step, example: Tensor, compile: bool
    ) -> None:
        check_slots(slots)
        self.name = "torch-compiled" if compile else "torch"
        self.codec = codec
        self.slots = slots
        self.device = codec.device
        # One step on silence makes every history at its shape and dtype.
        found: StreamState = {}
        with torch.inference_mode(False), torch.no_grad():
            network(example, found)
            self._state = {name: torch.zeros_like(value) for name, value in found.items()}
            self._network = compiled(network, example, self._state) if compile else network

    def _step(self, batch: Tensor, state: StreamState) -> Tensor:
        return self._network(batch, state)

    def reset(self, slot: int) -> None:
        for value in self._state.values():
            value[slot].zero_()

    def state(self, slot: int) -> Arrays:
        return {name: value[slot].cpu().numpy().copy() for name, value in self._state.items()}

    def load_state(self, slot: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        own = {name: value[slot].cpu().numpy() for name, value in self._state.items()}
        for name, array in checked_arrays(arrays, own).items():
            self._state[name][slot] = torch.from_numpy(array.copy())

    # What is made in a caller's inference mode could not be reset or loaded outside of it.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _run(self, slots: Sequence[int], counts: Sequence[int], frames: Tensor) -> Tensor:
        """The results of ``frames [R, ...]``, in their order, ``[R, ...]``."""
        results: list[Tensor] = [frames] * len(frames)
        for active, rows in _rounds(slots, counts):
            batch = frames.new_zeros(self.slots, *frames.shape[1:])
            batch[active] = frames[rows]
            state = dict(self._state)
            out = self._step(batch, state)
            if len(active) == self.slots:
                self._state = state
            else:
                keep = torch.zeros(self.slots, dtype=torch.bool, device=batch.device)
                keep[active] = True
                for name, old in self._state.items():
                    mask = keep.reshape(-1, *[1] * (old.ndim - 1))
                    self._state[name] = torch.where(mask, state[name], old)
            for slot, row in zip(active, rows, strict=True):
                results[row] = out[slot]
        return torch.stack(results)


def _rounds(slots: Sequence[int], counts: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Slots, and rows of their frames, one frame a slot and round."""
    first = np.cumsum([0, *counts])
    for turn in range(max(counts, default=0)):
        active = [i for i, count in enumerate(counts) if count > turn]
        yield [slots[i] for i in active], [int(first[i]) + turn for i in active]


class TorchEncoder(_TorchEngine):
    """Audio to tokens."""

    def __init__(self, codec: AffectCodec, slots: int, *, compile: bool = False) -> None:
        check_slots(slots)
        network = packed(codec.encoder, slots) if compile else codec.encoder
        example = torch.zeros(slots, codec.config.hop_length, device=codec.device)
        super().__init__(codec, slots, network, example, compile)

    def _step(self, batch: Tensor, state: StreamState) -> Tensor:
        latent = super()._step(batch, state)
        return self.codec.quantizer.encode(latent, channels_last=True)[..., 0]

    def encode(self, slots: Sequence[int], counts: Sequence[int], pcm: Floats) -> Ints:
        tokens = self._run(slots, counts, torch.from_numpy(pcm).to(self.device))
        return tokens.cpu().numpy()


class TorchDecoder(_TorchEngine):
    """Latents to audio."""

    def __init__(self, codec: AffectCodec, slots: int, *, compile: bool = False) -> None:
        check_slots(slots)
        network = packed(codec.decoder, slots) if compile else codec.decoder

        def step(latent: Tensor, state: StreamState) -> Tensor:
            return network(latent[:, None], state).wav

        example = torch.zeros(slots, codec.config.quantizer.width, device=codec.device)
        super().__init__(codec, slots, step, example, compile)

    @torch.no_grad()
    def dequantize(self, tokens: Ints, stages: Ints) -> Floats:
        rows = torch.from_numpy(np.ascontiguousarray(tokens)).to(self.device)[..., None]
        counts = torch.from_numpy(np.ascontiguousarray(stages)).to(self.device)
        # One row at a time: a product of several could round each of them in another way.
        parts = [
            self.codec.quantizer.decode(rows[i : i + 1], counts[i : i + 1], channels_last=True)
            for i in range(len(rows))
        ]
        return torch.cat(parts)[:, 0].cpu().numpy()

    def synthesize(self, slots: Sequence[int], counts: Sequence[int], latent: Floats) -> Floats:
        audio = self._run(slots, counts, torch.from_numpy(latent).to(self.device))
        return audio.cpu().numpy()

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

from affectcodec.codec import AffectCodec
from affectcodec.nn.causal import StreamState
from affectcodec.streaming.engine import Arrays, Floats, Ints, check_slots
from affectcodec.streaming.state import checked_arrays

Step = Callable[[Tensor, StreamState], Tensor]
_Network = TypeVar("_Network", bound=nn.Module)
_MOST_COMPILED = 256  # engines of one kind in a process; each is compiled for its own shapes


def packed(network: _Network) -> _Network:
    """A copy of a network whose wide products read their weights along the output.

    Products of one row that have more outputs than inputs are 2 to 4 times as fast so.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Linear) and module.out_features >= module.in_features:
            module.weight.data = module.weight.data.t().contiguous().t()
    return network


def compiled(step: Step) -> Step:
    """``step`` through ``torch.compile``; the state that it is given is written as eager does."""

    def pure(x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        state = dict(state)
        return step(x, state), state

    run = torch.compile(pure, fullgraph=True, dynamic=False)

    def mutating(x: Tensor, state: StreamState) -> Tensor:
        out, after = run(x, state)
        state.update(after)
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
        # One step on silence makes every history at its shape and dtype.
        found: StreamState = {}
        with torch.no_grad():
            network(example, found)
            self._state = {name: torch.zeros_like(value) for name, value in found.items()}
            self._network = network
            if compile:
                self._network = compiled(network)
                # Here it is compiled; a later call, with the same shapes, never is.
                with torch._dynamo.config.patch(recompile_limit=_MOST_COMPILED):
                    self._network(example, dict(self._state))

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

    @torch.no_grad()
    def _run(self, slots: Sequence[int], counts: Sequence[int], frames: Tensor) -> Tensor:
        """The results of ``frames [R, ...]``, in their order, ``[R, ...]``."""
        results: list[Tensor] = [frames] * len(frames)
        for active, rows in _rounds(slots, counts):
            batch = frames.new_zeros(self.slots, *frames.shape[1:])
            batch[active] = frames[rows]
            state = dict(self._state)
            out = self._step(batch, state)
            everyone = len(active) == self.slots
            keep = torch.zeros(self.slots, dtype=torch.bool, device=batch.device)
            keep[active] = True
            for name, old in self._state.items():
                if everyone:
                    self._state[name] = state[name]
                else:
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
        network = packed(codec.encoder) if compile else codec.encoder
        example = torch.zeros(slots, codec.config.hop_length, device=codec.device)
        super().__init__(codec, slots, network, example, compile)

    def _step(self, batch: Tensor, state: StreamState) -> Tensor:
        latent = super()._step(batch, state)
        return self.codec.quantizer.encode(latent, channels_last=True)[..., 0]

    def encode(self, slots: Sequence[int], counts: Sequence[int], pcm: Floats) -> Ints:
        tokens = self._run(slots, counts, torch.from_numpy(pcm).to(self.codec.device))
        return tokens.cpu().numpy()


class TorchDecoder(_TorchEngine):
    """Latents to audio."""

    def __init__(self, codec: AffectCodec, slots: int, *, compile: bool = False) -> None:
        check_slots(slots)
        network = packed(codec.decoder) if compile else codec.decoder

        def step(latent: Tensor, state: StreamState) -> Tensor:
            return network(latent[:, None], state).wav

        example = torch.zeros(slots, codec.config.quantizer.width, device=codec.device)
        super().__init__(codec, slots, step, example, compile)

    @torch.no_grad()
    def dequantize(self, tokens: Ints, stages: Ints) -> Floats:
        device = self.codec.device
        rows = torch.from_numpy(np.ascontiguousarray(tokens)).to(device)[..., None]
        counts = torch.from_numpy(np.ascontiguousarray(stages)).to(device)
        # One row at a time: a product of several could round each of them in another way.
        parts = [
            self.codec.quantizer.decode(rows[i : i + 1], counts[i : i + 1], channels_last=True)
            for i in range(len(rows))
        ]
        return torch.cat(parts)[:, 0].cpu().numpy()

    def synthesize(self, slots: Sequence[int], counts: Sequence[int], latent: Floats) -> Floats:
        audio = self._run(slots, counts, torch.from_numpy(latent).to(self.codec.device))
        return audio.cpu().numpy()

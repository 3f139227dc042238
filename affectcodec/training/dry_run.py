# SPDX-License-Identifier: Apache-2.0
"""What a run will need, found without its data and without its machines.

Weights, gradients and optimizer follow from the configuration. What the backward pass keeps is
counted in three short forward passes on the CPU, of one and two crops of two lengths: it grows
evenly with crops and with frames, so three points give it for any batch. A short pass forward and
backward is timed, and scaled likewise.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from affectcodec.training.batches import Batch, frame_log_energy
from affectcodec.training.config import ENVELOPE_HOP, ENVELOPE_SPAN, TrainConfig
from affectcodec.training.config_run import ScaleConfig
from affectcodec.training.trainer import Trainer

_BACKWARD = 2.0  # products of a backward pass, in those of its forward pass
_ADAM = 2  # numbers an optimizer keeps for each weight


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: int
    averaged: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it at once, which is a little more than any moment of a step holds."""
        return sum(dataclasses.asdict(self).values())


@dataclass(frozen=True)
class DryRun:
    """What a run needs.

    Attributes:
        processes, crops: devices, and crops at a time on each.
        parameters: weights of each part.
        shapes: of what passes through the codec, on one device.
        memory: of one device.
        flops: of one step over all devices.
        step_seconds: of one step in one process on this machine, from a short pass.
        steps: of the run.
    """

    processes: int
    crops: int
    parameters: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    memory: Memory
    flops: float
    step_seconds: float
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of JSON types."""
        found = dataclasses.asdict(self)
        found["memory"]["total"] = self.memory.total
        return found

    def lines(self, tflops: float | None = None) -> list[str]:
        """For a person. ``tflops``: what a device sustains, for an estimate of its time."""
        out = ["parameters"]
        for name, count in self.parameters.items():
            out.append(f"  {name:<22} {count / 1e6:10.2f} M")
        out.append(f"shapes, {self.crops} crop(s) at a time on each of {self.processes} device(s)")
        for name, shape in self.shapes.items():
            out.append(f"  {name:<22} {list(shape)}")
        out.append("memory of one device")
        for name, size in dataclasses.asdict(self.memory).items():
            out.append(f"  {name:<22} {size / 2**30:10.2f} GiB")
        out.append(f"  {'total':<22} {self.memory.total / 2**30:10.2f} GiB")
        out.append(f"work: {self.flops / 1e12:.3g} TFLOP a step, {self.steps} steps")
        hours = self.step_seconds * self.steps / 3600
        out.append(
            f"one process on this machine: about {self.step_seconds:.3g} s a step, {hours:.3g} h"
        )
        if tflops is not None:
            seconds = self.flops / self.processes / (tflops * 1e12)
            out.append(
                f"at {tflops:g} TFLOP/s sustained on each device: about {seconds:.3g} s a step, "
                f"{seconds * self.steps / 3600:.3g} h"
            )
        return out


@dataclass(frozen=True)
class _Point:
    kept: int
    flops: float


def dry_run(config: TrainConfig, processes: int = 1) -> DryRun:
    """Find out what a run in ``processes`` processes needs.

    Raises:
        ValueError: if a batch cannot be shared by so many.
    """
    parts = processes * config.scale.accumulate
    if processes < 1 or config.batch_size % parts:
        raise ValueError(
            f"batch_size: {config.batch_size} crops cannot be shared by {processes} processes "
            f"times {config.scale.accumulate} parts"
        )
    crops = config.batch_size // parts
    scale = ScaleConfig(recompute=config.scale.recompute)
    adversarial = config.adversarial
    if adversarial.start is not None:
        adversarial = dataclasses.replace(adversarial, start=0, warmup_steps=0, every=1)
    small = dataclasses.replace(config, batch_size=1, scale=scale, adversarial=adversarial)
    trainer = Trainer(small, None, None, "")
    shortest = -(-ENVELOPE_SPAN * ENVELOPE_HOP // config.codec.hop_length) + 1
    short = min(max(24, shortest), config.crop_frames)
    long = min(short + 16, config.crop_frames)
    one = _measure(trainer, 1, short)
    longer = one if long == short else _measure(trainer, 1, long)
    two = _measure(trainer, 2, short)

    def at(name: str, rows: int) -> float:
        a, b, c = (getattr(point, name) for point in (one, longer, two))
        per_crop = c - a  # of the short length
        per_frame = (b - a) / max(1, long - short)
        fixed = a - per_crop
        return max(a, fixed + rows * (per_crop + per_frame * (config.crop_frames - short)))

    counts = {name: _count(module) for name, module in trainer.codec.named_children()}
    counts.update(
        (name, _count(module))
        for name, module in trainer.modules.items()
        if name in ("emotion_head", "adversary")
    )
    trained = sum(
        p.numel() * p.element_size()
        for optimizer in trainer.optimizers.values()
        for group in optimizer.param_groups
        for p in group["params"]
        if p.requires_grad
    )
    weights = sum(_bytes(m) for name, m in trainer.modules.items() if name != "ema")
    share = processes if config.scale.shard else 1
    frames, hop = config.crop_frames, config.codec.hop_length
    quantizer = config.codec.quantizer
    return DryRun(
        processes=processes,
        crops=crops,
        parameters={**counts, "codec": _count(trainer.codec)},
        shapes={
            "wave": (crops, (frames - 1) * hop),
            "latent": (crops, frames, quantizer.width),
            "tokens": (crops, quantizer.num_stages, frames),
            "decoded": (crops * max(1, len(config.rates)), (frames - 1) * hop),
        },
        memory=Memory(
            weights=weights // share,
            averaged=_bytes(trainer.ema),
            gradients=trained // share,
            optimizer=_ADAM * trained // share,
            activations=round(at("kept", crops)),
        ),
        flops=parts * at("flops", crops) * (1 + _BACKWARD),
        step_seconds=_time(trainer, short) * config.batch_size * frames / short,
        steps=config.steps,
    )


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def made_up_batch(config: TrainConfig, crops: int, frames: int) -> Batch:
    """A batch of noise with targets of the right shapes."""
    generator = torch.Generator().manual_seed(0)
    hop = config.codec.hop_length
    wav = 0.1 * torch.randn(crops, (frames - 1) * hop, generator=generator)
    most = config.codec.quantizer.num_stages
    return Batch(
        wav,
        torch.full((crops, frames), 5.0),
        (torch.arange(frames) % 2).float().expand(crops, frames).contiguous(),
        frame_log_energy(wav, hop),
        torch.zeros(crops, dtype=torch.int64),
        torch.full((crops, len(config.codec.quantizer.blocks)), most),
        torch.zeros(crops, dtype=torch.bool),
        torch.zeros(crops, dtype=torch.int64),
        None,
        torch.zeros(crops, 2) if config.loss.dimensions > 0 else None,
    )


@contextmanager
def kept_for_backward(known: set[int]) -> Iterator[dict[int, int]]:
    """Storages that autograd keeps inside the block, address to bytes, but for those ``known``."""
    found: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and storage.data_ptr() not in found:
            found[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # alive, so that its address stays its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found
    held.clear()


def _measure(trainer: Trainer, crops: int, frames: int) -> _Point:
    """What one forward pass of all losses keeps and costs."""
    batch = made_up_batch(trainer.config, crops, frames)
    known = {
        t.untyped_storage().data_ptr()
        for module in trainer.modules.values()
        for t in (*module.parameters(), *module.buffers())
    }
    with FlopCounterMode(display=False) as counter, kept_for_backward(known) as found:
        decoded, told, _ = trainer.objective.decode(
            batch,
            trainer.codec,
            trainer.config.rates,
            told_rates=trainer.config.told_rates,
        )
        heard, _ = trainer.objective.heard(decoded.wav, decoded.batch, 0)
        sums = [torch.stack(list(terms.values())).sum() for terms in (heard, told)]
        if trainer.adversary is not None:
            wav = decoded.wav.detach()
            trainer.adversary(wav, decoded.batch.wav, torch.ones_like(wav), 0)
    del sums
    return _Point(sum(found.values()), float(counter.get_total_flops()))


def _time(trainer: Trainer, frames: int) -> float:
    """Seconds of one crop forward and backward, the faster of two."""
    batch = made_up_batch(trainer.config, 1, frames)
    trainer.next_batch = lambda: batch  # type: ignore[method-assign]
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        trainer.train_step()
        seconds.append(time.perf_counter() - started)
    return min(seconds)

# SPDX-License-Identifier: Apache-2.0
"""Fitting the prior to codes of speech."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from affectcodec.entropy.layout import DigitLayout, IntArray
from affectcodec.entropy.network import PriorNetwork, bits


@dataclass(frozen=True)
class PriorFit:
    """How the prior is fitted.

    Args:
        width, units: sizes of the network.
        steps, batch_size, frames: optimizer steps, windows a step, frames a window.
        learning_rate: highest one, of AdamW on a one-cycle schedule.
        seed: of the weights and of what is drawn.
    """

    width: int = 192
    units: int = 24
    steps: int = 1500
    batch_size: int = 32
    frames: int = 100
    learning_rate: float = 4e-3
    seed: int = 0


def draw_stages(
    layout: DigitLayout, frames: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Stage counts ``[G, T]`` as streams have them: constant, or another every few frames."""
    stages = np.empty((len(layout.names), frames), np.uint8)
    typical = rng.integers(1, layout.num_stages + 1, len(layout.names))
    start = 0
    varying = rng.random() < 0.5
    while start < frames:
        end = start + int(rng.geometric(1 / 15)) if varying else frames
        counts = typical
        if varying and rng.random() < 0.6:
            counts = rng.integers(0, layout.num_stages + 1, len(layout.names))
        stages[:, start:end] = counts[:, None]
        start = end
    return stages


def fit(
    layout: DigitLayout,
    clips: Sequence[Sequence[IntArray]],
    config: PriorFit,
    report: Callable[[int, float], None] = lambda step, bits: None,
) -> PriorNetwork:
    """Fit a network.

    Args:
        layout: the digits.
        clips: per clip the codes per block, ``[K, T]`` each, at all stages.
        report: called with each step and its bits a coded digit.

    Raises:
        ValueError: no clip is as long as two frames.
    """
    digits = [layout.digits(clip) for clip in clips if clip[0].shape[1] > 1]
    if not digits:
        raise ValueError("clips: none has two frames or more, there is nothing to learn from")
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = PriorNetwork(layout, config.width, config.units)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps
    )
    odds = np.array([len(d) for d in digits], float)
    odds /= odds.sum()
    for step in range(config.steps):
        shown, counts, answers, there = [], [], [], []
        for index in rng.choice(len(digits), config.batch_size, p=odds):
            clip = digits[index]
            start = int(rng.integers(0, max(1, len(clip) - config.frames + 1)))
            # a packet begins anywhere, and the network then has seen nothing
            window = clip[start : start + config.frames]
            stages = draw_stages(layout, len(window), rng)
            present = layout.present(stages)
            pad = config.frames - len(window)
            shown.append(np.pad(layout.indicators(window, present), ((0, pad), (0, 0))))
            counts.append(np.pad(layout.count_indicators(stages), ((0, pad), (0, 0))))
            answers.append(np.pad(window, ((0, pad), (0, 0))))
            there.append(np.pad(present, ((0, pad), (0, 0))))
        known = torch.from_numpy(np.stack(there))
        logits = network(torch.from_numpy(np.stack(shown)), torch.from_numpy(np.stack(counts)))
        cost = bits(logits, torch.from_numpy(np.stack(answers)), known).sum() / known.sum()
        value = float(cost.detach())
        if not math.isfinite(value):
            raise ValueError(f"fit: the loss is {value} at step {step}; lower learning_rate")
        optimizer.zero_grad()
        cost.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step, value)
    return network.eval()

# SPDX-License-Identifier: Apache-2.0
"""Training with checkpoints, and bits a second of held-out speech."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from affectcodec import AffectCodec
from recipes.slm.data import Corpus
from recipes.slm.designs import Design, Layout, make_layout
from recipes.slm.model import ModelConfig, TokenModel

CLIP_NORM = 1.0


@dataclass(frozen=True)
class TrainPlan:
    """Budget of one model: `steps` batches of `batch` windows of `frames` frames.

    Every design sees the same windows in the same order.
    """

    steps: int = 6000
    batch: int = 16
    frames: int = 100
    learning_rate: float = 2e-3
    warmup: int = 100
    forget: float = 0.1
    every: int = 200
    seed: int = 0

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio that a model is shown at 50 frames a second."""
        return self.steps * self.batch * self.frames / 50.0


def rate_at(plan: TrainPlan, step: int) -> float:
    """Learning rate: linear warm-up, then a cosine down to a twentieth."""
    if step < plan.warmup:
        return plan.learning_rate * (step + 1) / plan.warmup
    share = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
    return plan.learning_rate * (0.05 + 0.475 * (1 + math.cos(math.pi * min(1.0, share))))


def batch_of(
    corpus: Corpus, plan: TrainPlan, step: int, layout: Layout, codec: AffectCodec
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences and emotions of a step, a function of (seed, step) alone.

    A share `forget` of the emotions is withheld, so that the model can be asked without one.
    """
    rng = np.random.default_rng((plan.seed, step))
    tokens, emotion = corpus.tokens(corpus.draw(plan.batch, plan.frames, rng), plan.frames, codec)
    hidden = torch.from_numpy(rng.random(plan.batch) < plan.forget)
    return layout.encode(tokens), emotion.masked_fill(hidden, 0)


def train(
    design: Design,
    config: ModelConfig,
    plan: TrainPlan,
    corpus: Corpus,
    codec: AffectCodec,
    folder: Path,
) -> TokenModel:
    """A trained model of a design; goes on from its last checkpoint in `folder`.

    Raises:
        ValueError: the folder holds a run of another size or budget.
    """
    torch.manual_seed(plan.seed)
    model = TokenModel(config, make_layout(design, codec, plan.frames))
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "design": design.name,
        "model": vars(config),
        "plan": vars(plan),
        "codec": codec.fingerprint,
    }
    state, done, seconds = folder / "checkpoint.pt", 0, 0.0
    if state.is_file():
        kept = torch.load(state, weights_only=True)
        if kept["record"] != record:
            raise ValueError(
                f"{folder}: holds a run of another size, budget or codec; name another"
            )
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        done, seconds = kept["step"], kept["seconds"]
    began, log = time.process_time(), (folder / "log.jsonl").open("a")
    per_second = 50.0 / (plan.batch * plan.frames * math.log(2.0))
    recent: list[float] = []
    for step in tqdm(range(done, plan.steps), desc=design.name, initial=done, disable=None):
        numbers, emotion = batch_of(corpus, plan, step, model.layout, codec)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            nats = model.nats(numbers, emotion).sum()
        loss = nats / numbers.shape[0] / plan.frames / len(model.layout.sizes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(plan, step)
        optimizer.step()
        recent.append(float(nats.detach()) * per_second)
        if (step + 1) % plan.every == 0 or step + 1 == plan.steps:
            spent = seconds + time.process_time() - began
            row = {"step": step + 1, "bits_a_second": float(np.mean(recent)), "cpu_seconds": spent}
            log.write(json.dumps(row) + "\n")
            log.flush()
            recent = []
            part = folder / "checkpoint.part"
            torch.save(
                {
                    "record": record,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                    "seconds": spent,
                },
                part,
            )
            part.replace(state)
    log.close()
    return model.eval()


@torch.no_grad()
def measure(
    model: TokenModel, corpus: Corpus, codec: AffectCodec, *, told: bool = True, batch: int = 16
) -> dict[str, float]:
    """Bits a second of audio that a model needs for held-out windows, in all and by row.

    Windows are whole and do not overlap; every design has the same ones.

    Args:
        told: whether the model is told the emotion.
    """
    frames = model.layout.frames
    windows = corpus.windows(frames)
    if not windows:
        raise ValueError(f"corpus: no window of {frames} frames")
    total = torch.zeros(len(model.layout.sizes), dtype=torch.float64)
    for start in range(0, len(windows), batch):
        tokens, emotion = corpus.tokens(windows[start : start + batch], frames, codec)
        emotion = emotion if told else torch.zeros_like(emotion)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total += model.nats(model.layout.encode(tokens), emotion).double()
    bits = total / math.log(2.0) / (len(windows) * frames / 50.0)
    rows = model.layout.pattern.rows
    out = {"bits_a_second": float(bits.sum()), "windows": float(len(windows))}
    for row, value in zip(rows, bits, strict=True):
        out[f"{row.block or 'stage'} {row.stage}"] = float(value)
    return out

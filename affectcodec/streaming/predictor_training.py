# SPDX-License-Identifier: Apache-2.0
"""Training of the predictor of lost frames, through the decoder that will play them.

Frames of known clips are lost as a network loses them, the predictor fills them in turn and reads
its own rows again, as in use, and the frozen decoder plays the result. What counts is what is heard
against the undisturbed decoding: spectra of the audio, made with the undisturbed pitch so that
phases agree, and the pitch, voicing and energy that the decoder reads. The mean of what may follow
is a muffled frame of no clear voicing; the best latent under these losses is not the mean.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectcodec.codec import AffectCodec
from affectcodec.nn.decoder import StreamDecoder
from affectcodec.nn.prosody import Prosody
from affectcodec.streaming.engine import Floats
from affectcodec.streaming.loss import LossModel
from affectcodec.streaming.predictor import HISTORY_FRAMES, Predictor
from affectcodec.training.losses.spectral import mel_filters
from affectcodec.training.networks import for_training
from affectcodec.training.spectrogram import magnitude

_FFT, _FFT_HOP, _MELS = 512, 128, 64


@dataclass(frozen=True)
class FitConfig:
    """How a predictor is fitted.

    Attributes:
        rank: width of an embedded row.
        hidden: width of the hidden layers.
        warm_steps: first steps, on latents but those of emotion alone, which cost little.
        steps: steps through the decoder after those.
        batch: crops a step.
        context: frames of a crop before the first loss.
        span: frames of a crop in which frames get lost.
        reuse: steps that a batch serves, each with other losses; its undisturbed decoding, a third
            of the cost, is made once.
        rate: peak learning rate (AdamW, one cycle of cosine).
        hold: share of the last emotion that came in a predicted one.
    """

    rank: int = 96
    hidden: int = 256
    warm_steps: int = 400
    steps: int = 1400
    batch: int = 16
    context: int = 8
    span: int = 20
    reuse: int = 3
    rate: float = 2e-3
    hold: float = 0.5


class PredictorNetwork(nn.Module):
    """:class:`Predictor` in PyTorch, for fitting."""

    mean: Tensor
    scale: Tensor
    hold: Tensor

    def __init__(self, mean: Floats, scale: Floats, held: slice, config: FitConfig) -> None:
        """``held``: channels that are held in part, see :attr:`FitConfig.hold`."""
        super().__init__()
        width = len(mean)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.embed = nn.Linear(width, config.rank, bias=False)
        self.hidden = nn.Linear(HISTORY_FRAMES * (config.rank + 1), config.hidden)
        self.middle = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, width)
        keep = torch.full((width,), 0.7)
        keep[held] = 1.0
        self.keep = nn.Parameter(keep)
        hold = torch.zeros(width)
        hold[held] = config.hold
        self.register_buffer("hold", hold)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: Tensor, came: Tensor, last: Tensor) -> Tensor:
        """Latents ``[B, D]`` after ``rows [B, HISTORY_FRAMES, D]``, oldest first, ``came`` 0/1;
        ``last [B, D]`` came last."""
        normal = ((rows - self.mean) / self.scale).flip(1)
        h = torch.cat([self.embed(normal).flatten(1), came.flip(1)], 1)
        h = F.relu(self.middle(F.relu(self.hidden(h))))
        following = self.mean + self.scale * (self.keep * normal[:, 0] + self.out(h))
        return following + self.hold * (last - following)

    def export(self, fingerprint: str) -> Predictor:
        """The same in numpy."""
        found = {
            "mean": self.mean,
            "scale": self.scale,
            "embed": self.embed.weight,
            "hidden": self.hidden.weight,
            "hidden_bias": self.hidden.bias,
            "middle": self.middle.weight,
            "middle_bias": self.middle.bias,
            "keep": self.keep,
            "out": self.out.weight,
            "out_bias": self.out.bias,
            "hold": self.hold,
        }
        arrays = {name: value.detach().cpu().numpy().copy() for name, value in found.items()}
        return Predictor(fingerprint=fingerprint, **arrays)


def concealed(network: PredictorNetwork, latents: Tensor, lost: Tensor) -> Tensor:
    """Latents ``[B, T, D]`` with the lost ones (bool ``[B, T]``) predicted, one after another."""
    rows = list(latents.unbind(1))
    came = (~lost).to(latents.dtype)
    last = latents[:, 0]
    for t in range(1, latents.shape[1]):
        where = lost[:, t].nonzero()[:, 0]
        last = torch.where(lost[:, t - 1, None], last, latents[:, t - 1])
        if not len(where):
            continue
        first = max(0, t - HISTORY_FRAMES)
        empty = HISTORY_FRAMES - (t - first)
        seen = torch.stack([row[where] for row in rows[first:t]], 1)
        flags = came[where, first:t]
        before, marks = F.pad(seen, (0, 0, empty, 0)), F.pad(flags, (empty, 0))
        predicted = network(before, marks, last[where])
        # The decoder holds whole what is held in part where the first frame of a gap is lost.
        first_lost = ~lost[where, t - 1, None] & (network.hold > 0)
        predicted = torch.where(first_lost, last[where], predicted)
        rows[t] = rows[t].index_copy(0, where, predicted)
    return torch.stack(rows, 1)


class Hearing(nn.Module):
    """What the decoder makes of latents, and how far two of those are apart."""

    filters: Tensor
    window: Tensor

    def __init__(self, codec: AffectCodec) -> None:
        super().__init__()
        self.decoder = copy.deepcopy(codec.decoder).requires_grad_(False)
        self.decoder.train()  # as in training: prosody in float32
        for_training(self.decoder, low_precision=True)
        self.hop = codec.config.hop_length
        filters = mel_filters(codec.config.sample_rate, _FFT, _MELS)
        self.register_buffer("filters", filters / filters.sum(0).clamp(min=1e-3))
        self.register_buffer("window", torch.hann_window(_FFT))

    def forward(self, latents: Tensor, like: Prosody | None) -> tuple[Tensor, Prosody | None]:
        """Audio of ``[B, T, D]``, with the pitch and voicing of ``like`` where given; prosody."""
        if not isinstance(self.decoder, StreamDecoder):
            return self.decoder(latents).wav, None
        if like is None:
            return tuple(self.decoder(latents))
        voicing = torch.sigmoid(like.voicing_logit)
        return tuple(self.decoder(latents, source_f0=like.f0, source_voicing=voicing))

    def distance(
        self,
        wav: Tensor,
        prosody: Prosody | None,
        clean: Tensor,
        clean_prosody: Prosody | None,
        lost: Tensor,
    ) -> dict[str, Tensor]:
        """Losses by name, each about a mean over what the lost frames reach."""
        level = clean.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
        found = [
            magnitude(x / level, self.window, _FFT_HOP) / (_FFT / 4) @ self.filters
            for x in (wav, clean)
        ]
        # The spectrum counts where a lost frame sounds: its two hops and the one after.
        logs = [torch.log(m + 3e-3) for m in found]
        loud = [(m + 1e-4) ** 0.3 for m in found]
        count = lost.sum().clamp(min=1)
        scale = _FFT_HOP / (count * self.hop * _MELS)
        out = {
            "log": (logs[0] - logs[1]).abs().sum() * scale,
            "loud": (loud[0] - loud[1]).abs().sum() * scale,
        }
        if prosody is None or clean_prosody is None:
            return out
        voiced = torch.sigmoid(clean_prosody.voicing_logit)
        entropy = F.binary_cross_entropy_with_logits(
            prosody.voicing_logit, voiced, reduction="none"
        ) - F.binary_cross_entropy_with_logits(
            clean_prosody.voicing_logit, voiced, reduction="none"
        )
        target = torch.log_softmax(clean_prosody.f0_logits, -1)
        given = torch.log_softmax(prosody.f0_logits, -1)
        pitch = (target.exp() * (target - given)).sum(-1)
        off = (torch.log(prosody.f0) - torch.log(clean_prosody.f0)).abs().clamp(max=0.5)
        energy = (prosody.log_energy - clean_prosody.log_energy).abs()
        out["voicing"] = entropy.sum() / count
        out["pitch"] = (voiced * pitch).sum() / count
        out["cents"] = (voiced * off).sum() / count
        out["energy"] = energy.sum() / count
        return out


WEIGHTS = {
    "latent": 0.02,
    "log": 0.5,
    "loud": 2.0,
    "voicing": 0.5,
    "pitch": 0.1,
    "cents": 4.0,
    "energy": 0.2,
}


class Crops:
    """Batches of latents with losses drawn."""

    def __init__(self, sequences: list[Floats], config: FitConfig, seed: int) -> None:
        self.length = config.context + config.span
        self.sequences = [s for s in sequences if len(s) >= self.length]
        if not self.sequences:
            raise ValueError(
                f"sequences: wanted at least one clip of {self.length} frames, got "
                f"{len(sequences)} clips that are shorter"
            )
        self.config = config
        self.generator = np.random.default_rng(seed)
        sizes = np.array([len(s) for s in self.sequences], np.float64)
        self.chance = sizes / sizes.sum()

    def draw(self) -> Tensor:
        """Latents ``[B, T, D]``."""
        rows = []
        for _ in range(self.config.batch):
            sequence = self.sequences[self.generator.choice(len(self.sequences), p=self.chance)]
            start = int(self.generator.integers(0, len(sequence) - self.length + 1))
            rows.append(sequence[start : start + self.length])
        return torch.from_numpy(np.stack(rows))

    def lose(self) -> Tensor:
        """Which of them get lost, bool ``[B, T]``."""
        masks = []
        for _ in range(self.config.batch):
            model = LossModel(
                float(self.generator.uniform(0.1, 0.35)), float(self.generator.choice([1, 1, 2, 4]))
            )
            lost = model.draw(self.length, int(self.generator.integers(2**31)))
            lost[: self.config.context] = False
            lost[self.config.context] |= not lost.any()  # a crop without loss teaches nothing
            masks.append(lost)
        return torch.from_numpy(np.stack(masks))


def fit(
    codec: AffectCodec,
    sequences: list[Floats],
    config: FitConfig = FitConfig(),
    seed: int = 0,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> Predictor:
    """Predictor of latents ``[T, D]`` a clip.

    Args:
        report: called with each step's number and losses by name.

    Raises:
        ValueError: if no sequence is long enough.
    """
    torch.manual_seed(seed)
    crops = Crops(sequences, config, seed)
    stacked = np.concatenate(crops.sequences).astype(np.float64)
    mean, scale = stacked.mean(0), stacked.std(0).clip(1e-3)
    # Prosody is in the emotion block and hard to expect: the mean of what may follow is unvoiced.
    # It starts as held and moves for what is heard alone.
    held = codec.config.quantizer.block_slices().get("emotion", slice(0))
    free = torch.ones(len(mean), dtype=torch.bool)
    free[held] = False
    network = PredictorNetwork(mean.astype(np.float32), scale.astype(np.float32), held, config)
    hearing = Hearing(codec)
    total = config.warm_steps + config.steps
    optimizer = torch.optim.AdamW(network.parameters(), config.rate, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, total, pct_start=0.1)
    latents, undisturbed = crops.draw(), None
    for step in range(total):
        if step % config.reuse == 0:
            latents, undisturbed = crops.draw(), None
        lost = crops.lose()
        filled = concealed(network, latents, lost)
        off = ((filled - latents)[lost] / network.scale)[:, free].square().mean()
        losses = {"latent": off}
        if step >= config.warm_steps:
            if undisturbed is None:
                with torch.no_grad():
                    undisturbed = hearing(latents, None)
            clean, prosody = undisturbed
            wav, heard = hearing(filled, prosody)
            losses.update(hearing.distance(wav, heard, clean, prosody, lost))
        loss = sum((WEIGHTS[name] * value for name, value in losses.items()), torch.zeros(()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        plan.step()
        if report is not None:
            report(step, {name: float(value.detach()) for name, value in losses.items()})
    return network.export(codec.fingerprint)

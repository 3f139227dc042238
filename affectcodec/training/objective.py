# SPDX-License-Identifier: Apache-2.0
"""The objective of a run: what is decoded, and every weighted loss term on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from affectcodec.codec import AffectCodec
from affectcodec.nn.bdrfsq import BDRFSQOutput
from affectcodec.training.batches import Batch
from affectcodec.training.config import TrainConfig
from affectcodec.training.leakage import LogMel, block_values, linear_r2
from affectcodec.training.losses import (
    EmotionHead,
    FrameDescriptors,
    HeadOutput,
    SpectralLosses,
    cosine_loss,
    cycle_prosody_loss,
    dimension_loss,
    emotion_loss,
    frame_loss,
    latent_cycle_loss,
    level_loss,
    prosody_losses,
)
from affectcodec.training.teachers.protocol import WaveTeacher

Terms = dict[str, Tensor]


class Decoded(NamedTuple):
    """Decoded waves ``[B, N]`` with the batch they belong to: clips repeat, one for each rate."""

    wav: Tensor
    batch: Batch


class Objective:
    """Terms and figures of a batch.

    A term whose weight is 0 is not computed. Terms fall into two families: those that tokens must
    tell (prosody, affect) and those that are heard in the decoded wave, whose gradients can be
    balanced at the wave.

    Args:
        config: the run.
        head: reads affect from the quantized emotion block.
        judge: a codec that is not trained here (the averaged weights); the emotion cycle encodes
            decoded audio with it, so that the encoder cannot agree with itself.
        teacher: embeds decoded waves for the teacher's cycle.
    """

    def __init__(
        self,
        config: TrainConfig,
        head: EmotionHead,
        judge: AffectCodec,
        teacher: WaveTeacher | None = None,
    ) -> None:
        self.config, self.head, self.judge, self.teacher = config, head, judge, teacher
        codec = config.codec
        net = codec.network
        self.hop = codec.hop_length
        self.emotion_slice = codec.quantizer.block_slices()["emotion"]
        self.spectral = SpectralLosses(codec.sample_rate)
        self.probe_mel = LogMel(codec.sample_rate, self.hop)
        self.descriptors = FrameDescriptors(codec.sample_rate, self.hop, net.f0_min, net.f0_max)
        weights = config.loss
        if weights.cycle_teacher > 0 and teacher is None:
            raise ValueError(
                "loss.cycle_teacher is above 0, but no teacher is there to embed decoded audio"
            )

    @staticmethod
    def head_for(config: TrainConfig, embedding: int = 0) -> EmotionHead:
        """The emotion head that the weights of a run ask for; ``embedding`` is the teacher's."""
        weights = config.loss
        width = {block.name: block.width for block in config.codec.quantizer.blocks}["emotion"]
        if weights.teacher > 0 and not embedding:
            raise ValueError("loss.teacher is above 0, but the run has no teacher to learn from")
        return EmotionHead(
            width,
            dimensions=weights.dimensions > 0,
            frames=weights.frames > 0,
            embedding=embedding if weights.teacher > 0 else 0,
        )

    def to(self, device: torch.device) -> Objective:
        """Move the fixed tables to a device."""
        self.spectral.to(device)
        self.descriptors.to(device)
        self.probe_mel.to(device)
        return self

    @property
    def heard_names(self) -> tuple[str, ...]:
        """Terms on the decoded wave that this run computes."""
        names = ["mel", "spectral", "envelope", "loudness", "level"]
        names += [name for name in _CYCLES if getattr(self.config.loss, name) > 0]
        return tuple(names)

    # -- what tokens tell -----------------------------------------------------------------------

    def decode(
        self,
        batch: Batch,
        codec: AffectCodec,
        rates: tuple[int, ...] = (),
        *,
        told_rates: tuple[int, ...] = (),
        quantized: bool = True,
    ) -> tuple[Decoded, Terms, Terms]:
        """Waves, weighted terms and figures of what the tokens say.

        Args:
            rates: decode every clip at each of these stage counts, all from one pass of the
                quantizer; without, at the counts drawn for it.
            told_rates: what tokens must tell is asked at each of these counts, from the same pass.
            quantized: whether the decoder gets what was quantized, or the latent itself.
        """
        encoded = codec.encoder(nn.functional.pad(batch.wav, (0, self.hop)))
        out, latent = self._quantize(encoded, batch, codec, rates, told_rates)
        if rates:
            stages = [torch.full_like(batch.stages, rate) for rate in rates]
            batch = batch.repeat(len(rates))._replace(stages=torch.cat(stages))
        if not quantized:
            # Times 0, so that processes agree on which parameters take part.
            latent = encoded.repeat(max(1, len(rates)), 1, 1) + 0 * latent
        # The source is chosen clip by clip, so the decoder must first read the decoded prosody.
        decoded = codec.decoder(
            latent,
            source_f0=torch.exp(batch.log_f0),
            source_voicing=batch.voiced,
            source_override=batch.use_true_f0,
            noise_start=batch.noise_start,
            emotion_gradient=self.config.emotion_gradient,
        )
        wav = decoded.wav[:, self.hop : self.hop + batch.wav.shape[1]]
        raw = prosody_losses(codec.decoder.prosody, decoded.prosody, batch)
        affect, accuracy = self._affect(self.head(latent[..., self.emotion_slice]), batch)
        raw.update(affect)
        if told_rates and quantized:
            raw.update(self._told(out, codec, batch.rows(0, len(encoded)), told_rates))
        if out.commitment is not None and quantized:
            raw["commitment"] = out.commitment
        with torch.no_grad():
            voiced = batch.voiced > 0
            error = (torch.log(decoded.prosody.f0) - batch.log_f0).abs() * (1200 / math.log(2))
            error = error[voiced] if bool(voiced.any()) else error.new_zeros(1)
            figures = {
                "f0_cents_median": error.median(),
                "f0_gross_error": (error > 300).float().mean(),
                "voicing_error": ((decoded.prosody.voicing_logit > 0) != voiced).float().mean(),
                "emotion_accuracy": accuracy,
            }
        terms, more = self._weighted(raw)
        return Decoded(wav, batch), terms, {**figures, **more}

    def _quantize(
        self,
        encoded: Tensor,
        batch: Batch,
        codec: AffectCodec,
        rates: tuple[int, ...],
        told_rates: tuple[int, ...],
    ) -> tuple[BDRFSQOutput, Tensor]:
        """One pass of the quantizer, and the latents to decode, at all asked stage counts."""
        drawn = () if rates else self.config.stage_choices
        if not rates and not told_rates:
            out = codec.quantizer(encoded, batch.stages, channels_last=True)
            return out, out.latent
        every = tuple(sorted({*rates, *told_rates, *drawn}))
        out = codec.quantizer(encoded, None, channels_last=True, rates=every)
        if rates:
            return out, torch.cat([out.rates[rate] for rate in rates])
        latents = torch.stack([out.rates[rate] for rate in every])
        place = torch.searchsorted(batch.stages.new_tensor(every), batch.stages)
        row = torch.arange(len(encoded), device=place.device)
        spans = codec.config.quantizer.block_slices().values()
        parts = [latents[place[:, g], row][..., span] for g, span in enumerate(spans)]
        return out, torch.cat(parts, -1)

    def _told(
        self, out: BDRFSQOutput, codec: AffectCodec, batch: Batch, rates: tuple[int, ...]
    ) -> Terms:
        """Prosody and affect at each of the rates."""
        batch = batch.repeat(len(rates))
        emotion = torch.cat([out.rates[rate] for rate in rates])[..., self.emotion_slice]
        head = codec.decoder.prosody
        affect, _ = self._affect(self.head(emotion), batch)
        return {**prosody_losses(head, head(emotion), batch), **affect}

    def _affect(self, said: HeadOutput, batch: Batch) -> tuple[Terms, Tensor]:
        raw: Terms = {}
        raw["emotion"], accuracy = emotion_loss(said.classes, batch.emotion)
        if said.dimensions is not None and batch.dimensions is not None:
            raw["dimensions"] = dimension_loss(said.dimensions, batch.dimensions)
        if said.frames is not None:
            with torch.no_grad():
                described = self.descriptors(batch.wav, batch.log_f0)
            raw["frames"] = frame_loss(said.frames, batch, described)
        if said.embedding is not None and batch.embedding is not None:
            raw["teacher"] = cosine_loss(said.embedding, batch.embedding)
        return raw, accuracy

    # -- what is heard --------------------------------------------------------------------------

    def heard(self, wav: Tensor, batch: Batch, step: int | None) -> tuple[Terms, Terms]:
        """Weighted terms and figures that compare decoded waves ``[B, N]`` with the true ones.

        Without a step, an evaluation: all spectral resolutions.
        """
        weights = self.config.loss
        raw = self.spectral(wav, batch.wav, step)
        raw["level"] = level_loss(wav, batch, self.hop)
        if weights.cycle_prosody > 0:
            with torch.no_grad():
                true = self.descriptors(batch.wav, batch.log_f0)
            described = self.descriptors(wav, batch.log_f0)
            raw["cycle_prosody"] = cycle_prosody_loss(described, true, batch.voiced)
        if weights.cycle_latent > 0 or weights.cycle_emotion > 0:
            self._emotion_cycle(raw, wav, batch)
        if weights.cycle_teacher > 0 and self.teacher is not None:
            with torch.no_grad():
                want = self.teacher.embed(batch.wav)
            raw["cycle_teacher"] = cosine_loss(self.teacher.embed(wav), want)
        return self._weighted(raw)

    def _emotion_cycle(self, raw: Terms, wav: Tensor, batch: Batch) -> None:
        """Decoded audio through the judge's emotion encoder, and through quantizer and head."""
        weights, judge = self.config.loss, self.judge
        latent = judge.encoder.emotion_latent(nn.functional.pad(wav, (0, self.hop)))
        if weights.cycle_latent > 0:
            with torch.no_grad():
                true = judge.encoder.emotion_latent(nn.functional.pad(batch.wav, (0, self.hop)))
            raw["cycle_latent"] = latent_cycle_loss(latent, true)
        if weights.cycle_emotion > 0:
            # Blocks are isolated: what the other block holds does not matter.
            whole = latent.new_zeros(*latent.shape[:2], self.config.codec.quantizer.width)
            whole[..., self.emotion_slice] = latent
            emotion = judge.quantizer(whole, channels_last=True).latent[..., self.emotion_slice]
            fixed = {name: value.detach() for name, value in self.head.named_parameters()}
            said = functional_call(self.head, fixed, (emotion,))
            raw["cycle_emotion"], _ = emotion_loss(said.classes, batch.emotion)

    @torch.no_grad()
    def leakage(self, batches: Sequence[Batch], codec: AffectCodec) -> dict[str, float]:
        """Leakage probes: variance of the log-mel spectrum that a line finds in each block's codes.

        ``leakage_emotion`` counts energy, which the emotion block carries by design;
        ``leakage_emotion_shape``, with the mean of each frame removed, is to stay low.
        ``leakage_acoustic`` shows what the probe can find.
        """
        digits: dict[str, list[Tensor]] = {name: [] for name in codec.config.quantizer.names}
        mels = []
        for batch in batches:
            padded = nn.functional.pad(batch.wav, (0, self.hop))
            tokens = codec.quantizer.encode(codec.encoder(padded), channels_last=True)
            for name, values in block_values(tokens, codec.config.quantizer).items():
                digits[name].append(values.flatten(0, 1))
            mels.append(self.probe_mel(batch.wav).flatten(0, 1))
        whole = torch.cat(mels)
        targets = {"": whole, "_shape": whole - whole.mean(1, keepdim=True)}
        return {
            f"leakage_{name}{kind}": linear_r2(torch.cat(found), target)
            for name, found in digits.items()
            for kind, target in targets.items()
        }

    def _weighted(self, raw: Terms) -> tuple[Terms, Terms]:
        terms = {name: getattr(self.config.loss, name) * value for name, value in raw.items()}
        return terms, {f"raw_{name}": value.detach() for name, value in raw.items()}


_CYCLES = ("cycle_prosody", "cycle_latent", "cycle_emotion", "cycle_teacher")

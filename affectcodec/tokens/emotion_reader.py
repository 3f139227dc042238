# SPDX-License-Identifier: Apache-2.0
"""Statistics of a clip, read from emotion codes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from affectcodec.nn.prosody import ProsodyHead
from affectcodec.tokens.batch import Tokens

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

BLOCK = "emotion"
_RANGE = 5.0  # frames less than this below the loud ones count as speech, natural log of energy
_QUANTILES = (0.05, 0.2, 0.5, 0.8, 0.95)
_LOUD = 0.98


class Tracks(NamedTuple):
    """One clip as its emotion codes tell it, ``T`` frames: log2 of F0 in Hz, probability of
    voicing, log energy, hidden features ``[T, C]`` and the joint code of all stages, int64."""

    f0: Tensor
    voicing: Tensor
    energy: Tensor
    hidden: Tensor
    state: Tensor


def _summary(x: Tensor) -> Tensor:
    """Mean, deviation, quantiles and mean absolute change of ``[n]``, 0 for fewer than 3."""
    if len(x) < 3:
        return x.new_zeros(3 + len(_QUANTILES))
    at = torch.tensor(_QUANTILES, dtype=x.dtype, device=x.device)
    spread = x.std(unbiased=False)
    return torch.cat(
        [x.mean()[None], spread[None], torch.quantile(x, at), x.diff().abs().mean()[None]]
    )


def statistics(tracks: Tracks, states: int, frame_rate: float) -> Tensor:
    """Statistics of a clip, float32 ``[n]``, over the frames from first to last speech.

    Summaries of F0 where voiced, of energy, of energy where voiced; share, number a second, and
    length of voiced stretches; how F0 begins, ends and ranges; slope of energy; square root of the
    share of each joint code; mean (where voiced) and deviation of the hidden features.
    """
    speech = torch.zeros(0, dtype=torch.int64, device=tracks.energy.device)
    if len(tracks.energy):
        loud = torch.quantile(tracks.energy, _LOUD)
        speech = (tracks.energy > loud - _RANGE).nonzero()[:, 0]
    span = slice(int(speech[0]), int(speech[-1]) + 1) if len(speech) else slice(0, 0)
    f0, voicing, energy, hidden, state = (part[span] for part in tracks)
    voiced = voicing > 0.5
    pitch, count = f0[voiced], int(voiced.sum())
    seconds = max(len(f0), 1) / frame_rate
    steps = torch.diff(voiced.to(torch.int8), prepend=f0.new_zeros(1), append=f0.new_zeros(1))
    length = ((steps < 0).nonzero() - (steps > 0).nonzero())[:, 0].to(f0) / frame_rate
    shape = f0.new_zeros(4)
    if count > 3:
        mean = pitch.mean()
        jump = pitch.diff().std(unbiased=False)
        shape = torch.stack(
            [pitch[-5:].mean() - mean, pitch[:5].mean() - mean, pitch.max() - pitch.min(), jump]
        )
    time = torch.arange(len(energy), device=f0.device).to(f0) / frame_rate
    time = time - time.mean() if len(time) else time
    slope = (time * energy).sum() / time.square().sum().clamp(min=1e-9)
    stretches = f0.new_zeros(3)
    if len(length):
        stretches = torch.stack(
            [f0.new_tensor(len(length) / seconds), length.mean(), length.std(unbiased=False)]
        )
    shares = torch.bincount(state, minlength=states).to(f0) / max(len(state), 1)
    width = hidden.shape[1]
    colour = hidden.new_zeros(2 * width)
    if len(hidden):
        colour = torch.cat([hidden[voiced if count else ...].mean(0), hidden.std(0, False)])
    return torch.cat(
        [
            _summary(pitch),
            _summary(energy),
            _summary(energy[voiced]),
            f0.new_tensor([count / max(len(f0), 1), seconds]),
            stretches,
            shape,
            slope[None],
            shares.sqrt(),
            colour,
        ]
    ).float()


class EmotionReader(nn.Module):
    """Statistics of token streams; made of a codec, then independent of it.

    Args:
        table: ``[stages, codes, D]``, the latent of every code of every stage.
        shape: arguments of the :class:`ProsodyHead` that is copied from the decoder: channels in,
            channels, blocks, kernel size, lowest and highest F0 in Hz.
        fingerprint: of the codec.
        frame_rate: frames a second.
    """

    table: Tensor

    def __init__(
        self, table: Tensor, shape: Sequence[float], fingerprint: str, frame_rate: float
    ) -> None:
        super().__init__()
        self.register_buffer("table", table.detach().clone().float())
        inner, channels, blocks, kernel = (int(x) for x in shape[:4])
        self.prosody = ProsodyHead(inner, channels, blocks, kernel, shape[4], shape[5])
        self.requires_grad_(False).eval()
        self.shape = tuple(shape)
        self.fingerprint, self.frame_rate = fingerprint, frame_rate

    @property
    def stages(self) -> int:
        """Emotion stages that are read."""
        return self.table.shape[0]

    @property
    def states(self) -> int:
        """Joint codes of all stages."""
        return int(self.table.shape[1] ** self.stages)

    @classmethod
    def of(cls, codec: AffectCodec, stages: int = 2) -> EmotionReader:
        """The reader of a codec.

        Raises:
            ValueError: if the codec has no block of that name, fewer stages, or no prosody head.
        """
        quantizer, prosody = codec.config.quantizer, getattr(codec.decoder, "prosody", None)
        if BLOCK not in quantizer.names or not isinstance(prosody, ProsodyHead):
            raise ValueError(
                "codec: wanted one with an emotion block and a prosody head, such as the preset "
                f"'stream'; got {codec.config.name!r}"
            )
        if not 1 <= stages <= quantizer.num_stages:
            raise ValueError(f"stages: wanted 1..{quantizer.num_stages}, got {stages}")
        size = quantizer.blocks[quantizer.names.index(BLOCK)].codebook_size
        base, span = quantizer.token_bases()[BLOCK], quantizer.block_slices()[BLOCK]
        codes = torch.arange(size, dtype=torch.int32, device=codec.device) * base
        counts = dict.fromkeys(quantizer.names, 0)
        found = []
        with torch.no_grad():
            for stage in range(stages):
                tokens = codes.new_zeros(1, stage + 1, size)
                tokens[0, stage] = codes
                total = codec.quantizer.decode(
                    tokens, {**counts, BLOCK: stage + 1}, channels_last=True
                )[0, :, span]
                found.append(total - _before(codec, stage, counts))
        net = codec.config.network
        shape = (
            span.stop - span.start, prosody.out.in_features, len(prosody.network.blocks),
            net.kernel_size, net.f0_min, net.f0_max,
        )  # fmt: skip
        made = cls(torch.stack(found), shape, codec.fingerprint, codec.config.frame_rate)
        made.prosody.load_state_dict(prosody.state_dict())
        return made

    def check(self, tokens: Tokens) -> None:
        """Refuse what it cannot read.

        Raises:
            ValueError: tokens of another codec, or with too few emotion stages.
        """
        if tokens.config_hash != self.fingerprint:
            raise ValueError(
                f"tokens: made by the codec {tokens.config_hash}, this head reads those of "
                f"{self.fingerprint}; train one with python -m affectcodec.evaluation.emotion_head"
            )
        if tokens.stages.get(BLOCK, 0) < self.stages:
            raise ValueError(
                f"tokens: hold {tokens.stages.get(BLOCK, 0)} emotion stages, the head reads "
                f"{self.stages}; encode with as many or more"
            )

    @torch.no_grad()
    def tracks(self, tokens: Tokens) -> list[Tracks]:
        """Tracks of every clip.

        Raises:
            ValueError: as :meth:`check`.
        """
        self.check(tokens)
        codes = tokens.block_codes(BLOCK)[:, : self.stages].to(self.table.device).long()
        index = torch.arange(self.stages, device=codes.device)[:, None]
        found = self.table[index, codes]  # [B, stages, T, D]
        if tokens.frame_stages is not None:
            have = tokens.frame_stages[:, tokens.quantizer.names.index(BLOCK)].to(codes.device)
            found = found * (have[:, None] > index)[..., None]
        if not tokens.num_frames:
            return [self._empty()] * len(tokens)
        read = self.prosody(found.sum(1))
        state = torch.zeros_like(codes[:, 0])
        for stage in range(self.stages):
            state = state * self.table.shape[1] + codes[:, stage]
        clips = []
        for i, frames in enumerate(tokens.lengths.tolist()):
            # the first frame holds the 20 ms before the clip
            own = slice(min(1, frames), frames)
            f0 = read.f0[i, own].float().clamp(min=1.0).log2()
            voicing = torch.sigmoid(read.voicing_logit[i, own].float())
            clips.append(
                Tracks(
                    f0, voicing, read.log_energy[i, own].float(), read.hidden[i, own].float(),
                    state[i, own],
                )
            )  # fmt: skip
        return clips

    def forward(self, tokens: Tokens) -> Tensor:
        """Statistics ``[B, n]``, float32."""
        rows = [statistics(own, self.states, self.frame_rate) for own in self.tracks(tokens)]
        if not rows:
            return statistics(self._empty(), self.states, self.frame_rate)[None][:0]
        return torch.stack(rows)

    def _empty(self) -> Tracks:
        none = self.table.new_zeros(0)
        hidden = self.table.new_zeros(0, self.prosody.out.in_features)
        state = torch.zeros(0, dtype=torch.int64, device=self.table.device)
        return Tracks(none, none, none, hidden, state)


def _before(codec: AffectCodec, stage: int, counts: dict[str, int]) -> Tensor:
    """What stages ``0 .. stage - 1`` with code 0 add to the emotion latent, ``[D]``."""
    span = codec.config.quantizer.block_slices()[BLOCK]
    if not stage:
        return torch.zeros(span.stop - span.start, device=codec.device)
    blank = torch.zeros(1, stage, 1, dtype=torch.int32, device=codec.device)
    found = codec.quantizer.decode(blank, {**counts, BLOCK: stage}, channels_last=True)
    return found[0, 0, span]

# SPDX-License-Identifier: Apache-2.0
"""Clips whose emotion codes are exchanged, and their tokens in every condition of the experiment
that `algebra.py` describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from affectcodec.codec import AffectCodec
from affectcodec.evaluation.alignment import active_region
from affectcodec.evaluation.campaign import load_clip
from affectcodec.manifest import Clip
from affectcodec.tokens import Tokens, strip_emotion, swap_emotion

EMOTION, ACOUSTIC = "emotion", "acoustic"


@dataclass(frozen=True)
class Trio:
    """A clip, the clip whose emotion it gets, and a neutral one of the same speaker."""

    clip: Clip
    donor: Clip
    neutral: Clip


def make_trios(clips: Sequence[Clip], seconds: Mapping[Path, float]) -> list[Trio]:
    """One trio a labelled clip; clips without a donor or a neutral reading are left out.

    The donor's emotion goes round the speaker's emotions, so that all serve alike; of its clips the
    one with the same transcript is taken, else the nearest in seconds of speech.
    """
    found, turn = [], 0
    for clip in clips:
        own = [
            other
            for other in clips
            if (other.dataset, other.speaker) == (clip.dataset, clip.speaker)
            and other.file != clip.file
        ]
        others = sorted({other.emotion for other in own} - {clip.emotion})
        neutral = [other for other in own if other.emotion == "neutral"]
        if not others or not neutral:
            continue
        asked = others[turn % len(others)]
        turn += 1

        def distance(other: Clip, clip: Clip = clip) -> tuple[bool, float, str]:
            same = bool(clip.transcript) and other.transcript == clip.transcript
            return not same, abs(seconds[other.file] - seconds[clip.file]), other.path

        donor = min((other for other in own if other.emotion == asked), key=distance)
        found.append(Trio(clip, donor, min(neutral, key=distance)))
    return found


def speech_tokens(codec: AffectCodec, clip: Clip, stages: int) -> Tokens:
    """Tokens of the frames from first to last speech.

    Raises:
        ValueError: a silent clip.
    """
    wav = load_clip(clip)
    region = active_region(wav)
    if region is None:
        raise ValueError(f"{clip.path}: is silent")
    tokens = codec.encode(wav, stages=stages)
    hop = tokens.hop_length
    first, last = region[0] // hop, min(-(-region[1] // hop) + 1, tokens.num_frames)
    codes = tokens.codes[:, :, first:last]
    frames = torch.tensor([last - first])
    return replace(tokens, codes=codes, lengths=frames, num_samples=(frames - 1) * hop)


def swap_acoustic(to: Tokens, source: Tokens, *, last: bool = False) -> Tokens:
    """`to` with as many acoustic bits of `source` as an emotion swap moves: of its first stages, or
    of its last.

    Raises:
        ValueError: unless the emotion bits of a frame are a whole number of acoustic stages.
    """
    bits = to.quantizer.bits(to.stages)
    each = to.quantizer.bits({EMOTION: 1, ACOUSTIC: 1})[ACOUSTIC]
    if bits[EMOTION] % each:
        raise ValueError(
            f"stages: {to.stages[EMOTION]} emotion stages have {bits[EMOTION]} bits a frame, no "
            f"whole number of acoustic stages of {each} bits; wanted 4 or 8 of the default levels"
        )
    count = int(bits[EMOTION] // each)
    stretched = _stretched(source, to)
    codes = to.codes.clone()
    base = to.quantizer.token_bases()[ACOUSTIC]
    own, other = to.block_codes(ACOUSTIC), stretched.block_codes(ACOUSTIC)
    kept = to.stages[ACOUSTIC]
    span = slice(kept - count, kept) if last else slice(0, count)
    codes[:, span] += ((other - own)[:, span] * base).to(codes.dtype)
    return replace(to, codes=codes)


def _stretched(source: Tokens, to: Tokens) -> Tokens:
    """All of `source` at the length of one clip `to`: the nearest frame at the same share."""
    have, want = source.num_frames, to.num_frames
    index = ((2 * torch.arange(want) + 1) * have // (2 * want)).clamp(max=have - 1)
    return replace(
        source, codes=source.codes[:, :, index], lengths=to.lengths, num_samples=to.num_samples
    )


def variants(clip: Tokens, donor: Tokens, neutral: Tokens) -> dict[str, Tokens]:
    """Tokens of every condition."""
    return {
        "coded": clip,
        "emotion": swap_emotion(clip, donor),
        "acoustic": swap_acoustic(clip, donor),
        "detail": swap_acoustic(clip, donor, last=True),
        "neutral": swap_emotion(clip, neutral),
        "cut": strip_emotion(clip),
    }

# SPDX-License-Identifier: Apache-2.0
"""Clips as codes on disk, and windows of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from affectcodec import AffectCodec
from affectcodec.audio import load_audio
from affectcodec.evaluation.alignment import active_region
from affectcodec.manifest import Clip
from affectcodec.tokens import Tokens
from recipes.slm.designs import fit_rvq, rvq_config

EMOTIONS = ("", "angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")
MARGIN = 10  # frames before and after speech that a window may hold
FIT_FRAMES = 60_000


@dataclass(frozen=True, eq=False)
class Corpus:
    """Codes of clips.

    Attributes:
        clips: as in the manifests.
        codes: uint16 `[K, T]` of each.
        spans: first and last frame of speech of each, int `[clips, 2]`.
        emotion: index into `EMOTIONS` of each; read speech, which nobody rated, has none.
    """

    clips: list[Clip]
    codes: list[np.ndarray]
    spans: np.ndarray
    emotion: np.ndarray

    def windows(self, frames: int) -> list[tuple[int, int]]:
        """(clip, first frame) of all windows that hold speech for half of their length or more."""
        found = []
        for i, (first, last) in enumerate(self.spans):
            start = max(0, int(first) - MARGIN)
            start = max(0, min(start, self.codes[i].shape[1] - frames))
            while start + frames <= self.codes[i].shape[1] and start + frames / 2 <= last + MARGIN:
                found.append((i, start))
                start += frames
        return found

    def draw(self, count: int, frames: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Random windows; half of them from clips with an emotion, if there are any."""
        long = np.array([c.shape[1] >= frames for c in self.codes])
        length = np.maximum(self.spans[:, 1] - self.spans[:, 0], 1) * long
        told = np.where(self.emotion > 0, length, 0.0)
        rest = np.where(self.emotion > 0, 0.0, length)
        shares = [s / s.sum() for s in (told, rest) if s.sum()]
        weights = np.mean(shares, 0)
        found = []
        for i in rng.choice(len(self.codes), size=count, p=weights / weights.sum()):
            low = max(0, int(self.spans[i, 0]) - MARGIN)
            high = min(self.codes[i].shape[1], int(self.spans[i, 1]) + MARGIN) - frames
            low = min(low, self.codes[i].shape[1] - frames)
            found.append((int(i), int(rng.integers(low, max(low, high) + 1))))
        return found

    def tokens(
        self, windows: Sequence[tuple[int, int]], frames: int, codec: AffectCodec
    ) -> tuple[Tokens, Tensor]:
        """A batch of windows, and the emotion of each, int64 `[B]`."""
        parts = [self.codes[i][:, s : s + frames] for i, s in windows]
        codes = torch.from_numpy(np.stack(parts).astype(np.int32))
        length = torch.full((len(parts),), frames)
        quantizer = codec.config.quantizer
        stages = dict.fromkeys(quantizer.names, codes.shape[1])
        samples = (length - 1) * codec.config.hop_length
        batch = Tokens(codes, length, samples, stages, quantizer, codec.fingerprint)
        return batch, torch.from_numpy(self.emotion[[i for i, _ in windows]])


def tokenize(clips: Sequence[Clip], codec: AffectCodec, stages: int, cache: Path) -> Corpus:
    """Codes of clips; from `cache` if it holds them. Clips without speech are left out."""
    if cache.is_file():
        with np.load(cache) as kept:
            if str(kept["fingerprint"]) == codec.fingerprint and len(kept["there"]) == len(clips):
                there = kept["there"]
                codes = np.split(kept["codes"], kept["ends"][:-1], axis=1)
                return _corpus(
                    [c for c, t in zip(clips, there, strict=True) if t], codes, kept["spans"]
                )
    codes, spans, there = [], [], []
    hop = codec.config.hop_length
    for clip in tqdm(clips, desc=cache.stem, unit="clip", disable=None):
        wav = load_audio(clip.file, sample_rate=codec.config.sample_rate)[0]
        region = active_region(wav)
        there.append(region is not None)
        if region is None:
            continue
        codes.append(codec.encode(wav, stages=stages).codes[0].numpy().astype(np.uint16))
        spans.append((region[0] // hop, region[1] // hop + 1))
    cache.parent.mkdir(parents=True, exist_ok=True)
    part = cache.with_suffix(".part.npz")
    np.savez(
        part,
        fingerprint=codec.fingerprint,
        there=np.array(there),
        codes=np.concatenate(codes, 1),
        ends=np.cumsum([c.shape[1] for c in codes]),
        spans=np.array(spans),
    )
    part.replace(cache)
    return _corpus([c for c, t in zip(clips, there, strict=True) if t], codes, np.array(spans))


def _corpus(clips: list[Clip], codes: list[np.ndarray], spans: np.ndarray) -> Corpus:
    emotion = np.array([EMOTIONS.index(c.emotion) if c.emotion in EMOTIONS else 0 for c in clips])
    several = {c.dataset for c in clips if c.emotion not in ("", "neutral")}
    acted = np.array([c.dataset in several for c in clips])
    return Corpus(clips, codes, spans, np.where(acted, emotion, 0))


def rvq_codec(codec: AffectCodec, clips: Sequence[Clip], folder: Path) -> AffectCodec:
    """The codec with residual VQ, fitted on latents of training clips; kept in `folder`."""
    if (folder / "config.json").is_file():
        return AffectCodec.from_pretrained(folder)
    rows, count = [], 0
    order = np.random.default_rng(0).permutation(len(clips))
    hop = codec.config.hop_length
    with torch.no_grad():
        for i in tqdm(order, desc="latents for residual VQ", unit="clip", disable=None):
            wav = load_audio(clips[i].file, sample_rate=codec.config.sample_rate)[0]
            region = active_region(wav)
            if region is None or len(wav) < hop:
                continue
            x = torch.from_numpy(wav[: len(wav) // hop * hop])[None]
            rows.append(codec.encoder(x)[0, region[0] // hop : region[1] // hop + 1])
            count += len(rows[-1])
            if count >= FIT_FRAMES:
                break
    made = fit_rvq(codec, torch.cat(rows))
    made.save_pretrained(folder, metadata={"licence": "as of the weights it was made from"})
    return made


def tokens_of(corpus: Corpus, index: int, codec: AffectCodec) -> Tokens:
    """One whole clip."""
    batch, _ = corpus.tokens([(index, 0)], corpus.codes[index].shape[1], codec)
    return dataclasses.replace(batch)


__all__ = ["EMOTIONS", "Corpus", "rvq_codec", "rvq_config", "tokenize", "tokens_of"]

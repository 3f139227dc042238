# SPDX-License-Identifier: Apache-2.0
"""Command: does a clip get the same tokens however it is fed to the encoder?

    python -m affectcodec.evaluation.consistency --manifest data/manifest.csv --split dev

Every clip is encoded alone and whole, then in chunks of random lengths, zero-padded, in a batch of
other clips, and cut at a random sample. Network layers round by shape, so a digit may differ where
its value lies within rounding of a threshold. A digit that flips changes the residual behind it, so
later digits of the same frame and block count as flipped too; only the first one of each frame and
block must lie in the rounding band.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from affectcodec.audio import load_audio
from affectcodec.codec import AffectCodec
from affectcodec.nn.bdrfsq import BDRFSQ
from affectcodec.nn.causal import StreamState
from affectcodec.ops import fsq
from affectcodec.ops.bd_rfsq.codespace import recurrence

ROUNDING_BAND = 1e-3  # distance to a threshold in units of the bounded value's argument


@dataclass
class ModeCount:
    """Digits compared and differing in one way of feeding the encoder.

    Attributes:
        digits: compared.
        differing: of these, flips that follow from an earlier flip in the frame included.
        outside_band: first flips of a frame and block farther than the band from any threshold.
        widest: largest distance to a threshold of a first flip.
    """

    digits: int = 0
    differing: int = 0
    outside_band: int = 0
    widest: float = 0.0

    @property
    def per_100000(self) -> float:
        """Differing digits in 100,000."""
        return 1e5 * self.differing / max(1, self.digits)


@dataclass(frozen=True)
class _Digits:
    """Digits and distances to the nearest threshold of one clip, each ``[dims, K, T]`` by block."""

    digits: dict[str, Tensor]
    margin: dict[str, Tensor]


@torch.inference_mode()
def _latent(codec: AffectCodec, wav: Tensor, chunks: Sequence[int] | None = None) -> Tensor:
    hop = codec.config.hop_length
    if chunks is None:
        return codec.encoder(wav)
    state: StreamState = {}
    sizes = [n * hop for n in chunks]
    return torch.cat([codec.encoder(part, state) for part in wav.split(sizes, 1)], 1)


@torch.inference_mode()
def _quantize(codec: AffectCodec, latent: Tensor) -> _Digits:
    """Digits of ``latent [1, T, D]``."""
    quantizer = codec.quantizer
    if not isinstance(quantizer, BDRFSQ):
        raise ValueError(
            f"codec: its quantizer is of kind {codec.config.quantizer.kind!r}, which has no "
            "thresholds to be near to; wanted 'bd-rfsq'"
        )
    digits, margin = {}, {}
    slices = codec.config.quantizer.block_slices()
    for block in codec.config.quantizer.blocks:
        part = latent[..., slices[block.name]].transpose(1, 2)
        params = quantizer.block_params(block.name)
        bound = codec.config.quantizer.bound
        P = torch.matmul(params.W.reshape(-1, block.width), part) + params.c.reshape(-1, 1)
        n, y, _ = recurrence(P, params, block.levels, bound, None)
        table = fsq.threshold_table(block.levels, bound, dtype=y.dtype)
        digits[block.name] = n[0]
        margin[block.name] = (y[0].unsqueeze(-1) - table[:, None, :]).abs().amin(-1)
    return _Digits(digits, margin)


def _compare(count: ModeCount, whole: _Digits, other: _Digits, frames: int) -> None:
    for name, want in whole.digits.items():
        got = other.digits[name][..., :frames]
        want, margin = want[..., :frames], whole.margin[name][..., :frames]
        differs = want != got
        count.digits += want.numel()
        count.differing += int(differs.sum())
        if not bool(differs.any()):
            continue
        stage_differs = differs.any(1)  # [K, T]
        earlier = torch.cumsum(stage_differs.int(), 0) - stage_differs.int()
        first = differs & (earlier == 0)[:, None]
        distances = margin[first]
        count.outside_band += int((distances > ROUNDING_BAND).sum())
        count.widest = max(count.widest, float(distances.max()))


def consistency(
    codec: AffectCodec, clips: Sequence[np.ndarray], *, seed: int = 0, progress: bool = False
) -> dict[str, ModeCount]:
    """Compare every way of feeding the encoder with the whole clip alone.

    Args:
        codec: the codec.
        clips: waves ``[n]`` float32 at the codec's rate.
        seed: of the chunk lengths, neighbours and cuts.

    Returns:
        counts for ``chunked``, ``padded``, ``batched`` and ``cut``.
    """
    rng = np.random.default_rng(seed)
    hop = codec.config.hop_length
    counts = {mode: ModeCount() for mode in ("chunked", "padded", "batched", "cut")}

    def framed(wav: np.ndarray, frames: int) -> Tensor:
        x = torch.zeros(1, frames * hop)
        x[0, : len(wav)] = torch.from_numpy(np.asarray(wav, np.float32))
        return x

    for index in tqdm(range(len(clips)), desc="consistency", disable=not progress):
        wav = clips[index]
        frames = codec.config.num_frames(len(wav))
        x = framed(wav, frames)
        whole = _quantize(codec, _latent(codec, x))

        chunks, left = [], frames
        while left:
            chunks.append(min(left, int(rng.integers(1, 40))))
            left -= chunks[-1]
        _compare(counts["chunked"], whole, _quantize(codec, _latent(codec, x, chunks)), frames)

        extra = int(rng.integers(1, 100))
        padded = _latent(codec, framed(wav, frames + extra))
        _compare(counts["padded"], whole, _quantize(codec, padded), frames)

        others = [clips[int(i)] for i in rng.integers(0, len(clips), 3)]
        longest = max(codec.config.num_frames(len(w)) for w in (wav, *others))
        batch = torch.cat([framed(w, longest) for w in (wav, *others)])
        _compare(counts["batched"], whole, _quantize(codec, _latent(codec, batch)[:1]), frames)

        cut = int(rng.integers(hop, max(hop + 1, len(wav))))
        kept = cut // hop  # frames that lie before the cut as a whole
        short = _latent(codec, framed(wav[:cut], codec.config.num_frames(cut)))
        _compare(counts["cut"], whole, _quantize(codec, short), kept)
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status 1 if a bar is missed."""
    from affectcodec.manifest import read_manifest

    parser = argparse.ArgumentParser(
        prog="python -m affectcodec.evaluation.consistency", description=(__doc__ or "").strip()
    )
    parser.add_argument("--manifest", required=True, help="CSV: path, dataset, speaker, split")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--datasets", default="", help="comma-separated; all if empty")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--weights", default=None, help="name or folder; the shipped ones if empty")
    parser.add_argument("--json", default=None, help="also write the counts to this file")
    args = parser.parse_args(argv)
    codec = AffectCodec.from_pretrained(args.weights)
    datasets = [name for name in args.datasets.split(",") if name]
    rows = read_manifest(args.manifest, split=args.split, datasets=datasets, limit=args.limit)
    rate = codec.config.sample_rate
    clips = [np.asarray(load_audio(str(row.file), sample_rate=rate)[0]) for row in rows]
    counts = consistency(codec, clips, progress=sys.stderr.isatty())
    missed = False
    for mode, count in counts.items():
        ok = count.per_100000 < 1 and not count.outside_band
        missed |= not ok
        print(
            f"{mode:8s} {count.digits:>11,} digits, {count.differing} differ "
            f"({count.per_100000:.3f} in 100,000), {count.outside_band} outside the rounding band "
            f"(widest {count.widest:.1e}) {'ok' if ok else 'MISSED'}"
        )
    if args.json:
        record: dict[str, Any] = {mode: asdict(count) for mode, count in counts.items()}
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"clips": len(clips), **record}, file, indent=2)
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())

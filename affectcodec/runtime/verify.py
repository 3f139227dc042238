# SPDX-License-Identifier: Apache-2.0
"""Checks the native runtime on a corpus: ``python -m affectcodec.runtime.verify DATA --split dev``.

For every clip: streaming in random pieces, beside random neighbours, on one thread and several,
must give the tokens and samples of the offline native codec, bitwise. Tokens and audio are then
compared with plain PyTorch, and digits that differ with their distance from the threshold.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from affectcodec.audio import load_audio
from affectcodec.codec import AffectCodec
from affectcodec.manifest import read_manifest
from affectcodec.nn.bdrfsq import BDRFSQ
from affectcodec.ops import fsq
from affectcodec.ops.bd_rfsq.folding import fold_block
from affectcodec.ops.registry import use_backend
from affectcodec.runtime.native import NativeCodec
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from affectcodec.streaming.encoder import Frames

Samples = npt.NDArray[np.float32]


@dataclass
class Findings:
    """What was found over all clips.

    ``worst_margin`` is the largest distance from its threshold, in float32 code space, of a digit
    that differs first in its frame and block; later ones of the frame follow from it.
    """

    clips: int = 0
    frames: int = 0
    unequal_streams: int = 0
    digits: int = 0
    different_digits: int = 0
    first_different_digits: int = 0
    different_frames: int = 0
    worst_margin: float = 0.0
    worst_audio_db: float = -400.0


def digits_of(codec: AffectCodec, codes: Tensor) -> dict[str, Tensor]:
    """Digits ``[K, d, T]`` of codes ``[K, T]``, for each block."""
    out, rest = {}, codes
    for block in codec.config.quantizer.blocks:
        out[block.name] = fsq.unpack_digits((rest % block.codebook_size)[None], block.levels)[0]
        rest = rest // block.codebook_size
    return out


def compare_tokens(
    codec: AffectCodec, wav: Samples, got: Tensor, want: Tensor, f: Findings
) -> None:
    """Count digits of ``got`` that differ from PyTorch's ``want``, both ``[K, T]``."""
    mine, theirs = digits_of(codec, got), digits_of(codec, want)
    f.frames += got.shape[1]
    f.different_frames += int((got != want).any(0).sum())
    latent: Tensor | None = None
    for block in codec.config.quantizer.blocks:
        different = mine[block.name] != theirs[block.name]
        f.digits += different.numel()
        f.different_digits += int(different.sum())
        for frame in different.any(0).any(0).nonzero().flatten().tolist():
            stage = int(different[:, :, frame].any(1).nonzero()[0])
            dims = different[stage, :, frame].nonzero().flatten()
            f.first_different_digits += len(dims)
            if latent is None:
                latent = _latent(codec, wav)
            margin = _margin(
                codec, block.name, latent[frame], theirs[block.name][..., frame], stage
            )
            f.worst_margin = max(f.worst_margin, float(margin[dims].max()))


def _latent(codec: AffectCodec, wav: Samples) -> Tensor:
    hop = codec.config.hop_length
    padded = torch.zeros(codec.config.num_frames(len(wav)) * hop)
    padded[: len(wav)] = torch.from_numpy(wav)
    with torch.no_grad():
        return codec.encoder(padded[None])[0]


def _margin(codec: AffectCodec, name: str, z: Tensor, digits: Tensor, stage: int) -> Tensor:
    """Distance of each dim of ``stage`` from its nearest threshold, in float64."""
    config = codec.config.quantizer
    block = config.blocks[config.names.index(name)]
    assert isinstance(codec.quantizer, BDRFSQ)
    params = codec.quantizer.block_params(name, torch.float64)
    folded = fold_block(params, block.levels, config.bound)
    dim, row = block.code_dim, stage * block.code_dim
    part = z[config.block_slices()[name]].double()
    x = params.W.reshape(-1, block.width) @ part + folded.offset[-1].double()
    before = digits[:stage].reshape(-1).long()
    values = folded.value.double()[torch.arange(row), before]
    x = x[row : row + dim] - folded.cross.double()[row : row + dim, :row] @ values
    return (x[:, None] - folded.threshold.double()[row : row + dim]).abs().amin(1)


def check_streams(
    codec: AffectCodec, native: NativeCodec, clips: list[Samples], generator: np.random.Generator
) -> int:
    """How many clips, streamed side by side in random pieces, differ from their offline coding."""
    slots = len(clips)
    threads = int(generator.integers(1, 5))
    encoder = StreamingEncoder(codec, slots=slots, engine="native", threads=threads)
    decoder = StreamingDecoder(codec, slots=slots, engine="native", threads=threads)
    heard: list[list[Samples]] = [[] for _ in clips]
    sent: list[list[npt.NDArray[np.signedinteger]]] = [[] for _ in clips]
    at = [0] * slots

    def take(found: dict[int, Frames]) -> None:
        for slot, part in found.items():
            sent[slot].append(part.codes)
        for slot, audio in decoder.push_frames(found).items():
            heard[slot].append(audio)

    while any(place < len(clip) for place, clip in zip(at, clips, strict=True)):
        pieces = {}
        for slot, clip in enumerate(clips):
            if at[slot] < len(clip) and generator.random() < 0.7:
                size = int(np.exp(generator.uniform(0, np.log(20000))))
                pieces[slot] = clip[at[slot] : at[slot] + size]
                at[slot] += size
        take(encoder.push_frames(pieces))
    for slot in range(slots):
        take({slot: encoder.flush_frames(slot)})
    unequal = 0
    for slot, clip in enumerate(clips):
        tokens = native.encode(clip)
        want = native.decode(tokens)[0, 0].numpy()
        codes = np.concatenate(sent[slot]).T
        audio = np.concatenate(heard[slot])[decoder.latency.samples :][: len(clip)]
        same = np.array_equal(codes, tokens.codes[0].numpy()) and np.array_equal(audio, want)
        unequal += not same
    return unequal


def run(codec: AffectCodec, clips: list[Samples], seed: int = 0) -> Findings:
    """All checks over clips, in random groups of up to eight."""
    native = NativeCodec(codec)
    generator = np.random.default_rng(seed)
    found = Findings()
    order = generator.permutation(len(clips))
    at = 0
    with tqdm(total=len(clips), unit="clip", disable=None) as bar:
        while at < len(order):
            size = int(generator.integers(1, 9))
            group = [clips[i] for i in order[at : at + size]]
            at += size
            found.unequal_streams += check_streams(codec, native, group, generator)
            for wav in group:
                _against_pytorch(codec, native, wav, found)
            bar.update(len(group))
    return found


def _against_pytorch(codec: AffectCodec, native: NativeCodec, wav: Samples, f: Findings) -> None:
    with use_backend("reference"):
        want = codec.encode(wav)
        reference = codec.decode(want)
    got = native.encode(wav)
    f.clips += 1
    compare_tokens(codec, wav, got.codes[0], want.codes[0], f)
    error = (native.decode(want) - reference).square().sum() / reference.square().sum()
    f.worst_audio_db = max(f.worst_audio_db, 10 * float(torch.log10(error + 1e-40)))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", default="dev", show_default=True)
@click.option("--weights", help="Weights: the name of shipped ones, or a folder.")
@click.option("--seed", default=0, show_default=True)
@click.option("--limit", type=int, help="At most this many clips, spread evenly.")
def main(data: Path, split: str, weights: str | None, seed: int, limit: int | None) -> None:
    """Check the native runtime on the clips of DATA/manifest.csv; prints JSON.

    Ends with 1 if any stream differs from its offline coding.
    """
    torch.set_num_threads(1)
    codec = AffectCodec.from_pretrained(weights)
    listed = read_manifest(data / "manifest.csv", split=split, limit=limit)
    rate = codec.config.sample_rate
    clips = [np.asarray(load_audio(clip.file, sample_rate=rate)[0], np.float32) for clip in listed]
    found = run(codec, clips, seed)
    click.echo(json.dumps(asdict(found), indent=2))
    sys.exit(1 if found.unequal_streams else 0)


if __name__ == "__main__":
    main()

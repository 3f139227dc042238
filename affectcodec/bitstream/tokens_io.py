# SPDX-License-Identifier: Apache-2.0
"""``Tokens`` to ``.afc`` and back; the one part of the bitstream that knows torch."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from affectcodec.bitstream.coded import CoderOrFinder, PayloadCoder, check_coder
from affectcodec.bitstream.collect import MAX_CODES
from affectcodec.bitstream.errors import AfcError, AfcHashMismatch
from affectcodec.bitstream.header import BlockLayout, StreamHeader
from affectcodec.bitstream.reader import AfcReader, PathFileOrBytes
from affectcodec.bitstream.report import ReadReport
from affectcodec.bitstream.writer import (
    AfcWriter,
    PathOrFile,
    default_frames_per_packet,
    max_frames_per_packet,
    replace_file,
)
from affectcodec.config import BDRFSQConfig, Block
from affectcodec.tokens import Tokens


def header_of(
    tokens: Tokens,
    *,
    loudness_dbfs: float | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> StreamHeader:
    """Stream header for one clip.

    Args:
        tokens: a batch of one.
        loudness_dbfs: measured loudness in dBFS; informational.
        metadata: small JSON object.

    Raises:
        AfcError: the batch is not of one clip.
        AfcHeaderError: a value is outside the limits of the format.
    """
    if tokens.batch_size != 1:
        raise AfcError(
            f"tokens: a stream holds one clip, got a batch of {tokens.batch_size}; write "
            "tokens.select(i) for each clip"
        )
    config = tokens.quantizer
    return StreamHeader(
        config_hash=tokens.config_hash,
        sample_rate=tokens.sample_rate,
        hop_length=tokens.hop_length,
        blocks=tuple(BlockLayout(block.name, block.levels) for block in config.blocks),
        num_stages=config.num_stages,
        num_samples=int(tokens.num_samples[0]),
        loudness_dbfs=loudness_dbfs,
        metadata=metadata or {},
    )


def write_tokens(
    file: PathOrFile,
    tokens: Tokens,
    *,
    frames_per_packet: int | None = None,
    loudness_dbfs: float | None = None,
    metadata: Mapping[str, Any] | None = None,
    seek_table: bool | None = None,
    coder: PayloadCoder | None = None,
) -> None:
    """Write one clip. A path is replaced atomically: it holds the old file or the whole new one.

    Args:
        file: path, or binary file object, which stays open.
        tokens: a batch of one; of a larger batch pass ``tokens.select(i)``.
        frames_per_packet: frames a packet; by default the clip is cut into even packets of about
            two seconds, or five with a coder.
        loudness_dbfs: measured loudness in dBFS; informational.
        metadata: small JSON object, at most 4096 bytes.
        seek_table: whether to end with a trailer; by default from 32 packets on.
        coder: codes the payloads, see :class:`affectcodec.bitstream.PayloadCoder`. Stage counts
            may then change at every frame, and frames without any stage are kept as such.

    Raises:
        AfcCoderError: the coder does not fit the tokens.
        AfcError: the tokens or arguments do not fit the format.
        OSError: the file cannot be written.
    """
    header = header_of(tokens, loudness_dbfs=loudness_dbfs, metadata=metadata)
    if coder is not None:
        header = dataclasses.replace(header, coder=coder.id)
        check_coder(header, coder)
    clip = tokens.select(0)
    _check_range(clip)
    if frames_per_packet is None:
        frames, usual = clip.num_frames, default_frames_per_packet(header, coder)
        packets = max(1, round(frames / usual))
        # Even packets: a last one of a few frames would cost as much around it as a full one.
        even = min(-(-frames // packets), usual * 3 // 2)
        frames_per_packet = min(even, max_frames_per_packet(header, coder))
    if isinstance(file, (str, os.PathLike)):
        with replace_file(file) as target:
            _write(target, clip, header, frames_per_packet, seek_table, coder)
    else:
        _write(file, clip, header, frames_per_packet, seek_table, coder)


def read_tokens(
    source: PathFileOrBytes,
    *,
    quantizer: BDRFSQConfig | None = None,
    expected_hash: str | None = None,
    check_hash: bool = True,
    conceal: str = "repeat",
    max_codes: int = MAX_CODES,
    coder: CoderOrFinder | None = None,
) -> tuple[Tokens, ReadReport]:
    """Read one clip.

    Args:
        source: path, bytes, or binary file object.
        quantizer: quantizer configuration of the codec at hand. Files hold levels but no latent
            widths, so without it each block of ``tokens.quantizer`` is as wide as it has code dims.
        expected_hash: what ``tokens.config_hash`` must be for the codec at hand.
        check_hash: whether another hash, or another block layout than the quantizer's, is an error.
        conceal: ``"repeat"`` or ``"zero"``, see :meth:`AfcReader.read_all`.
        max_codes: most codes to hold in memory.
        coder: the coder that the stream names, if any, or what finds it, see :class:`AfcReader`.

    Returns:
        Tokens of a batch of one, and the report. Where stage counts vary in the stream,
        ``tokens.frame_stages`` says so; ``num_samples`` is what the frames hold if the stream does
        not know it or was cut.

    Raises:
        AfcCoderError: the payloads are coded and the coder is missing or another one.
        AfcError: the stream cannot be read or does not fit the arguments.
        OSError: the file cannot be read.
    """
    with AfcReader(
        source, expected_hash=expected_hash, check_hash=check_hash, coder=coder
    ) as reader:
        header = reader.header
        config = _quantizer_for(header, quantizer if check_hash or quantizer is None else None)
        codes, _, report = reader.read_all(conceal=conceal, max_codes=max_codes)
        trailer_samples = reader.trailer_samples
    assert report.frame_stages is not None
    frames = report.frame_stages.shape[1]
    held = max(0, frames - 1) * header.hop_length
    samples = header.num_samples if header.num_samples is not None else trailer_samples
    counts = {name: array.shape[0] for name, array in codes.items()}
    if not any(counts.values()):
        counts = dict.fromkeys(counts, header.num_stages)
    tokens = Tokens(
        codes=torch.from_numpy(_compose(codes, config, max(counts.values()), frames))[None],
        lengths=torch.tensor([frames], dtype=torch.int64),
        num_samples=torch.tensor([held if samples is None else min(samples, held)]),
        stages=counts,
        quantizer=config,
        config_hash=header.config_hash,
        sample_rate=header.sample_rate,
        hop_length=header.hop_length,
        frame_stages=_varying(report.frame_stages, list(counts.values())),
    )
    return tokens, report


def _check_range(clip: Tokens) -> None:
    # Taking a block's digits wraps around: special ids of a language model would come back as
    # ordinary codes.
    size = clip.quantizer.codebook_size
    if clip.codes.numel() and not 0 <= int(clip.codes.min()) <= int(clip.codes.max()) < size:
        raise AfcError(
            f"tokens: expected values in 0..{size - 1}, got {int(clip.codes.min())}.."
            f"{int(clip.codes.max())}; take special ids out first"
        )


def _write(
    file: PathOrFile,
    clip: Tokens,
    header: StreamHeader,
    frames_per_packet: int,
    seek_table: bool | None,
    coder: PayloadCoder | None,
) -> None:
    codes = [clip.block_codes(block.name)[0].cpu().numpy() for block in clip.quantizer.blocks]
    with AfcWriter(
        file,
        header,
        frames_per_packet=max(1, frames_per_packet),
        seek_table=seek_table,
        coder=coder,
    ) as writer:
        if coder is not None:
            varying = clip.frame_stages
            writer.write(codes, None if varying is None else varying[0].cpu().numpy())
            return
        for start, end, stages in _runs(clip):
            if not any(stages):
                writer.skip(end - start)
                continue
            writer.write(
                [array[:count, start:end] for array, count in zip(codes, stages, strict=True)]
            )


def _runs(clip: Tokens) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Stretches of frames with equal stage counts: first frame, end, count of each block."""
    frames = clip.num_frames
    if clip.frame_stages is None:
        yield 0, frames, tuple(clip.stages.values())
        return
    stages = clip.frame_stages[0].cpu().numpy()
    edges = np.flatnonzero((stages[:, 1:] != stages[:, :-1]).any(axis=0)) + 1
    bounds = [0, *edges.tolist(), frames] if frames else []
    for start, end in itertools.pairwise(bounds):
        yield start, end, tuple(int(count) for count in stages[:, start])


def _quantizer_for(header: StreamHeader, quantizer: BDRFSQConfig | None) -> BDRFSQConfig:
    if quantizer is None:
        blocks = tuple(Block(b.name, len(b.levels), b.levels) for b in header.blocks)
        return BDRFSQConfig(blocks=blocks, num_stages=header.num_stages)
    here = ([(b.name, b.levels) for b in quantizer.blocks], quantizer.num_stages)
    there = ([(b.name, b.levels) for b in header.blocks], header.num_stages)
    if here != there:
        raise AfcHashMismatch(
            f"quantizer: the stream has blocks {there[0]} with up to {there[1]} stages, the codec "
            f"at hand {here[0]} with {here[1]}; load the codec the stream was made with"
        )
    return quantizer


def _compose(
    codes: dict[str, npt.NDArray[Any]], config: BDRFSQConfig, stages: int, frames: int
) -> npt.NDArray[Any]:
    """Composite tokens [K, T] of block codes [K_b, T]."""
    if config.codebook_size > 2**63:
        raise AfcError(f"blocks: {config.codebook_size} composite codes do not fit 64 bits")
    dtype = np.int32 if config.codebook_size <= 2**31 else np.int64
    tokens = np.zeros((stages, frames), dtype)
    for name, base in config.token_bases().items():
        digits: npt.NDArray[Any] = codes[name].astype(dtype)
        tokens[: len(digits)] += digits * base
    return tokens


def _varying(stages: npt.NDArray[np.uint8], counts: list[int]) -> torch.Tensor | None:
    if (stages == np.array(counts)[:, None]).all():
        return None
    return torch.from_numpy(stages.astype(np.int64))[None]

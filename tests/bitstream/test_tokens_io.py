# SPDX-License-Identifier: Apache-2.0
"""Tokens to files and back."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
import torch

from affectcodec.bitstream import (
    AfcError,
    AfcHashMismatch,
    AfcReader,
    header_of,
    read_tokens,
    write_tokens,
)
from affectcodec.config import BDRFSQConfig, Block, StageSpec
from affectcodec.tokens import Tokens
from tests.bitstream.streams import HASH, packet_offsets

CONFIG = BDRFSQConfig()


def make_tokens(
    frames: int, stages: StageSpec = 2, config: BDRFSQConfig = CONFIG, seed: int = 0
) -> Tokens:
    """A batch of one random clip that fills its frames."""
    counts = config.resolve_stages(stages)
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.int32 if config.codebook_size <= 2**31 else torch.int64
    codes = torch.zeros(1, max(counts.values()), frames, dtype=dtype)
    for block, base in zip(config.blocks, config.token_bases().values(), strict=True):
        shape = (1, counts[block.name], frames)
        digits = torch.randint(0, block.codebook_size, shape, generator=generator)
        codes[:, : counts[block.name]] += (digits * base).to(dtype)
    return Tokens(
        codes=codes,
        lengths=torch.tensor([frames]),
        num_samples=torch.tensor([max(0, frames - 1) * 320]),
        stages=counts,
        quantizer=config,
        config_hash=HASH,
    )


def _write(tokens: Tokens, **options: object) -> bytes:
    file = io.BytesIO()
    write_tokens(file, tokens, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _assert_equal(got: Tokens, wanted: Tokens) -> None:
    for field in dataclasses.fields(Tokens):
        a, b = getattr(got, field.name), getattr(wanted, field.name)
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), field.name
        else:
            assert a == b, field.name


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        BDRFSQConfig((Block("a", 4, (3, 5)), Block("b", 2, (7,)), Block("c", 9, (2, 2))), 5),
        BDRFSQConfig((Block("a", 64, (4,) * 15), Block("b", 64, (4,) * 15)), 3),
    ],
)
@pytest.mark.parametrize("frames", [0, 1, 201, 403])
def test_round_trip(tmp_path: Path, config: BDRFSQConfig, frames: int) -> None:
    path = tmp_path / "clip.afc"
    tokens = make_tokens(frames, None, config)
    write_tokens(path, tokens)
    back, report = read_tokens(path, quantizer=config, expected_hash=HASH)
    assert report.ok
    _assert_equal(back, tokens)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.afc"]


def test_blocks_cut_independently() -> None:
    tokens = make_tokens(30, {"emotion": 8, "acoustic": 1})
    back, _ = read_tokens(_write(tokens), quantizer=CONFIG)
    _assert_equal(back, tokens)


def test_stage_counts_that_vary_in_a_clip() -> None:
    tokens = make_tokens(40, 4)
    stages = torch.full((1, 2, 40), 4)
    stages[0, :, 10:20], stages[0, 1, 30:] = 0, 1
    codes = tokens.codes.clone()
    codes[..., 10:20] = 0
    codes[:, 1:, 30:] %= 8
    tokens = dataclasses.replace(tokens, codes=codes, frame_stages=stages)
    back, report = read_tokens(_write(tokens), quantizer=CONFIG, conceal="zero")
    assert report.frames_lost == 10
    _assert_equal(back, tokens)


def test_only_the_valid_frames_of_a_padded_clip_are_written() -> None:
    tokens = make_tokens(30)
    padded = dataclasses.replace(
        tokens, codes=torch.nn.functional.pad(tokens.codes, (0, 9), value=1)
    )
    _assert_equal(read_tokens(_write(padded), quantizer=CONFIG)[0], tokens)


def test_a_batch_has_to_be_taken_apart() -> None:
    one = make_tokens(3)
    batch = dataclasses.replace(
        one,
        codes=one.codes.repeat(2, 1, 1),
        lengths=one.lengths.repeat(2),
        num_samples=one.num_samples.repeat(2),
    )
    with pytest.raises(AfcError, match=r"select\(i\)"):
        _write(batch)
    assert _write(batch.select(1)) == _write(one)


def test_packets_of_a_clip_are_even() -> None:
    tokens = make_tokens(201)
    data = _write(tokens)
    assert [p.frames for p in AfcReader(data)] == [101, 100]
    assert [p.frames for p in AfcReader(_write(tokens, frames_per_packet=150))] == [150, 51]


def test_loudness_and_metadata_are_kept_and_decode_nothing() -> None:
    data = _write(make_tokens(3), loudness_dbfs=-23.0, metadata={"title": "a"})
    header = AfcReader(data).header
    assert header.loudness_dbfs == -23.0 and header.metadata == {"title": "a"}
    _assert_equal(read_tokens(data, quantizer=CONFIG)[0], make_tokens(3))


def test_without_a_quantizer_blocks_are_as_wide_as_their_codes() -> None:
    tokens = make_tokens(5)
    back, _ = read_tokens(_write(tokens))
    assert [(b.name, b.width, b.levels) for b in back.quantizer.blocks] == [
        ("emotion", 3, (2, 2, 2)),
        ("acoustic", 6, (4,) * 6),
    ]
    assert torch.equal(back.codes, tokens.codes)


def test_another_quantizer_or_hash_is_an_error() -> None:
    data = _write(make_tokens(5))
    other = BDRFSQConfig((Block("emotion", 4, (2, 2)), Block("acoustic", 4, (4,) * 6)))
    with pytest.raises(AfcHashMismatch, match="blocks"):
        read_tokens(data, quantizer=other)
    with pytest.raises(AfcHashMismatch, match=f"{HASH}.*ffffffff"):
        read_tokens(data, expected_hash="f" * 16)
    assert read_tokens(data, expected_hash="f" * 16, check_hash=False)[0].config_hash == HASH


def test_a_cut_file_gives_the_samples_that_its_frames_hold() -> None:
    tokens = make_tokens(202)
    data = _write(tokens)
    cut = packet_offsets(data, header_of(tokens))[1]
    back, report = read_tokens(data[:cut])
    assert report.truncated and report.frames_missing == 101
    assert back.lengths.tolist() == [101] and back.num_samples.tolist() == [100 * 320]


def test_a_file_without_any_frame_left_is_an_empty_clip() -> None:
    tokens = make_tokens(10)
    back, report = read_tokens(_write(tokens)[:23])
    assert report.truncated and back.num_frames == 0 and back.num_samples.tolist() == [0]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.afc"
    path.write_bytes(b"old")
    tokens = make_tokens(10)
    with pytest.raises(AfcError, match="special ids"):
        write_tokens(path, dataclasses.replace(tokens, codes=tokens.codes - 2**16))
    with pytest.raises(AfcError):
        write_tokens(path, tokens, metadata={"x": "y" * 5000})
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1

# SPDX-License-Identifier: Apache-2.0
"""Bytes and back."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from affectcodec.bitstream.errors import AfcPacketError
from affectcodec.entropy.coder import PACKET_FRAMES, PriorCoder
from affectcodec.entropy.prior import Prior

from .conftest import LAYOUT
from .helpers import random_packet


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("frames", [1, 2, 40])
def test_round_trip(coder, frames, seed):
    codes, stages = random_packet(LAYOUT, frames, seed)
    data = coder.encode(codes, stages)
    back, counts = coder.decode(data, frames, [len(block) for block in codes])
    assert np.array_equal(counts, stages)
    assert all(np.array_equal(a, b) for a, b in zip(codes, back, strict=True))


def test_codes_above_a_frames_count_are_not_coded(coder):
    codes, stages = random_packet(LAYOUT, 30, 2)
    dirty = [block.copy() for block in codes]
    for block, counts in zip(dirty, stages, strict=True):
        block[np.arange(len(block))[:, None] >= counts] = 1
    assert coder.encode(dirty, stages) == coder.encode(codes, stages)


@pytest.mark.parametrize("frames", [200, 9300])
def test_size_is_what_the_costs_say(coder, frames):
    """Packet by packet; the longer clip is more than one pass of the prior takes."""
    codes, stages = random_packet(LAYOUT, frames, 4)
    wanted = coder.costs(codes, stages).sum() + coder.count_bits(stages)
    cuts = [slice(start, start + PACKET_FRAMES) for start in range(0, frames, PACKET_FRAMES)]
    sizes = [len(coder.encode([c[:, cut] for c in codes], stages[:, cut])) for cut in cuts]
    assert abs(8 * sum(sizes) - wanted) < 40 * len(cuts)
    assert coder.costs(codes, stages)[~LAYOUT.present(stages)].sum() == 0


def test_likely_codes_cost_less(coder):
    """Codes drawn from the prior itself take fewer bits than codes drawn evenly."""
    rng = np.random.default_rng(0)
    even, likely, drawn = 0.0, 0.0, 0
    while drawn < 4:
        try:
            codes, stages = coder.decode(rng.bytes(400), 40, (4, 4))
        except AfcPacketError:
            continue
        drawn += 1
        likely += coder.costs(codes, stages).sum()
        noise = [rng.integers(0, size, (4, 40)).astype(np.int32) for size in (8, 12)]
        even += coder.costs(noise, stages).sum()
    assert likely < 0.9 * even


def test_any_bytes_give_codes_in_range_or_a_clear_error(coder):
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        data = rng.bytes(int(rng.integers(0, 40)))
        most = tuple(int(n) for n in rng.integers(0, 5, 2))
        try:
            codes, stages = coder.decode(data, 12, most)
        except AfcPacketError:
            seen.add("error")
            continue
        seen.add("codes")
        assert (stages.max(1) <= most).all()
        assert codes[0].shape == (most[0], 12)
        assert codes[1].shape == (most[1], 12)
        assert all(block.min(initial=0) >= 0 for block in codes)
        assert codes[0].max(initial=0) < 8
        assert codes[1].max(initial=0) < 12
    assert seen == {"error", "codes"}


def test_more_frames_than_a_packet_may_have_are_refused(coder):
    for frames in (0, coder.max_frames + 1):
        with pytest.raises(AfcPacketError, match="frames"):
            coder.decode(b"", frames, (1, 1))


def test_a_few_bytes_cannot_claim_many_frames(coder):
    none = [np.zeros((0, 200), np.int32)] * 2
    data = coder.encode(none, np.zeros((2, 200), np.uint8))
    assert len(data) == 50
    assert np.array_equal(coder.decode(data, 200, (0, 0))[1], np.zeros((2, 200)))
    with pytest.raises(AfcPacketError, match="51 bytes at least"):
        coder.decode(data, 204, (0, 0))


def test_golden_bytes(prior):
    """These bytes may never change: files in the world were written with them."""
    weights = {}
    for number, (name, array) in enumerate(sorted(prior.weights.items())):
        pattern = np.arange(array.size) * (2 * number + 3) % 23 - 11
        weights[name] = pattern.reshape(array.shape).astype(array.dtype)
    coder = PriorCoder(Prior(LAYOUT, weights))
    frames = np.arange(7)
    stages = np.array([[1, 1, 2, 2, 2, 4, 0], [3, 3, 3, 3, 1, 1, 4]], np.uint8)
    codes = [(np.arange(4)[:, None] * 5 + frames * 3) % size for size in (8, 12)]
    assert coder.id == "0294111e2e010190"
    assert coder.encode(codes, stages).hex() == "fa8fa686875681e0a0b07a429268e9a709603096"


def test_a_missing_library_is_named(prior, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "constriction":
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        PriorCoder(prior)

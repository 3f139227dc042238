# SPDX-License-Identifier: Apache-2.0
"""Streams coded by the shipped prior: found by their id, exact, and safe on any bytes."""

from __future__ import annotations

import io

import numpy as np

from affectcodec.bitstream import (
    AfcReader,
    StreamHeader,
    coded_payload_bits,
    read_tokens,
    write_tokens,
)
from affectcodec.bitstream.head import assemble
from affectcodec.entropy import load_coder
from tests.bitstream.streams import HASH, packet_offsets
from tests.bitstream.test_coded_streams import with_varying_stages
from tests.bitstream.test_tokens_io import CONFIG, _assert_equal, make_tokens


def written(frames: int, per_packet: int = 20) -> bytes:
    tokens = with_varying_stages(make_tokens(frames, 4), seed=2)
    file = io.BytesIO()
    write_tokens(file, tokens, coder=load_coder(), frames_per_packet=per_packet)
    return file.getvalue()


def test_the_shipped_prior_is_found_by_its_id_and_is_exact() -> None:
    data = written(60)
    assert AfcReader(data).header.coder == load_coder().id
    back, report = read_tokens(data, quantizer=CONFIG, expected_hash=HASH)
    assert report.ok and report.payload_bytes * 8 == coded_payload_bits(data)
    _assert_equal(back, with_varying_stages(make_tokens(60, 4), seed=2))


def test_damage_costs_one_packet() -> None:
    data = bytearray(written(60))
    header = StreamHeader.from_bytes(data)[0]
    data[packet_offsets(bytes(data), header)[2] - 3] ^= 4
    back, report = read_tokens(bytes(data), quantizer=CONFIG)
    wanted = with_varying_stages(make_tokens(60, 4), seed=2)
    assert (report.damaged_packets, report.frames_lost) == (1, 20)
    assert (back.codes[..., :20] == wanted.codes[..., :20]).all()
    assert (back.codes[..., 40:] == wanted.codes[..., 40:]).all()


def test_any_payload_under_good_checksums_is_read_or_lost() -> None:
    coder, rng, seen = load_coder(), np.random.default_rng(0), set()
    header = StreamHeader(HASH, coder=coder.id)
    for index in range(40):
        payload = rng.bytes(int(rng.integers(0, 30)))
        most = (int(rng.integers(0, 9)), int(rng.integers(1, 9)))
        packet = assemble(0, 4, most, payload, header)
        codes, mask, report = AfcReader(header.to_bytes() + packet).read_all()
        assert len(mask) == 4 and mask.all() == report.ok, index
        assert all(array.min(initial=0) >= 0 for array in codes.values())
        seen.add(report.ok)
    assert seen == {True, False}

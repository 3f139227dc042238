# SPDX-License-Identifier: Apache-2.0
"""Mutated ``.afc`` files all the way to audio: each must end in an AfcError or in samples.

    python -m tests.fuzz_decode --mutations 10000 --seed 0

Reads and decodes mutations of one clip of about a second, plain and entropy-coded in turn, and
prints how often each happened, the slowest one and the peak of memory beside the weights.
"""

from __future__ import annotations

import argparse
import io
import resource
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from affectcodec.bitstream import AfcError, PayloadCoder, read_tokens, write_tokens
from affectcodec.codec import AffectCodec
from affectcodec.entropy import load_coder
from tests.bitstream.fuzz import mutate


@dataclass
class DecodeResult:
    """Figures of a run; ``longest`` is the longest audio that came out, in seconds."""

    outcomes: Counter[str] = field(default_factory=Counter)
    max_seconds: float = 0.0
    longest: float = 0.0
    grown_mib: float = 0.0


def clip(codec: AffectCodec, seconds: float = 1.0, coder: PayloadCoder | None = None) -> bytes:
    """One clip as a file: a gliding tone in noise."""
    rate = codec.config.sample_rate
    t = np.arange(int(seconds * rate)) / rate
    wav = 0.2 * np.sin(2 * np.pi * (150 * t + 40 * t**2))
    wav += 0.01 * np.random.default_rng(0).standard_normal(len(t))
    file = io.BytesIO()
    tokens = codec.encode(wav.astype(np.float32), rate, stages=2)
    write_tokens(file, tokens, frames_per_packet=10, coder=coder)
    return file.getvalue()


def run(codec: AffectCodec, mutations: int, seed: int, coder: PayloadCoder) -> DecodeResult:
    """Decode ``mutations`` mutations; mutation ``i`` of a seed is always the same."""
    clips = [clip(codec), clip(codec, coder=coder)]
    result = DecodeResult()
    quantizer, fingerprint = codec.config.quantizer, codec.fingerprint
    for data in clips:
        codec.decode(read_tokens(io.BytesIO(data), quantizer=quantizer, coder=coder)[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(mutations):
        changed = mutate(np.random.default_rng([seed, index]), clips[index % 2])
        start = time.process_time()
        try:
            source = io.BytesIO(changed)
            tokens, report = read_tokens(
                source, quantizer=quantizer, expected_hash=fingerprint, coder=coder
            )
            wav = codec.decode(tokens)
        except AfcError:
            result.outcomes["clear error"] += 1
        else:
            assert bool(torch.isfinite(wav).all())
            result.outcomes["audio" if report.ok else "audio, damage reported"] += 1
            result.longest = max(result.longest, wav.shape[-1] / codec.config.sample_rate)
        result.max_seconds = max(result.max_seconds, time.process_time() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result.grown_mib = (after - before) / 1024
    return result


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_decode", description=__doc__)
    parser.add_argument("--mutations", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", default=None, help="name or folder; the shipped ones if empty")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = run(
        AffectCodec.from_pretrained(args.weights),
        args.mutations,
        args.seed,
        load_coder(args.weights),
    )
    print(f"{args.mutations} mutations, seed {args.seed}: {dict(result.outcomes)}")
    print(
        f"slowest {result.max_seconds:.3f} s of CPU, longest audio {result.longest:.1f} s, "
        f"memory grew by {result.grown_mib:.1f} MiB"
    )


if __name__ == "__main__":
    main()

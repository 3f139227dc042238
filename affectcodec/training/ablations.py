# SPDX-License-Identifier: Apache-2.0
"""Ablation runs: configurations that differ in one named choice, at equal bits and budget."""

from __future__ import annotations

import dataclasses
from typing import Any

from affectcodec.training.config import TrainConfig


def _with_quantizer(config: TrainConfig, **changes: Any) -> TrainConfig:
    quantizer = dataclasses.replace(config.codec.quantizer, **changes)
    return dataclasses.replace(config, codec=dataclasses.replace(config.codec, quantizer=quantizer))


def _with_network(config: TrainConfig, **changes: Any) -> TrainConfig:
    network = dataclasses.replace(config.codec.network, **changes)
    return dataclasses.replace(config, codec=dataclasses.replace(config.codec, network=network))


def ablations(base: TrainConfig) -> dict[str, TrainConfig]:
    """The runs of the published ablation (arXiv 2605.23373, table of components), by name.

    All have one seed, data, schedule, and bits; blocks never draw stage counts apart, which the
    baselines cannot do. A multi-rate run decodes every clip at each rate, and its batch is smaller
    by as many times, so that all runs decode the same seconds of audio.

    - ``rvq``: residual vector quantization, no conditioning, one rate a clip.
    - ``rfsq``: residual FSQ with dense projections.
    - ``bd-rfsq``: blocks.
    - ``bd-rfsq+mrt``: and several rates from one pass.
    - ``bd-rfsq+mrt+cem``: and conditioning at the time scales of ``base``, or at all three.

    Raises:
        ValueError: if the batch cannot be divided by the number of rates.
    """
    rates = base.rates or tuple(
        rate for rate in (2, 4, 8) if rate <= base.codec.quantizer.num_stages
    )
    if base.batch_size % len(rates):
        raise ValueError(
            f"batch_size: {base.batch_size} crops cannot be divided by {len(rates)} rates {rates}; "
            f"wanted a multiple of {len(rates)}"
        )
    scales = base.codec.network.conditioning or ("frame", "segment", "utterance")
    plain = dataclasses.replace(base, independent_stages=0.0, rates=())
    plain = _with_network(plain, conditioning=(), encoder_conditioning=())
    blocks = _with_quantizer(plain, kind="bd-rfsq", codebooks=())
    several = dataclasses.replace(blocks, rates=rates, batch_size=base.batch_size // len(rates))
    return {
        "rvq": _with_quantizer(plain, kind="rvq"),
        "rfsq": _with_quantizer(plain, kind="rfsq", codebooks=()),
        "bd-rfsq": blocks,
        "bd-rfsq+mrt": several,
        "bd-rfsq+mrt+cem": _with_network(several, conditioning=scales),
    }

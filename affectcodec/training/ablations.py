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
    baselines cannot do. All decode every clip once: a multi-rate run at one of its rates, drawn
    evenly, with prosody and affect told at all of them from the same pass.

    - ``rvq``: residual vector quantization, no conditioning, one rate a clip.
    - ``rfsq``: residual FSQ with dense projections.
    - ``bd-rfsq``: blocks.
    - ``bd-rfsq+mrt``: and several rates from one pass, those of ``base`` or 2, 4 and 8 stages.
    - ``bd-rfsq+mrt+cem``: and conditioning at the time scales of ``base``, or at all three.
    """
    rates = base.told_rates or tuple(
        rate for rate in (2, 4, 8) if rate <= base.codec.quantizer.num_stages
    )
    scales = base.codec.network.conditioning or ("frame", "segment", "utterance")
    plain = dataclasses.replace(base, independent_stages=0.0, rates=(), told_rates=())
    plain = _with_network(plain, conditioning=(), encoder_conditioning=())
    blocks = _with_quantizer(plain, kind="bd-rfsq", codebooks=())
    even = tuple(1.0 / len(rates) for _ in rates)
    several = dataclasses.replace(blocks, told_rates=rates, stage_choices=rates, stage_weights=even)
    return {
        "rvq": _with_quantizer(plain, kind="rvq"),
        "rfsq": _with_quantizer(plain, kind="rfsq", codebooks=()),
        "bd-rfsq": blocks,
        "bd-rfsq+mrt": several,
        "bd-rfsq+mrt+cem": _with_network(several, conditioning=scales),
    }

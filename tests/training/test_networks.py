# SPDX-License-Identifier: Apache-2.0
"""The form of a network that trains fast stays close to the one that codes."""

from __future__ import annotations

import copy

import torch

from affectcodec.training.networks import for_training
from tests.codec_fixtures import tiny_codec


def test_the_trained_form_differs_by_rounding_alone() -> None:
    codec = tiny_codec()
    latent = torch.randn(2, 12, codec.config.quantizer.width)
    exact = codec.decoder(latent).wav
    coarse = []
    for low_precision in (False, True):
        fast = copy.deepcopy(codec.decoder)
        for_training(fast, low_precision=low_precision)
        wav = fast(latent, source_f0=torch.full((2, 12), 150.0), source_voicing=torch.ones(2, 12))
        same = codec.decoder(
            latent, source_f0=torch.full((2, 12), 150.0), source_voicing=torch.ones(2, 12)
        )
        coarse.append(float((wav.wav - same.wav).norm() / same.wav.norm()))
    assert 0 < coarse[0] < 1e-4 < coarse[1] < 0.05
    assert torch.equal(codec.decoder(latent).wav, exact)  # a copy was changed, not the codec


def test_activations_are_recomputed_only_where_asked() -> None:
    codec = tiny_codec()
    for_training(codec, low_precision=False, recompute=True)
    flags = [m.recompute for m in codec.modules() if hasattr(m, "recompute")]
    assert flags and all(flags)
    for_training(codec, low_precision=False)
    assert not any(m.recompute for m in codec.modules() if hasattr(m, "recompute"))

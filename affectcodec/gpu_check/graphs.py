# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs: whether an operator can be captured, and whether a replay computes anew."""

from __future__ import annotations

import torch

from affectcodec.gpu_check.baselines import RATES
from affectcodec.gpu_check.device import Device
from affectcodec.gpu_check.problems import Shape, latent
from affectcodec.nn import BDRFSQ
from affectcodec.ops import use_backend


def captured(device: Device, backend: str, q: BDRFSQ, shape: Shape) -> str:
    """Capture encode, decode and forward at once, replay on another latent, compare the bits.

    Returns:
        what was seen.

    Raises:
        AssertionError: a replay differs from the plain calls.
    """
    z = latent(q.config, shape, device.torch)
    last = shape.channels_last

    def compute() -> list[torch.Tensor]:
        tokens = q.encode(z, channels_last=last)
        u = q.decode(tokens, channels_last=last)
        out = q(z, rates=RATES, channels_last=last)
        return [tokens, u, out.latent, *(out.rates[rate] for rate in RATES)]

    with use_backend(backend), torch.no_grad():
        outputs = [torch.empty_like(tensor) for tensor in compute()]

        def step() -> None:
            for output, tensor in zip(outputs, compute(), strict=True):
                output.copy_(tensor)

        replay = device.capture(step)
        if replay is None:
            return "no graphs on this device"
        z.copy_(latent(q.config, shape, device.torch, seed=1))
        replay()
        device.synchronize()
        for i, (a, b) in enumerate(zip(outputs, compute(), strict=True)):
            if not torch.equal(a, b):
                raise AssertionError(f"output {i} of the replay differs from a plain call")
    return f"{len(outputs)} outputs of a replay equal those of plain calls"

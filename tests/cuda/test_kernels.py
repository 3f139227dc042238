# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels on the host shim pass the suite of the CPU kernels, test by test."""

from __future__ import annotations

import pytest
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.ops import use_backend
from tests.ops.quantizers import (
    CONFIGS,
    assert_close,
    latent,
    quantizer,
    settled,
    specification,
)
from tests.ops.test_cpu_properties import (  # noqa: F401
    _kernels_only,
    test_a_frame_has_the_same_tokens_whatever_stands_beside_it,
    test_fresh_memory_is_never_read,
    test_latents_and_decoded_latents_are_bitwise_alike,
)
from tests.ops.test_kernel_gradients import (  # noqa: F401
    test_every_gradient,
    test_every_gradient_of_the_default_configuration,
    test_expanded_and_transposed_gradients_are_read_right,
    test_frozen_latent_and_frozen_parameters,
    test_gradients_of_some_outputs_alone,
)
from tests.ops.test_kernel_values import (  # noqa: F401
    test_a_bad_count_tensor_is_an_error_and_odd_counts_are_clamped,
    test_a_forward_pass_into_an_earlier_result,
    test_decoding_and_its_gradient,
    test_digits_of_exact_projections_are_the_recurrence_to_the_bit,
    test_empty_input,
    test_latents_tokens_and_rates,
    test_odd_strides_and_expanded_input,
    test_outputs_into_given_tensors,
    test_tokens_are_those_of_the_specification,
)

pytestmark = pytest.mark.usefixtures("shim_kernels")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
def test_gradients_of_16_bits(channels_last: bool, dtype: torch.dtype) -> None:
    """Latent and cotangents of 16 bits: gradients of the parameters are summed in float32, that of
    the latent is rounded once."""
    config = CONFIGS["odd"]
    q = quantizer(config)
    z = settled(q, latent(config, 3, 65, channels_last).to(dtype).float(), channels_last).to(dtype)
    g = [torch.randn_like(z) for _ in range(2)]
    found = []
    for module, x, of in (
        (q, z.clone(), g),
        (specification(q), z.double(), [c.double() for c in g]),
    ):
        x.requires_grad_(True)
        with use_backend("cpu" if module is q else "reference"):
            out = module(x, rates=(1,), channels_last=channels_last)
            inputs = [x, *module.parameters()]
            found.append(torch.autograd.grad([out.latent, out.rates[1]], inputs, of))
    for i, (got, want) in enumerate(zip(*found, strict=True)):
        rounding = {torch.bfloat16: 5e-3, torch.float16: 6e-4}[dtype] if i == 0 else 1e-5
        assert_close(got, want, f"input {i}", rounding)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
def test_half_precision_is_read_and_rounded_as_torch_does(dtype, channels_last: bool) -> None:
    """Every 16-bit pattern in; rounding of the latent out, here the bias of each channel alone."""
    q = quantizer(CONFIGS["one"])
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    z = bits.view(dtype).reshape(1, 1, -1)
    z = z.mT.contiguous() if channels_last else z
    assert torch.equal(
        q.encode(z, channels_last=channels_last), q.encode(z.float(), channels_last=channels_last)
    )
    wide = quantizer(BDRFSQConfig(blocks=(Block("only", 3000, (2,)),), num_stages=1))
    values = torch.randn(3000) * torch.logspace(-9, 5, 3000)
    with torch.no_grad():
        wide.blocks["only"].O.zero_()
        wide.blocks["only"].e.copy_(values[None])
    shape = (1, 8, 3000) if channels_last else (1, 3000, 8)
    u = wide(torch.zeros(shape, dtype=dtype), channels_last=channels_last).latent
    u = u if channels_last else u.mT
    assert torch.equal(u, values.to(dtype).expand(1, 8, 3000))

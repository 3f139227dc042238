# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels on the host shim pass the suite of the CPU kernels, test by test."""

from __future__ import annotations

import pytest

from tests.ops.test_cpu_properties import (  # noqa: F401
    _kernels_only,
    test_a_frame_has_the_same_tokens_whatever_stands_beside_it,
    test_fresh_memory_is_never_read,
    test_latents_and_decoded_latents_are_bitwise_alike,
)
from tests.ops.test_kernel_values import (  # noqa: F401
    test_a_bad_count_tensor_is_an_error_and_odd_counts_are_clamped,
    test_decoding_and_its_gradient,
    test_digits_of_exact_projections_are_the_recurrence_to_the_bit,
    test_empty_input,
    test_every_gradient,
    test_every_gradient_of_the_default_configuration,
    test_expanded_and_transposed_gradients_are_read_right,
    test_frozen_latent_and_frozen_parameters,
    test_gradients_of_some_outputs_alone,
    test_half_precision_is_read_and_rounded_as_torch_does,
    test_latents_tokens_and_rates,
    test_odd_strides_and_expanded_input,
    test_outputs_into_given_tensors,
    test_tokens_are_those_of_the_specification,
)

pytestmark = pytest.mark.usefixtures("shim_kernels")

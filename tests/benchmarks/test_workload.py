# SPDX-License-Identifier: Apache-2.0
"""Checks of the workload: right results pass, wrong ones do not, near thresholds are excused."""

from __future__ import annotations

import pytest
import torch

from benchmarks.contenders import module_call
from benchmarks.stagewise import Stagewise
from benchmarks.workload import NEAR, Size, Workload, default_quantizer


@pytest.fixture(scope="module", params=[False, True], ids=["BDT", "BTD"])
def work(request):
    return Workload(Size(2, 9, channels_last=request.param), smoke=True)


OPS = {
    "encode": Workload.check_tokens,
    "forward": Workload.check_forward,
    "forward+backward": Workload.check_gradients,
    "decode": Workload.check_decode,
}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("form", [{"form": "naive"}, {"backend": "reference"}])
def test_right_results_pass(work, op, form):
    result = module_call(op, work, work.quantizer(**form))()
    remarks = OPS[op](work, result)
    assert remarks.get("frames_with_other_tokens", 0) == 0


def test_plain_functions_are_the_module(work):
    plain = Stagewise(work.quantizer(), work.size.channels_last)
    work.check_tokens(plain.encode(work.z))
    work.check_tokens(plain.encode_codespace(work.z))
    latent, tokens = plain(work.z)
    work.check_forward((latent.detach(), tokens))
    work.check_decode(plain.decode(work.truth[1]).detach())


def test_other_tokens_fail(work):
    tokens = work.truth[1].clone()
    tokens[0, 1, 3] ^= 1
    with pytest.raises(AssertionError, match="1 of 18 frames have other tokens"):
        work.check_tokens(tokens)


def test_other_tokens_near_a_threshold_are_excused_and_counted():
    work = Workload(Size(1, 9), smoke=True)
    margins = torch.ones_like(work.margins)
    margins[0, 1, 3] = NEAR / 2
    work.__dict__["margins"] = margins
    tokens = work.truth[1].clone()
    tokens[0, 1:, 3] ^= 1  # the stages that follow differ, too
    assert work.check_tokens(tokens) == {"frames_with_other_tokens": 1}
    tokens[0, 0, 3] ^= 1  # the first stage that differs is not near
    with pytest.raises(AssertionError, match="without a threshold nearby"):
        work.check_tokens(tokens)


def test_wrong_latents_and_gradients_fail(work):
    latent, tokens, grads = module_call("forward+backward", work, work.quantizer())()
    latent = latent.detach()
    with pytest.raises(AssertionError, match="latent is off"):
        work.check_forward((latent * 1.001, tokens))
    with pytest.raises(AssertionError, match="latent is off"):
        work.check_decode(latent * 1.001)
    with pytest.raises(AssertionError, match="gradient of z is off"):
        work.check_gradients((latent, tokens, [grads[0] * 1.001, *grads[1:]]))
    with pytest.raises(AssertionError, match="gradient of blocks.acoustic.shift is off"):
        work.check_gradients((latent, tokens, [*grads[:-1], grads[-1] * 1.01]))
    with pytest.raises(AssertionError, match="wanted"):
        work.check_decode(latent[:, :, :-1])


def test_quantizers_are_equal_and_leave_the_generator_alone():
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    one, two = (default_quantizer(smoke=True) for _ in range(2))
    assert torch.equal(torch.rand(1), wanted)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_work_of_the_default_configuration():
    work = Workload(Size(1, 1))
    encode = work.work("encode")
    assert encode.bytes_per_unit == 4 * 1024 + 4 * 8
    product = 2 * (256 * 24 + 768 * 48)
    assert encode.flops_per_unit == product + 8 * 7 * (3**2 + 6**2)
    assert work.work("forward+backward").flops_per_unit > 6 * product

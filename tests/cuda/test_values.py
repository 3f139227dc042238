# SPDX-License-Identifier: Apache-2.0
"""What the CUDA kernels promise beyond the suite they share with the CPU kernels: the same bits as
those, memory around buffers left alone, offsets of 64 bits, packing, and refusals."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from affectcodec import _native
from affectcodec.bitpacking import pack_bits, unpack_bits
from affectcodec.config import BDRFSQConfig, Block
from affectcodec.ops.registry import BACKENDS, OPS
from tests.cuda import shim
from tests.ops.quantizers import CONFIGS, latent, needs_cpu_kernels, quantizer

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def kernels(_shim: shim.Kernels) -> shim.Kernels:
    return _shim


def folded(kernels: shim.Kernels, name: str) -> tuple[Tensor, tuple[int, ...], list[Tensor]]:
    q = quantizer(CONFIGS[name])
    params = [p.detach().contiguous() for p in q._float32_parameters()]
    return kernels.fold(params, q._description), q._description, params


def cpu(op: str):
    return OPS[op].kernel("cpu")


@pytest.fixture(scope="module")
def fused() -> None:
    """Bits are compared with CPU kernels that have fused multiply-adds, as a GPU has."""
    if BACKENDS["cpu"].why_missing():
        pytest.skip(BACKENDS["cpu"].why_missing())
    module = _native.load("affectcodec._cpu").module
    if module is None or module.isa() == "scalar":
        pytest.skip("the scalar CPU kernels round every product")


# -- the same bits as the CPU kernels -----------------------------------------------------------


@needs_cpu_kernels
@pytest.mark.parametrize("name", list(CONFIGS))
def test_folded_weights_are_those_of_the_cpu(kernels, name: str) -> None:
    weights, config, params = folded(kernels, name)
    wanted = cpu("fold")(params, config)
    assert weights.numel() == BACKENDS["cuda"].folded_size(config)
    weights = weights[: wanted.numel()]  # what follows is split for tensor cores
    gaps = weights.isnan()  # the shim starts with NaN; nothing reads the gaps between arrays
    assert torch.equal(weights[~gaps], wanted[~gaps])
    unused = 0  # G^T serves the CPU kernels alone
    for block in CONFIGS[name].blocks:
        rows = CONFIGS[name].num_stages * block.code_dim
        unused += rows * -(-rows // 16) * 16
    assert int(gaps.sum()) < unused + 16 * 11 * len(CONFIGS[name].blocks)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_tokens_latents_and_saved_values_are_those_of_the_cpu(
    kernels, fused, name: str, channels_last: bool, dtype: torch.dtype
) -> None:
    weights, config, params = folded(kernels, name)
    of_cpu = cpu("fold")(params, config)
    stages = CONFIGS[name].num_stages
    rates = [r for r in (1, 3) if r < stages]
    for batch, frames in ((1, 1), (2, 33), (3, 64)):
        z = latent(CONFIGS[name], batch, frames, channels_last).to(dtype)
        counts = torch.randint(0, stages + 1, (batch, len(CONFIGS[name].blocks)))
        us, tokens, saved = kernels.forward(z, weights, config, counts, rates, channels_last)
        want_us, want_tokens, want_saved = cpu("forward")(
            z, of_cpu, config, counts, rates, channels_last
        )
        assert torch.equal(tokens, want_tokens)
        encoded = kernels.encode(z, weights, config, channels_last)
        assert torch.equal(encoded, cpu("encode")(z, of_cpu, config, channels_last))
        for u, want in zip(us, want_us, strict=True):
            assert_latents(u, want)
        rows = stages * CONFIGS[name].code_dim
        whole = batch * frames // 64 * rows * 64
        assert torch.equal(saved[:whole], want_saved[:whole])
        decoded = kernels.decode(tokens, weights, config, counts, channels_last, dtype)
        assert_latents(decoded, cpu("decode")(tokens, of_cpu, config, counts, channels_last, dtype))


def assert_latents(got: Tensor, want: Tensor) -> None:
    """Equal in float32; of 16 bits, which tensor cores make, within one rounding, most equal.

    What float32 sums may differ by counts beside results that cancel to less than it.
    """
    assert got.dtype == want.dtype and got.shape == want.shape
    if want.dtype == torch.float32:
        assert torch.equal(got, want)
        return
    if not want.numel():
        return
    step = torch.finfo(want.dtype).eps * want.float().abs() + 3e-5 * want.float().abs().max()
    assert bool(((got.float() - want.float()).abs() <= step).all())
    assert int((got != want).sum()) <= 0.1 * want.numel() + 4


# -- memory -------------------------------------------------------------------------------------


class Guarded:
    """Tensors with a band of known values on both sides."""

    def __init__(self) -> None:
        self._made: list[tuple[Tensor, Tensor]] = []

    def __call__(self, tensor: Tensor, shift: int = 64) -> Tensor:
        bands = torch.full((tensor.numel() + 2 * shift,), 77, dtype=tensor.dtype)
        inner = bands[shift : shift + tensor.numel()].view(tensor.shape)
        inner.copy_(tensor)
        self._made.append((bands, inner))
        return inner

    def check(self) -> None:
        for bands, inner in self._made:
            shift = (bands.numel() - inner.numel()) // 2
            assert bool((bands[:shift] == 77).all())
            assert bool((bands[bands.numel() - shift :] == 77).all())


@pytest.mark.parametrize("shift", [64, 63], ids=["aligned", "shifted"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
def test_memory_around_buffers_is_left_alone(
    kernels, channels_last: bool, dtype: torch.dtype, shift: int
) -> None:
    guard = Guarded()
    weights, config, _ = folded(kernels, "odd")
    z = guard(latent(CONFIGS["odd"], 2, 40, channels_last).to(dtype), shift)
    tokens = guard(torch.zeros(2, 3, 40, dtype=torch.int32), shift)
    kernels.encode_out(z, guard(weights), config, channels_last, tokens)
    assert torch.equal(tokens, kernels.encode(z.clone(), weights, config, channels_last))
    out = guard(torch.zeros_like(z), shift)
    kernels.decode_out(tokens, weights, config, None, channels_last, out)
    assert torch.equal(out, kernels.decode(tokens, weights, config, None, channels_last, dtype))
    guard.check()


class Sparse:
    """Memory with an address but no pages, so that strides can pass 2^31 elements."""

    def __init__(self, count: int, dtype: torch.dtype) -> None:
        self._map = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | 0x4000)
        self.data = torch.frombuffer(self._map, dtype=dtype)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs memory without pages")
def test_offsets_have_64_bits(kernels) -> None:
    """Two clips more than 2^31 elements apart, in and out."""
    weights, config, _ = folded(kernels, "one")
    far = 2**31 + 64
    z = Sparse(far + 64, torch.float32).data.as_strided((2, 1, 5), (far, 5, 1))
    z.copy_(torch.randn(2, 1, 5))
    tokens = Sparse(far + 64, torch.int32).data.as_strided((2, 1, 5), (far, 5, 1))
    kernels.encode_out(z, weights, config, False, tokens)
    assert torch.equal(tokens, kernels.encode(z.contiguous(), weights, config, False))
    out = Sparse(far + 64, torch.float32).data.as_strided((2, 1, 5), (far, 1, 1))
    kernels.decode_out(tokens, weights, config, None, False, out)
    plain = kernels.decode(tokens.contiguous(), weights, config, None, False, torch.float32)
    assert torch.equal(out, plain)
    grads, _, saved = kernels.forward(z, weights, config, None, [], False)
    found = [
        kernels.backward(
            grads, [0], x, saved, weights, params_of(CONFIGS["one"]), config, None, [], False, True
        )
        for x in (z, z.contiguous())
    ]
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert torch.equal(a, b)


def params_of(config: BDRFSQConfig) -> list[Tensor]:
    return [p.detach().contiguous() for p in quantizer(config)._float32_parameters()]


def test_gradients_repeat_to_the_bit(kernels) -> None:
    weights, config, params = folded(kernels, "odd")
    z = latent(CONFIGS["odd"], 3, 70)
    us, _, saved = kernels.forward(z, weights, config, None, [1], False)
    g = [torch.randn_like(u) for u in us]
    runs = [
        kernels.backward(g, [0, 1], z, saved, weights, params, config, None, [1], False, True)
        for _ in range(2)
    ]
    assert torch.equal(runs[0][0], runs[1][0])
    for a, b in zip(runs[0][1], runs[1][1], strict=True):
        assert torch.equal(a, b)


# -- NaN ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
def test_nan_marks_its_frame_and_infinity_does_not(
    kernels, channels_last: bool, dtype: torch.dtype
) -> None:
    weights, config, _ = folded(kernels, "odd")
    frames = latent(CONFIGS["odd"], 2, 70).to(dtype)
    clean = kernels.encode(frames, weights, config, False)
    frames[0, 3, 0], frames[0, :37, 1] = float("inf"), -float("inf")
    frames[1, 40, 69] = float("nan")
    z = frames.mT.contiguous() if channels_last else frames
    tokens = kernels.encode(z, weights, config, channels_last)
    assert int(tokens[0].min()) >= 0 and int(tokens.max()) < CONFIGS["odd"].codebook_size
    assert tokens[1, :, 69].tolist() == [-1] * 3
    assert torch.equal(tokens[0, :, 2:], clean[0, :, 2:])
    assert torch.equal(tokens[1, :, :69], clean[1, :, :69])
    (u,), marked, _ = kernels.forward(z, weights, config, None, [], channels_last)
    u = u.mT if channels_last else u
    assert torch.equal(marked, tokens)
    assert bool(u[1, 37:42, 69].isnan().all())
    assert bool(u[1, :37, 69].isfinite().all()) and bool(u[1, 42:, 69].isfinite().all())


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_token_outside_of_the_codebook_decodes_to_nan_in_its_frame(kernels, dtype) -> None:
    weights, config, _ = folded(kernels, "odd")
    tokens = kernels.encode(latent(CONFIGS["odd"], 2, 70), weights, config, False).to(dtype)
    clean = kernels.decode(tokens, weights, config, None, False, torch.float32)
    tokens[0, 1, 5], tokens[1, 2, 69] = -1, CONFIGS["odd"].codebook_size
    u = kernels.decode(tokens, weights, config, None, False, torch.float32)
    bad = torch.zeros(2, 70, dtype=torch.bool)
    bad[0, 5] = bad[1, 69] = True
    assert bool(u.mT[bad].isnan().all())
    assert torch.equal(u.mT[~bad], clean.mT[~bad])


# -- packing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 7, 8, 9, 15, 16, 31, 32, 33, 47, 57, 58, 62, 63])
def test_bits_are_packed_as_everywhere(kernels, bits: int) -> None:
    random = np.random.default_rng(bits)
    for count in (0, 1, 2, 3, 17, 64, 1000):
        for kind in (np.int32, np.int64):
            if kind is np.int32 and bits > 31:
                continue
            codes = random.integers(0, 2 ** min(bits, 62), count).astype(kind)
            wanted = np.frombuffer(pack_bits(codes, bits), dtype=np.uint8)
            packed = kernels.pack_bits(torch.from_numpy(codes), bits)
            assert np.array_equal(packed.numpy(), wanted)
            back = kernels.unpack_bits(packed, bits, count, torch.from_numpy(codes).dtype)
            assert np.array_equal(back.numpy(), codes)
            assert np.array_equal(unpack_bits(wanted.tobytes(), bits, count, kind), codes)


def test_packing_of_parts_that_are_not_aligned(kernels) -> None:
    codes = torch.arange(203, dtype=torch.int32)
    packed = kernels.pack_bits(codes[3:], 15)
    room = torch.zeros(packed.numel() + 1, dtype=torch.uint8)
    room[1:] = packed
    assert torch.equal(kernels.unpack_bits(room[1:], 15, 200, torch.int32), codes[3:])


# -- refusals -----------------------------------------------------------------------------------


def test_a_block_that_does_not_fit_shared_memory_is_refused(kernels) -> None:
    config = BDRFSQConfig(blocks=(Block("a", 64, (2,) * 60),), num_stages=16)
    q = quantizer(config)
    weights = kernels.fold([p.detach() for p in q._float32_parameters()], q._description)
    with pytest.raises(shim.ShimError, match="more stages times code dims than shared memory"):
        kernels.encode(latent(config, 1, 3), weights, q._description, False)


def test_codes_of_too_many_bits_are_refused(kernels) -> None:
    with pytest.raises(shim.ShimError, match="a size, stride or type"):
        kernels.pack_bits(torch.zeros(3, dtype=torch.int32), 64)
    with pytest.raises(shim.ShimError, match="a size, stride or type"):
        kernels.unpack_bits(torch.zeros(4, dtype=torch.uint8), 32, 1, torch.int32)

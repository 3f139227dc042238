# SPDX-License-Identifier: Apache-2.0
"""The kernels inside graphs: torch.compile, torch.export, opcheck, autocast, copies."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor

from affectcodec.nn import BDRFSQ
from affectcodec.ops import use_backend
from affectcodec.ops.bd_rfsq.folding import describe, fold
from affectcodec.ops.registry import OPS
from tests.ops.quantizers import (
    CONFIGS,
    latent,
    needs_cpu_kernels,
    needs_triton,
    no_saved_graphs,
    quantizer,
)

pytestmark = needs_cpu_kernels
CONFIG = CONFIGS["odd"]


@pytest.fixture(autouse=True)
def _fresh_graphs():
    torch._dynamo.reset()
    with no_saved_graphs(), use_backend("cpu"):
        yield
    torch._dynamo.reset()


def no_recompiles():
    return torch._dynamo.config.patch(error_on_recompile=True)


LENGTHS = (127, 193, 64, 5)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
def test_compiled_encoding_and_decoding(channels_last: bool) -> None:
    q = quantizer(CONFIG).eval()

    @torch.compile(fullgraph=True, dynamic=True)
    def there_and_back(z: Tensor) -> tuple[Tensor, Tensor]:
        tokens = q.encode(z, channels_last=channels_last)
        return tokens, q.decode(tokens, 2, channels_last=channels_last)

    there_and_back(latent(CONFIG, 2, 31, channels_last))
    with no_recompiles():
        for frames in LENGTHS:
            z = latent(CONFIG, 2, frames, channels_last)
            tokens, u = there_and_back(z)
            assert torch.equal(tokens, q.encode(z, channels_last=channels_last))
            assert torch.equal(u, q.decode(tokens, 2, channels_last=channels_last))


@pytest.mark.timeout(300)
def test_a_compiled_graph_sees_changed_weights() -> None:
    q = quantizer(CONFIG)
    encode = torch.compile(lambda z: q.encode(z), fullgraph=True)
    z = latent(CONFIG, 1, 40)
    before = encode(z)
    with torch.no_grad():
        q.blocks["a"].W.neg_()
    after = encode(z)
    assert not torch.equal(before, after)
    assert torch.equal(after, q.encode(z))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("compiler", "lengths"), [("inductor", (127, 193, 64)), ("aot_eager", LENGTHS)]
)
def test_compiled_training(compiler: str, lengths: tuple[int, ...]) -> None:
    """Inductor makes its own sums anew for few elements, so it is given no short latent."""
    q = quantizer(CONFIG)

    def loss(z: Tensor, stages: Tensor) -> Tensor:
        out = q(z, stages, rates=(2,))
        return out.latent.square().mean() + out.rates[2].sin().mean()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=compiler)

    def gradients(f, z: Tensor, stages: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(f(z, stages), [z, *q.parameters()])

    def inputs(frames: int) -> tuple[Tensor, Tensor]:
        return latent(CONFIG, 2, frames).requires_grad_(True), torch.randint(0, 4, (2, 3))

    gradients(compiled, *inputs(31))
    with no_recompiles():
        for frames in lengths:
            z, stages = inputs(frames)
            for a, b in zip(
                gradients(compiled, z, stages), gradients(loss, z, stages), strict=True
            ):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class Encoder(torch.nn.Module):
    def __init__(self, q: BDRFSQ) -> None:
        super().__init__()
        self.q = q

    def forward(self, z: Tensor) -> Tensor:
        return self.q.encode(z)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_export_with_any_length(backend: str) -> None:
    q = quantizer(CONFIG)
    length = torch.export.Dim("T", min=2)
    with use_backend(backend):
        program = torch.export.export(
            Encoder(q), (latent(CONFIG, 2, 50),), dynamic_shapes={"z": {2: length}}
        )
        for frames in (5, 77):
            z = latent(CONFIG, 2, frames)
            assert torch.equal(program.module()(z), q.encode(z))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("affectcodec" in name for name in names) == (backend == "cpu")


def arguments(name: str, z: Tensor, channels_last: bool) -> tuple:
    q = quantizer(CONFIG)
    config = describe(CONFIG)
    params = [p.detach() for p in q.parameters()]
    weights = fold(params, config, "cpu")
    batch, frames = z.shape[0], z.shape[1 if channels_last else 2]
    tokens = OPS["encode"].kernel("cpu")(z, weights, config, channels_last)
    counts = torch.randint(0, 4, (batch, 3))
    if name == "fold":
        return (params, config)
    if name == "encode":
        return (z, weights, config, channels_last)
    if name == "encode_out":
        return (z, weights, config, channels_last, torch.empty_like(tokens))
    if name == "forward":
        return (z, weights, config, counts, [1, 2], channels_last)
    if name == "forward_out":
        latents = [torch.empty(z.shape, dtype=z.dtype) for _ in range(3)]
        rest = (counts, [1, 2], channels_last, latents, torch.empty_like(tokens))
        return (z, weights, config, *rest)
    if name == "decode":
        return (tokens, weights, config, counts, channels_last, torch.float32)
    if name == "decode_out":
        out = torch.empty(z.shape, dtype=torch.float32)
        return (tokens, weights, config, None, channels_last, out)
    if name == "backward":
        latents, _, saved = OPS["forward"].kernel("cpu")(
            z, weights, config, counts, [1], channels_last
        )
        grads = [torch.randn_like(u) for u in latents]
        fixed = (z, saved, weights, params, config, counts, [1], channels_last, True)
        return (grads, [0, 1], *fixed)
    if name == "pack_bits":
        return (torch.randint(0, 8, (50 + frames,)), 3)
    assert name == "unpack_bits"
    packed = torch.randint(0, 256, (15,), dtype=torch.uint8)
    return (packed, 3, 40, torch.int32)


VIEWS = {
    "plain": lambda: latent(CONFIG, 2, 70),
    "permuted": lambda: latent(CONFIG, 2, 70, True).mT,
    "sliced": lambda: torch.randn(4, 2 * CONFIG.width, 80)[::2, ::2, 3:73],
    "expanded": lambda: latent(CONFIG, 1, 70).expand(2, -1, -1),
    "empty": lambda: latent(CONFIG, 2, 0),
    "half": lambda: latent(CONFIG, 2, 70).half(),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("name", list(OPS))
def test_opcheck(name: str, view: str) -> None:
    z = VIEWS[view]()
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    for channels_last in (False, True):
        x = z.mT if channels_last else z
        torch.library.opcheck(
            OPS[name].kernel("cpu"), arguments(name, x, channels_last), test_utils=tests
        )


@pytest.mark.parametrize("backend", ["cpu", pytest.param("triton", marks=needs_triton)])
@pytest.mark.parametrize("name", [*CONFIGS])
def test_the_fake_knows_the_size_of_folded_weights(name: str, backend: str) -> None:
    q = quantizer(CONFIGS[name])
    config = describe(q.config)
    real = fold([p.detach() for p in q.parameters()], config, backend)
    fake = fold([p.detach().to("meta") for p in q.parameters()], config, backend)
    assert real.shape == fake.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_quantizer_alone(dtype: torch.dtype) -> None:
    q = quantizer(CONFIG)
    z = latent(CONFIG, 2, 70).requires_grad_(True)
    want = q(z)
    (wanted,) = torch.autograd.grad(want.latent.sum(), z)
    with torch.autocast("cpu", dtype=dtype):
        got = q(z)
        (found,) = torch.autograd.grad(got.latent.sum(), z)
        assert torch.equal(q.encode(z), want.tokens)
        assert torch.equal(q.decode(want.tokens), q.decode(want.tokens.clone()))
    assert got.latent.dtype == torch.float32
    assert torch.equal(got.latent, want.latent)
    assert torch.equal(found, wanted)


def test_copies_of_a_used_module() -> None:
    q = quantizer(CONFIG).eval()
    z = latent(CONFIG, 1, 40)
    want = q.encode(z)
    file = io.BytesIO()
    torch.save(q, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(q), copy.copy(q), pickle.loads(pickle.dumps(q)), loaded):
        assert torch.equal(other.encode(z), want)
    twin = copy.deepcopy(q)
    with torch.no_grad():
        twin.blocks["a"].W.neg_()
    assert not torch.equal(twin.encode(z), want)
    assert torch.equal(q.encode(z), want)


def test_second_derivatives_are_refused() -> None:
    q = quantizer(CONFIG)
    z = latent(CONFIG, 1, 4).requires_grad_(True)
    (grad,) = torch.autograd.grad(q(z).latent.square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()

# SPDX-License-Identifier: Apache-2.0
"""Other residual quantizers at the same bits a frame: those of vector-quantize-pytorch.

They are other quantizers, so equal bits is all that can be asked of them; nothing here says which
codes are worth more. Each runs in the layout it is made for, ``[B, T, D]`` in one piece, evaluation
mode where the operator is inference.

- ``GroupedResidualFSQ``: groups are of equal width and equal levels, so 15 bits a stage cannot be
  met by two groups; 2 groups of 512 channels with 5 stages of levels ``(4,) * 6`` are the same 120
  bits a frame, and fewer stages take it less time. It projects once, not at every stage.
- ``ResidualVQ``: 8 stages of 2**15 = 32,768 codes are the same 15 bits a stage; 12 stages of 1,024
  codes are the same 120 bits a frame and much cheaper, which is how residual VQ is run in practice.
  Codes have the width of the latent. It runs one clip of the batch: its time a frame depends little
  on the number of frames, and the table of distances stays small.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from benchmarks.contest import Contender
from benchmarks.pairing import Call
from benchmarks.workload import Workload

LABELS = {
    "grouped-fsq": "GroupedResidualFSQ, 2 x 5 stages of 4,096 codes",
    "rvq-1024": "ResidualVQ, 12 stages of 1,024 codes",
    "rvq-32768": "ResidualVQ, 8 stages of 32,768 codes",
}
MODEL_ARGUMENTS: dict[str, dict[str, Any]] = {
    "grouped-fsq": {"groups": 2, "levels": [4] * 6, "num_quantizers": 5},
    "rvq-1024": {"num_quantizers": 12, "codebook_size": 1024},
    "rvq-32768": {"num_quantizers": 8, "codebook_size": 32768},
}


def why_missing() -> str:
    """Why these contenders cannot take part; empty if they can."""
    try:
        import vector_quantize_pytorch  # noqa: F401
    except ImportError as error:
        return f"vector-quantize-pytorch is not there ({error}); install affectcodec[bench]"
    return ""


@functools.lru_cache(maxsize=1)
def model(name: str, width: int, smoke: bool) -> torch.nn.Module:
    """The quantizer of one peer; the one before is let go, since they are large."""
    import vector_quantize_pytorch as library

    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(3)
        with torch.inference_mode(False):
            arguments = dict(MODEL_ARGUMENTS[name])
            if name == "grouped-fsq":
                return library.GroupedResidualFSQ(dim=width, **arguments)
            if smoke:
                arguments["codebook_size"] = 64
            # Codebooks as parameters: the moving averages of the default double the memory.
            return library.ResidualVQ(
                dim=width, learnable_codebook=True, ema_update=False, **arguments
            )
    finally:
        torch.random.set_rng_state(state)


def _check_consistent(q: Any, size: int, quantized: Tensor, indices: Tensor) -> dict[str, Any]:
    """Indices lie in the codebook and decode to what was quantized."""
    assert bool(((indices >= 0) & (indices < size)).all()), "indices outside of the codebook"
    with torch.no_grad():
        again = q.get_output_from_indices(indices)
    off = float((again - quantized).norm() / quantized.norm())
    assert off < 1e-4, f"indices decode to another latent, off by {off:.2g} of its norm"
    return {}


def contender(op: str, name: str, work: Workload) -> Contender:
    """A peer; ``forward+backward`` is there for ``grouped-fsq`` alone.

    Residual VQ trains its codebooks by moving averages or by another loss, which is no work that
    could be set beside ours.
    """
    if name != "grouped-fsq" and op == "forward+backward":
        raise ValueError(f"op: {name!r} takes no part in {op!r}")
    last = work.first(work.z).transpose(1, 2).contiguous()
    grad = work.first(work.grad).transpose(1, 2).contiguous()
    clips = 1 if name.startswith("rvq") else work.size.batch
    last, grad = last[:clips], grad[:clips]

    def build() -> Call:
        q: Any = model(name, last.shape[2], work.smoke)
        q.train(op == "forward+backward")
        if op == "decode":
            with torch.no_grad():
                indices = q(last)[1]
            return lambda: (q.get_output_from_indices(indices), indices)
        if op != "forward+backward":
            return lambda: q(last)[:2]
        leaf = last.detach().requires_grad_()
        wanted = [leaf, *(p for p in q.parameters() if p.requires_grad)]

        def call() -> tuple[Tensor, Tensor, list[Tensor]]:
            quantized, indices = q(leaf)[:2]
            return quantized, indices, list(torch.autograd.grad(quantized, wanted, grad))

        return call

    def check(result: Any) -> dict[str, Any]:
        q: Any = model(name, last.shape[2], work.smoke)
        quantized, indices, *rest = result
        assert quantized.shape == last.shape
        for gradients in rest:
            assert all(bool(g.isfinite().all()) and bool(g.any()) for g in gradients)
        size = q.codebook_size if name == "grouped-fsq" else q.codebooks.shape[1]
        return {
            **_check_consistent(q, size, quantized.detach(), indices),
            "part": clips < work.size.batch,
        }

    return Contender(name, LABELS[name], {"eager": build}, check, units=clips * work.size.frames)

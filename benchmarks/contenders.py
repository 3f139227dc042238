# SPDX-License-Identifier: Apache-2.0
"""The contenders that compute BD-RFSQ itself: stage by stage, in code space, and the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from affectcodec.nn import BDRFSQ
from affectcodec.ops.registry import BACKENDS, REFERENCE
from benchmarks import memory, peers
from benchmarks.contest import Contender, Group, Settings
from benchmarks.pairing import Call
from benchmarks.stagewise import Stagewise
from benchmarks.workload import Workload

EAGER, OURS = "eager", "kernels"
LABELS = {
    EAGER: "stage by stage, eager PyTorch",
    "compiled": "stage by stage, torch.compile",
    "codespace": "code space, eager PyTorch",
    "codespace-compiled": "code space, torch.compile",
    OURS: "AffectCodec kernels",
    "kernels-1-thread": "AffectCodec kernels, 1 thread",
    **peers.LABELS,
}
INFERENCE = {"encode": True, "forward": True, "forward+backward": False, "decode": True}
# How torch.compile is asked; the fastest counts.
MODES: dict[str, dict[str, Any]] = {
    "default": {"dynamic": False},
    "dynamic": {"dynamic": True},
    "max-autotune-no-cudagraphs": {"dynamic": False, "mode": "max-autotune-no-cudagraphs"},
}


def why_missing(name: str, settings: Settings) -> str:
    """Why a contender cannot take part; empty if it can."""
    if name.endswith("compiled") and not settings.compiled:
        return "no torch.compile in this run (--no-compile or --smoke)"
    if name.startswith(OURS):
        return BACKENDS["cpu"].why_missing()
    if name in peers.LABELS:
        return peers.why_missing()
    return ""


def _check(op: str, work: Workload) -> Callable[[Any], dict[str, Any]]:
    checks: dict[str, Callable[[Any], dict[str, Any]]] = {
        "encode": work.check_tokens,
        "forward": work.check_forward,
        "forward+backward": work.check_gradients,
        "decode": work.check_decode,
    }
    return checks[op]


def _with_gradients(
    work: Workload, q: BDRFSQ, quantize: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Call:
    """Forward, and gradients of z and of every parameter."""
    leaf = work.z.detach().requires_grad_()
    wanted = [leaf, *q.parameters()]

    def call() -> tuple[Tensor, Tensor, list[Tensor]]:
        latent, tokens = quantize(leaf)
        return latent, tokens, list(torch.autograd.grad(latent, wanted, work.grad))

    return call


def module_call(op: str, work: Workload, q: BDRFSQ) -> Call:
    """One call of the public module."""
    z, last = work.z, work.size.channels_last
    if op == "encode":
        return lambda: q.encode(z, channels_last=last)
    if op == "decode":
        tokens = work.truth[1]
        return lambda: q.decode(tokens, channels_last=last)

    def quantize(z: Tensor) -> tuple[Tensor, Tensor]:
        out = q(z, channels_last=last)
        return out.latent, out.tokens

    if op == "forward":
        return lambda: quantize(z)
    return _with_gradients(work, q, quantize)


def function_call(op: str, work: Workload, compile_options: dict[str, Any] | None) -> Call:
    """One call of the plain functions, under ``torch.compile`` where options are given."""
    q = work.quantizer(backend=REFERENCE)
    plain = Stagewise(q, work.size.channels_last)
    function: Callable[..., Any] = {
        "encode": plain.encode,
        "encode in code space": plain.encode_codespace,
        "decode": plain.decode,
    }.get(op, plain)
    if compile_options is not None:
        function = torch.compile(function, fullgraph=True, **compile_options)
    if op == "forward+backward":
        return _with_gradients(work, q, function)
    given = work.truth[1] if op == "decode" else work.z
    return lambda: function(given)


def _compiled(op: str, work: Workload, modes: tuple[str, ...]) -> dict[str, Callable[[], Call]]:
    def builder(options: dict[str, Any]) -> Callable[[], Call]:
        return lambda: function_call(op, work, options)

    return {name: builder(MODES[name]) for name in modes}


def compile_plan(
    op: str, name: str, work: Workload, settings: Settings
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Modes and thread counts that a compiled contender tries.

    A compilation takes half a minute, so a run tries what can win: all modes and thread counts of
    a batch encoded stage by stage, one thread for a single frame, all cores for the other batches.
    """
    counts = settings.threads
    if settings.thorough or (op == "encode" and name == "compiled" and work.size.batch > 1):
        return tuple(MODES), counts
    if work.size.batch > 1:
        return ("default",), (max(counts),)
    return ("default",), (1,) if work.size.total == 1 else counts


def contender(op: str, name: str, work: Workload, settings: Settings) -> Contender:
    """One contender of one operator.

    Args:
        op: ``"encode"``, ``"forward"``, ``"forward+backward"`` or ``"decode"``.
        name: one of ``LABELS``.
    """
    if name in peers.LABELS:
        return peers.contender(op, name, work)
    threads: tuple[int, ...] | None = None
    variants: dict[str, Callable[[], Call]]
    if name.endswith("compiled"):
        modes, threads = compile_plan(op, name, work, settings)
        if name == "codespace-compiled":
            if op != "encode":
                raise ValueError(f"op: {name!r} is there for 'encode' only, got {op!r}")
            variants = _compiled("encode in code space", work, modes)
        else:
            variants = _compiled(op, work, modes)
    elif name == EAGER and op == "decode":  # the module decodes in code space in both forms
        variants = {"eager": lambda: function_call(op, work, None)}
    else:
        arguments = {
            EAGER: {"form": "naive"},
            "codespace": {"backend": REFERENCE},
            OURS: {"backend": "cpu"},
            "kernels-1-thread": {"backend": "cpu"},
        }[name]
        threads = (1,) if name == "kernels-1-thread" else None
        variants = {
            "kernels" if name.startswith(OURS) else "eager": lambda: module_call(
                op, work, work.quantizer(**arguments)
            )
        }
    extra = None
    weighed = (OURS,) if work.smoke else (EAGER, "codespace", OURS)  # a process each
    if op == "forward+backward" and name in weighed:
        extra = memory.measurement(name, work.size, work.smoke)
    return Contender(name, LABELS[name], variants, _check(op, work), threads=threads, extra=extra)


def group(op: str, work: Workload, settings: Settings) -> Group:
    """All contenders of one operator and size, paired with the eager stage-by-stage form."""
    reference = contender(op, EAGER, work, settings)
    return Group(op, work.size.name, work.work(op), reference, inference=INFERENCE[op])

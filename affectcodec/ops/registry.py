# SPDX-License-Identifier: Apache-2.0
"""The operators, one row an operator, and the choice of who computes them.

Each row has a schema, a fake (shapes and types without data, for ``torch.compile`` and
``torch.export``) and a reference in plain PyTorch. Each kernel backend registers it
under a name of its own, ``affectcodec::encode_cpu``, ``affectcodec::encode_triton`` and so on, with
one schema and one fake, so a graph says which kernels it was made for.

A quantizer is described to an operator by integers, ``config``: ``[bound (0 tanh, 1 clamp), K, G]``
and for each of the ``G`` blocks ``[width, d, level 1 .. level d]``. Its parameters reach the
kernels as ``weights``, one float32 tensor that ``fold`` of the same backend makes; what lies where
in it is the backend's own affair.

To add a backend: a row in ``BACKENDS`` and a module that registers ``<operator>_<backend>``.
To add an operator: a row in ``OPS`` and an implementation in a backend.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from affectcodec import _native
from affectcodec.ops import fsq

NAMESPACE = "affectcodec"
VARIABLE = "AFFECTCODEC_BACKEND"
UNIT = 64  # frames; the forward's saved values are padded to whole units

# -- descriptions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What a fake needs of ``config``."""

    num_stages: int
    blocks: tuple[tuple[int, tuple[int, ...]], ...]  # width and levels

    @classmethod
    def of(cls, config: Sequence[int]) -> Shape:
        blocks, at = [], 3
        for _ in range(config[2]):
            width, dims = config[at], config[at + 1]
            blocks.append((width, tuple(config[at + 2 : at + 2 + dims])))
            at += 2 + dims
        return cls(config[1], tuple(blocks))

    @property
    def width(self) -> int:
        return sum(width for width, _ in self.blocks)

    @property
    def code_dim(self) -> int:
        return sum(len(levels) for _, levels in self.blocks)

    @property
    def token_dtype(self) -> torch.dtype:
        size = 1
        for _, levels in self.blocks:
            for level in levels:
                size *= level
        return fsq.token_dtype(size)


def _layout(tensor: Tensor, channels_last: bool) -> tuple[Any, Any]:
    """Batch and frames of a latent."""
    return tensor.shape[0], tensor.shape[1 if channels_last else 2]


def _latent(like: Tensor, batch: Any, frames: Any, width: int, channels_last: bool) -> Tensor:
    shape = (batch, frames, width) if channels_last else (batch, width, frames)
    return like.new_empty(shape)


# -- fakes --------------------------------------------------------------------------------------


def _no_fold(params: list[Tensor], config: list[int]) -> Tensor:
    raise NotImplementedError("the size of folded weights is the backend's affair; see _define")


def folded_size(config: Sequence[int]) -> int:
    """Floats of weights folded by compiled C++; their layout stands in ``csrc/core/plan.h``."""

    def padded(count: int) -> int:
        return -(-count // 16) * 16

    shape, total = Shape.of(config), 0
    stages = shape.num_stages
    for width, levels in shape.blocks:
        rows, most = stages * len(levels), max(levels)
        ld_rows, ld_width = padded(rows), padded(width)
        total += 2 * padded(rows * ld_width) + 2 * padded(width * ld_rows)
        total += 2 * padded(rows * ld_rows) + padded((stages + 1) * ld_rows)
        total += 3 * padded(rows * most) + padded(ld_rows) + padded((stages + 1) * ld_width)
    return total


def _triton_folded_size(config: Sequence[int]) -> int:
    from affectcodec.kernels.plan import make_plan  # needs no triton

    return make_plan(config).floats


def _cuda_folded_size(config: Sequence[int]) -> int:
    """As :func:`folded_size`, and behind it both projections split for tensor cores."""
    shape, total = Shape.of(config), folded_size(config)
    for width, levels in shape.blocks:
        tiles, steps = -(-width // 16), -(-shape.num_stages * len(levels) // 16)
        total += 2 * tiles * steps * 256
    return total


def _encode(z: Tensor, weights: Tensor, config: list[int], channels_last: bool) -> Tensor:
    shape = Shape.of(config)
    batch, frames = _layout(z, channels_last)
    return z.new_empty((batch, shape.num_stages, frames), dtype=shape.token_dtype)


def new_outputs(
    z: Tensor, config: Sequence[int], count: int, channels_last: bool
) -> tuple[list[Tensor], Tensor]:
    """Room for ``count`` latents like ``z``, and for the tokens ``[B, K, T]``."""
    shape = Shape.of(config)
    batch, frames = _layout(z, channels_last)
    latents = [_latent(z, batch, frames, shape.width, channels_last) for _ in range(count)]
    return latents, z.new_empty((batch, shape.num_stages, frames), dtype=shape.token_dtype)


def _forward(
    z: Tensor,
    weights: Tensor,
    config: list[int],
    counts: Tensor | None,
    rates: list[int],
    channels_last: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:
    shape = Shape.of(config)
    batch, frames = _layout(z, channels_last)
    latents, tokens = new_outputs(z, config, len(rates) + 1, channels_last)
    # One dimension: a graph would be made again for a first dimension of one unit.
    units = (batch * frames + UNIT - 1) // UNIT
    saved = z.new_empty((units * shape.num_stages * shape.code_dim * UNIT,), dtype=torch.float32)
    return latents, tokens, saved


def _backward(
    grads: list[Tensor],
    present: list[int],
    z: Tensor,
    saved: Tensor,
    weights: Tensor,
    params: list[Tensor],
    config: list[int],
    counts: Tensor | None,
    rates: list[int],
    channels_last: bool,
    need_dz: bool,
) -> tuple[Tensor, list[Tensor]]:
    batch, frames = _layout(z, channels_last)
    width = Shape.of(config).width
    dz = _latent(z, batch, frames, width, channels_last) if need_dz else z.new_empty((0,))
    return dz, [p.new_empty(p.shape) for p in params]


def _decode(
    tokens: Tensor,
    weights: Tensor,
    config: list[int],
    counts: Tensor | None,
    channels_last: bool,
    dtype: torch.dtype,
) -> Tensor:
    like = weights.new_empty((0,), dtype=dtype)
    width = Shape.of(config).width
    return _latent(like, tokens.shape[0], tokens.shape[2], width, channels_last)


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _pack_bits(codes: Tensor, bits: int) -> Tensor:
    return codes.new_empty(((codes.shape[0] * bits + 7) // 8,), dtype=torch.uint8)


def _unpack_bits(data: Tensor, bits: int, count: int, dtype: torch.dtype) -> Tensor:
    return data.new_empty((count,), dtype=dtype)


# -- rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Op:
    """One operator.

    Attributes:
        schema: arguments and results, as ``torch.library`` takes them.
        fake: results without data.
    """

    name: str
    schema: str
    fake: Callable[..., Any]

    def kernel(self, backend: str) -> Any:
        """The registered operator of one backend."""
        return getattr(torch.ops.affectcodec, f"{self.name}_{backend}").default


_WEIGHTS = "Tensor weights, int[] config"
OPS: dict[str, Op] = {
    op.name: op
    for op in (
        Op("fold", "(Tensor[] params, int[] config) -> Tensor", _no_fold),
        Op("encode", f"(Tensor z, {_WEIGHTS}, bool channels_last) -> Tensor", _encode),
        Op(
            "encode_out",
            f"(Tensor z, {_WEIGHTS}, bool channels_last, Tensor(a!) out) -> ()",
            _nothing,
        ),
        Op(
            "forward",
            f"(Tensor z, {_WEIGHTS}, Tensor? counts, int[] rates, bool channels_last)"
            " -> (Tensor[], Tensor, Tensor)",
            _forward,
        ),
        Op(
            "forward_out",
            f"(Tensor z, {_WEIGHTS}, Tensor? counts, int[] rates, bool channels_last, "
            "Tensor(a!)[] out, Tensor(b!) tokens) -> ()",
            _nothing,
        ),
        Op(
            "backward",
            "(Tensor[] grads, int[] present, Tensor z, Tensor saved, Tensor weights, "
            "Tensor[] params, int[] config, Tensor? counts, int[] rates, bool channels_last, "
            "bool need_dz) -> (Tensor, Tensor[])",
            _backward,
        ),
        Op(
            "decode",
            f"(Tensor tokens, {_WEIGHTS}, Tensor? counts, bool channels_last, ScalarType dtype)"
            " -> Tensor",
            _decode,
        ),
        Op(
            "decode_out",
            f"(Tensor tokens, {_WEIGHTS}, Tensor? counts, bool channels_last, Tensor(a!) out)"
            " -> ()",
            _nothing,
        ),
        Op("pack_bits", "(Tensor codes, int bits) -> Tensor", _pack_bits),
        Op(
            "unpack_bits",
            "(Tensor data, int bits, int count, ScalarType dtype) -> Tensor",
            _unpack_bits,
        ),
    )
}


@dataclass(frozen=True)
class Backend:
    """One provider of kernels.

    Attributes:
        device: device type it computes on.
        module: importing it registers the kernels. Where it can do more than ``device``, as Triton
            under its interpreter can, it says so in a tuple ``DEVICES``.
        dtypes: types of ``z`` that it takes.
        folded_size: floats of its folded weights, for a description of a quantizer.
        elsewhere: what to do to have it on another device; empty where nothing helps.
    """

    name: str
    device: str
    module: str
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16)
    folded_size: Callable[[Sequence[int]], int] = folded_size
    elsewhere: str = ""

    def why_missing(self) -> str:
        """Empty where the kernels are there, otherwise the reason."""
        return _native.load(self.module).reason

    def devices(self) -> tuple[str, ...]:
        """Device types that it computes on in this process."""
        found: tuple[str, ...] = getattr(
            _native.load(self.module).module, "DEVICES", (self.device,)
        )
        return found


# Of several backends of a device the first one that is there is its default.
BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("cpu", "cpu", "affectcodec._cpu"),
        Backend(
            "triton",
            "cuda",
            "affectcodec.kernels.bd_rfsq",
            folded_size=_triton_folded_size,
            elsewhere="start the process with TRITON_INTERPRET=1 to interpret it on cpu tensors",
        ),
        Backend("cuda", "cuda", "affectcodec._cuda", folded_size=_cuda_folded_size),
    )
}
REFERENCE = "reference"
NAMES = (REFERENCE, *BACKENDS)

_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")


def _fake_fold(size: Callable[[Sequence[int]], int]) -> Callable[..., Tensor]:
    def fold(params: list[Tensor], config: list[int]) -> Tensor:
        return params[0].new_empty((size(config),))

    return fold


def _define() -> None:
    for op in OPS.values():
        for row in BACKENDS.values():
            name = f"{op.name}_{row.name}"
            fake = _fake_fold(row.folded_size) if op.name == "fold" else op.fake
            _LIBRARY.define(name + op.schema, tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)


_define()

# -- choice -------------------------------------------------------------------------------------


def _checked(name: str, source: str) -> str:
    if name not in NAMES:
        raise ValueError(f"{source}: unknown backend {name!r}; known ones are {list(NAMES)}")
    return name


def _from_environment() -> str | None:
    name = os.environ.get(VARIABLE, "")
    return _checked(name, VARIABLE) if name else None


# Read once, like every setting that a process is started with.
_ENVIRONMENT = _from_environment()
_CONTEXT: ContextVar[str | None] = ContextVar("affectcodec_backend", default=None)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Ask for one backend inside a ``with`` block, in this thread or task alone.

    A graph made by ``torch.compile`` or ``torch.export`` keeps the backend of the moment it was
    traced, so compile inside of the block.

    Args:
        name: ``"reference"``, ``"cpu"``, ``"triton"`` or ``"cuda"``. A backend that cannot serve a
            call makes that call fail; nothing falls back silently.

    Raises:
        ValueError: on an unknown name.
        RuntimeError: if the backend is not there; the message says why.
    """
    _checked(name, "use_backend")
    if name != REFERENCE:
        reason = BACKENDS[name].why_missing()
        if reason:
            raise RuntimeError(f"backend {name!r} is not there: {reason}")
    token = _CONTEXT.set(name)
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def asked_backend() -> str | None:
    """The backend that ``use_backend`` or the environment asks for."""
    return _CONTEXT.get() or _ENVIRONMENT


# Loaded with the package and not at the first call: a saved graph may be run before any.
BACKENDS["cpu"].why_missing()


# A traced graph keeps the choice of the moment it was traced: context variables cannot be guarded.
@torch.compiler.assume_constant_result
def choose(
    op: str, device: str, dtype: torch.dtype | None = None, backend: str | None = None
) -> str:
    """Name of the backend that computes one call.

    Args:
        op: name of the operator, for messages.
        device: device type of its input.
        dtype: type of its input, None where the operator takes any.
        backend: explicit request; without one that of ``use_backend`` or of the environment
            variable ``AFFECTCODEC_BACKEND`` counts, then the default of the device, then
            ``"reference"``.

    Raises:
        ValueError: if a backend was asked for by an unknown name.
        RuntimeError: if the backend asked for cannot serve the call; the message says why.
    """
    name, reason = _chosen(backend or _CONTEXT.get() or _ENVIRONMENT, device, dtype)
    if reason:
        raise RuntimeError(f"{op}: backend {name!r} was asked for and cannot serve: {reason}")
    return name


@functools.cache
def _chosen(asked: str | None, device: str, dtype: torch.dtype | None) -> tuple[str, str]:
    """Name of a backend, and why it cannot serve. What is there does not change in a process."""
    if asked is None:
        for row in BACKENDS.values():
            taken = row.device == device and (dtype is None or dtype in row.dtypes)
            if taken and not row.why_missing():
                return row.name, ""
        return REFERENCE, ""
    if asked == REFERENCE:
        return REFERENCE, ""
    row = BACKENDS[_checked(asked, "backend")]
    reason = row.why_missing()
    if not reason and device != row.device and device not in row.devices():
        reason = f"it computes on {row.device} tensors, got a tensor on {device}"
        reason += row.elsewhere and f"; {row.elsewhere}"
    if not reason and dtype is not None and dtype not in row.dtypes:
        names = ", ".join(str(t).removeprefix("torch.") for t in row.dtypes)
        reason = f"it takes {names}, got {str(dtype).removeprefix('torch.')}"
    return asked, reason

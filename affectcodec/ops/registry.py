# SPDX-License-Identifier: Apache-2.0
"""The operators, one row an operator, and the choice of who computes them.

Each row has a schema, a fake (``fakes.py``) and a reference in plain PyTorch. Each kernel backend
registers it under a name of its own, ``affectcodec::encode_cpu``, ``affectcodec::encode_triton``
and so on, with one schema and one fake, so a graph says which kernels it was made for.

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
from affectcodec.ops import fakes

NAMESPACE = "affectcodec"
VARIABLE = "AFFECTCODEC_BACKEND"

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
        Op("fold", "(Tensor[] params, int[] config) -> Tensor", fakes.no_fold),
        Op("encode", f"(Tensor z, {_WEIGHTS}, bool channels_last) -> Tensor", fakes.encode),
        Op(
            "encode_out",
            f"(Tensor z, {_WEIGHTS}, bool channels_last, Tensor(a!) out) -> ()",
            fakes.nothing,
        ),
        Op(
            "forward",
            f"(Tensor z, {_WEIGHTS}, Tensor? counts, int[] rates, bool channels_last)"
            " -> (Tensor[], Tensor, Tensor)",
            fakes.forward,
        ),
        Op(
            "forward_out",
            f"(Tensor z, {_WEIGHTS}, Tensor? counts, int[] rates, bool channels_last, "
            "Tensor(a!)[] out, Tensor(b!) tokens) -> ()",
            fakes.nothing,
        ),
        Op(
            "backward",
            "(Tensor[] grads, int[] present, Tensor z, Tensor saved, Tensor weights, "
            "Tensor[] params, int[] config, Tensor? counts, int[] rates, bool channels_last, "
            "bool need_dz) -> (Tensor, Tensor[])",
            fakes.backward,
        ),
        Op(
            "decode",
            f"(Tensor tokens, {_WEIGHTS}, Tensor? counts, bool channels_last, ScalarType dtype)"
            " -> Tensor",
            fakes.decode,
        ),
        Op(
            "decode_out",
            f"(Tensor tokens, {_WEIGHTS}, Tensor? counts, bool channels_last, Tensor(a!) out)"
            " -> ()",
            fakes.nothing,
        ),
        Op("pack_bits", "(Tensor codes, int bits) -> Tensor", fakes.pack_bits),
        Op(
            "unpack_bits",
            "(Tensor data, int bits, int count, ScalarType dtype) -> Tensor",
            fakes.unpack_bits,
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
    folded_size: Callable[[Sequence[int]], int] = fakes.folded_size
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
            folded_size=fakes.triton_folded_size,
            elsewhere="start the process with TRITON_INTERPRET=1 to interpret it on cpu tensors",
        ),
        Backend("cuda", "cuda", "affectcodec._cuda", folded_size=fakes.cuda_folded_size),
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

# SPDX-License-Identifier: Apache-2.0
"""Whether a backend is right on a device: tokens, latents, gradients, damage, packed bits.

The judge is the stage-by-stage form in float64 on the CPU; tokens are compared with the CPU
backend, by ``flips``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from affectcodec import bitpacking
from affectcodec.config import BDRFSQConfig
from affectcodec.gpu_check.baselines import RATES
from affectcodec.gpu_check.device import Device
from affectcodec.gpu_check.flips import Flips, compare_tokens
from affectcodec.gpu_check.problems import CONFIGS, Shape, checked_shapes, latent, quantizer
from affectcodec.nn import BDRFSQ
from affectcodec.ops import use_backend
from affectcodec.ops.bd_rfsq.folding import digits_of, fold_block
from affectcodec.ops.registry import BACKENDS, OPS, REFERENCE

# Largest error in parts of the largest value: a few roundings of float32, one of the others. The
# bfloat16 of an interpreter is cut off and not rounded, twice the error.
LATENT_TOLERANCE = {torch.float32: 4e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
GRADIENT_TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        facts: numbers for the report.
    """

    name: str
    what: str
    passed: bool
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "what": self.what, "passed": self.passed,
                "detail": self.detail, **self.facts}  # fmt: skip


def _specification(q: BDRFSQ) -> BDRFSQ:
    naive = BDRFSQ(q.config, form="naive")
    naive.load_state_dict(copy.deepcopy(q.state_dict()))
    return naive.double()


def _error(got: Tensor, want: Tensor) -> float:
    """Largest difference in parts of the largest wanted value."""
    if want.numel() == 0:
        return 0.0
    got, want = got.detach().cpu().double(), want.detach().cpu().double()
    return float((got - want).abs().max() / want.abs().max().clamp_min(0.1))


def _judged(name: str, what: str, errors: dict[str, float], tolerance: float) -> Check:
    worst = max(errors, key=lambda key: errors[key])
    passed = all(error <= tolerance for error in errors.values())  # a NaN does not pass
    detail = f"{worst}: error {errors[worst]:.2g} of {tolerance:.2g} allowed"
    return Check(name, what, passed, detail, {"errors": errors, "tolerance": tolerance})


class Subject:
    """One backend on one device with one quantizer; its CPU twins judge it."""

    def __init__(self, device: Device, backend: str, config: BDRFSQConfig) -> None:
        self.device, self.backend, self.config = device, backend, config
        self.q = quantizer(config, device.torch)
        self.twin = quantizer(config, torch.device("cpu"))
        self.naive = _specification(self.twin)
        self.rates = tuple(rate for rate in RATES if rate < config.num_stages)

    def tokens_of(self, z: Tensor, channels_last: bool) -> Tensor:
        with use_backend(self.backend), torch.no_grad():
            return self.q.encode(z, channels_last=channels_last)

    def judge_tokens(self, z: Tensor, channels_last: bool) -> Tensor:
        judge = REFERENCE if BACKENDS["cpu"].why_missing() else "cpu"
        with use_backend(judge), torch.no_grad():
            return self.twin.encode(z.cpu(), channels_last=channels_last)

    # -- checks -------------------------------------------------------------------------------

    def tokens(self, shape: Shape) -> Check:
        z = latent(self.config, shape, self.device.torch)
        tokens = self.tokens_of(z, shape.channels_last)
        plain = z.mT if shape.channels_last else z
        others = self.judge_tokens(z, shape.channels_last)
        flips: Flips = compare_tokens(self.twin, plain.cpu(), tokens, others)
        detail = f"{flips.flipped} of {flips.digits} digits flipped, {flips.outside} unexplained"
        return Check("tokens", shape.label, flips.outside == 0, detail, flips.as_dict())

    def latents(self, shape: Shape) -> Check:
        """Every rate against the sum in float64 of the digits that the backend itself chose."""
        z, last = latent(self.config, shape, self.device.torch), shape.channels_last
        with use_backend(self.backend), torch.no_grad():
            out = self.q(z, rates=self.rates, channels_last=last)
            decoded = self.q.decode(out.tokens, channels_last=last)
        tokens = out.tokens.cpu()
        errors = {}
        for rate in (*self.rates, self.config.num_stages):
            want = self.naive.decode(tokens[:, :rate], channels_last=last)
            got = out.rates.get(rate, out.latent)
            errors[f"{rate} stages"] = _error(got, want)
        tolerance = LATENT_TOLERANCE[z.dtype]
        decoding = _error(decoded, self.naive.decode(tokens, channels_last=last))
        errors["decode"] = decoding * tolerance / LATENT_TOLERANCE[torch.float32]
        return _judged("latents", shape.label, errors, tolerance)

    def gradients(self, shape: Shape) -> Check:
        """Of the latent and every parameter, stage counts drawn for each sample."""
        last = shape.channels_last
        z = latent(self.config, shape, self.device.torch)
        wanted = self.naive.encode(z.cpu().double(), channels_last=last)
        differs = (self.tokens_of(z, last).cpu() != wanted).any(1)
        frames = (z if last else z.mT).clone()
        agreeing = (~differs).nonzero()
        if len(agreeing):  # frames near a threshold give way to one on which both agree
            frames[differs.to(z.device)] = frames[tuple(agreeing[0])].clone()
        z = frames if last else frames.mT.contiguous()
        generator = torch.Generator().manual_seed(2)
        size = (shape.batch, len(self.config.blocks))
        stages = torch.randint(0, self.config.num_stages + 1, size, generator=generator)
        stages[:1] = self.config.num_stages
        cotangents = [torch.randn(z.shape, generator=generator) for _ in (*self.rates, 0)]
        found = []
        for module, x, backend in (
            (self.q, z.detach().clone(), self.backend),
            (self.naive, z.detach().cpu().double(), REFERENCE),
        ):
            x.requires_grad_(True)
            with use_backend(backend):
                out = module(x, stages.to(x.device), rates=self.rates, channels_last=last)
            outputs = [*(out.rates[rate] for rate in self.rates), out.latent]
            given = [g.to(x.dtype).to(x.device) for g in cotangents]
            inputs = [x, *module.parameters()]
            grads = torch.autograd.grad(
                outputs, inputs, given, allow_unused=True, materialize_grads=True
            )
            found.append((out.tokens.cpu(), grads))
        if not torch.equal(found[0][0], found[1][0]):
            return Check("gradients", shape.label, False, "digits differ after replacing frames")
        names = ["z", *(name for name, _ in self.q.named_parameters())]
        errors = {
            name: _error(got, want)
            for name, got, want in zip(names, found[0][1], found[1][1], strict=True)
        }
        return _judged("gradients", shape.label, errors, GRADIENT_TOLERANCE[z.dtype])

    def exact(self) -> Check:
        """Digits to the bit where the projections are exact in any order of summing."""
        q = copy.deepcopy(self.twin)
        with torch.no_grad():
            for name, p in q.named_parameters():
                if name.endswith((".W", ".O")):
                    p.copy_((p * 16).round() / 16)
        generator = torch.Generator().manual_seed(3)
        z = torch.randint(-8, 9, (1, self.config.width, 100), generator=generator) / 8
        module = copy.deepcopy(q).to(self.device.torch)
        with use_backend(self.backend), torch.no_grad():
            tokens = module.encode(z.to(self.device.torch))[0].t().long().cpu()
        wrong = 0
        for block in self.config.blocks:
            params = q.block_params(block.name)
            folded = fold_block(params, block.levels, self.config.bound)
            frames = z[0, self.config.block_slices()[block.name]].t().double()
            projections = frames @ params.W.detach().reshape(-1, block.width).t().double()
            digits = digits_of(projections.float(), folded, block.code_dim)
            digits = digits.reshape(100, self.config.num_stages, block.code_dim)
            for i, level in enumerate(block.levels):
                wrong += int((tokens % level != digits[..., i]).sum())
                tokens = tokens // level
        return Check("exact projections", "1 x 100", wrong == 0, f"{wrong} digits differ")

    def neighbours(self) -> Check:
        """Tokens of a frame do not depend on what stands beside it, nor on the layout."""
        shape = Shape(3, 150)
        z = latent(self.config, shape, self.device.torch)
        whole = self.tokens_of(z, False)
        same = {"layout": self.tokens_of(z.mT.contiguous(), True)}
        for size in (1, 7, 64):
            parts = [self.tokens_of(part, False) for part in z.split(size, dim=2)]
            same[f"chunks of {size}"] = torch.cat(parts, 2)
        differ = {name: int((t != whole).sum()) for name, t in same.items()}
        detail = ", ".join(f"{name}: {n} tokens differ" for name, n in differ.items())
        alike = not any(differ.values())
        return Check("neighbours", shape.label, alike, detail, {"counts": differ})

    def damage(self) -> Check:
        """A NaN marks its frame, infinity does not, what is no token decodes to NaN."""
        z = latent(self.config, Shape(1, 70), self.device.torch)
        clean = self.tokens_of(z, False)
        z[0, 3, 4], z[0, :, 9], z[0, 0, 11] = float("nan"), float("inf"), float("-inf")
        tokens = self.tokens_of(z, False)
        others = [t for t in range(70) if t not in (4, 9, 11)]
        problems = []
        if not bool((tokens[..., 4] == -1).all()):
            problems.append("a NaN does not mark its frame")
        if bool((tokens[..., [9, 11]] < 0).any()):
            problems.append("infinity marks a frame")
        if not torch.equal(tokens[..., others], clean[..., others]):
            problems.append("other frames noticed")
        with use_backend(self.backend), torch.no_grad():
            try:
                u = self.q.decode(tokens)
            except ValueError:
                pass  # a backend on the host may refuse
            else:
                if not bool(u[..., 4].isnan().all()) or not bool(u[..., others].isfinite().all()):
                    problems.append("decoding does not keep the damage in its frame")
        return Check("damage", "1 x 70", not problems, "; ".join(problems))

    def bits(self) -> Check:
        """Packed codes are those of the file format, and come back."""
        wrong = []
        for bits in (1, 7, 15, 31, 33, 63):
            generator = torch.Generator().manual_seed(bits)
            codes = torch.randint(0, 2 ** min(bits, 62), (1001,), generator=generator)
            codes = codes.int() if bits <= 31 else codes
            there = codes.to(self.device.torch)
            packed = OPS["pack_bits"].kernel(self.backend)(there, bits)
            if packed.cpu().numpy().tobytes() != bitpacking.pack_bits(codes.numpy(), bits):
                wrong.append(f"packing of {bits} bits")
            back = OPS["unpack_bits"].kernel(self.backend)(packed, bits, len(codes), codes.dtype)
            if not torch.equal(back.cpu(), codes):
                wrong.append(f"unpacking of {bits} bits")
        return Check("packed bits", "1001 codes", not wrong, "; ".join(wrong))


def _guarded(name: str, what: str, call: Callable[[], Check]) -> Check:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - the report is to hold whatever goes wrong
        return Check(name, what, False, f"{type(error).__name__}: {error}")


def run_checks(
    device: Device, backend: str, *, quick: bool, ordered: bool
) -> Iterator[dict[str, Any]]:
    """Results of all checks of a backend, one after another.

    Args:
        quick: few and small shapes, for an interpreter.
        ordered: whether products are promised to sum in one order; otherwise nothing is said of it.
    """
    for name, config in CONFIGS.items():
        if quick and name == "wide":
            continue
        subject = Subject(device, backend, config)
        for shape in checked_shapes(quick or name != "default"):
            for check in (subject.tokens, subject.latents, subject.gradients):
                if shape.batch * shape.frames == 0 and check == subject.gradients:
                    continue
                done = _guarded(check.__name__, shape.label, lambda c=check, s=shape: c(s))  # type: ignore[misc]
                yield {"config": name, **done.as_dict()}
        plain = [subject.exact, subject.damage, subject.bits]
        if ordered:
            plain.append(subject.neighbours)
        for single in plain:
            yield {"config": name, **_guarded(single.__name__, "", single).as_dict()}

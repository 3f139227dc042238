# SPDX-License-Identifier: Apache-2.0
"""Leakage probes: what each block's tokens tell about what they are not for, and what they are for.

    spectrum from emotion tokens     ridge regression, frame by frame, to 80 log-mel bands: R2
    emotion from acoustic tokens     logistic regression on clip statistics of the digits: UAR

and both the other way round, so that a figure has its counterpart. Probes learn on the training
speakers and are scored on speakers they never saw.

Prosody is what the emotion block is taught, and prosody says much about a spectrum: level moves all
bands, voicing tilts them. So the log-mel spectrum has two companions: `shape`, less its mean over
bands, and `detail`, less all that energy, voicing and F0 of the original explain of it. `detail` is
phonetic: the figure to look at for leakage. What prosody itself explains stands beside the blocks.

With them come the bits that each digit really uses, and the isolation check of the quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from affectcodec.evaluation.alignment import active_frames
from affectcodec.evaluation.campaign import load_clip
from affectcodec.evaluation.judges import Judge, fit, uar
from affectcodec.evaluation.pitch import f0_track
from affectcodec.evaluation.spectral import mel_power
from affectcodec.manifest import Clip
from affectcodec.nn.diagnostics import isolation_report, usage_report
from affectcodec.ops import fsq
from affectcodec.tokens import Tokens

TARGETS = ("log-mel", "shape", "detail", "f0", "voicing", "energy")
PROSODY = "prosody"
RIDGE = 1e-3
_FLOOR = 1e-8
_PROBE = Judge("probe", "logistic regression", "digits", "lr", (0.001, 0.003, 0.01, 0.03, 0.1))


@dataclass(frozen=True)
class Probed:
    """One clip: what its tokens say and what there was.

    Attributes:
        clip: which.
        digits: block -> values in -1..1, float32 `[frames, stages * dims]`.
        targets: target -> float64 `[frames, width]`; NaN where undefined (F0 of unvoiced frames).
            `detail` depends on other clips, too: see `without_prosody`.
        active: bool `[frames]`, where the original speaks.
    """

    clip: Clip
    digits: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    active: np.ndarray


def digit_values(tokens: Tokens) -> dict[str, np.ndarray]:
    """Digits of one clip by block, scaled to -1..1: float32 `[frames, stages * dims]`.

    Raises:
        ValueError: more than one clip.
    """
    if len(tokens) != 1:
        raise ValueError(f"probes: got tokens of {len(tokens)} clips, wanted one")
    out = {}
    for block in tokens.quantizer.blocks:
        codes = tokens.block_codes(block.name)[0, :, : int(tokens.lengths[0])]
        digits = fsq.unpack_digits(codes, block.levels)
        levels = torch.tensor(block.levels, dtype=torch.float32)[None, :, None]
        values = 2.0 * digits.float() / (levels - 1.0) - 1.0
        out[block.name] = values.flatten(0, 1).T.numpy()
    return out


def frame_targets(wav: np.ndarray, frames: int, hop: int) -> tuple[dict[str, np.ndarray], Any]:
    """Features of the original at each codec frame, and where it speaks.

    A frame's centre is sample `hop * t`. log-mel: natural log of 80 mel powers over 25 ms; energy:
    their sum; f0: log F0 in the middle, NaN where unvoiced; voicing: 0 or 1.
    """
    # the 25 ms windows begin at 160 i: centres fall at 200 + 160 i
    padded = np.pad(np.asarray(wav, np.float64), (200, 400 + hop))
    power = mel_power(padded)[:: hop // 160][:frames]
    log_mel = np.log(np.maximum(power, _FLOOR))
    active = active_frames(padded)[:: hop // 160][:frames]
    track = f0_track(np.asarray(wav, np.float32), "autocorrelation")[:: hop // 80]
    f0 = np.zeros(frames)
    f0[: min(frames, len(track))] = track[:frames]
    with np.errstate(divide="ignore"):
        log_f0 = np.where(f0 > 0, np.log(np.maximum(f0, 1.0)), np.nan)
    targets = {
        "log-mel": log_mel,
        "shape": log_mel - log_mel.mean(axis=1, keepdims=True),
        "f0": log_f0[:, None],
        "voicing": (f0 > 0).astype(np.float64)[:, None],
        "energy": np.log(np.maximum(power.sum(axis=1), _FLOOR))[:, None],
    }
    return targets, active


def stages_at(codec: Any, kbps: float) -> int:
    """Number of stages whose rate is nearest to `kbps`."""
    config = codec.config
    each = sum(config.quantizer.bits(1).values()) * config.sample_rate / config.hop_length / 1000.0
    return min(max(1, round(kbps / each)), config.quantizer.num_stages)


@dataclass(frozen=True)
class Heard:
    """What probes need of a recording, whatever codes it: samples, targets, where it speaks."""

    wav: np.ndarray
    targets: dict[str, np.ndarray]
    active: np.ndarray


def hear(clip: Clip, hop: int = 320) -> Heard:
    """Reads a clip, and its targets at frames of `hop` samples at 16 kHz."""
    wav = load_clip(clip)
    return Heard(wav, *frame_targets(wav, -(-len(wav) // hop) + 1, hop))


def look_at(
    codec: Any, clip: Clip, stages: Any = None, heard: Heard | None = None
) -> tuple[Probed, Tokens]:
    """Encodes a clip (whole rate, or `stages`) and gathers what the probes need.

    Args:
        heard: what `hear` gave for the clip, to look at it with several codecs.
    """
    heard = heard or hear(clip, codec.config.hop_length)
    with torch.inference_mode():
        tokens = codec.encode(torch.from_numpy(heard.wav), stages=stages)
    digits = digit_values(tokens)
    count = min(int(tokens.lengths[0]), len(heard.active), len(heard.targets["log-mel"]))
    return (
        Probed(
            clip,
            {name: values[:count] for name, values in digits.items()},
            {name: values[:count] for name, values in heard.targets.items()},
            heard.active[:count],
        ),
        tokens,
    )


class Ridge:
    """Ridge regression from running sums: frames never have to be held together."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.gram = np.zeros((inputs + 1, inputs + 1))
        self.cross = np.zeros((inputs + 1, outputs))
        self.count = 0

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Frames `[n, inputs]` and `[n, outputs]`."""
        x = np.concatenate([np.asarray(x, np.float64), np.ones((len(x), 1))], axis=1)
        self.gram += x.T @ x
        self.cross += x.T @ y
        self.count += len(x)

    def solve(self) -> np.ndarray:
        """Weights `[inputs + 1, outputs]`, the last row being the offset (not penalised)."""
        penalty = RIDGE * max(self.count, 1) * np.eye(len(self.gram))
        penalty[-1, -1] = 1e-12
        return np.asarray(np.linalg.solve(self.gram + penalty, self.cross))


class RSquared:
    """Share of variance explained, from running sums."""

    def __init__(self) -> None:
        self.error: Any = 0.0
        self.total: Any = 0.0
        self.square: Any = 0.0
        self.count = 0

    def add(self, y: np.ndarray, predicted: np.ndarray) -> None:
        self.error = self.error + ((y - predicted) ** 2).sum(axis=0)
        self.total = self.total + y.sum(axis=0)
        self.square = self.square + (y**2).sum(axis=0)
        self.count += len(y)

    def value(self) -> float:
        """Mean over outputs of 1 - error / variance; below 0 where the mean would have done
        better; NaN without frames."""
        if not self.count:
            return float("nan")
        variance = self.square - self.total**2 / self.count
        live = variance > 1e-9
        if not np.any(live):
            return float("nan")
        return float(np.mean(1.0 - self.error[live] / variance[live]))


def _usable(probed: Probed, target: str) -> np.ndarray:
    return probed.active & np.isfinite(probed.targets[target]).all(axis=1)


def _learn(train: Sequence[Probed], block: str, target: str) -> np.ndarray | None:
    """Weights of a target by the digits of a block; None without a frame to learn from."""
    ridge: Ridge | None = None
    for probed in train:
        rows = _usable(probed, target)
        x, y = probed.digits[block][rows], probed.targets[target][rows]
        ridge = ridge or Ridge(x.shape[1], y.shape[1])
        ridge.add(x, y)
    return ridge.solve() if ridge is not None and ridge.count else None


def regress(train: Sequence[Probed], test: Sequence[Probed], block: str, target: str) -> float:
    """R2 of a target from the digits of a block in the same frame, on the test clips."""
    weights, score = _learn(train, block, target), RSquared()
    if weights is None:
        return float("nan")
    for probed in test:
        rows = _usable(probed, target)
        x, y = probed.digits[block][rows], probed.targets[target][rows]
        score.add(y, x @ weights[:-1] + weights[-1])
    return score.value()


def clip_statistics(digits: np.ndarray) -> np.ndarray:
    """Mean, deviation and mean absolute change of each digit: `[frames, n]` -> `[3 n]`."""
    if len(digits) < 2:
        return np.zeros(3 * digits.shape[1])
    change = np.abs(np.diff(digits, axis=0)).mean(axis=0)
    return np.concatenate([digits.mean(axis=0), digits.std(axis=0), change])


def recognise(train: Sequence[Probed], test: Sequence[Probed], block: str) -> tuple[float, int]:
    """UAR of emotion from the digits of a block on the test clips, and the number of classes.

    Raises:
        ValueError: fewer than two emotions or training speakers.
    """
    taught = [probed for probed in train if probed.clip.emotion]
    known = {probed.clip.emotion for probed in taught}
    asked = [probed for probed in test if probed.clip.emotion in known]

    def features(some: Sequence[Probed]) -> np.ndarray:
        return np.stack([clip_statistics(p.digits[block][p.active]) for p in some])

    judge = fit(
        _PROBE,
        features(taught),
        [probed.clip.emotion for probed in taught],
        [f"{probed.clip.dataset}/{probed.clip.speaker}" for probed in taught],
    )
    if not asked:
        return float("nan"), len(judge.classes)
    truth = np.array([judge.classes.index(probed.clip.emotion) for probed in asked])
    return uar(truth, judge.decide(features(asked)), len(judge.classes)), len(judge.classes)


def prosody_features(targets: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a line may use of energy, voicing and F0: them, their squares and products, in a frame
    and its two neighbours. `[frames, 21]`; an F0 that is not there counts as 0."""
    energy, voicing = targets["energy"], targets["voicing"]
    pitch = voicing * np.nan_to_num(targets["f0"] - np.log(160.0))
    own = [energy, voicing, pitch, energy**2, pitch**2, energy * voicing, energy * pitch]
    padded = np.pad(np.concatenate(own, axis=1), ((1, 1), (0, 0)), mode="edge")
    return np.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=1)


def without_prosody(
    train: Sequence[Probed], test: Sequence[Probed]
) -> tuple[list[Probed], list[Probed]]:
    """The same clips with the target `detail` `[frames, 80]`: the log-mel spectrum less what ridge
    regression from the prosody of the training clips makes of it; and `prosody` as a block."""
    both = [
        [replace(p, digits={**p.digits, PROSODY: prosody_features(p.targets)}) for p in some]
        for some in (train, test)
    ]
    weights = _learn(both[0], PROSODY, "log-mel")
    for some in both:
        for i, p in enumerate(some):
            if weights is None:
                detail = np.full_like(p.targets["log-mel"], np.nan)
            else:
                said = p.digits[PROSODY] @ weights[:-1] + weights[-1]
                detail = p.targets["log-mel"] - said
            some[i] = replace(p, targets={**p.targets, "detail": detail})
    return both[0], both[1]


def probe(train: Sequence[Probed], test: Sequence[Probed], blocks: Sequence[str]) -> dict[str, Any]:
    """All probes: `{"r2": {block: {target: R2}}, "uar": {dataset: {block: UAR}, ...}}`.

    Beside the blocks, `prosody`: R2 of the spectrum from the prosody of the original. Emotion is
    probed in each dataset that has three labels or more and two training speakers.
    """
    train, test = without_prosody(train, test)
    r2 = {
        block: {target: regress(train, test, block, target) for target in TARGETS}
        for block in blocks
    }
    r2[PROSODY] = {
        target: regress(train, test, PROSODY, target) for target in ("log-mel", "shape", "detail")
    }
    recall: dict[str, Any] = {}
    for dataset in sorted({probed.clip.dataset for probed in train}):
        own = [[p for p in some if p.clip.dataset == dataset] for some in (train, test)]
        labels = {p.clip.emotion for p in own[0] if p.clip.emotion}
        if len(labels) < 3 or len({p.clip.speaker for p in own[0]}) < 2:
            continue
        found = {block: recognise(own[0], own[1], block) for block in blocks}
        recall[dataset] = {
            "classes": len(labels),
            "clips": len(own[1]),
            "blocks": {block: value for block, (value, _) in found.items()},
        }
    return {"r2": r2, "uar": recall}


def quantizer_facts(codec: Any, tokens: Tokens) -> dict[str, Any]:
    """Bits used by every digit, and whether the blocks are isolated to the last bit."""
    report = usage_report(tokens, codec.config.quantizer)
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, codec.config.quantizer.width, 4, generator=generator)
    isolation = isolation_report(codec.quantizer, latent)
    bits: dict[str, Any] = {}
    for block in codec.config.quantizer.blocks:
        own = [digit for digit in report.digits if digit.block == block.name]
        bits[block.name] = {
            "used": sum(digit.bits for digit in own),
            "of": sum(digit.max_bits for digit in own),
            "by_digit": [
                {
                    "stage": digit.stage,
                    "dim": digit.dim,
                    "bits": digit.bits,
                    "of": digit.max_bits,
                }
                for digit in own
            ],
        }
    return {
        "bits": bits,
        "isolated": isolation.isolated,
        "leaks": [str(pair) for pair in isolation.leaks],
    }


def markdown(results: Mapping[str, Any]) -> str:
    """One table for the probes and one for the bits, and the isolation check."""
    from affectcodec.evaluation.tables import number, table

    blocks = [block for block in results["r2"] if block != PROSODY]
    lines = [
        [
            f"R2 of {target}",
            *(number(results["r2"][block].get(target), 3) for block in (*blocks, PROSODY)),
        ]
        for target in TARGETS
    ]
    for dataset, found in results["uar"].items():
        chance = 1.0 / found["classes"]
        lines.append(
            [
                f"UAR of emotion, {dataset} (chance {chance:.2f}, {found['clips']} clips)",
                *(number(found["blocks"][block], 3) for block in blocks),
                "-",
            ]
        )
    facts = results["quantizer"]
    lines.append(
        [
            "bits used a frame",
            *(f"{facts['bits'][b]['used']:.1f} of {facts['bits'][b]['of']:.0f}" for b in blocks),
            "-",
        ]
    )
    isolated = "yes, to the last bit" if facts["isolated"] else "no"
    lines.append(["isolated from the other blocks", *([isolated] * len(blocks)), "-"])
    parts = [
        "# Leakage probes",
        f"```\n{results['command']}\n```",
        f"Learned on {results['train_clips']} clips of {results['train_speakers']} speakers, "
        f"scored on {results['clips']} clips of {results['speakers']} other speakers, "
        f"{results['frames']} frames; at {results['kbps']:.2f} kbit/s.",
        table(["from the tokens of", *(f"`{block}`" for block in blocks), "true prosody"], lines),
    ]
    if facts["leaks"]:
        parts.append("Leaks: " + "; ".join(facts["leaks"]))
    for block in blocks:
        own = facts["bits"][block]["by_digit"]
        stages = sorted({digit["stage"] for digit in own})
        dims = sorted({digit["dim"] for digit in own})
        value = {(d["stage"], d["dim"]): d["bits"] for d in own}
        rows = [[str(s), *(f"{value[s, d]:.2f}" for d in dims)] for s in stages]
        header = [f"bits of `{block}`, stage", *(f"dim {d}" for d in dims)]
        parts.append(table(header, rows))
    parts.append(
        "R2: ridge regression from the digits of the same frame, active frames only, mean over "
        "outputs; shape is the log-mel spectrum less its mean over bands, detail less what energy, "
        "voicing and F0 of the original explain of it (true prosody). UAR: logistic regression "
        "on mean, deviation and mean change of the digits over the clip."
    )
    return "\n\n".join(parts) + "\n"

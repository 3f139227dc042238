# SPDX-License-Identifier: Apache-2.0
"""What a run tells while it runs: TensorBoard, ``dev.jsonl``, the progress bar.

| tag | what it shows |
|---|---|
| ``train/*`` | loss terms, gradient norms of the whole and of each part, learning rate, speed |
| ``time/*`` | seconds of a step in each part, forward and backward; ``share/*`` of the whole |
| ``dev/*`` | the same terms for the averaged weights, by stage count; emotion accuracy |
| ``dev_digits/*``, ``dev_levels/*`` | entropy of each digit over the largest possible; its levels |
| ``dev_audio``, ``dev_spectrogram`` | clips, original and coded |
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm import tqdm

from affectcodec.nn.diagnostics import usage_report
from affectcodec.training.distributed import whole

if TYPE_CHECKING:
    from affectcodec.training.trainer import Trainer

_CLIPS = 3
_FLOOR_DB = -80.0


class RunReport:
    """Writes what happens in a run into its folder; one process does it."""

    def __init__(self, trainer: Trainer) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.trainer = trainer
        self.writer = SummaryWriter(str(trainer.folder), purge_step=trainer.step)
        config = trainer.config
        self._seconds_a_step = (
            config.batch_size
            * (config.crop_frames - 1)
            * config.codec.hop_length
            / config.codec.sample_rate
        )
        self._recent, self._steps = time.monotonic(), 0
        self._time_next_step()

    def _time_next_step(self) -> None:
        """On a GPU each mark of the timer waits for it: there only reported steps are timed."""
        trainer = self.trainer
        due = (trainer.step + 1) % trainer.config.log_every == 0
        trainer.timed = due or trainer.world.device.type != "cuda"

    def step(self, figures: dict[str, float], bar: tqdm) -> None:
        """A step was made."""
        trainer, writer = self.trainer, self.writer
        self._steps += 1
        if trainer.step % trainer.config.log_every == 0:
            now = time.monotonic()
            speed = self._steps * self._seconds_a_step / max(1e-9, now - self._recent)
            self._recent, self._steps = now, 0
            figures = {**figures, "audio_seconds_per_second": speed}
            for name, value in figures.items():
                writer.add_scalar(f"train/{name}", value, trainer.step)
            for part, share in trainer.timer.shares().items():
                writer.add_scalar(f"share/{part}", share, trainer.step)
            for part, seconds in trainer.timer.take().items():
                writer.add_scalar(f"time/{part}", seconds, trainer.step)
            bar.set_postfix(loss=f"{figures['loss']:.3f}", speed=f"{speed:.1f} s/s")
        self._time_next_step()

    def rolled_back(self, what: str) -> None:
        """The guard sent the run back."""
        tqdm.write(what)
        with open(self.trainer.folder / "rollbacks.txt", "a") as file:
            file.write(what + "\n")
        self.writer.add_text("rollback", what, self.trainer.step)
        self._recent, self._steps = time.monotonic(), 0

    @torch.no_grad()
    def evaluation(self, figures: dict[str, float]) -> None:
        """Figures of the averaged weights; adds audio, spectrograms and the use of digits."""
        trainer, writer = self.trainer, self.writer
        step = trainer.step
        for name, value in figures.items():
            writer.add_scalar(f"dev/{name}", value, step)
        with open(trainer.folder / "dev.jsonl", "a") as file:
            record = {"step": step, "seconds": round(trainer.seconds, 1), **figures}
            file.write(json.dumps(record) + "\n")
        assert trainer.dev is not None
        clips = trainer.dev.batch(0, stream=1).wav.to(trainer.world.device)
        codec, top = trainer.ema, trainer.config.codec.quantizer.num_stages
        rate = trainer.config.codec.sample_rate
        for i, clip in enumerate(clips[:_CLIPS]):
            shown = [("original", clip)]
            for stages in sorted({min(2, top), min(8, top)}):
                shown.append((f"stages_{stages}", codec(clip[None, None], stages=stages).wav[0, 0]))
            for name, wav in shown:
                writer.add_audio(f"dev_audio/{i}_{name}", wav.float().clamp(-1, 1), step, rate)
            picture = torch.cat([spectrogram(wav) for _, wav in shown], 1)
            writer.add_image(f"dev_spectrogram/{i}", picture, step, dataformats="HW")
        quantizer = trainer.config.codec.quantizer
        tokens = codec(clips[:, None]).tokens
        digits = () if quantizer.kind == "rvq" else usage_report(tokens, quantizer).digits
        for digit in digits:
            tag = f"{digit.block}/stage_{digit.stage}_dim_{digit.dim}"
            writer.add_scalar(f"dev_digits/{tag}", digit.share, step)
            levels = torch.arange(len(digit.level_shares)).repeat_interleave(
                torch.tensor([round(1000 * share) for share in digit.level_shares])
            )
            writer.add_histogram(f"dev_levels/{tag}", levels, step, bins=len(digit.level_shares))
        self._recent, self._steps = time.monotonic(), 0

    def close(self) -> None:
        """Nothing more comes."""
        self.writer.close()


def gradient_norms(trainer: Trainer) -> dict[str, float]:
    """Norm of the (clipped) gradient of each part of the codec, by the last step; all processes
    call it."""
    parts: dict[str, nn.Module] = dict(trainer.codec.named_children())
    found = {}
    for name, part in parts.items():
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        squares = [g.detach().float().square().sum() for g in gradients]
        total = float(torch.stack([whole(s) for s in squares]).sum()) if squares else 0.0
        found[f"gradient_norm_{name}"] = math.sqrt(total)
    return found


def spectrogram(wav: Tensor) -> Tensor:
    """Log magnitudes of ``wav [N]`` as a picture ``[257, frames]`` in [0, 1], low sounds below."""
    window = torch.hann_window(512, device=wav.device)
    power = torch.stft(wav.float(), 512, 128, window=window, return_complex=True).abs().square()
    db = 10 * torch.log10(power / 128**2 + 1e-12)
    return ((db - _FLOOR_DB) / -_FLOOR_DB).clamp(0, 1).flip(0).cpu()

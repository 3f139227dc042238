# SPDX-License-Identifier: Apache-2.0
"""What a training step really allocates, by the size of its process.

    MALLOC_MMAP_THRESHOLD_=65536 python memory_of_a_step.py PRESET CROPS FRAMES

The threshold makes the allocator give back at once what is freed, so that the size of the process
is what it holds. Prints bytes of each kind as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from affectcodec.config import CodecConfig
from affectcodec.training.config import TrainConfig
from affectcodec.training.dry_run import made_up_batch
from affectcodec.training.trainer import Trainer


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    preset, crops, frames = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    config = TrainConfig(codec=CodecConfig.preset(preset), batch_size=crops, crop_frames=frames)
    # Code and tables that are loaded once, with a codec too small to matter.
    small = TrainConfig(codec=CodecConfig.preset("stream"), batch_size=1, crop_frames=24)
    warm = Trainer(small, None, None, "")
    warm.next_batch = lambda: made_up_batch(small, 1, 24)  # type: ignore[method-assign]
    warm.train_step()
    del warm
    start = resident()
    trainer = Trainer(config, None, None, "")
    batch = made_up_batch(config, crops, frames)
    weights = resident() - start
    trainer.next_batch = lambda: batch  # type: ignore[method-assign]
    trainer.train_step()
    trainer.optimizer.zero_grad(set_to_none=True)
    rest = resident() - start
    decoded, told, _ = trainer.objective.decode(batch, trainer.codec)
    heard, _ = trainer.objective.heard(decoded.wav, decoded.batch, 0)
    total = torch.stack([*told.values(), *heard.values()]).sum()
    activations = resident() - start - rest
    total.backward()
    del decoded, told, heard, total
    gradients = resident() - start - rest
    found = {
        "weights_and_averaged": weights,
        "optimizer": rest - weights,
        "gradients": gradients,
        "activations": activations,
    }
    print(json.dumps({**found, "total": sum(found.values())}))


if __name__ == "__main__":
    main()

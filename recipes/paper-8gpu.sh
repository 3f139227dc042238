#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The preset `paper` on eight GPUs of one machine: 132 million parameters, one copy a GPU (DDP).
#
#   recipes/paper-8gpu.sh runs/paper --shards speech=shards/ --manifest emotional/manifest.csv \
#       --datasets-weights speech=0.8 --datasets-weights emotional=0.2
#   recipes/paper-8gpu.sh runs/paper --dry-run
#
# A worker that dies is started again, with all others, from the last checkpoint; the order of the
# data stays. A stream of shards needs as many shards as GPUs times loader workers: 64 here.
# GPUS=4 takes half of them. Set scale.shard=true for a codec that outgrows a card.
set -euo pipefail
out=${1:?name the folder of the run}
shift
gpus=${GPUS:-8}

arguments=(
  --preset paper --out "$out" --export "$out/weights" --export-warm
  --set steps=250000 --set batch_size=192 --set crop_frames=50
  --set rates="[2, 4, 8]" --set learning_rate=2e-4 --set warmup_steps=2000
  --set decay_steps=50000 --set ema_decay=0.9995
  --set loss.frames=0.5 --set loss.emotion=0.1 --set loss.cycle_prosody=0.2 --set balance=true
  --set adversarial.start=5000 --set adversarial.learning_rate=2e-4
  --set adversarial.discriminators.period_channels="[32, 128, 512, 1024, 1024]"
  --set adversarial.discriminators.spectrum_channels="[32, 32, 64, 64]"
  --set augment.noise=0.1 --set augment.reverb=0.1
  --set loader.workers=8 --set checkpoint_every=2000 --set eval_every=2000
  --set scale.compile=true
  "$@"
)
python=${PYTHON:-python}
for argument in "$@"; do
  if [[ $argument == --dry-run || $argument == --show-config ]]; then
    exec "$python" -m affectcodec train --gpus "$gpus" "${arguments[@]}"
  fi
done
exec "$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus" --max-restarts 3 \
  -m affectcodec train "${arguments[@]}"

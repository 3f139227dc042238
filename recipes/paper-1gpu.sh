#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The preset `paper` on one GPU: 132 million parameters, products in bfloat16.
#
#   recipes/paper-1gpu.sh runs/paper --shards speech=shards/ --manifest emotional/manifest.csv \
#       --datasets-weights speech=0.8 --datasets-weights emotional=0.2
#   recipes/paper-1gpu.sh runs/paper --dry-run
#
# The published schedule is 250,000 steps of 12 crops; 48 crops here fill a card, in two parts. The
# three published rates are decoded from one pass of the quantizer. Check memory with --dry-run:
# scale.accumulate=4 or scale.recompute=true make it fit a smaller card.
set -euo pipefail
out=${1:?name the folder of the run}
shift

exec "${PYTHON:-python}" -m affectcodec train \
  --preset paper --out "$out" --export "$out/weights" --export-warm \
  --set steps=250000 --set batch_size=48 --set crop_frames=50 --set scale.accumulate=2 \
  --set rates="[2, 4, 8]" --set learning_rate=1e-4 --set warmup_steps=2000 \
  --set decay_steps=50000 --set ema_decay=0.9995 \
  --set loss.frames=0.5 --set loss.emotion=0.1 --set loss.cycle_prosody=0.2 --set balance=true \
  --set adversarial.start=5000 --set adversarial.learning_rate=1e-4 \
  --set adversarial.discriminators.period_channels="[32, 128, 512, 1024, 1024]" \
  --set adversarial.discriminators.spectrum_channels="[32, 32, 64, 64]" \
  --set augment.noise=0.1 --set augment.reverb=0.1 \
  --set loader.workers=8 --set checkpoint_every=2000 --set eval_every=2000 \
  --set scale.compile=true \
  "$@"

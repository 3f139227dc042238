#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shipped weights, finetuned on one's own speakers; minutes of speech are enough to begin with.
#
#   recipes/finetune.sh runs/mine --folder my/recordings
#   recipes/finetune.sh runs/mine --folder my/recordings --set frozen='["encoder", "quantizer"]'
#   recipes/finetune.sh runs/mine --dry-run
#
# With encoder and quantizer frozen (second line) the tokens stay those of the shipped weights.
# WEIGHTS names other weights. What lies beside them, discriminators and optimizers, is taken too.
# Name the original corpora beside yours, with small weights, to keep what was learned of them.
set -euo pipefail
out=${1:?name the folder of the run}
shift

exec "${PYTHON:-python}" -m affectcodec train \
  --weights "${WEIGHTS:-stream}" --out "$out" --export "$out/weights" --export-warm \
  --set steps=4000 --set learning_rate=2e-4 --set warmup_steps=200 --set decay_steps=2000 \
  --set ema_decay=0.998 --set eval_every=500 \
  --set adversarial.start=0 --set adversarial.warmup_steps=500 --set adversarial.every=2 \
  --set augment.noise=0.1 --set augment.reverb=0.1 \
  "$@"

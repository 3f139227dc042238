#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The preset `stream` from scratch on a CPU: 6.5 million parameters.
#
#   recipes/stream-cpu.sh runs/stream --manifest data/manifest.csv
#   recipes/stream-cpu.sh runs/stream --folder my/recordings
#   recipes/stream-cpu.sh runs/stream --manifest data/manifest.csv --resume
#   recipes/stream-cpu.sh runs/stream --dry-run
#
# Reconstruction only at first; discriminators join when it has settled, in every second step, which
# costs least. What follows the run folder is handed on, so that anything can be set otherwise.
set -euo pipefail
out=${1:?name the folder of the run}
shift

exec "${PYTHON:-python}" -m affectcodec train \
  --preset stream --out "$out" --export "$out/weights" --export-warm \
  --set steps=20000 --set batch_size=12 --set crop_frames=64 \
  --set learning_rate=1e-3 --set decay_steps=4000 \
  --set augment.noise=0.1 --set augment.reverb=0.1 \
  --set adversarial.start=12000 --set adversarial.every=2 \
  "$@"

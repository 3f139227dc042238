# SPDX-License-Identifier: Apache-2.0
"""Which pitch should a decoder be driven by? ``python -m affectcodec.evaluation.source_pitch``.

The harmonic source of the decoder is driven by the F0 and voicing of the original as each tracker
reads them, in place of those of the codes, and the decoded F0 is compared with the original's. A
tracker that does badly here teaches a codec its errors. The last rows tell where the codes go
wrong: F0 as the prosody head reads it, against the targets of training.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from affectcodec.audio import load_audio
from affectcodec.codec import AffectCodec
from affectcodec.evaluation.alignment import active_frames
from affectcodec.evaluation.pitch import (
    HEADLINE,
    METHODS,
    Method,
    f0_metrics,
    f0_track,
    spread_to_f0_frames,
)
from affectcodec.evaluation.tables import table
from affectcodec.manifest import read_manifest
from affectcodec.nn.decoder import StreamDecoder
from affectcodec.training.data_prepare import prosody_targets

TRACKERS = METHODS
CODES = "the codes"
SCORES = ("f0_corr", "gross_pitch_error", "vuv_error", "f0_rmse_cents")
GROSS_CENTS = 300.0
_OCTAVE_CENTS = (1050.0, 1350.0)


def source_of(f0: np.ndarray, frames: int, per_frame: float) -> tuple[Tensor, Tensor]:
    """F0 in Hz, gaps filled, and voicing of codec frames, each ``[1, frames]``, from a track."""
    voiced = np.flatnonzero(f0)
    filled = np.full(len(f0), 150.0)
    if len(voiced):
        filled = np.exp(np.interp(np.arange(len(f0)), voiced, np.log(f0[voiced])))
    index = np.minimum((np.arange(frames) * per_frame).astype(int), len(f0) - 1)
    hz, on = filled[index], f0[index] > 0
    return torch.from_numpy(hz)[None].float(), torch.from_numpy(on)[None].float()


@torch.no_grad()
def measure(
    codec: AffectCodec, wav: np.ndarray, stages: int, judge: Method = HEADLINE
) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Scores by source of one clip ``[n]`` at 16 kHz, and errors in cents, with their sign, of the
    prosody head on frames that it and the targets call voiced. `judge` tracks the F0 of the
    original and of the decoded clip.

    Raises:
        TypeError: if the codec has no harmonic source.
    """
    if not isinstance(codec.decoder, StreamDecoder):
        raise TypeError("codec: wanted one with a harmonic source, as the preset 'stream' has")
    hop = codec.config.hop_length
    targets = prosody_targets(wav, codec.config)
    padded = torch.zeros(1, len(targets) * hop)
    padded[0, : len(wav)] = torch.from_numpy(wav.astype(np.float32))
    latent = codec.quantizer(codec.encoder(padded), stages, channels_last=True).latent
    reference = f0_track(wav, judge)
    active = spread_to_f0_frames(active_frames(wav), len(reference))

    def score(**source: Tensor) -> dict[str, float]:
        decoded = codec.decoder(latent, **source).wav[0, hop : hop + len(wav)].numpy()
        found = f0_metrics(reference, f0_track(decoded, judge), active)
        return {name: found[name] for name in SCORES}

    per_frame = 200 / codec.config.frame_rate
    scores: dict[str, dict[str, float]] = {}
    for name in TRACKERS:
        f0, voicing = source_of(f0_track(wav, name), len(targets), per_frame)
        scores[name] = score(source_f0=f0, source_voicing=voicing)
    scores[CODES] = score()
    prosody = codec.decoder.prosody(latent[..., codec.decoder.blocks["emotion"]])
    cents = (torch.log(prosody.f0[0]).numpy() - targets[:, 0]) * 1200 / np.log(2)
    both = (targets[:, 1] > 0) & (prosody.voicing_logit[0].numpy() > 0)
    return scores, cents[both]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--split", default="dev", show_default=True)
@click.option("--dataset", "datasets", multiple=True, help="Only this one. May be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many clips, evenly spread.")
@click.option("--stages", default=8, show_default=True, help="Stages of the codes.")
@click.option("--weights", help="Weights: the name of shipped ones, or a folder.")
@click.option(
    "--judge",
    type=click.Choice(METHODS),
    default=HEADLINE,
    show_default=True,
    help="Tracker that compares F0 of the decoded clip with the original's.",
)
def main(
    manifest: Path,
    split: str,
    datasets: tuple[str, ...],
    limit: int | None,
    stages: int,
    weights: str | None,
    judge: Method,
) -> None:
    """Compare trackers as sources of the decoder on the clips of MANIFEST."""
    torch.set_num_threads(1)
    codec = AffectCodec.from_pretrained(weights)
    clips = read_manifest(manifest, split=split, datasets=datasets, limit=limit)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*TRACKERS, CODES)}
    errors = []
    for clip in tqdm(clips, unit="clip", disable=None):
        wav = load_audio(clip.file, sample_rate=codec.config.sample_rate, mono=True)[0]
        scores, cents = measure(codec, wav, stages, judge)
        for name, values in scores.items():
            found[name].append(values)
        errors.append(cents)
    rows = [
        [name, *(f"{np.nanmean([r[score] for r in rows]):.3f}" for score in SCORES)]
        for name, rows in found.items()
    ]
    click.echo(table([f"source driven by (F0 judged by {judge})", *SCORES], rows))
    cents = np.concatenate(errors)
    gross = np.abs(cents) > GROSS_CENTS
    octave = (cents > _OCTAVE_CENTS[0]) & (cents < _OCTAVE_CENTS[1])
    click.echo(
        f"\nprosody head, {len(cents)} frames voiced in both: {np.median(np.abs(cents)):.0f} cents "
        f"off at the median, {gross.mean():.2%} more than {GROSS_CENTS:.0f}, {octave.mean():.2%} "
        "an octave high"
    )


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Checks the exported graphs on a corpus: ``python -m affectcodec.export.verify DATA --split dev``.

Clips are coded side by side under ONNX Runtime, a frame a call, and one by one in plain PyTorch.
Tokens are compared with their distance from the threshold where they differ, and the audio of
PyTorch's tokens by the energy of the difference.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from affectcodec.audio import load_audio
from affectcodec.codec import AffectCodec
from affectcodec.export.onnx import export_codec
from affectcodec.export.runtime import OnnxCodec
from affectcodec.manifest import read_manifest
from affectcodec.ops.registry import use_backend
from affectcodec.runtime.verify import Findings, Samples, compare_tokens

CLIPS = 16  # coded side by side
LEAST_EQUAL = 0.999
MOST_AUDIO_DB = -60.0


def run(codec: AffectCodec, folder: str | Path, clips: list[Samples]) -> Findings:
    """All comparisons over clips; ``unequal_streams`` is not counted here and stays 0."""
    exported = OnnxCodec(codec, folder, slots=CLIPS)
    found = Findings()
    # Of like lengths, so that little padding is coded.
    order = sorted(clips, key=len)
    with tqdm(total=len(clips), unit="clip", disable=None) as bar:
        for start in range(0, len(order), CLIPS):
            group = order[start : start + CLIPS]
            lengths = torch.tensor([len(wav) for wav in group])
            padded = np.zeros((len(group), 1, int(lengths.max())), np.float32)
            for row, wav in zip(padded, group, strict=True):
                row[0, : len(wav)] = wav
            got = exported.encode(torch.from_numpy(padded), lengths=lengths)
            codes, references = got.codes.clone(), []
            for i, wav in enumerate(group):
                with use_backend("reference"):
                    want = codec.encode(wav)
                    references.append(codec.decode(want)[0, 0])
                found.clips += 1
                own = got.codes[i][:, : want.num_frames]
                compare_tokens(codec, wav, own, want.codes[0], found)
                codes[i, :, : want.num_frames] = want.codes[0]
            heard = exported.decode(replace(got, codes=codes))
            for audio, reference in zip(heard[:, 0], references, strict=True):
                error = (audio[: len(reference)] - reference).square().sum()
                ratio = float(error / reference.square().sum().clamp_min(1e-20))
                found.worst_audio_db = max(
                    found.worst_audio_db, 10 * float(np.log10(ratio + 1e-40))
                )
                bar.update(1)
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", default="dev", show_default=True)
@click.option("--weights", help="Weights: the name of shipped ones, or a folder.")
@click.option("--folder", help="Graphs that are there already. Default: exported for this.")
@click.option("--limit", type=int, help="At most this many clips, spread evenly.")
def main(
    data: Path, split: str, weights: str | None, folder: str | None, limit: int | None
) -> None:
    """Check the graphs on the clips of DATA/manifest.csv; prints JSON.

    Ends with 1 if fewer than 99.9 % of the frames have PyTorch's tokens, or any clip's audio
    differs by more than -60 dB.
    """
    torch.set_num_threads(1)
    codec = AffectCodec.from_pretrained(weights)
    listed = read_manifest(data / "manifest.csv", split=split, limit=limit)
    rate = codec.config.sample_rate
    clips = [np.asarray(load_audio(clip.file, sample_rate=rate)[0], np.float32) for clip in listed]
    with tempfile.TemporaryDirectory() as place:
        if folder is None:
            export_codec(codec, place)
        found = run(codec, folder or place, clips)
    figures = asdict(found)
    del figures["unequal_streams"]
    equal = 1 - found.different_frames / max(1, found.frames)
    click.echo(json.dumps({**figures, "equal_frames": equal}, indent=2))
    sys.exit(0 if equal >= LEAST_EQUAL and found.worst_audio_db <= MOST_AUDIO_DB else 1)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Codecs by name, as given on command lines.

    affectcodec:1.5   the neural codec at 1.5 kbit/s; affectcodec:1.5@native-bfloat16 by the native
                      runtime with weights of half the size, @native with those there are;
                      @compact with entropy-coded tokens at that rate; @lead with emotion one
                      stage ahead of the acoustic block at the same bits
    LABEL:1.5         weights of LABEL: another checkpoint, or another codec (see `neural.py`)
    codec2:1300       Codec 2 (3200 2400 1600 1400 1300 1200 700C), 8 kHz inside
    codec2:1300@-26   the same with each clip brought to -26 dB before, and back after
    opus:6            Opus at 6 kbit/s asked (VBR; what it used is measured)
    speex:9.8         Speex wide-band at the next lower constant rate
    amrwb:6.6         AMR-WB (6.6 8.85 12.65 14.25 15.85 18.25 19.85 23.05 23.85)
    original narrowband lowpass:2 mulaw world flat-f0      controls (see `controls.py`)

To add one: write a class with `name`, `fingerprint` and `roundtrip`, add a row to `BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from affectcodec.evaluation.baselines import SAMPLE_RATE, Codec, Codec2, Opus
from affectcodec.evaluation.controls import LowPass, MuLaw, PassThrough, World
from affectcodec.evaluation.neural import load_codec
from affectcodec.evaluation.telephony import AmrWb, Speex

NARROW_RATE = 8000


def _codec2(argument: str) -> Codec:
    mode, _, level = argument.partition("@")
    return Codec2(mode, float(level) if level else None)


# kind -> codec from what stands after the colon
BUILDERS: dict[str, Callable[[str], Codec]] = {
    "codec2": _codec2,
    "opus": lambda rate: Opus(float(rate)),
    "speex": lambda rate: Speex(float(rate)),
    "amrwb": lambda rate: AmrWb(float(rate)),
    "lowpass": lambda khz: LowPass(float(khz)),
}
# complete names
CONTROLS: dict[str, Callable[[], Codec]] = {
    "original": lambda: PassThrough("original", SAMPLE_RATE),
    "narrowband": lambda: PassThrough("narrowband", NARROW_RATE),
    "mulaw": MuLaw,
    "world": lambda: World(flat=False),
    "flat-f0": lambda: World(flat=True),
}


def make_codecs(names: list[str], weights: Mapping[str, str | None]) -> list[Codec]:
    """Codecs from their names.

    Args:
        names: e.g. `["affectcodec:1.5", "codec2:1300"]`.
        weights: label -> folder or name for `AffectCodec.from_pretrained` (None: the shipped ones),
            or folder of another codec. A label is what stands before the colon, so two checkpoints
            can be measured side by side: `{"affectcodec": None, "ablation": "runs/rvq"}`.

    Raises:
        ValueError: unknown or repeated name, wrong rate.
        BaselineError: program or library of a baseline missing.
    """
    if len(set(names)) != len(names):
        raise ValueError(f"codecs: got {names}, wanted each name once")
    loaded: dict[str, Any] = {}
    codecs: list[Codec] = []
    for name in names:
        kind, _, argument = name.partition(":")
        if name in CONTROLS:
            codecs.append(CONTROLS[name]())
        elif kind in weights and _is_number(argument.partition("@")[0]):
            kbps, _, engine = argument.partition("@")
            codecs.append(load_codec(kind, float(kbps), weights[kind], loaded, engine))
        elif kind in BUILDERS and (kind == "codec2" or _is_number(argument)) and argument:
            codecs.append(BUILDERS[kind](argument))
        else:
            raise ValueError(
                f"codecs: {name!r} is unknown; wanted LABEL:KBPS with LABEL in {sorted(weights)} "
                f"(see --weights), KIND:NUMBER with KIND in {sorted(BUILDERS)}, or one of "
                f"{sorted(CONTROLS)}"
            )
    return codecs


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False

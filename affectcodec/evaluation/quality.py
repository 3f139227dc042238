# SPDX-License-Identifier: Apache-2.0
"""Quality by models of listeners: ViSQOL (against the original) and DNSMOS (of the wave alone)."""

from __future__ import annotations

import functools
import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np

from affectcodec.evaluation.alignment import SAMPLE_RATE

# DNSMOS P.835 looks at 9.01 s; its raw outputs are mapped by polynomials (Reddy et al. 2022).
_DNSMOS_SAMPLES = int(9.01 * SAMPLE_RATE)
_DNSMOS_POLYNOMIALS = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
_FIX = "pip install 'affectcodec[judges]'"


@functools.cache
def _visqol() -> Any:
    try:
        import visqol
    except ImportError as error:
        raise ImportError(f"ViSQOL needs the package visqol-python: {_FIX}") from error
    if importlib.util.find_spec("ai_edge_litert") is None:
        # the package would fall back to another mapping, whose scores are not comparable
        raise ImportError(f"ViSQOL needs the package ai-edge-litert: {_FIX}")
    logging.getLogger("visqol").setLevel(logging.ERROR)
    api = visqol.VisqolApi()
    api.create(mode="speech", use_lattice_model=True)
    return api


def visqol(ref: np.ndarray, deg: np.ndarray) -> float:
    """ViSQOL v3 in speech mode, MOS-LQO 1 to 5, of 16 kHz waves `[n]` of one length.

    Raises:
        ValueError: a silent or short wave, or one that it cannot compare.
        ImportError: visqol-python or ai-edge-litert missing.
    """
    if not np.any(ref) or not np.any(deg):
        raise ValueError("one wave is silent")
    if len(ref) < SAMPLE_RATE // 2:
        raise ValueError("under half a second of speech")
    api = _visqol()
    try:
        result = api.measure_from_arrays(
            np.asarray(ref, np.float64), np.asarray(deg, np.float64), SAMPLE_RATE
        )
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"ViSQOL: {error}") from error
    score = float(result.moslqo)
    if not np.isfinite(score):
        raise ValueError(f"ViSQOL returned {score}")
    return score


@functools.cache
def _dnsmos() -> Any:
    spec = importlib.util.find_spec("speechmos")
    path = (
        Path(spec.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
        if (spec and spec.origin)
        else None
    )
    if path is None or not path.is_file():
        raise ImportError(f"DNSMOS needs the package speechmos: {_FIX}")
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"DNSMOS needs the package onnxruntime: {_FIX}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )


def dnsmos(wav: np.ndarray) -> dict[str, float]:
    """DNSMOS P.835 of a 16 kHz wave `[n]`: {"sig", "bak", "ovrl"}, each 1 to 5.

    Short clips are repeated to 9.01 s, as its authors do; of longer ones windows that begin each
    second are averaged.

    Raises:
        ValueError: an empty or silent wave.
        ImportError: speechmos (the model) or onnxruntime missing.
    """
    wave = np.clip(np.asarray(wav, dtype=np.float32), -1.0, 1.0)
    if not np.any(wave):
        raise ValueError("the wave is silent")
    session = _dnsmos()
    while len(wave) < _DNSMOS_SAMPLES:
        wave = np.concatenate([wave, wave])
    count = int(len(wave) / SAMPLE_RATE - 9.01) + 1
    raw = []
    for second in range(count):
        piece = wave[second * SAMPLE_RATE : second * SAMPLE_RATE + _DNSMOS_SAMPLES]
        raw.append(session.run(None, {"input_1": piece[None]})[0][0])
    scores = np.array(raw, dtype=np.float64)
    return {
        name: float(np.mean(np.polyval(polynomial, scores[:, i])))
        for i, (name, polynomial) in enumerate(_DNSMOS_POLYNOMIALS.items())
    }

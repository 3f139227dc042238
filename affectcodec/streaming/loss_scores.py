# SPDX-License-Identifier: Apache-2.0
"""What losses do to pitch, for a table that compares ways of concealment.

The F0 correlation of reconstruction (:func:`affectcodec.evaluation.pitch.f0_metrics`) is taken over
frames voiced in both signals. Between codecs that is what one wants; between concealments it
rewards the one that gives up: a muted frame is unvoiced, drops out, and leaves the frames that
came, whose pitch is right. The two measures here drop no frame that is voiced in the original.
"""

from __future__ import annotations

import numpy as np

from affectcodec.evaluation.pitch import GROSS_ERROR, MIN_VOICED_FRAMES

F0_PER_SECOND = 200


def contour_correlation(f0_ref: np.ndarray, f0_deg: np.ndarray, active: np.ndarray) -> float:
    """Correlation of log F0 over all active frames that are voiced in the original.

    Where no pitch is heard in the degraded signal, its own median pitch stands: it keeps the level
    of the voice and says nothing of its contour, so that such a frame neither drops out nor is
    punished as an octave error would be. A degraded signal without any pitch, or with a constant
    one, has none of the contour: 0.

    Args:
        f0_ref, f0_deg: tracks ``[frames]`` in Hz, 0 where unvoiced.
        active: bool ``[frames]``, where the original speaks.

    Returns:
        -1 to 1; NaN where the original has fewer than 20 such frames or a constant pitch.
    """
    ref, deg, mask = _cut(f0_ref, f0_deg, active)
    heard = mask & (deg > 0)
    asked = mask & (ref > 0)
    if asked.sum() < MIN_VOICED_FRAMES:
        return float("nan")
    wanted = np.log2(ref[asked])
    if wanted.std() < 1e-6:
        return float("nan")
    if not heard.any():
        return 0.0
    filled = np.log2(np.where(deg > 0, deg, np.median(deg[heard]))[asked])
    return 0.0 if filled.std() < 1e-6 else float(np.corrcoef(wanted, filled)[0, 1])


def frame_error(f0_ref: np.ndarray, f0_deg: np.ndarray, where: np.ndarray) -> float:
    """F0 frame error (Chu and Alwan 2009): share of the frames ``where`` voiced in only one of
    both, or in both with a pitch more than 20 % off. NaN without such frames."""
    ref, deg, mask = _cut(f0_ref, f0_deg, where)
    if not mask.any():
        return float("nan")
    ref, deg = ref[mask], deg[mask]
    both = (ref > 0) & (deg > 0)
    gross = np.zeros(len(ref), np.bool_)
    gross[both] = np.abs(deg[both] / ref[both] - 1.0) > GROSS_ERROR
    return float(np.mean(((ref > 0) != (deg > 0)) | gross))


def lost_f0_frames(lost: np.ndarray, frame_rate: float, count: int) -> np.ndarray:
    """Bool ``[count]``: F0 frames, 5 ms apart, that lie nearest to the centre of a lost frame.

    The centre of codec frame ``t`` is at ``t / frame_rate`` seconds of the audio with the latency
    taken off.
    """
    if not len(lost):
        return np.zeros(count, np.bool_)
    index = np.floor(np.arange(count) * frame_rate / F0_PER_SECOND + 0.5).astype(np.int64)
    return np.asarray(np.asarray(lost, np.bool_)[np.minimum(index, len(lost) - 1)])


def _cut(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    count = min(map(len, arrays))
    return tuple(np.asarray(array[:count]) for array in arrays)

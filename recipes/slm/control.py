# SPDX-License-Identifier: Apache-2.0
"""Does speech that is asked to be of an emotion sound so to the judges?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affectcodec import AffectCodec
from affectcodec.audio import save_audio
from affectcodec.evaluation.assess import train_judge
from affectcodec.evaluation.bootstrap import draw_weights, interval
from affectcodec.evaluation.campaign import ORIGINAL, measure_all
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.emotion import recalls
from affectcodec.evaluation.judges import JUDGES, FittedJudge
from affectcodec.evaluation.measures import BY_NAME, Pair, find_measures
from affectcodec.evaluation.store import Store
from affectcodec.manifest import Clip
from recipes.slm.data import EMOTIONS, Corpus
from recipes.slm.model import TokenModel


def fit_judges(clips: Sequence[Clip], names: Sequence[str], cache: Path) -> list[FittedJudge]:
    """Judges of the evaluation suite on the originals of labelled training clips."""
    judges = [judge for judge in JUDGES if judge.name in names]
    measures = find_measures([judge.measure for judge in judges])
    weights: dict[str, str | None] = {"affectcodec": None}
    with Store(cache) as store:
        codecs = make_codecs([ORIGINAL], weights)
        measured = measure_all([(clips, [ORIGINAL], measures)], codecs, store, weights=weights)
    return [train_judge(judge, measured, list(clips), ORIGINAL) for judge in judges]


def hear(judge: FittedJudge, wavs: Sequence[np.ndarray], clip: Clip) -> np.ndarray:
    """Decisions on waves at 16 kHz, int `[clips]`; -1 where there is nothing to hear."""
    out = np.full(len(wavs), -1)
    for i, wav in enumerate(wavs):
        try:
            value = BY_NAME[judge.judge.measure].compute(Pair(clip, wav, wav))
        except ValueError:
            continue
        out[i] = judge.decide(np.asarray(value)[None])[0]
    return out


def asked_recall(truth: np.ndarray, answer: np.ndarray, classes: int) -> dict[str, Any]:
    """Mean recall of what was asked for, with a bootstrap interval over samples."""
    once = np.ones((1, len(truth)))
    draws = draw_weights([str(i) for i in range(len(truth))], ["asked"] * len(truth))
    value = float(np.nanmean(recalls(truth, answer, classes, once)))
    with np.errstate(invalid="ignore"):
        drawn = np.nanmean(recalls(truth, answer, classes, draws), axis=1)
    return asdict(interval(value, drawn, len(truth)))


def control(
    model: TokenModel,
    codec: AffectCodec,
    judges: Sequence[FittedJudge],
    clip: Clip,
    *,
    each: int,
    guidance: float,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Recall of the asked emotion by each judge; chance is one over its classes.

    Args:
        clip: any; measures want one.
        each: samples of each emotion, without a prompt.
        folder: where the first sample of each emotion is written, if anywhere.
    """
    names = [name for name in EMOTIONS if name in judges[0].classes]
    asked = [name for name in names for _ in range(each)]
    emotion = torch.tensor([EMOTIONS.index(name) for name in asked])
    numbers = model.generate(emotion, guidance=guidance)
    wavs = [w.numpy() for w in codec.decode(model.layout.decode(numbers))[:, 0]]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            save_audio(folder / f"asked-{name}.wav", wavs[asked.index(name)], 16000)
    found: dict[str, Any] = {"samples": len(asked), "guidance": guidance}
    for judge in judges:
        truth = np.array([judge.classes.index(name) for name in asked])
        answer = hear(judge, wavs, clip)
        found[judge.judge.name] = asked_recall(truth, answer, len(judge.classes))
        found[judge.judge.name]["chance"] = 1.0 / len(judge.classes)
    return found


def held_out(
    corpus: Corpus, codec: AffectCodec, judges: Sequence[FittedJudge], frames: int, count: int
) -> dict[str, Any]:
    """What the judges reach on windows of held-out recordings through the codec alone."""
    windows = [w for w in corpus.windows(frames) if corpus.emotion[w[0]] > 0]
    # one window a clip, spread over the list
    windows = list({i: (i, start) for i, start in windows}.values())
    keep = np.unique(np.linspace(0, len(windows) - 1, min(count, len(windows))).astype(int))
    windows = [windows[i] for i in keep]
    tokens, emotion = corpus.tokens(windows, frames, codec)
    wavs = [w.numpy() for w in codec.decode(tokens)[:, 0]]
    found: dict[str, Any] = {"windows": len(windows)}
    for judge in judges:
        known = [i for i, e in enumerate(emotion.tolist()) if EMOTIONS[e] in judge.classes]
        truth = np.array([judge.classes.index(EMOTIONS[int(emotion[i])]) for i in known])
        answer = hear(judge, [wavs[i] for i in known], corpus.clips[0])
        found[judge.judge.name] = asked_recall(truth, answer, len(judge.classes))
    return found


def continuations(
    model: TokenModel,
    codec: AffectCodec,
    corpus: Corpus,
    folder: Path,
    *,
    prompt_frames: int,
    count: int,
    guidance: float,
) -> list[str]:
    """Writes windows whose first frames are a recording and the rest is the model's; their names.

    Only read speech of corpora whose licence lets it travel is prompted with.
    """
    frames, folder = model.layout.frames, Path(folder)
    free = {"librispeech", "vctk", "ljspeech"}
    windows = [w for w in corpus.windows(frames) if corpus.clips[w[0]].dataset in free][:count]
    if not windows:
        return []
    tokens, _ = corpus.tokens(windows, frames, codec)
    prompt = model.layout.encode(tokens)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in ("neutral", "angry", "sad"):
        emotion = torch.full((len(windows),), EMOTIONS.index(name))
        numbers = model.generate(
            emotion, prompt=prompt, prompt_frames=prompt_frames, guidance=guidance
        )
        for i, wav in enumerate(codec.decode(model.layout.decode(numbers))[:, 0]):
            path = folder / f"continued-{i}-{name}.wav"
            save_audio(path, wav.numpy(), 16000)
            written.append(path.name)
    return written


def shares(found: Mapping[str, Any]) -> str:
    """`0.31 [0.25, 0.38]` of an estimate."""
    return f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"

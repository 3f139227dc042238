# SPDX-License-Identifier: Apache-2.0
"""Emotional speech corpora by their own naming schemes: a folder in, clips out.

`scan` finds out which corpus a folder is, if it is not told; `corpus_names.py` lists those it knows
and how their files are named. Speakers are divided into train, dev and test by their order, so that
no split shares one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from affectcodec.evaluation.corpus_names import AUDIO, BY_NAME, CORPORA, IEMOCAP_EMOTIONS, Corpus
from affectcodec.manifest import Clip

TRAIN_SHARE, DEV_SHARE = 0.6, 0.15


def audio_files(folder: Path) -> list[str]:
    """Paths of all audio below a folder, relative to it, sorted, with / between parts."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO and not path.name.startswith(".")
    )


def scan(folder: str | Path, corpus: str | None = None) -> list[Clip]:
    """All clips of a corpus folder, with splits by speaker.

    Args:
        corpus: a name of `CORPORA`; None takes the one whose scheme fits most files, and at least
            half of them.

    Raises:
        ValueError: no folder, an unknown corpus, no scheme that fits, or no labelled clip.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"corpus: no folder {root}")
    files = audio_files(root)
    if corpus is not None and corpus not in BY_NAME:
        raise ValueError(f"corpus: {corpus!r} is unknown; wanted one of {[*BY_NAME]}")
    chosen = BY_NAME[corpus] if corpus else _recognise(root, files)
    clips = list(_clips(root, files, chosen))
    if chosen.name == "iemocap":
        clips = _with_iemocap_labels(root, clips)
    if chosen.name in ("esd", "nemo"):
        clips = _with_transcripts(root, clips, chosen.name)
    if not clips:
        raise ValueError(
            f"corpus: none of the {len(files)} audio files in {root} is named as {chosen.title} "
            "names them"
        )
    return split_speakers(clips)


def _recognise(root: Path, files: Sequence[str]) -> Corpus:
    counts = {c.name: sum(c.pattern.fullmatch(file) is not None for file in files) for c in CORPORA}
    best = max(counts, key=lambda name: counts[name])
    if not files or counts[best] * 2 < len(files):
        raise ValueError(
            f"corpus: {root} follows no known naming scheme (of {len(files)} audio files "
            f"{counts[best]} look like {BY_NAME[best].title}); write a manifest, or name one of "
            f"{[*BY_NAME]}"
        )
    return BY_NAME[best]


def _clips(root: Path, files: Sequence[str], corpus: Corpus) -> Iterator[Clip]:
    for file in files:
        match = corpus.pattern.fullmatch(file)
        fields = corpus.read(match) if match else None
        if fields is None:
            continue
        yield Clip(
            path=file,
            file=root / file,
            dataset=corpus.name,
            speaker=f"{corpus.name}_{fields['speaker']}",
            emotion=fields.get("emotion", ""),
            gender=fields.get("gender", ""),
            language=fields.get("language", corpus.language),
            transcript=fields.get("transcript", ""),
        )


_IEMOCAP_LINE = re.compile(
    r"\[[\d. -]+\]\t(?P<turn>\S+)\t(?P<label>\w+)\t"
    r"\[(?P<valence>[\d.]+), (?P<arousal>[\d.]+), (?P<dominance>[\d.]+)\]"
)
_IEMOCAP_WORDS = re.compile(r"(?P<turn>Ses\S+) \[[\d. -]+\]: (?P<words>.*)")


def _with_iemocap_labels(root: Path, clips: list[Clip]) -> list[Clip]:
    """Consensus labels, arousal and valence (1 to 5) from EmoEvaluation/*.txt, words from
    transcriptions/*.txt. Turns without a consensus (xxx, oth) keep their ratings and no emotion."""
    labels, words = {}, {}
    for path in sorted(root.rglob("*.txt")):
        if path.parent.name == "EmoEvaluation":
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if match := _IEMOCAP_LINE.match(line):
                    labels[match["turn"]] = match
        elif path.parent.name == "transcriptions":
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if match := _IEMOCAP_WORDS.match(line):
                    words[match["turn"]] = match["words"].strip()
    if not labels:
        raise ValueError(
            f"corpus: {root} has IEMOCAP's audio but no EmoEvaluation/*.txt with its labels"
        )
    out = []
    for clip in clips:
        turn = clip.file.stem
        if turn in labels:
            found = labels[turn]
            out.append(
                replace(
                    clip,
                    emotion=IEMOCAP_EMOTIONS.get(found["label"], ""),
                    arousal=float(found["arousal"]),
                    valence=float(found["valence"]),
                    transcript=words.get(turn, ""),
                )
            )
    return out


def _with_transcripts(root: Path, clips: list[Clip], corpus: str) -> list[Clip]:
    """ESD: SPEAKER/SPEAKER.txt (name, text, emotion by tabs); nEMO: data.tsv with file_id and
    raw_text."""
    words: dict[str, str] = {}
    genders: dict[str, str] = {}
    if corpus == "esd":
        for path in sorted(root.rglob("00[0-2][0-9].txt")):
            for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
                parts = line.split("\t")
                if len(parts) >= 2:
                    words[parts[0].strip()] = parts[1].strip()
    else:
        for path in sorted(root.rglob("data.tsv")):
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            header = lines[0].split("\t") if lines else []
            if "file_id" not in header:
                continue
            for line in lines[1:]:
                row = dict(zip(header, line.split("\t"), strict=False))
                name = Path(row["file_id"]).stem
                words[name] = row.get("raw_text", "")
                genders[name] = {"female": "f", "male": "m"}.get(row.get("gender", ""), "")
    return [
        replace(
            clip,
            transcript=words.get(clip.file.stem, clip.transcript),
            gender=genders.get(clip.file.stem, clip.gender),
        )
        for clip in clips
    ]


def split_speakers(clips: Sequence[Clip]) -> list[Clip]:
    """The same clips with `split`: 60 % of the speakers train, 15 % dev, the rest test.

    Speakers are taken in the order of their names, at least one each for train and test; with two
    speakers there is no dev split, with one all of it is test.
    """
    speakers = sorted({clip.speaker for clip in clips})
    count = len(speakers)
    train = max(1, round(TRAIN_SHARE * count)) if count > 1 else 0
    dev = min(max(1, round(DEV_SHARE * count)), count - train - 1) if count > 2 else 0
    split = {
        name: "train" if i < train else "dev" if i < train + dev else "test"
        for i, name in enumerate(speakers)
    }
    return [replace(clip, split=split[clip.speaker]) for clip in clips]

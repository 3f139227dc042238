# SPDX-License-Identifier: Apache-2.0
"""Emotional speech corpora by their own naming schemes: a folder in, clips out.

    corpus     folder holds                                    emotion from
    ravdess    Actor_01/03-01-05-02-01-02-01.wav               third field of the name
    emodb      wav/03a01Fa.wav                                 sixth letter
    cremad     AudioWAV/1001_DFA_ANG_XX.wav                    third field
    esd        0011/Angry/[train/]0011_000351.wav              folder
    iemocap    Session1/sentences/wav/..., EmoEvaluation/*.txt label files, with arousal and valence
    nemo       samples/ECM_anger_07.wav, or data.tsv beside    second field
    tess       OAF_angry/OAF_back_angry.wav                    last field
    savee      DC/a01.wav or DC_a01.wav                        letters before the number
    mead       M003/audio/angry/level_1/001.m4a                folder

`scan` finds out which corpus a folder is, if it is not told. Emotions carry common names (angry,
happy, sad, neutral, fear, disgust, surprise, calm, and what else a corpus has); speakers are
divided into train, dev and test by their order, so that no split shares one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from affectcodec.manifest import Clip

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")
TRAIN_SHARE, DEV_SHARE = 0.6, 0.15


@dataclass(frozen=True)
class Corpus:
    """One corpus: how to read the name of a file.

    Attributes:
        name: dataset name of its clips.
        title: as the corpus calls itself.
        language: two letters; "" where clips differ.
        pattern: matches paths below the folder, with / between parts.
        read: clip fields from a match.
    """

    name: str
    title: str
    language: str
    pattern: re.Pattern[str]
    read: Callable[[re.Match[str]], dict[str, str] | None]


_COMMON = {
    "anger": "angry",
    "angry": "angry",
    "fear": "fear",
    "fearful": "fear",
    "disgust": "disgust",
    "disgusted": "disgust",
    "happy": "happy",
    "happiness": "happy",
    "sad": "sad",
    "sadness": "sad",
    "neutral": "neutral",
    "calm": "calm",
    "surprise": "surprise",
    "surprised": "surprise",
    "ps": "surprise",  # TESS: pleasant surprise
    "contempt": "contempt",
}

_RAVDESS = dict(
    zip(
        ("01", "02", "03", "04", "05", "06", "07", "08"),
        ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise"),
        strict=True,
    )
)
_RAVDESS_WORDS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}


def _ravdess(match: re.Match[str]) -> dict[str, str] | None:
    _, channel, emotion, _, statement, _, actor = match["name"].split("-")
    if channel != "01" or emotion not in _RAVDESS:  # 02 is song
        return None
    return {
        "speaker": actor,
        "gender": "m" if int(actor) % 2 else "f",
        "emotion": _RAVDESS[emotion],
        "transcript": _RAVDESS_WORDS.get(statement, ""),
    }


_EMODB = {
    "W": "angry",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
_EMODB_MEN = {"03", "10", "11", "12", "15"}
_EMODB_WORDS = {
    "a01": "Der Lappen liegt auf dem Eisschrank",
    "a02": "Das will sie am Mittwoch abgeben",
    "a04": "Heute abend könnte ich es ihm sagen",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück",
    "a07": "In sieben Stunden wird es soweit sein",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen",
}


def _emodb(match: re.Match[str]) -> dict[str, str] | None:
    return {
        "speaker": match["speaker"],
        "gender": "m" if match["speaker"] in _EMODB_MEN else "f",
        "emotion": _EMODB[match["emotion"]],
        "transcript": _EMODB_WORDS.get(match["text"], ""),
    }


_CREMAD = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
_CREMAD_WORDS = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}


def _cremad(match: re.Match[str]) -> dict[str, str] | None:
    return {
        "speaker": match["speaker"],
        "emotion": _CREMAD[match["emotion"]],
        "transcript": _CREMAD_WORDS.get(match["text"], ""),
    }


def _esd(match: re.Match[str]) -> dict[str, str] | None:
    # 0001 to 0010 speak Mandarin, 0011 to 0020 English
    return {
        "speaker": match["speaker"],
        "emotion": _COMMON[match["emotion"].lower()],
        "language": "zh" if int(match["speaker"]) <= 10 else "en",
    }


def _nemo(match: re.Match[str]) -> dict[str, str] | None:
    emotion = _COMMON.get(match["emotion"].lower())
    return None if emotion is None else {"speaker": match["speaker"], "emotion": emotion}


def _tess(match: re.Match[str]) -> dict[str, str] | None:
    emotion = _COMMON.get(match["emotion"].lower())
    if emotion is None:
        return None
    return {
        "speaker": match["speaker"].upper(),
        "gender": "f",
        "emotion": emotion,
        "transcript": f"Say the word {match['word']}",
    }


_SAVEE = {
    "a": "angry",
    "d": "disgust",
    "f": "fear",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprise",
}


def _savee(match: re.Match[str]) -> dict[str, str] | None:
    speaker = match["speaker"] or match["folder"]
    return {"speaker": speaker, "gender": "m", "emotion": _SAVEE[match["emotion"]]}


def _mead(match: re.Match[str]) -> dict[str, str] | None:
    emotion = _COMMON.get(match["emotion"].lower())
    if emotion is None:
        return None
    speaker = match["speaker"]
    return {"speaker": speaker, "gender": "m" if speaker[0] == "M" else "f", "emotion": emotion}


_IEMOCAP = {
    "neu": "neutral",
    "ang": "angry",
    "hap": "happy",
    "exc": "happy",  # as the field merges them
    "sad": "sad",
    "fru": "frustration",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
}


def _iemocap(match: re.Match[str]) -> dict[str, str] | None:
    return {
        "speaker": f"{match['session']}{match['speaker']}",
        "gender": match["speaker"].lower(),
        "turn": match["turn"],
    }


def _pattern(text: str) -> re.Pattern[str]:
    ending = "|".join(re.escape(item) for item in AUDIO)
    return re.compile(rf"(?:.*/)?{text}(?:{ending})", re.IGNORECASE)


CORPORA: tuple[Corpus, ...] = (
    Corpus("ravdess", "RAVDESS", "en", _pattern(r"(?P<name>\d\d(-\d\d){6})"), _ravdess),
    Corpus(
        "emodb",
        "EMO-DB",
        "de",
        re.compile(
            r"(?:.*/)?(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[WLEAFTN])[a-z]?\.(wav|flac)"
        ),
        _emodb,
    ),
    Corpus(
        "cremad",
        "CREMA-D",
        "en",
        _pattern(
            r"(?P<speaker>1\d{3})_(?P<text>[A-Z]{3})_(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)"
        ),
        _cremad,
    ),
    Corpus(
        "esd",
        "ESD",
        "",
        _pattern(
            r"(?P<speaker>00[0-2]\d)/(?P<emotion>Angry|Happy|Neutral|Sad|Surprise)/"
            r"(?:(?:train|test|evaluation)/)?00[0-2]\d_\d+"
        ),
        _esd,
    ),
    Corpus(
        "iemocap",
        "IEMOCAP",
        "en",
        _pattern(r"(?P<turn>Ses(?P<session>\d\d)[FM]_(?:impro|script)\w+_(?P<speaker>[FM])\d+)"),
        _iemocap,
    ),
    Corpus(
        "tess",
        "TESS",
        "en",
        _pattern(r"(?P<speaker>OAF?|YAF)_(?P<word>[A-Za-z]+)_(?P<emotion>[A-Za-z]+)"),
        _tess,
    ),
    Corpus(
        "nemo",
        "nEMO",
        "pl",
        _pattern(r"(?P<speaker>[A-Z]{2}[A-Z0-9])_(?P<emotion>[a-z]+)_\d+"),
        _nemo,
    ),
    Corpus(
        "savee",
        "SAVEE",
        "en",
        re.compile(
            r"(?:.*/)?(?:(?P<folder>DC|JE|JK|KL)/|(?P<speaker>DC|JE|JK|KL)_)"
            r"(?P<emotion>sa|su|a|d|f|h|n)\d\d\.(wav|flac)"
        ),
        _savee,
    ),
    Corpus(
        "mead",
        "MEAD",
        "en",
        _pattern(r"(?P<speaker>[MW]\d{3})/(?:audio/)?(?P<emotion>[a-z]+)/level_[123]/\d+"),
        _mead,
    ),
)
BY_NAME = {corpus.name: corpus for corpus in CORPORA}


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
                    emotion=_IEMOCAP.get(found["label"], ""),
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

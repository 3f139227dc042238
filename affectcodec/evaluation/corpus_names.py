# SPDX-License-Identifier: Apache-2.0
"""How each emotional speech corpus names its files, and what the names say.

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

Emotions carry common names: angry, happy, sad, neutral, fear, disgust, surprise, calm, and what
else a corpus has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")


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


IEMOCAP_EMOTIONS = {
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

# SPDX-License-Identifier: Apache-2.0
"""Corpora recognised on made-up trees that follow their naming schemes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from affectcodec.evaluation.corpora import CORPORA, scan, split_speakers
from affectcodec.manifest import Clip

# corpus -> (path, speaker, emotion, gender, language)
NAMES = {
    "ravdess": [
        ("Actor_01/03-01-05-02-01-02-01.wav", "01", "angry", "m", "en"),
        ("Actor_02/03-01-02-01-02-01-02.wav", "02", "calm", "f", "en"),
        ("Actor_24/03-01-08-02-02-02-24.wav", "24", "surprise", "f", "en"),
    ],
    "emodb": [
        ("wav/03a01Fa.wav", "03", "happy", "m", "de"),
        ("wav/08b10Wd.wav", "08", "angry", "f", "de"),
        ("wav/16a07Lb.wav", "16", "boredom", "f", "de"),
    ],
    "cremad": [
        ("AudioWAV/1001_DFA_ANG_XX.wav", "1001", "angry", "", "en"),
        ("AudioWAV/1091_IEO_SAD_HI.wav", "1091", "sad", "", "en"),
        ("AudioWAV/1076_MTI_NEU_X.wav", "1076", "neutral", "", "en"),
    ],
    "esd": [
        ("0001/Angry/0001_000351.wav", "0001", "angry", "", "zh"),
        ("0011/Surprise/evaluation/0011_001401.wav", "0011", "surprise", "", "en"),
        ("0020/Neutral/train/0020_000001.wav", "0020", "neutral", "", "en"),
    ],
    "nemo": [
        ("samples/EBO_anger_01.wav", "EBO", "angry", "", "pl"),
        ("samples/KD0_surprised_12.wav", "KD0", "surprise", "", "pl"),
        ("samples/MP0_happiness_30.wav", "MP0", "happy", "", "pl"),
    ],
    "tess": [
        ("OAF_angry/OAF_back_angry.wav", "OAF", "angry", "f", "en"),
        ("YAF_pleasant_surprised/YAF_dog_ps.wav", "YAF", "surprise", "f", "en"),
    ],
    "savee": [
        ("DC/a01.wav", "DC", "angry", "m", "en"),
        ("ALL/JE_sa09.wav", "JE", "sad", "m", "en"),
        ("KL/su15.wav", "KL", "surprise", "m", "en"),
        ("JK_n30.wav", "JK", "neutral", "m", "en"),
    ],
    "mead": [
        ("M003/audio/angry/level_1/001.m4a", "M003", "angry", "m", "en"),
        ("W009/audio/disgusted/level_3/030.m4a", "W009", "disgust", "f", "en"),
        ("W011/contempt/level_2/002.wav", "W011", "contempt", "f", "en"),
    ],
}


def make(root: Path, paths: list[str]) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


@pytest.mark.parametrize("name", list(NAMES))
def test_a_corpus_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    make(tmp_path, [row[0] for row in NAMES[name]])
    clips = {clip.path: clip for clip in scan(tmp_path)}
    assert len(clips) == len(NAMES[name])
    for path, speaker, emotion, gender, language in NAMES[name]:
        clip = clips[path]
        found = (clip.dataset, clip.speaker, clip.emotion, clip.gender, clip.language)
        assert found == (name, f"{name}_{speaker}", emotion, gender, language)
        assert clip.file == tmp_path / path
    assert scan(tmp_path, name) == list(clips.values())


def test_every_corpus_is_tested() -> None:
    assert {corpus.name for corpus in CORPORA} == {*NAMES, "iemocap"}


def test_known_words(tmp_path: Path) -> None:
    make(tmp_path / "r", [NAMES["ravdess"][0][0]])
    assert scan(tmp_path / "r")[0].transcript == "Kids are talking by the door"
    make(tmp_path / "c", [NAMES["cremad"][0][0]])
    assert scan(tmp_path / "c")[0].transcript == "Don't forget a jacket"
    make(tmp_path / "t", [NAMES["tess"][0][0]])
    assert scan(tmp_path / "t")[0].transcript == "Say the word back"
    make(tmp_path / "e", [NAMES["emodb"][0][0]])
    assert scan(tmp_path / "e")[0].transcript.startswith("Der Lappen")


def test_song_of_ravdess_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, ["Actor_01/03-02-05-02-01-02-01.wav", "Actor_01/03-01-01-01-01-01-01.wav"])
    assert [clip.emotion for clip in scan(tmp_path)] == ["neutral"]


def test_iemocap_has_labels_and_ratings_in_files(tmp_path: Path) -> None:
    turn = "Ses01F_impro01_F000"
    base = "Session1/sentences/wav/Ses01F_impro01"
    make(tmp_path, [f"{base}/{turn}.wav", f"{base}/Ses01F_impro01_M001.wav"])
    make(tmp_path, [f"{base}/Ses01F_impro01_M002.wav"])
    with pytest.raises(ValueError, match="EmoEvaluation"):
        scan(tmp_path)
    labels = tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text(
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        f"[6.2901 - 8.2357]\t{turn}\texc\t[2.5000, 3.5000, 2.0000]\n"
        "C-E2:\tNeutral;\t()\n"
        "[10.01 - 11.39]\tSes01F_impro01_M001\txxx\t[3.0000, 2.0000, 2.5000]\n"
    )
    words = tmp_path / "Session1/dialog/transcriptions/Ses01F_impro01.txt"
    words.parent.mkdir(parents=True)
    words.write_text(f"{turn} [006.2901-008.2357]: Excuse me.\n")
    clips = scan(tmp_path)
    assert [clip.emotion for clip in clips] == ["happy", ""]  # no rating: no clip
    assert (clips[0].valence, clips[0].arousal) == (2.5, 3.5)
    assert (clips[0].gender, clips[0].speaker) == ("f", "iemocap_01F")
    assert clips[0].transcript == "Excuse me." and clips[1].arousal == 2.0


def test_transcripts_of_esd_and_nemo(tmp_path: Path) -> None:
    make(tmp_path / "esd", ["0011/Angry/0011_000351.wav"])
    (tmp_path / "esd/0011/0011.txt").write_text("0011_000351\tThe nine the eggs.\tAngry\n")
    assert scan(tmp_path / "esd")[0].transcript == "The nine the eggs."
    make(tmp_path / "nemo", ["samples/EBO_anger_01.wav"])
    (tmp_path / "nemo/data.tsv").write_text(
        "file_id\temotion\traw_text\tgender\nEBO_anger_01.wav\tanger\tLubię to.\tfemale\n"
    )
    clip = scan(tmp_path / "nemo")[0]
    assert (clip.transcript, clip.gender) == ("Lubię to.", "f")


def test_no_corpus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        scan(tmp_path / "none")
    with pytest.raises(ValueError, match="no known naming scheme"):
        scan(tmp_path)
    make(tmp_path, ["a/holiday.wav", "b/birthday.wav", "03-01-05-02-01-02-01.wav"])
    with pytest.raises(ValueError, match="no known naming scheme"):
        scan(tmp_path)
    assert len(scan(tmp_path, "ravdess")) == 1
    with pytest.raises(ValueError, match="unknown"):
        scan(tmp_path, "timit")
    with pytest.raises(ValueError, match="named as MEAD"):
        scan(tmp_path, "mead")


@pytest.mark.parametrize(
    ("speakers", "wanted"),
    [
        (1, (0, 0, 1)),
        (2, (1, 0, 1)),
        (3, (2, 0, 1)),
        (4, (2, 1, 1)),
        (10, (6, 2, 2)),
        (24, (14, 4, 6)),
    ],
)
def test_splits_share_no_speaker(speakers: int, wanted: tuple[int, int, int]) -> None:
    clips = [Clip(f"{i}", Path(f"{i}"), "x", f"s{i % speakers:02}") for i in range(3 * speakers)]
    split = split_speakers(clips)
    of = {(clip.speaker, clip.split) for clip in split}
    assert len(of) == speakers
    counts = Counter(name for _, name in of)
    assert tuple(counts[name] for name in ("train", "dev", "test")) == wanted

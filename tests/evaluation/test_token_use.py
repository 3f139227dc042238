# SPDX-License-Identifier: Apache-2.0
"""The report of token use: clips joined without their padding, the page, and the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import soundfile
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.evaluation.token_use import join, main, markdown
from affectcodec.nn.diagnostics import usage_report
from affectcodec.tokens import Tokens
from tests.codec_fixtures import speech_like, tiny_codec

CONFIG = BDRFSQConfig(
    blocks=(Block("emotion", 8, (2, 2, 2)), Block("acoustic", 8, (4, 3))), num_stages=2
)


def tokens(emotion: list[list[int]], acoustic: list[list[int]], lengths: list[int]) -> Tokens:
    codes = (torch.tensor(emotion) + 8 * torch.tensor(acoustic))[:, None].int()
    return Tokens(
        codes=codes,
        lengths=torch.tensor(lengths),
        num_samples=300 * torch.tensor(lengths),
        stages={"emotion": 1, "acoustic": 1},
        quantizer=CONFIG,
        config_hash="0" * 16,
    )


def test_clips_are_joined_without_their_padding() -> None:
    batch = tokens([[0, 7, 0], [7, 0, 0]], [[1, 2, 0], [3, 4, 5]], [2, 3])
    alone = tokens([[5, 1]], [[6, 7]], [2])
    whole = join([batch, alone])
    assert whole.block_codes("acoustic").tolist() == [[[1, 2, 3, 4, 5, 6, 7]]]
    assert whole.block_codes("emotion").tolist() == [[[0, 7, 7, 0, 0, 5, 1]]]
    assert (whole.lengths.tolist(), whole.num_samples.tolist()) == ([7], [2100])
    with pytest.raises(ValueError, match="no clip"):
        join([])


def test_the_page_has_every_stage_and_names_idle_dims() -> None:
    # emotion: dim 0 and dim 1 always equal, dim 2 stuck; acoustic: every code equally often
    emotion, acoustic = [[0b100, 0b111] * 6], [list(range(12))]
    report = usage_report(tokens(emotion, acoustic, [12]), CONFIG)
    page = markdown(report, command="x", clips=1)
    assert "1 clips, 12 frames" in page
    assert "| emotion | 1 | 1.00 1.00 0.00 | 1.00 of 3.00 | 0.33 | 2 of 8 |" in page
    assert "| acoustic | 1 | 1.00 1.00 | 3.58 of 3.58 | 1.00 | 12 of 12 |" in page
    assert "Block emotion: 1.0 of 3.0 bits a frame (33%), mean digit share 0.67." in page
    assert page.endswith("Digits under 0.5: emotion stage 1 dim 2.\n")


def test_the_command_writes_page_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_codec().save_pretrained(tmp_path / "weights")
    soundfile.write(tmp_path / "a.wav", speech_like(8000).numpy(), 16000)
    with open(tmp_path / "m.csv", "w", newline="") as file:
        rows = [("path", "dataset", "speaker", "split"), ("a.wav", "d", "s", "dev")]
        csv.writer(file).writerows(rows)
    places = [("manifest", "m.csv"), ("weights", "weights"), ("out", "out")]
    arguments = [part for name, file in places for part in (f"--{name}", str(tmp_path / file))]
    threads = torch.get_num_threads()
    try:
        assert main([*arguments, "--quiet"]) == 0
    finally:
        torch.set_num_threads(threads)
    page = (tmp_path / "out" / "token_use.md").read_text()
    assert page in capsys.readouterr().out
    assert "1 clips, 26 frames" in page and "| acoustic | 4 |" in page
    figures = json.loads((tmp_path / "out" / "token_use.json").read_text())
    assert figures["clips"] == 1
    assert [(use["block"], use["stage"]) for use in figures["codes"]] == [
        (name, stage) for name in ("emotion", "acoustic") for stage in (1, 2, 3, 4)
    ]

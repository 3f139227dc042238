# SPDX-License-Identifier: Apache-2.0
"""Tokenize, train, table: ``python -m recipes.slm MANIFEST... --out runs/slm``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from affectcodec import AffectCodec
from affectcodec.evaluation.store import default_cache
from affectcodec.manifest import read_manifests
from recipes.slm.control import continuations, control, fit_judges, held_out, shares
from recipes.slm.data import rvq_codec, tokenize
from recipes.slm.designs import BY_NAME, DESIGNS
from recipes.slm.model import ModelConfig
from recipes.slm.train import TrainPlan, measure, train

QUICK_MODEL = ModelConfig(width=128, layers=3, heads=4, feed_forward=344)
QUICK_PLAN = TrainPlan(steps=400, batch=8, warmup=40, every=20)


def table(results: Mapping[str, Any]) -> str:
    """One row a design."""
    judges = results["judges"]
    head = [
        "design",
        "ids a second",
        "parameters",
        "bits/s",
        "perplexity a frame",
        "untold",
        "CPU s",
    ]
    head += [f"asked emotion heard, {name}" for name in judges]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in results["designs"].items():
        bits = row["told"]["bits_a_second"]
        cells = [
            f"`{name}`",
            f"{row['ids_a_second']}",
            f"{row['parameters'] / 1e6:.1f} M",
            f"{bits:.0f}",
            f"{2 ** (bits / 50):.3g}",
            f"{row['untold']['bits_a_second']:.0f}",
            f"{row['cpu_seconds']:.0f}",
            *(shares(row["control"][judge]) if "control" in row else "" for judge in judges),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for name, row in results["held_out"].items():
        cells = [f"recordings through `{name}`", "", "", "1500", "", "", ""]
        lines.append("| " + " | ".join([*cells, *(shares(row[judge]) for judge in judges)]) + " |")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument(
    "manifests", metavar="MANIFEST...", nargs=-1, required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)  # fmt: skip
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--weights", help="Name of shipped weights, or a folder. Default: the shipped ones.")
@click.option("--design", "designs", multiple=True, type=click.Choice(list(BY_NAME)),
              help="Only these. Default: all.")  # fmt: skip
@click.option("--quick", is_flag=True, help="A small model and budget: minutes, not hours.")
@click.option("--steps", type=click.IntRange(min=1), help="Batches that each model learns from.")
@click.option("--split", default="dev", show_default=True, help="Split to measure on.")
@click.option(
    "--limit", type=click.IntRange(min=2), help="At most so many clips a manifest and split."
)
@click.option("--judge", "judges", multiple=True, type=click.Choice(["egemaps_svm", "whisper_lr"]),
              help="Judges of the emotion. Default: both; --no-judge for none.")  # fmt: skip
@click.option("--no-judge", is_flag=True, help="Perplexity alone.")
@click.option("--each", default=24, show_default=True, help="Samples of each emotion.")
@click.option("--guidance", default=2.0, show_default=True, help="Weight of the asked emotion.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), default=default_cache,
              help="Measured values of the judges.")  # fmt: skip
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
def main(
    manifests: tuple[Path, ...], out: Path, weights: str | None, designs: tuple[str, ...],
    quick: bool, steps: int | None, split: str, limit: int | None, judges: tuple[str, ...],
    no_judge: bool, each: int, guidance: float, cache: Path, threads: int,
) -> None:  # fmt: skip
    """Train one language model for each token design on the training split and compare them.

    Every model sees the same windows of audio. `bits/s` is the negative log-likelihood of held-out
    tokens a second of audio (30 bits a frame, 1500 bit/s, are what the tokens could hold at most),
    comparable between patterns. `untold` is the same without the emotion. Killed and started again,
    it goes on.

    \b
    Examples:
      python -m recipes.slm emotional/manifest.csv general/manifest.csv --out runs/slm
      python -m recipes.slm emotional/manifest.csv --out runs/slm-quick --quick
    """
    torch.set_num_threads(threads)
    config, plan = (QUICK_MODEL, QUICK_PLAN) if quick else (ModelConfig(), TrainPlan())
    if steps is not None:
        plan = TrainPlan(**{**vars(plan), "steps": steps})
    own = AffectCodec.from_pretrained(weights)
    taught, asked = (
        read_manifests(manifests, split=name, limit=limit) for name in ("train", split)
    )
    chosen = [BY_NAME[name] for name in designs] or list(DESIGNS)
    codecs = {"bd-rfsq": own}
    if any(design.codec == "rvq" for design in chosen):
        codecs["rvq"] = rvq_codec(own, taught, out / "rvq")
    corpora = {}
    for name, codec in codecs.items():
        count = next(design.stages for design in DESIGNS if design.codec == name)
        corpora[name] = [
            tokenize(clips, codec, count, out / f"{name}-{part}.npz")
            for part, clips in (("train", taught), (split, asked))
        ]
    results: dict[str, Any] = {
        "split": split,
        "audio_hours_a_model": plan.audio_seconds / 3600,
        "corpus_hours": sum(c.shape[1] for c in corpora[chosen[0].codec][0].codes) / 50 / 3600,
        "model": vars(config),
        "plan": vars(plan),
        "judges": [],
        "designs": {},
        "held_out": {},
    }
    models = {}
    for design in chosen:
        folder = out / design.name
        model = train(design, config, plan, corpora[design.codec][0], codecs[design.codec], folder)
        models[design.name] = model
        scored = corpora[design.codec][1]
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        rows = len(model.layout.sizes)
        results["designs"][design.name] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "ids_a_second": 50 * rows,
            "steps_a_second": round(model.layout.steps / plan.frames * 50),
            "cpu_seconds": log[-1]["cpu_seconds"],
            "told": measure(model, scored, codecs[design.codec]),
            "untold": measure(model, scored, codecs[design.codec], told=False),
        }
        write(out, results)
    if not no_judge:
        names = judges or ("egemaps_svm", "whisper_lr")
        acted = {clip.dataset for clip in taught if clip.emotion not in ("", "neutral")}
        heard = fit_judges([c for c in taught if c.emotion and c.dataset in acted], names, cache)
        results["judges"] = [judge.judge.name for judge in heard]
        for name, codec in codecs.items():
            scored = corpora[name][1]
            results["held_out"][name] = held_out(scored, codec, heard, plan.frames, 8 * each)
        for design in chosen:
            model, codec = models[design.name], codecs[design.codec]
            scored = corpora[design.codec][1]
            results["designs"][design.name]["control"] = control(
                model, codec, heard, scored.clips[0], each=each, guidance=guidance,
                folder=out / design.name,
            )  # fmt: skip
            continuations(
                model, codec, scored, out / design.name, prompt_frames=plan.frames // 2, count=2,
                guidance=guidance,
            )  # fmt: skip
            write(out, results)
    click.echo(write(out, results))


def write(out: Path, results: Mapping[str, Any]) -> str:
    """results.json and results.md; the table."""
    text = json.dumps(results, indent=1, default=lambda x: None)
    (out / "results.json").write_text(text.replace("NaN", "null") + "\n", encoding="utf-8")
    page = table(results)
    (out / "results.md").write_text(page, encoding="utf-8")
    assert math.isfinite(results["audio_hours_a_model"])
    return page


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""A model saved here loads in a new virtual environment with one extra of the package.

    python tests/integrations/fresh_environment.py
    python tests/integrations/fresh_environment.py --torch-args "--index-url ADDRESS_OF_CPU_BUILDS"

It makes the environment, installs torch, then the package as ``.[transformers]`` (without compiled
kernels unless ``--native``), saves the shipped codec by ``save_pretrained`` here, loads it there by
``AutoModel``, and compares codes and audio. It needs a package index, so the suite leaves it out.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SAVE = """
import sys, torch
from affectcodec.integrations.transformers import AffectCodecFeatureExtractor, AffectCodecModel
folder = sys.argv[1]
torch.set_num_threads(1)
model = AffectCodecModel.from_affectcodec()
model.save_pretrained(folder + "/model")
AffectCodecFeatureExtractor().save_pretrained(folder + "/model")
torch.manual_seed(0)
wave = 0.1 * torch.randn(2, 16000)
torch.save(wave, folder + "/wave.pt")
batch = AffectCodecFeatureExtractor()(list(wave.numpy()), sampling_rate=16000, return_tensors="pt")
out = model(**batch)
torch.save((out.audio_codes, out.audio_values), folder + "/out.pt")
"""

LOAD = """
import importlib.metadata, importlib.util, json, sys, torch, transformers
import affectcodec.integrations.transformers
folder = sys.argv[1]
torch.set_num_threads(1)
model = transformers.AutoModel.from_pretrained(folder + "/model")
extractor = transformers.AutoFeatureExtractor.from_pretrained(folder + "/model")
wave = torch.load(folder + "/wave.pt")
out = model(**extractor(list(wave.numpy()), sampling_rate=16000, return_tensors="pt"))
codes, audio = torch.load(folder + "/out.pt")
print(json.dumps({
    "model": type(model).__name__,
    "fingerprint": model.codec.fingerprint,
    "parameters": sum(p.numel() for p in model.parameters()),
    "codes": list(codes.shape),
    "codes_that_differ": int((out.audio_codes != codes).sum()),
    "audio_differs_by": float((out.audio_values - audio).abs().max()),
    "package": affectcodec.__file__,
    "versions": {n: importlib.metadata.version(n) for n in ("torch", "transformers")},
    "absent": [n for n in ("pytest", "datasets", "ray") if not importlib.util.find_spec(n)],
}))
"""


def step(name: str, command: list[str], **environment: str) -> str:
    """Run one command; what it printed.

    Raises:
        SystemExit: with its last words, if it fails.
    """
    start = time.monotonic()
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, env={**clean, **environment}, capture_output=True, text=True, cwd="/"
    )
    if done.returncode:
        raise SystemExit(f"{name}: failed\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    print(f"{name}: done in {time.monotonic() - start:.0f} s", flush=True)
    return done.stdout


def main() -> None:
    """Make the environment, install, save, load, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="torch==2.13.0", help="requirement installed first")
    parser.add_argument("--torch-args", default="", help="pip options for torch alone")
    parser.add_argument("--extra", default="transformers")
    parser.add_argument("--native", action="store_true", help="build the compiled kernels, too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fresh-") as name:
        folder = Path(name)
        step("environment", [sys.executable, "-m", "venv", str(folder / "venv")])
        python = str(folder / "venv" / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        step("torch", [*pip, *shlex.split(chosen.torch_args), chosen.torch])
        native = {} if chosen.native else {"AFFECTCODEC_NO_NATIVE": "1"}
        step("wheel", [*pip[:3], "wheel", "-q", "--no-deps", "-w", name, str(ROOT)], **native)
        (wheel,) = folder.glob("*.whl")
        step("package", [*pip, f"{wheel}[{chosen.extra}]"])
        step("save", [sys.executable, "-c", SAVE, name])
        found = json.loads(step("load", [python, "-c", LOAD, name]).splitlines()[-1])
        print(json.dumps(found, indent=1))
        # Two builds may sum in another order; a digit then differs where it lies on a threshold.
        limit = 1e-3 * 2 * 8 * 51
        if found["codes_that_differ"] > limit or not found["package"].startswith(name):
            raise SystemExit("not the same codes, or not the package of the new environment")


if __name__ == "__main__":
    main()

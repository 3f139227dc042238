# SPDX-License-Identifier: Apache-2.0
"""``encoder.onnx`` and ``decoder.onnx``: one frame a call, state as inputs and outputs.

| graph | input | output |
|---|---|---|
| encoder | ``pcm`` float32 ``[B, hop]`` | ``latent`` float32 ``[B, D]`` |
| decoder | ``latent`` float32 ``[B, D]`` | ``pcm`` float32 ``[B, hop]``, a hop late |

Each state tensor ``NAME [B, ...]`` is an input of that name and an output ``next.NAME``; zeros
start a stream. The metadata of a graph hold the fingerprint and the configuration of the codec.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectcodec.codec import AffectCodec
from affectcodec.export.steps import DecoderStep, EncoderStep, exportable

OPSET = 20
FORMAT = "affectcodec-onnx-1"
GRAPHS = {"encoder": ("pcm", "latent"), "decoder": ("latent", "pcm")}


class ExportUnavailable(RuntimeError):
    """A package that export needs is missing; the message says how to get it."""


def _require(*packages: str) -> None:
    import importlib.util

    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportUnavailable(
            f"{', '.join(missing)} not installed; pip install 'affectcodec[export]'"
        )


def _scalar_tensor(s: float, dtype: int = 1, **_: Any) -> Any:
    """A number as a constant of its own dtype: the exporter's form rounds float64 to float32."""
    import onnx
    from onnxscript import opset20 as op

    kind = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    return op.Constant(value=onnx.numpy_helper.from_array(np.asarray(s, kind)))


def export_codec(codec: AffectCodec, folder: str | Path) -> dict[str, Path]:
    """Write both graphs.

    Args:
        codec: a causal codec of the preset ``stream``, on the CPU.
        folder: where to; made if it is not there.

    Returns:
        path of each graph.

    Raises:
        ExportUnavailable: if onnx or onnxscript are not installed.
    """
    _require("onnx", "onnxscript")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    steps: dict[str, EncoderStep | DecoderStep] = {
        "encoder": EncoderStep(codec),
        "decoder": DecoderStep(codec),
    }
    widths = {"pcm": codec.config.hop_length, "latent": codec.config.quantizer.width}
    written = {}
    for name, step in steps.items():
        step.eval()
        source, result = GRAPHS[name]
        # Two streams: a batch of one would be taken for a constant.
        x = torch.zeros(2, widths[source])
        state = [value.repeat(2, *[1] * (value.ndim - 1)) for value in step.template.values()]
        batch = torch.export.Dim("batch", min=1, max=4096)
        dynamic: Any = ({0: batch}, *({0: batch} for _ in state))
        with exportable(codec), torch.no_grad():
            program = torch.onnx.export(
                step,
                (x, *state),
                dynamo=True,
                opset_version=OPSET,
                input_names=[source, *step.names],
                output_names=[result, *(f"next.{key}" for key in step.names)],
                dynamic_shapes={"x": dynamic[0], "tensors": dynamic[1:]},
                # The exporter's optimizer takes the floor of a power, 1e-8, for zero and drops it:
                # silence became NaN. ONNX Runtime optimizes what it loads, and does not do that.
                optimize=False,
                custom_translation_table={torch.ops.aten.scalar_tensor.default: _scalar_tensor},
                verbose=False,
            )
        assert program is not None
        model = program.model
        model.metadata_props["affectcodec"] = json.dumps(
            {
                "format": FORMAT,
                "graph": name,
                "fingerprint": codec.fingerprint,
                "codec": codec.config.to_dict(),
            }
        )
        path = folder / f"{name}.onnx"
        program.save(str(path), external_data=False)
        written[name] = path
    return written


def example_state(codec: AffectCodec, name: str) -> dict[str, Tensor]:
    """Zero state ``[1, ...]`` of a graph, by name."""
    return (EncoderStep(codec) if name == "encoder" else DecoderStep(codec)).template

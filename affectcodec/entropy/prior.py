# SPDX-License-Identifier: Apache-2.0
"""The prior in integers: every machine computes the same probabilities.

A decoder must find the encoder's probabilities to the last bit, on whatever processor. All weights
and activations are integers, kept in float32 where a matrix library multiplies them: sums stay
below 2**24, so that no order of summation and no fused operation rounds. `network` is the same
function with gradients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from affectcodec.entropy.layout import DigitLayout
from affectcodec.entropy.network import (
    GATE_STEPS,
    LOGIT_STEPS,
    MAX_BIAS,
    MAX_FEATURE,
    MAX_WEIGHT,
    STATE_STEPS,
)

# Sums are in units of 1 / (WEIGHT_STEPS * STATE_STEPS).
_SHIFT = 5  # to 1 / STATE_STEPS
_GATE_SHIFT = 6  # to 1 / GATE_STEPS, times the gate's slope of 1/4
_LOGIT_SHIFT = 8  # to 1 / LOGIT_STEPS
_FLOOR = 14 * LOGIT_STEPS  # improbable digits keep one in 2**14 of the most probable one
_EXACT = 2**24
FORMAT = 1
FILE_NAME = "prior.safetensors"

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Prior:
    """Probabilities of the digits of a frame.

    Args:
        layout: the digits.
        weights: int8 and int32 arrays by name, see `network.arrays`.

    Raises:
        ValueError: shapes or types do not fit the layout, or sums could pass 2**24.
    """

    layout: DigitLayout
    weights: Mapping[str, npt.NDArray[Any]] = field(repr=False)

    def __post_init__(self) -> None:
        layout, weights = self.layout, self.weights
        try:
            width, units = weights["hidden"].shape[1], weights["logit"].shape[2]
            rows = layout.num_digits * units
            most = int(layout.digit_levels.max())
            wanted = {
                "input": (3 * width, layout.num_indicators),
                "hidden": (3 * width, width),
                "gate_bias": (3 * width,),
                "state": (rows, width),
                "before": (rows, layout.num_indicators),
                "count": (rows, layout.num_counts),
                "feature_bias": (rows,),
                "logit": (layout.num_digits, most, units),
                "logit_bias": (layout.num_digits, most),
            }
            found = {name: array.shape for name, array in weights.items()}
        except (KeyError, IndexError) as error:
            raise ValueError(f"weights: no arrays of a prior ({error})") from None
        if found != wanted:
            raise ValueError(f"weights: wanted arrays of shapes {wanted}, got {found}")
        for name, array in weights.items():
            kind, most = (np.int32, MAX_BIAS) if name.endswith("bias") else (np.int8, MAX_WEIGHT)
            if array.dtype != kind or (array.size and np.abs(array.astype(np.int64)).max() > most):
                raise ValueError(f"weights: {name} must be {kind.__name__} within +-{most}")
        inputs = layout.num_digits + len(layout.names)
        largest = MAX_WEIGHT * STATE_STEPS * (width + inputs) + MAX_BIAS
        if max(largest, MAX_WEIGHT * MAX_FEATURE * units + MAX_BIAS) >= _EXACT:
            raise ValueError(f"weights: a width of {width} lets sums pass 2**24; use a smaller one")

    @property
    def width(self) -> int:
        """Size of the recurrent state, H."""
        return int(self.weights["hidden"].shape[1])

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits over layout, weights and the arithmetic's version."""
        layout = self.layout
        text = json.dumps([FORMAT, layout.names, layout.levels, layout.num_stages])
        digest = hashlib.blake2b(text.encode(), digest_size=8)
        for name in sorted(self.weights):
            digest.update(self.weights[name].astype("<i4").tobytes())
        return digest.hexdigest()

    @cached_property
    def _floats(self) -> dict[str, Floats]:
        """Weights as the products want them: transposed, and inputs of one as STATE_STEPS."""
        w = {name: array.astype(np.float32) for name, array in self.weights.items()}
        return {
            "input": np.ascontiguousarray(w["input"].T) * STATE_STEPS,
            "hidden": np.ascontiguousarray(w["hidden"].T),
            "state": np.ascontiguousarray(w["state"].T),
            "before": np.ascontiguousarray(w["before"].T) * STATE_STEPS,
            "count": np.ascontiguousarray(w["count"].T) * STATE_STEPS,
        }

    @property
    def _most(self) -> int:
        return int(self.weights["logit"].shape[1])

    @cached_property
    def _weights_of_digit(self) -> list[Floats]:
        return [np.ascontiguousarray(w.T) for w in self.weights["logit"].astype(np.float32)]

    @cached_property
    def _revealed(self) -> Ints:
        return self._floats["before"].astype(np.int32)

    # ---- the recurrent state ----------------------------------------------------------------

    def start(self, batch: int) -> Ints:
        """State ``[B, H]`` before the first frame."""
        return np.zeros((batch, self.width), np.int32)

    def step(self, state: Ints, shown: Floats) -> Ints:
        """State after a frame of indicators ``[B, E]``."""
        given = (shown @ self._floats["input"]).astype(np.int32)
        return self._advance(state, given + self.weights["gate_bias"])

    def states(self, shown: Floats) -> Ints:
        """States ``[B, T, H]`` before each frame of indicators ``[B, T, E]``."""
        batch, frames, _ = shown.shape
        given = (shown @ self._floats["input"]).astype(np.int32) + self.weights["gate_bias"]
        out = np.zeros((batch, frames, self.width), np.int32)
        for frame in range(1, frames):
            out[:, frame] = self._advance(out[:, frame - 1], given[:, frame - 1])
        return out

    def _advance(self, h: Ints, given: Ints) -> Ints:
        width = self.width
        sums = (h.astype(np.float32) @ self._floats["hidden"]).astype(np.int32)
        gates = given[:, : 2 * width] + sums[:, : 2 * width]
        gates = np.clip((gates >> _GATE_SHIFT) + GATE_STEPS // 2, 0, GATE_STEPS)
        reset, update = gates[:, :width].astype(np.int64), gates[:, width:]
        held = (reset * sums[:, 2 * width :] >> 8).astype(np.int32)
        new = np.clip((given[:, 2 * width :] + held) >> _SHIFT, -STATE_STEPS, STATE_STEPS)
        return (update * h + (GATE_STEPS - update) * new) >> 8

    # ---- the digits of a frame --------------------------------------------------------------

    def context(self, states: Ints, counts: Floats) -> Ints:
        """What the features of all digits get from states ``[N, H]`` and counts ``[N, C]``."""
        sums = states.astype(np.float32) @ self._floats["state"] + counts @ self._floats["count"]
        return sums.astype(np.int32) + self.weights["feature_bias"]

    def tables(
        self, context: Ints, shown: Floats, wanted: npt.NDArray[np.bool_] | None = None
    ) -> Ints:
        """Frequencies ``[N, D, levels]`` of the digits ``wanted [D]`` (all by default), 0 of the
        others, of frames ``[N, E]`` known in advance."""
        layout = self.layout
        seen = (shown @ self._floats["before"]).astype(np.int32)
        units = self.weights["logit"].shape[2]
        sums = (context + seen).reshape(-1, layout.num_digits, units)
        out = np.zeros((len(context), layout.num_digits, self._most), np.int32)
        for digit in range(layout.num_digits) if wanted is None else np.flatnonzero(wanted):
            out[:, digit] = self._table(int(digit), sums[:, digit])
        return out

    def table(self, digit: int, context: Ints, seen: Ints) -> Ints:
        """Frequencies ``[N, levels]`` of one digit; `seen` is the sum over `reveal` so far."""
        units = self.weights["logit"].shape[2]
        part = slice(digit * units, (digit + 1) * units)
        return self._table(digit, context[:, part] + seen[:, part])

    def reveal(self, digit: int, values: npt.NDArray[np.integer[Any]]) -> Ints:
        """What later digits see of one digit's values ``[N]``: ``[N, D * units]``."""
        return self._revealed[self.layout.offsets[digit] + values]

    def _table(self, digit: int, sums: Ints) -> Ints:
        feature = np.clip(sums >> _SHIFT, 0, MAX_FEATURE).astype(np.float32)
        logits = (feature @ self._weights_of_digit[digit]).astype(np.int32)
        levels = int(self.layout.digit_levels[digit])
        logits = (logits + self.weights["logit_bias"][digit]) >> _LOGIT_SHIFT
        logits[:, levels:] = -(2**20)
        below = np.minimum(logits.max(1, keepdims=True) - logits, _FLOOR)
        table = FREQUENCIES[below]
        table[:, levels:] = 0
        return table


def _frequencies() -> Ints:
    """``2**14 * 2**(-k / 16)`` rounded, from integer roots: no power function is trusted."""
    out = []
    for k in range(_FLOOR + 1):
        # round(x**(1/16)) of x = 2**(16 * 14 - k), by bisection for twice the root, half up
        x, scale = 2 ** (LOGIT_STEPS * 14 - k), 2**LOGIT_STEPS
        low, high = 0, 2**15 + 1
        while low < high - 1:
            middle = (low + high) // 2
            if middle**LOGIT_STEPS <= x * scale:
                low = middle
            else:
                high = middle
        out.append(max(1, (low + 1) // 2))
    return np.array(out, np.int32)


FREQUENCIES = _frequencies()


def save(folder: str | Path, prior: Prior) -> None:
    """Write the prior into ``folder``, an existing one."""
    layout = prior.layout
    told = {"names": layout.names, "levels": layout.levels, "stages": layout.num_stages}
    arrays = {name: np.ascontiguousarray(array) for name, array in prior.weights.items()}
    save_file(arrays, Path(folder) / FILE_NAME, {"layout": json.dumps(told), "id": prior.id})


def load(folder: str | Path) -> Prior:
    """Read what :func:`save` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged or of another form.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"no prior of tokens at {path}")
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            arrays = {name: file.get_tensor(name) for name in names}
        told = json.loads(metadata["layout"])
        levels = tuple(tuple(int(v) for v in block) for block in told["levels"])
        layout = DigitLayout(tuple(told["names"]), levels, int(told["stages"]))
        prior = Prior(layout, arrays)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: is no prior of tokens ({error})") from None
    if prior.id != metadata.get("id"):
        raise ValueError(
            f"{path}: records the id {metadata.get('id')}, its weights have {prior.id}"
        )
    return prior

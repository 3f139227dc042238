# SPDX-License-Identifier: Apache-2.0
"""What is the emotion of a token stream? A small head on emotion codes alone.

    head = EmotionHead.from_pretrained()
    head.classify(tokens)                        # ["angry"], no audio decoded

The head reads F0, voicing and energy from the first stages of the emotion block with a copy of the
decoder's prosody head, sums a clip up in statistics (below), and compares them with clips that it
learned from: multinomial logistic regression on a Nystroem map of the radial kernel. It ships
beside the weights of the codec, is bound to their fingerprint and falls under their licence.
``python -m affectcodec.evaluation.emotion_head`` trains and scores it.

It tells the acted emotion of speech like that it learned from, not what a person feels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from affectcodec import checkpoint
from affectcodec.tokens.batch import Tokens
from affectcodec.tokens.emotion_reader import EmotionReader

HEAD_NAME = "emotion.safetensors"
HEAD_FORMAT = "affectcodec-emotion-1"
LIMIT = 5.0  # standardised statistics are cut here: outliers of a division by nearly 0


class EmotionHead(nn.Module):
    """Emotion of token streams.

    With statistics ``x`` standardised and cut to -5..5, landmarks ``l_j`` and ``gamma``:
    ``logits = weight k + bias``, ``k_j = exp(-gamma |x - l_j|^2)``.

    Args:
        reader: gives the statistics.
        classes: names of the emotions.
        mean, deviation: ``[n]`` of the statistics.
        landmarks: ``[m, n]``, standardised.
        weight: ``[classes, m]``; bias: ``[classes]``.
        gamma: of the kernel.
        metadata: kept in the file, such as the licence.

    Raises:
        ValueError: if the parts do not fit together.
    """

    mean: Tensor
    deviation: Tensor
    landmarks: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        reader: EmotionReader,
        classes: Sequence[str],
        mean: Tensor,
        deviation: Tensor,
        landmarks: Tensor,
        weight: Tensor,
        bias: Tensor,
        gamma: float,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        n, (m, width), c = len(mean), landmarks.shape, len(classes)
        shapes = [tuple(part.shape) for part in (deviation, weight, bias)]
        if width != n or shapes != [(n,), (c, m), (c,)] or c < 2:
            raise ValueError(
                f"emotion head: {c} classes, {n} statistics and landmarks {m, width} do not fit "
                f"deviation, weight and bias of the shapes {shapes}"
            )
        self.reader, self.classes, self.gamma = reader, tuple(classes), float(gamma)
        self.metadata = dict(metadata or {})
        for name, part in (
            ("mean", mean), ("deviation", deviation), ("landmarks", landmarks), ("weight", weight),
            ("bias", bias),
        ):  # fmt: skip
            self.register_buffer(name, part.detach().clone().float())

    # -- answers --------------------------------------------------------------------------------

    def logits_of(self, values: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of statistics ``[B, n]``."""
        x = ((values.to(self.mean) - self.mean) / self.deviation).clamp(-LIMIT, LIMIT)
        squared = torch.cdist(x, self.landmarks, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        return torch.exp(-self.gamma * squared) @ self.weight.t() + self.bias

    def forward(self, tokens: Tokens) -> Tensor:
        """Logits ``[B, classes]``, in the order of ``classes``.

        Raises:
            ValueError: tokens of another codec, or with fewer emotion stages than the head reads.
        """
        return self.logits_of(self.reader(tokens))

    def probabilities(self, tokens: Tokens, among: Sequence[str] | None = None) -> Tensor:
        """Probabilities ``[B, len(among)]`` of some classes (None: of all).

        Raises:
            ValueError: as :meth:`forward`; or an unknown class.
        """
        return self(tokens)[:, self._columns(among)].softmax(-1)

    def classify(self, tokens: Tokens, among: Sequence[str] | None = None) -> list[str]:
        """The most probable emotion of each clip.

        Args:
            among: the emotions that are possible; None for all of ``classes``.

        Raises:
            ValueError: as :meth:`probabilities`.
        """
        names = self.classes if among is None else tuple(among)
        return [names[i] for i in self.probabilities(tokens, among).argmax(-1).tolist()]

    def _columns(self, among: Sequence[str] | None) -> list[int]:
        names = self.classes if among is None else among
        unknown = [name for name in names if name not in self.classes]
        if unknown or not len(names):
            raise ValueError(f"among: wanted some of {list(self.classes)}, got {list(names)}")
        return [self.classes.index(name) for name in names]

    # -- file -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``emotion.safetensors`` into the folder of the codec's weights; its path."""
        path = Path(folder) / HEAD_NAME
        record = {
            "format": HEAD_FORMAT,
            "fingerprint": self.reader.fingerprint,
            "classes": json.dumps(self.classes),
            "shape": json.dumps(self.reader.shape),
            "frame_rate": repr(self.reader.frame_rate),
            "gamma": repr(self.gamma),
            "metadata": json.dumps(self.metadata),
        }
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        save_file(tensors, path, record)
        path.chmod(0o644)  # safetensors writes for the owner alone
        return path

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path | None = None) -> EmotionHead:
        """The head beside weights of the codec.

        Args:
            name_or_path: as of ``AffectCodec.from_pretrained``.

        Raises:
            CheckpointError: if there is none, or the file is not such a head.
        """
        path = checkpoint.resolve(name_or_path) / HEAD_NAME
        if not path.is_file():
            raise checkpoint.CheckpointError(
                f"emotion head: no file {path}; train one with "
                "python -m affectcodec.evaluation.emotion_head"
            )
        try:
            with safe_open(path, "pt") as file:
                record = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if record.get("format") != HEAD_FORMAT:
                raise ValueError(f"format {record.get('format')!r}, wanted {HEAD_FORMAT!r}")
            reader = EmotionReader(
                tensors["reader.table"],
                json.loads(record["shape"]),
                record["fingerprint"],
                float(record["frame_rate"]),
            )
            parts = {k: v for k, v in tensors.items() if not k.startswith("reader.")}
            head = cls(
                reader,
                json.loads(record["classes"]),
                gamma=float(record["gamma"]),
                metadata=json.loads(record["metadata"]),
                **parts,
            )
            head.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise checkpoint.CheckpointError(
                f"emotion head: {path} is not one that this release reads: {error}"
            ) from error
        return head

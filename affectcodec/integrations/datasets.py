# SPDX-License-Identifier: Apache-2.0
"""Tokens in columns of ``datasets``; needs ``affectcodec[corpus]``.

Example:
    >>> data = load_dataset("audiofolder", data_dir="clips", split="train")
    >>> tokens = data.map(TokenEncoder(kbps=1.5), batched=True, batch_size=16,
    ...                   remove_columns=["audio"], features=token_features())
    >>> audio = TokenDecoder()(tokens[:4])["audio"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from affectcodec.audio import load_audio, resample
from affectcodec.codec import AffectCodec
from affectcodec.config import StageSpec
from affectcodec.tokens import Tokens

COLUMNS = ("codes", "num_samples", "emotion_stages", "acoustic_stages", "codec")


def token_features(more: Mapping[str, Any] | None = None) -> Any:
    """``datasets.Features`` of the columns that :class:`TokenEncoder` makes.

    Args:
        more: features of further columns.
    """
    from datasets import Features, Sequence, Value

    own = {
        "codes": Sequence(Sequence(Value("int32"))),
        "num_samples": Value("int64"),
        "emotion_stages": Value("int32"),
        "acoustic_stages": Value("int32"),
        "codec": Value("string"),
    }
    return Features({**own, **(more or {})})


class TokenEncoder:
    """For ``Dataset.map(..., batched=True)``: audio to columns of tokens.

    Makes ``codes`` ``[K, T]``, ``num_samples``, the stages of each block and the codec's
    fingerprint.

    Args:
        codec: an ``AffectCodec``, a folder, or the name of shipped weights.
        stages, kbps: as in ``AffectCodec.encode``.
        column: of the audio, as ``datasets.Audio`` gives it, decoded or not.
    """

    def __init__(
        self,
        codec: AffectCodec | str | None = None,
        *,
        stages: StageSpec = None,
        kbps: float | None = None,
        column: str = "audio",
    ) -> None:
        self.source, self.stages, self.kbps, self.column = codec, stages, kbps, column
        self._codec = codec if isinstance(codec, AffectCodec) else None

    def __getstate__(self) -> dict[str, Any]:
        # A worker process loads the weights of a name itself; and caching by content of the
        # function must not depend on whether they were loaded.
        kept = None if not isinstance(self.source, AffectCodec) else self.source
        return {**self.__dict__, "_codec": kept}

    @property
    def codec(self) -> AffectCodec:
        """The codec, loaded at its first use."""
        if self._codec is None:
            assert not isinstance(self.source, AffectCodec)
            self._codec = AffectCodec.from_pretrained(self.source)
        return self._codec

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Columns of tokens.

        Raises:
            ValueError: without the column, or on audio that cannot be read.
        """
        if self.column not in batch:
            raise ValueError(f"column: no {self.column!r} among {sorted(batch)}")
        rate = self.codec.config.sample_rate
        waves = [_wave(value, rate) for value in batch[self.column]]
        lengths = torch.tensor([len(wave) for wave in waves], dtype=torch.int64)
        padded = torch.zeros(len(waves), 1, int(lengths.max()) if waves else 0)
        for row, wave in zip(padded, waves, strict=True):
            row[0, : len(wave)] = torch.from_numpy(wave)
        tokens = self.codec.encode(
            padded, rate, lengths=lengths, stages=self.stages, kbps=self.kbps
        )
        count = len(tokens)
        return {
            "codes": [tokens.select(i).codes[0].tolist() for i in range(count)],
            "num_samples": tokens.num_samples.tolist(),
            "emotion_stages": [tokens.stages["emotion"]] * count,
            "acoustic_stages": [tokens.stages["acoustic"]] * count,
            "codec": [tokens.config_hash] * count,
        }


def _wave(value: Any, rate: int) -> np.ndarray:
    """Mono float32 at ``rate`` of what an audio column may hold."""
    if isinstance(value, Mapping) and value.get("array") is not None:
        samples = np.asarray(value["array"], dtype=np.float32)
        samples = samples.mean(0) if samples.ndim == 2 else samples
        return np.asarray(resample(samples, int(value["sampling_rate"]), rate))
    if isinstance(value, Mapping):
        import io

        data = value.get("bytes")
        value = io.BytesIO(data) if data else value.get("path")
    elif hasattr(value, "get_all_samples"):  # what datasets 4 and later decode to
        found = value.get_all_samples()
        samples = found.data.mean(0).numpy().astype(np.float32)
        return np.asarray(resample(samples, int(found.sample_rate), rate))
    if value is None:
        raise ValueError("audio: a row holds neither samples, bytes nor a path")
    return load_audio(value, sample_rate=rate)[0]


class TokenDecoder:
    """Columns of tokens back to audio.

    Args:
        codec: an ``AffectCodec``, a folder, or the name of shipped weights.
    """

    def __init__(self, codec: AffectCodec | str | None = None) -> None:
        self.codec = codec if isinstance(codec, AffectCodec) else AffectCodec.from_pretrained(codec)

    def tokens(self, batch: Mapping[str, Sequence[Any]]) -> Tokens:
        """Rows as one padded batch of tokens.

        Raises:
            ValueError: without a column, on rows of different stages, or of another codec.
        """
        missing = [name for name in COLUMNS if name not in batch]
        if missing:
            raise ValueError(f"batch: lacks the columns {missing}, has {sorted(batch)}")
        rates = set(zip(batch["emotion_stages"], batch["acoustic_stages"], strict=True))
        makers = set(batch["codec"])
        if len(rates) > 1 or len(makers) > 1:
            raise ValueError(
                f"batch: rows of different codecs or stages cannot be one batch: {len(makers)} "
                f"codecs, stages {sorted(rates)}; decode them apart"
            )
        config = self.codec.config
        emotion, acoustic = next(iter(rates), (config.quantizer.num_stages,) * 2)
        stages = {"emotion": int(emotion), "acoustic": int(acoustic)}
        rows = [torch.tensor(codes, dtype=torch.int32) for codes in batch["codes"]]
        lengths = torch.tensor([row.shape[-1] for row in rows], dtype=torch.int64)
        shape = (len(rows), max(stages.values()), int(lengths.max()) if rows else 0)
        codes = torch.zeros(shape, dtype=torch.int32)
        for place, row in zip(codes, rows, strict=True):
            if row.numel():
                place[:, : row.shape[-1]] = row
        return Tokens(
            codes=codes,
            lengths=lengths,
            num_samples=torch.tensor(list(batch["num_samples"]), dtype=torch.int64),
            stages=stages,
            quantizer=config.quantizer,
            config_hash=next(iter(makers), self.codec.fingerprint),
            sample_rate=config.sample_rate,
            hop_length=config.hop_length,
        )

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[dict[str, Any]]]:
        """A column ``audio`` of mappings with ``array`` and ``sampling_rate``."""
        tokens = self.tokens(batch)
        waves = self.codec.decode(tokens)[:, 0].cpu().numpy()
        rate = self.codec.config.sample_rate
        return {
            "audio": [
                {"array": wave[: int(n)], "sampling_rate": rate}
                for wave, n in zip(waves, tokens.num_samples, strict=True)
            ]
        }

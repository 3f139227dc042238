# SPDX-License-Identifier: Apache-2.0
"""Frozen configuration of augmentation and of how data are fed."""

from __future__ import annotations

from dataclasses import dataclass


def _share(owner: str, name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{owner}: {name} is a share and must lie in 0..1, got {value!r}")


def _range(owner: str, name: str, value: tuple[float, float], low: float) -> None:
    if len(value) != 2 or not low <= value[0] <= value[1] < float("inf"):
        raise ValueError(
            f"{owner}: {name} must be two numbers, the smaller first, from {low:g} on; got {value}"
        )


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to crops besides their level. The result is both input and target.

    Args:
        noise: share of crops that get noise.
        noise_snr_db: range of the ratio of speech to noise in dB.
        noise_datasets: corpora that serve as noise, and as nothing else. Without any, noise is
            synthetic: of a random spectral tilt, or the babble of other clips.
        reverb: share of crops that are put into a room.
        reverb_seconds: range of the time in which the room decays by 60 dB.
        reverb_direct_db: range of the ratio of direct sound to reverberation in dB.
    """

    noise: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    noise_datasets: tuple[str, ...] = ()
    reverb: float = 0.0
    reverb_seconds: tuple[float, float] = (0.15, 0.7)
    reverb_direct_db: tuple[float, float] = (0.0, 15.0)

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("noise_snr_db", "noise_datasets", "reverb_seconds", "reverb_direct_db"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("noise", "reverb"):
            _share(owner, name, getattr(self, name))
        _range(owner, "noise_snr_db", self.noise_snr_db, -100)
        _range(owner, "reverb_seconds", self.reverb_seconds, 0.01)
        _range(owner, "reverb_direct_db", self.reverb_direct_db, -100)


@dataclass(frozen=True)
class LoaderConfig:
    """How batches are made and kept ready.

    Args:
        workers: processes that make batches; 0 makes them in the training process. What a batch
            holds does not depend on it, unless tar shards are read: there it must stay as it is
            for as long as a run is resumed.
        prefetch: batches that a worker keeps ready.
        shard_pool: clips of a stream of tar shards that are at hand to draw crops from.
        shard_crops: crops drawn of such a clip, on average, before it makes room for the next.
    """

    workers: int = 0
    prefetch: int = 4
    shard_pool: int = 256
    shard_crops: int = 8

    def __post_init__(self) -> None:
        for name, low in (("workers", 0), ("prefetch", 1), ("shard_pool", 1), ("shard_crops", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(
                    f"LoaderConfig: {name} must be an integer from {low} on, got {value!r}"
                )

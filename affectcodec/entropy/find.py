# SPDX-License-Identifier: Apache-2.0
"""Priors by name, folder or id."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from affectcodec import checkpoint
from affectcodec.bitstream.errors import AfcError
from affectcodec.entropy import prior
from affectcodec.entropy.coder import PriorCoder


def load_coder(name_or_path: str | Path | None = None) -> PriorCoder:
    """The entropy coder that lies beside weights.

    Args:
        name_or_path: as of `AffectCodec.from_pretrained`.

    Raises:
        CheckpointError: there are no such weights, or no prior beside them.
        ValueError: the prior's file is damaged.
    """
    folder = checkpoint.resolve(name_or_path)
    try:
        return _load(str(folder.resolve()))
    except FileNotFoundError:
        raise checkpoint.CheckpointError(
            f"name_or_path: {folder} has no {prior.FILE_NAME}; fit one with "
            "python -m affectcodec.entropy.fit"
        ) from None


def find_prior(coder_id: str) -> PriorCoder:
    """The shipped entropy coder of an id, as stream headers name it.

    Raises:
        AfcError: none of the shipped ones has it.
    """
    known = []
    for name in checkpoint.shipped_names():
        folder = checkpoint.resolve(name)
        if (folder / prior.FILE_NAME).is_file():
            coder = _load(str(folder.resolve()))
            if coder.id == coder_id:
                return coder
            known.append(coder.id)
    raise AfcError(
        f"coder: the stream was entropy coded with the prior {coder_id}, here are {known}; pass "
        "the coder of the weights that made it: coder=affectcodec.entropy.load_coder(folder)"
    )


@lru_cache(maxsize=4)
def _load(folder: str) -> PriorCoder:
    return PriorCoder(prior.load(folder))

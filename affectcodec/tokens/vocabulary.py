# SPDX-License-Identifier: Apache-2.0
"""Flat vocabularies: one integer for every code that a language model may read or write."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectcodec.config import BDRFSQConfig
from affectcodec.tokens.batch import Tokens

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

LAYOUTS = ("shared", "offset", "split")
SPECIALS = ("pad", "bos", "eos", "sep", "mask")

_FORMAT = "affectcodec-vocabulary"
_VERSION = 1

StageSubset = int | Sequence[int] | Mapping[str, int | Sequence[int]] | None


@dataclass(frozen=True)
class Row:
    """One stream of ids: a stage, or one block of a stage.

    Attributes:
        stage: residual stage, counted from 0.
        block: name of the block, None where the row holds composite codes.
        offset: id of code 0.
        size: number of codes.
    """

    stage: int
    block: str | None
    offset: int
    size: int


@dataclass(frozen=True)
class Vocabulary:
    """Numbers the codes of one codec.

    Codes come first, special ids after them, so the id of a code in ``shared`` is the code itself.

    ========== ========================================================= ==================
    layout     an id names                                               size by default
    ========== ========================================================= ==================
    ``shared`` a composite code; all stages use the same ids             32,768 + specials
    ``offset`` a composite code of a stage                               8 x 32,768 + specials
    ``split``  a code of one block of a stage: emotion apart from        8 x (8 + 4,096)
               acoustic                                                  + specials
    ========== ========================================================= ==================

    Args:
        layout: see above.
        quantizer: what gives the codes their meaning.
        config_hash: fingerprint of the codec; tokens of another codec are refused.
        sample_rate, hop_length: of the codec, in Hz and samples.
        specials: names of the special ids, in order; must hold all of ``SPECIALS``.

    Example:
        >>> vocabulary = Vocabulary.of(codec, "split")
        >>> vocabulary.size, vocabulary.special("bos")
        (32837, 32833)
    """

    layout: str
    quantizer: BDRFSQConfig
    config_hash: str
    sample_rate: int = 16000
    hop_length: int = 320
    specials: tuple[str, ...] = SPECIALS

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout: wanted one of {list(LAYOUTS)}, got {self.layout!r}")
        object.__setattr__(self, "specials", tuple(self.specials))
        missing = [name for name in SPECIALS if name not in self.specials]
        if missing or len(set(self.specials)) != len(self.specials):
            raise ValueError(
                f"specials: wanted different names, among them {list(SPECIALS)}, "
                f"got {list(self.specials)}"
            )
        if self.size > 2**63 - 1:
            raise ValueError(
                f"layout: {self.layout!r} needs {self.size} ids, more than int64 can name; "
                "take 'split' or a quantizer with fewer code dims a stage"
            )

    @classmethod
    def of(
        cls, source: AffectCodec | Tokens, layout: str, extra_specials: Iterable[str] = ()
    ) -> Vocabulary:
        """The vocabulary of a codec, or of the codec that made some tokens."""
        specials = (*SPECIALS, *extra_specials)
        if isinstance(source, Tokens):
            return cls(
                layout,
                source.quantizer,
                source.config_hash,
                source.sample_rate,
                source.hop_length,
                specials,
            )
        config = source.config
        return cls(
            layout,
            config.quantizer,
            source.fingerprint,
            config.sample_rate,
            config.hop_length,
            specials,
        )

    @property
    def num_codes(self) -> int:
        """Ids that name codes: ``0..num_codes-1``."""
        stages = self.quantizer.num_stages
        if self.layout == "shared":
            return self.quantizer.codebook_size
        if self.layout == "offset":
            return stages * self.quantizer.codebook_size
        return stages * sum(block.codebook_size for block in self.quantizer.blocks)

    @property
    def size(self) -> int:
        """All ids, special ones included."""
        return self.num_codes + len(self.specials)

    def special(self, name: str) -> int:
        """Id of a special name.

        Raises:
            ValueError: if there is none of that name.
        """
        if name not in self.specials:
            raise ValueError(f"special: wanted one of {list(self.specials)}, got {name!r}")
        return self.num_codes + self.specials.index(name)

    def subset(self, stages: StageSubset = None) -> dict[str, tuple[int, ...]]:
        """Stages of every block that a request names.

        Args:
            stages: None for all, an int for the first so many, a sequence of stages counted from
                0, or a mapping from block to either; blocks that a mapping leaves out are empty.

        Raises:
            ValueError: on an unknown block, a stage out of range or named twice, or nothing left.
            TypeError: on another type.
        """
        names = self.quantizer.names
        if isinstance(stages, Mapping):
            unknown = sorted(set(stages) - set(names))
            if unknown:
                raise ValueError(f"stages: unknown blocks {unknown}; there are {list(names)}")
            found = {name: self._stages(stages.get(name, ()), name) for name in names}
        else:
            found = dict.fromkeys(names, self._stages(stages, "all blocks"))
        if not any(found.values()):
            raise ValueError("stages: at least one stage of one block is needed, got none")
        return found

    def _stages(self, wanted: int | Sequence[int] | None, owner: str) -> tuple[int, ...]:
        top = self.quantizer.num_stages
        if wanted is None:
            return tuple(range(top))
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            if not 0 <= wanted <= top:
                raise ValueError(f"stages: {owner}: wanted 0..{top} stages, got {wanted}")
            return tuple(range(wanted))
        if not isinstance(wanted, Sequence) or isinstance(wanted, str):
            raise TypeError(
                "stages: wanted None, an int, a sequence of ints or a mapping from block to "
                f"either, got {type(wanted).__name__} for {owner}"
            )
        found = tuple(sorted(wanted))
        if len(set(found)) != len(found) or any(not 0 <= stage < top for stage in found):
            raise ValueError(
                f"stages: {owner}: wanted different stages in 0..{top - 1}, got {list(wanted)}"
            )
        return found

    def rows(self, stages: StageSubset = None) -> tuple[Row, ...]:
        """Streams of ids of a set of stages, in the order in which a frame lists them.

        Composite layouts have a row a stage. ``split`` lists all stages of the first block before
        those of the next, so emotion comes before sound within a frame.
        """
        chosen = self.subset(stages)
        if self.layout == "split":
            found, start = [], 0
            for block in self.quantizer.blocks:
                size = block.codebook_size
                found += [Row(k, block.name, start + k * size, size) for k in chosen[block.name]]
                start += size * self.quantizer.num_stages
            return tuple(found)
        size = self.quantizer.codebook_size
        step = size if self.layout == "offset" else 0
        used = sorted({stage for kept in chosen.values() for stage in kept})
        return tuple(Row(stage, None, stage * step, size) for stage in used)

    def check(self, tokens: Tokens) -> None:
        """Refuse tokens that these ids do not name.

        Raises:
            ValueError: if another codec made them.
        """
        if tokens.config_hash != self.config_hash or tokens.quantizer != self.quantizer:
            raise ValueError(
                f"tokens: made by the codec {tokens.config_hash}, but this vocabulary numbers "
                f"those of {self.config_hash}; the same integers mean other sounds there. Encode "
                "the audio with the codec of this vocabulary, or make a vocabulary of the tokens "
                "by Vocabulary.of(tokens, layout)"
            )

    # -- file -----------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of JSON types; ids are written out for readers without this library."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "layout": self.layout,
            "config_hash": self.config_hash,
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "quantizer": self.quantizer.to_dict(),
            "size": self.size,
            "specials": {name: self.special(name) for name in self.specials},
            "rows": [dataclasses.asdict(row) for row in self.rows()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: on missing keys, another format or version, or ids that do not follow from
                the layout.
        """
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            raise ValueError(f"vocabulary: wanted a mapping with format={_FORMAT!r}")
        if data.get("version") != _VERSION:
            raise ValueError(
                f"vocabulary: version {data.get('version')!r}, this release reads {_VERSION}; "
                "update affectcodec"
            )
        fields = ("layout", "config_hash", "sample_rate", "hop_length", "quantizer", "specials")
        missing = [name for name in (*fields, "size") if name not in data]
        if missing:
            raise ValueError(f"vocabulary: missing keys {missing}")
        values = {name: data[name] for name in fields}
        values["quantizer"] = BDRFSQConfig.from_dict(values["quantizer"])
        if not isinstance(values["specials"], Mapping):
            raise ValueError("vocabulary: specials must map names to ids")
        values["specials"] = tuple(sorted(values["specials"], key=values["specials"].__getitem__))
        found = cls(**values)
        wanted = {name: found.special(name) for name in found.specials}
        if data["size"] != found.size or dict(data["specials"]) != wanted:
            raise ValueError(
                "vocabulary: its size and special ids do not follow from its layout and "
                f"quantizer: wanted {found.size} and {wanted}, got {data['size']} and "
                f"{dict(data['specials'])}"
            )
        return found

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: if the file is not such a vocabulary.
        """
        try:
            data = json.loads(Path(path).read_text())
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"vocabulary: {path} is not JSON: {error}") from None
        return cls.from_dict(data)

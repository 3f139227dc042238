# SPDX-License-Identifier: Apache-2.0
"""Sequences of flat ids for language models, and the exact way back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from affectcodec.tokens.batch import Tokens
from affectcodec.tokens.chunks import fresh
from affectcodec.tokens.reading import read_rows, read_whole
from affectcodec.tokens.rows import check_present, digit, write_rows
from affectcodec.tokens.vocabulary import Row, StageSubset, Vocabulary

PATTERNS = ("flatten", "parallel", "delay", "emotion_first")


@dataclass(frozen=True, eq=False)
class Sequences:
    """Ids of a batch, padded at the end.

    Attributes:
        ids: int64 ``[B, L]``, or ``[B, S, L]`` with one stream a row for the patterns
            ``parallel`` and ``delay``.
        lengths: int64 ``[B]``, valid positions of each sequence, bos and eos included.
    """

    ids: Tensor
    lengths: Tensor

    @property
    def mask(self) -> Tensor:
        """bool ``[B, L]``, True at valid positions."""
        steps = torch.arange(self.ids.shape[-1], device=self.ids.device)
        return steps < self.lengths[:, None]


@dataclass(frozen=True)
class Pattern:
    """How the codes of a clip become sequences.

    ================= ============ =========================================================
    name              ids          order
    ================= ============ =========================================================
    ``flatten``       ``[B, L]``   frame by frame, in a frame row by row
    ``parallel``      ``[B, S, L]`` one stream a row, a frame a step
    ``delay``         ``[B, S, L]`` the same, each row as many steps late as stages come before
                                   its own; free places hold ``mask`` (arXiv 2306.05284)
    ``emotion_first`` ``[B, L]``   all frames of the first block, ``sep``, all of the next
    ================= ============ =========================================================

    Rows are those of ``vocabulary.rows(stages)``.

    Args:
        name: see above; ``emotion_first`` needs a vocabulary with the layout ``split``.
        vocabulary: the ids.
        stages: which stages; see ``Vocabulary.subset``.
        bos, eos: whether sequences begin and end with these ids.

    Example:
        >>> pattern = Pattern("flatten", Vocabulary.of(codec, "split"), stages=2)
        >>> sequences = pattern.encode(tokens)
        >>> pattern.decode(sequences.ids) == tokens.truncate(2)     # up to num_samples
        True
    """

    name: str
    vocabulary: Vocabulary
    stages: StageSubset = None
    bos: bool = True
    eos: bool = True

    def __post_init__(self) -> None:
        if self.name not in PATTERNS:
            raise ValueError(f"name: wanted one of {list(PATTERNS)}, got {self.name!r}")
        if self.name == "emotion_first" and self.vocabulary.layout != "split":
            raise ValueError(
                "vocabulary: 'emotion_first' needs ids that keep blocks apart: layout 'split', "
                f"got {self.vocabulary.layout!r}"
            )
        self.vocabulary.rows(self.stages)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The streams of ids, in order."""
        return self.vocabulary.rows(self.stages)

    @property
    def flat(self) -> bool:
        """Whether a clip is one sequence, not one a row."""
        return self.name in ("flatten", "emotion_first")

    def parts(self) -> list[list[int]]:
        """Rows that are interleaved with one another; the parts follow one after the other."""
        rows = self.rows
        if self.name != "emotion_first":
            return [list(range(len(rows)))]
        blocks = list(dict.fromkeys(row.block for row in rows))
        return [[i for i, row in enumerate(rows) if row.block == block] for block in blocks]

    def delays(self) -> list[int]:
        stages = sorted({row.stage for row in self.rows})
        late = self.name == "delay"
        return [stages.index(row.stage) if late else 0 for row in self.rows]

    def length(self, frames: Tensor) -> Tensor:
        """Sequence length of clips of so many frames, bos and eos included."""
        ends = int(self.bos) + int(self.eos)
        if self.flat:
            return frames * len(self.rows) + len(self.parts()) - 1 + ends
        # A clip without frames has no delayed rows to wait for.
        return frames + torch.where(frames > 0, max(self.delays()), 0) + ends

    # -- codes to ids ---------------------------------------------------------------------------

    def encode(self, tokens: Tokens) -> Sequences:
        """Ids of tokens.

        Raises:
            ValueError: if another codec made the tokens, or they lack a stage that is asked for.
        """
        self.vocabulary.check(tokens)
        check_present(tokens, self.vocabulary.subset(self.stages))
        lengths = tokens.lengths.to(torch.int64)
        total = self.length(lengths)
        width = int(total.max()) if total.numel() else 0
        if self.flat:
            ids = self._flat_ids(tokens, lengths, total, width)
        else:
            ids = self._stacked_ids(tokens, lengths, total, width)
        return Sequences(ids, total)

    def _flat_ids(self, tokens: Tokens, lengths: Tensor, total: Tensor, width: int) -> Tensor:
        special = self.vocabulary.special
        batch, frames, device = tokens.batch_size, tokens.num_frames, tokens.codes.device
        even = bool((lengths == frames).all())
        ids = fresh((batch, width), torch.int64, device)
        start = torch.full((batch,), int(self.bos), device=device)
        first = int(self.bos)
        subset = self.vocabulary.subset(self.stages)
        for number, part in enumerate(self.parts()):
            rows = [self.rows[i] for i in part]
            count = frames * len(part)
            if number:
                ids.scatter_(1, start[:, None], special("sep"))
                start, first = start + 1, first + 1
            if even or not number:
                # What a shorter clip writes beyond its end is overwritten below.
                body = ids[:, first : first + count].unflatten(1, (frames, len(part)))
                write_rows(body, tokens, rows, subset)
            else:
                body = torch.empty(batch, frames, len(part), dtype=torch.int64, device=device)
                write_rows(body, tokens, rows, subset)
                for clip, (at, n) in enumerate(zip(start.tolist(), lengths.tolist(), strict=True)):
                    ids[clip, at : at + n * len(part)] = body[clip, :n].flatten()
            start, first = start + lengths * len(part), first + count
        if not even:
            steps = torch.arange(width, device=device)
            ids.masked_fill_(steps >= total[:, None], special("pad"))
        if self.bos:
            ids[:, :1] = special("bos")
        if self.eos and batch:
            ids.scatter_(1, total[:, None] - 1, special("eos"))
        return ids

    def _stacked_ids(self, tokens: Tokens, lengths: Tensor, total: Tensor, width: int) -> Tensor:
        rows, special, delays = self.rows, self.vocabulary.special, self.delays()
        batch, frames = tokens.batch_size, tokens.num_frames
        device, first = tokens.codes.device, int(self.bos)
        shape = (batch, len(rows), width)
        ids = torch.full(shape, special("mask"), dtype=torch.int64, device=device)
        subset = self.vocabulary.subset(self.stages)
        for i, late in enumerate(delays):
            room = max(0, min(frames, width - first - late))
            target = ids[:, i, first + late : first + late + room, None]
            write_rows(target, tokens, [rows[i]], subset)
        if not bool((lengths == frames).all()):
            steps = torch.arange(width, device=device)
            late_by = torch.tensor(delays, device=device)[None, :, None]
            ids.masked_fill_(steps >= first + late_by + lengths[:, None, None], special("mask"))
            ids.masked_fill_((steps >= total[:, None])[:, None], special("pad"))
        if self.bos:
            ids[..., :1] = special("bos")
        if self.eos and batch:
            ids.scatter_(2, (total - 1)[:, None, None].expand(-1, len(rows), 1), special("eos"))
        return ids

    # -- ids to codes ---------------------------------------------------------------------------

    def decode(
        self,
        ids: Tensor | Sequences,
        lengths: Tensor | None = None,
        *,
        num_samples: Tensor | None = None,
        errors: str = "raise",
    ) -> Tokens:
        """Tokens of ids, the inverse of :meth:`encode`.

        Args:
            ids: int64 or int32 ``[B, L]`` (``[B, S, L]`` for ``parallel`` and ``delay``).
            lengths: ``[B]`` valid positions; None to end each sequence at its first eos or pad.
            num_samples: ``[B]`` samples of each clip; None for all that the frames hold.
            errors: what to do with an id that is not possible at its place, as a language model
                may write it: ``"raise"``, or ``"cut"`` to end the clip before that frame.

        Raises:
            ValueError: on a wrong shape, an impossible id, or stages that are not the first ones of
                their block (see :meth:`decode_codes`).
        """
        subset = self.vocabulary.subset(self.stages)
        if any(kept != tuple(range(len(kept))) for kept in subset.values()):
            raise ValueError(
                f"stages: {subset} are not the first stages of their blocks, so they alone are "
                "no tokens; take decode_codes and put the other stages beside them"
            )
        quantizer = self.vocabulary.quantizer
        counts = {name: len(kept) for name, kept in subset.items()}
        if isinstance(ids, Sequences):
            lengths = ids.lengths
            ids = ids.ids
        whole = read_whole(self, ids, lengths, errors)
        if whole is not None:
            codes, frames = whole
        else:
            values, frames = read_rows(self, ids, lengths, errors)
            codes = self._composite(values, counts).transpose(1, 2).contiguous()
        hop = self.vocabulary.hop_length
        if num_samples is None:
            num_samples = (frames - 1).clamp(min=0) * hop
        return Tokens(
            codes,
            frames,
            num_samples.to(frames),
            counts,
            quantizer,
            self.vocabulary.config_hash,
            self.vocabulary.sample_rate,
            hop,
        )

    def decode_codes(
        self, ids: Tensor | Sequences, lengths: Tensor | None = None, *, errors: str = "raise"
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Codes of every block and frames of every clip, for any subset of stages.

        Returns:
            integers ``[B, n, T]`` for each block, in the order of ``vocabulary.subset(stages)``, 0
            beyond the clip's frames; and the frames, int64 ``[B]``.

        Raises:
            ValueError: as :meth:`decode`.
        """
        if isinstance(ids, Sequences):
            lengths = ids.lengths
            ids = ids.ids
        values, frames = read_rows(self, ids, lengths, errors)
        return self._by_block(values), frames

    def _composite(self, values: Tensor, counts: dict[str, int]) -> Tensor:
        """Composite codes ``[B, T, K]`` of rows, int32 where they fit."""
        quantizer = self.vocabulary.quantizer
        dtype = torch.int64 if quantizer.codebook_size > 2**31 else torch.int32
        if self.vocabulary.layout != "split" and len(set(counts.values())) == 1:
            return values.to(dtype)
        codes: Tensor | None = None
        top = max(counts.values())
        for name, part in self._by_block(values).items():
            placed = part.transpose(1, 2).to(dtype) * quantizer.token_bases()[name]
            missing = top - counts[name]
            placed = torch.nn.functional.pad(placed, (0, missing)) if missing else placed
            codes = placed if codes is None else codes.add_(placed)
        assert codes is not None
        return codes

    def _by_block(self, values: Tensor) -> dict[str, Tensor]:
        rows = self.rows
        found = {}
        for name, kept in self.vocabulary.subset(self.stages).items():
            if self.vocabulary.layout == "split":
                own = [i for i, row in enumerate(rows) if row.block == name]
                start = own[0] if own else 0  # the rows of a block are neighbours
                found[name] = values[..., start : start + len(own)].transpose(1, 2)
            else:
                own = [i for i, row in enumerate(rows) if row.stage in kept]
                found[name] = digit(values[..., own], self.vocabulary.quantizer, name).transpose(
                    1, 2
                )
        return found

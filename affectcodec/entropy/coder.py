# SPDX-License-Identifier: Apache-2.0
"""Codes of a packet to bytes and back, by a prior and a range coder.

The range coder is that of `constriction` (Bamler 2022). A payload holds, frame after frame, whether
the stage counts change, the counts if they do, and the digits that are there. Each payload starts
from nothing, so that a lost packet costs itself alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from affectcodec.bitstream.errors import AfcPacketError
from affectcodec.bitstream.header import BlockLayout
from affectcodec.entropy.layout import IntArray
from affectcodec.entropy.prior import Ints, Prior
from affectcodec.tokens.batch import Tokens

MAX_FRAMES = 1024
_AT_ONCE = 32  # packets in one pass of the prior: hours of audio must not be held at once
PACKET_FRAMES = 250  # of a packet, unless the writer is told otherwise
_SAME = np.array([31, 1], np.float32)  # stage counts rarely change: .05 bits a frame


def _constriction() -> Any:
    try:
        import constriction
    except ImportError:
        raise ModuleNotFoundError(
            "entropy coding needs the package constriction; "
            "install it with: pip install constriction"
        ) from None
    return constriction.stream


def least_bytes(frames: int) -> int:
    """Fewest bytes of a packet. Reading takes time by the frame, and a few forged bytes must not
    claim hours of them; speech takes several times more."""
    return frames // 4


def _changes(stages: npt.NDArray[np.uint8], packet: int) -> npt.NDArray[np.bool_]:
    """Frames ``[T]`` whose stage counts ``[G, T]`` are told, in packets of so many frames: those
    that differ from the frame before; a packet begins at 0."""
    before = np.zeros_like(stages)
    before[:, 1:] = stages[:, :-1]
    before[:, :: max(1, packet)] = 0
    return np.any(stages != before, axis=0)


def clip_codes(tokens: Tokens) -> tuple[list[IntArray], npt.NDArray[np.uint8]]:
    """Codes per block ``[K_b, T]`` and stage counts ``[G, T]`` of one clip.

    Raises:
        ValueError: more than one clip.
    """
    if len(tokens) != 1:
        raise ValueError(f"tokens: wanted one clip, got {len(tokens)}; use select(index)")
    frames, names = int(tokens.lengths[0]), tokens.quantizer.names
    codes = [tokens.block_codes(name)[0, :, :frames].cpu().numpy() for name in names]
    if tokens.frame_stages is None:
        counts = np.array([tokens.stages[name] for name in names], np.uint8)
        return codes, np.repeat(counts[:, None], frames, 1)
    return codes, tokens.frame_stages[0, :, :frames].cpu().numpy().astype(np.uint8)


class PriorCoder:
    """Entropy coding of packets.

    Args:
        prior: probabilities of the digits.

    Attributes:
        id, blocks, num_stages: of the prior, for headers.
        max_frames: most frames of a packet.

    Raises:
        ModuleNotFoundError: constriction is not installed.
    """

    def __init__(self, prior: Prior) -> None:
        layout = prior.layout
        self.prior = prior
        self.id = prior.id
        self.blocks = tuple(
            BlockLayout(name, levels)
            for name, levels in zip(layout.names, layout.levels, strict=True)
        )
        self.num_stages = layout.num_stages
        self.max_frames = MAX_FRAMES
        self._stream = _constriction()

    @cached_property
    def _family(self) -> Any:
        return self._stream.model.Categorical(perfect=False)

    def encode(self, codes: Sequence[IntArray], stages: npt.NDArray[np.uint8]) -> bytes:
        """Bytes of codes per block ``[K_b, T]`` of which frame t has ``stages[b, t]``."""
        digits, tables, present = next(self._tables([(codes, stages)]))
        return self._write(stages, digits, tables, present)

    def costs(
        self,
        codes: Sequence[IntArray],
        stages: npt.NDArray[np.uint8],
        packet_frames: int = PACKET_FRAMES,
    ) -> npt.NDArray[np.float64]:
        """Bits of each digit ``[T, D]``, in packets of so many frames; 0 where absent."""
        found = []
        cuts = range(0, max(1, stages.shape[1]), packet_frames)
        packets = [
            ([c[:, a : a + packet_frames] for c in codes], stages[:, a : a + packet_frames])
            for a in cuts
        ]
        for digits, tables, present in self._tables(packets):
            total = tables.sum(2)
            chosen = np.take_along_axis(tables, digits[..., None].astype(np.int64), 2)[..., 0]
            found.append(
                np.where(present, np.log2(np.maximum(total, 1) / np.maximum(chosen, 1)), 0.0)
            )
        return np.concatenate(found)

    def count_bits(
        self, stages: npt.NDArray[np.uint8], packet_frames: int = PACKET_FRAMES
    ) -> float:
        """Bits of the stage counts ``[G, T]`` themselves, in packets of so many frames."""
        changed = _changes(stages, packet_frames)
        same, other = -np.log2(_SAME / _SAME.sum())
        fresh = len(self.blocks) * np.log2(self.num_stages + 1)
        return float(np.where(changed, other + fresh, same).sum())

    def check(self, tokens: Tokens) -> None:
        """Refuse tokens of another layout.

        Raises:
            ValueError: if blocks, levels or stages differ.
        """
        layout, own = self.prior.layout, tokens.quantizer
        levels = tuple(tuple(block.levels) for block in own.blocks)
        if (own.names, levels) != (layout.names, layout.levels) or max(
            tokens.stages.values()
        ) > layout.num_stages:
            raise ValueError(
                f"tokens: have blocks {own.names} of levels {levels} and stages {tokens.stages}, "
                f"the coder is for {layout.names} of {layout.levels}, up to {layout.num_stages} "
                "stages"
            )

    def _tables(
        self, packets: Sequence[tuple[Sequence[IntArray], npt.NDArray[np.uint8]]]
    ) -> Iterator[tuple[npt.NDArray[np.uint8], Ints, npt.NDArray[np.bool_]]]:
        for start in range(0, len(packets), _AT_ONCE):
            yield from self._some_tables(packets[start : start + _AT_ONCE])

    def _some_tables(
        self, packets: Sequence[tuple[Sequence[IntArray], npt.NDArray[np.uint8]]]
    ) -> Iterator[tuple[npt.NDArray[np.uint8], Ints, npt.NDArray[np.bool_]]]:
        layout = self.prior.layout
        longest = max(stages.shape[1] for _, stages in packets)
        shown = np.zeros((len(packets), longest, layout.num_indicators), np.float32)
        known = []
        for row, (codes, stages) in enumerate(packets):
            digits, present = layout.digits(codes), layout.present(stages)
            shown[row, : len(digits)] = layout.indicators(digits, present)
            known.append((digits, present))
        states = self.prior.states(shown)
        for row, ((_, stages), (digits, present)) in enumerate(zip(packets, known, strict=True)):
            frames = len(digits)
            counts = layout.count_indicators(stages)
            context = self.prior.context(states[row, :frames], counts)
            yield (
                digits,
                self.prior.tables(context, shown[row, :frames], np.any(present, 0)),
                present,
            )

    def _write(
        self,
        stages: npt.NDArray[np.uint8],
        digits: npt.NDArray[np.uint8],
        tables: Ints,
        present: npt.NDArray[np.bool_],
    ) -> bytes:
        # One table of all symbols in their order lets the range coder take them in one call.
        changes = _changes(stages, stages.shape[1])
        groups, width = len(stages), max(tables.shape[2], self.num_stages + 1, 2)
        rows = 1 + groups + digits.shape[1]
        odds = np.zeros((len(digits), rows, width), np.float32)
        values = np.zeros((len(digits), rows), np.int32)
        used = np.zeros((len(digits), rows), bool)
        odds[:, 0, :2], values[:, 0], used[:, 0] = _SAME, changes, True
        odds[:, 1 : 1 + groups, : self.num_stages + 1] = 1.0
        values[:, 1 : 1 + groups], used[:, 1 : 1 + groups] = stages.T, changes[:, None]
        odds[:, 1 + groups :, : tables.shape[2]] = tables
        values[:, 1 + groups :], used[:, 1 + groups :] = digits, present
        encoder = self._stream.queue.RangeEncoder()
        wide = np.concatenate([[2], [self.num_stages + 1] * groups, self.prior.layout.digit_levels])
        size = np.broadcast_to(wide, used.shape)[used]
        odds, values = odds[used], values[used]
        # A table's width is part of the model: runs of one width go together.
        cuts = np.flatnonzero(np.diff(size)) + 1
        for start, end in zip([0, *cuts], [*cuts, len(size)], strict=True):
            encoder.encode(
                values[start:end],
                self._family,
                np.ascontiguousarray(odds[start:end, : size[start]]),
            )
        data: bytes = encoder.get_compressed().astype(">u4").tobytes()
        return data.rstrip(b"\0").ljust(least_bytes(len(digits)), b"\0")

    def decode(
        self, data: bytes, frames: int, most: Sequence[int]
    ) -> tuple[list[IntArray], npt.NDArray[np.uint8]]:
        """Codes per block ``[most_b, frames]`` and stage counts ``[G, frames]`` of a payload.

        Raises:
            AfcPacketError: more frames than a packet may have, stage counts above ``most``, or
                bytes that no encoder writes, too few ones among them.
        """
        try:
            return self._decode(data, frames, most)
        except AssertionError as error:  # what the range decoder raises
            raise AfcPacketError(f"packet: its payload is damaged ({error})") from None

    def _decode(
        self, data: bytes, frames: int, most: Sequence[int]
    ) -> tuple[list[IntArray], npt.NDArray[np.uint8]]:
        if not 1 <= frames <= self.max_frames:
            raise AfcPacketError(f"packet: expected 1..{self.max_frames} frames, got {frames}")
        if len(data) < least_bytes(frames):
            raise AfcPacketError(
                f"packet: {frames} frames take {least_bytes(frames)} bytes at least, "
                f"got {len(data)}"
            )
        layout, prior = self.prior.layout, self.prior
        words = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)
        decoder = self._stream.queue.RangeDecoder(words)
        digits = np.zeros((frames, layout.num_digits), np.uint8)
        stages = np.zeros((len(most), frames), np.uint8)
        uniform = np.ones((1, self.num_stages + 1), np.float32)
        same, state = _SAME[None], prior.start(1)
        here = np.zeros((len(most), 1), np.uint8)
        present, counts = layout.present(here), layout.count_indicators(here)
        for frame in range(frames):
            if int(decoder.decode(self._family, same)[0]):
                for block in range(len(most)):
                    here[block] = int(decoder.decode(self._family, uniform)[0])
                if np.any(here[:, 0] > np.asarray(most)):
                    raise AfcPacketError(
                        f"packet: frame {frame} has {here[:, 0].tolist()} stages, the head says "
                        f"at most {list(most)}"
                    )
                present, counts = layout.present(here), layout.count_indicators(here)
            stages[:, frame] = here[:, 0]
            context = prior.context(state, counts)
            seen = np.zeros_like(context)
            for digit in np.flatnonzero(present[0]):
                table = prior.table(int(digit), context, seen)
                odds = table[:, : layout.digit_levels[digit]].astype(np.float32)
                value = decoder.decode(self._family, odds)
                digits[frame, digit] = value[0]
                seen += prior.reveal(int(digit), value)
            shown = layout.indicators(digits[frame : frame + 1], present)
            state = prior.step(state, shown)
        return layout.codes(digits, most), stages

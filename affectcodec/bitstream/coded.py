# SPDX-License-Identifier: Apache-2.0
"""Entropy-coded payloads: what a coder must be able to do, which one a stream needs, and its use.

A stream whose header names a coder has coded payloads in all its packets. The coder knows how
likely each code is; :mod:`affectcodec.entropy` has such coders, and any other may be passed. The
byte layout is specified in docs/format.md, section "Coded packets".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from affectcodec.bitstream.errors import AfcCoderError, AfcError, AfcPacketError
from affectcodec.bitstream.head import PacketHead
from affectcodec.bitstream.header import BlockLayout, StreamHeader

IntArray = npt.NDArray[np.signedinteger[Any]]
StageCounts = npt.NDArray[np.uint8]

CODED_PACKET_SECONDS = 5.0  # the coder starts anew in each packet: longer ones cost fewer bits


def code_dtype(bits: int) -> type[np.int32] | type[np.int64]:
    """Type that holds codes of so many bits."""
    return np.int32 if bits <= 31 else np.int64


class PayloadCoder(Protocol):
    """Turns the codes of one packet into bytes and back.

    Attributes:
        id: 16 lower-case hexadecimal digits that name the coder with all its parameters. Streams
            carry it: what one coder wrote, only one with the same id can read.
        blocks: the block layout that it codes.
        num_stages: most stages of a block.
        max_frames: most frames of a packet. Readers refuse packets that claim more, which bounds
            the work that forged bytes can cause.
    """

    @property
    def id(self) -> str: ...

    @property
    def blocks(self) -> tuple[BlockLayout, ...]: ...

    @property
    def num_stages(self) -> int: ...

    @property
    def max_frames(self) -> int: ...

    def encode(self, codes: Sequence[IntArray], stages: StageCounts) -> bytes:
        """Bytes of a packet.

        Args:
            codes: per block codes [K_b, T]; those at or above a frame's stage count are ignored.
            stages: stage count of each block and frame, [G, T] uint8, at most K_b.
        """
        ...

    def decode(
        self, data: bytes, frames: int, most: tuple[int, ...]
    ) -> tuple[list[IntArray], StageCounts]:
        """Codes of a packet.

        Args:
            data: what :meth:`encode` returned, or any other bytes.
            frames: T.
            most: the largest stage count of each block.

        Returns:
            Per block codes [most_b, T], 0 where a frame has fewer stages, and the stage counts
            [G, T], at most ``most``.

        Raises:
            ValueError: the bytes hold no such packet. Nothing else may come of any bytes.
        """
        ...


CoderOrFinder = PayloadCoder | Callable[[str], PayloadCoder]


def check_coder(header: StreamHeader, coder: PayloadCoder) -> PayloadCoder:
    """The coder, if it is the one that the header names and fits the header's layout.

    Raises:
        AfcCoderError: it is another coder, or one for other blocks or fewer stages.
    """
    if header.coder != coder.id:
        raise AfcCoderError(
            f"coder: the stream's payloads were coded by {header.coder}, the coder at hand is "
            f"{coder.id}; pass the coder the stream was made with"
        )
    if coder.blocks != header.blocks:
        raise AfcCoderError(
            f"coder: it codes blocks {_listed(coder.blocks)}, the stream has "
            f"{_listed(header.blocks)}"
        )
    if coder.num_stages < header.num_stages:
        raise AfcCoderError(
            f"coder: it codes up to {coder.num_stages} stages, the stream has up to "
            f"{header.num_stages}"
        )
    return coder


def find_coder(header: StreamHeader, coder: CoderOrFinder | None = None) -> PayloadCoder:
    """The coder of a stream with coded payloads.

    Args:
        header: a header that names a coder.
        coder: the coder at hand, or a function that gives the one of an id; by default
            :func:`affectcodec.entropy.find_prior`, which knows the shipped ones.

    Raises:
        AfcCoderError: the coder does not fit the header, or there is none: the id is not known
            here, or a package is missing.
    """
    if header.coder is None:
        raise AfcCoderError("coder: this stream's payloads are plain, it needs none")
    try:
        if coder is None:
            # Here: the entropy package builds on this one.
            from affectcodec.entropy import find_prior

            coder = find_prior
        found = coder(header.coder) if callable(coder) else coder
    except ImportError as error:
        raise AfcCoderError(
            f"coder: the stream is entropy-coded by prior {header.coder}, and what that needs is "
            f"not installed ({error}); pip install constriction"
        ) from error
    except AfcError as error:
        raise AfcCoderError(str(error)) from error
    except (LookupError, ValueError, OSError) as error:
        raise AfcCoderError(
            f"coder: the stream is entropy-coded by prior {header.coder}, which cannot be loaded "
            f"here ({error}); pass the coder of the weights that made it: coder="
        ) from error
    return check_coder(header, found)


def check_stages(
    frame_stages: npt.ArrayLike | None, arrays: Sequence[IntArray], header: StreamHeader
) -> StageCounts:
    """Stage counts [G, T] as uint8; those of the arrays where none are given.

    Raises:
        AfcPacketError: shape, type or values do not fit the codes.
    """
    frames = arrays[0].shape[1]
    most = np.array([len(array) for array in arrays], np.uint8)
    if frame_stages is None:
        return np.repeat(most[:, None], frames, axis=1)
    given = np.asarray(frame_stages)
    if given.shape != (len(arrays), frames) or given.dtype.kind not in "iu":
        raise AfcPacketError(
            f"frame_stages: expected integers [{len(arrays)} blocks, {frames} frames], got "
            f"{given.dtype} {list(given.shape)}"
        )
    if given.size and ((given < 0) | (given > most[:, None])).any():
        raise AfcPacketError(
            f"frame_stages: expected 0 to the stages of the codes, {most.tolist()} for blocks "
            f"{list(header.names)}, got {given.min(axis=1).tolist()} to "
            f"{given.max(axis=1).tolist()}"
        )
    return given.astype(np.uint8)


def encode_coded(
    codes: Sequence[IntArray], stages: StageCounts, coder: PayloadCoder
) -> tuple[tuple[int, ...], bytes]:
    """Stage maxima and payload of one packet.

    Args:
        codes: per block checked codes [K_b, T].
        stages: checked stage counts [G, T], T at least 1.
        coder: a coder that fits them.
    """
    most = tuple(int(count) for count in stages.max(axis=1))
    if not any(most):
        return most, b""
    kept = [
        np.where(np.arange(count)[:, None] < row, array[:count], 0).astype(array.dtype)
        for array, count, row in zip(codes, most, stages, strict=True)
    ]
    return most, coder.encode(kept, stages)


def decode_coded(
    head: PacketHead, payload: bytes, header: StreamHeader, coder: PayloadCoder
) -> tuple[tuple[IntArray, ...], StageCounts]:
    """Codes [K_b, T] and stage counts [G, T] of a whole payload.

    Raises:
        AfcPacketError: the payload holds no codes of this layout.
    """
    shape = (len(head.stages), head.frames)
    if not any(head.stages):
        empty = tuple(np.zeros((0, head.frames), code_dtype(bits)) for bits in header.block_bits)
        return empty, np.zeros(shape, np.uint8)
    try:
        codes, stages = coder.decode(payload, head.frames, head.stages)
    except AfcPacketError:
        raise
    except ValueError as error:
        raise AfcPacketError(f"packet: the packet of frame {head.start}: {error}") from error
    # The bytes are not trusted, and no coder is trusted to have looked at all of them.
    fits = stages.shape == shape and len(codes) == len(head.stages)
    if not fits or (stages > np.array(head.stages)[:, None]).any():
        raise AfcPacketError(
            f"packet: the coder gave more stages than {list(head.stages)}, or no counts "
            f"{list(shape)} and codes of {len(head.stages)} blocks"
        )
    for block, array, count in zip(header.blocks, codes, head.stages, strict=True):
        if array.shape != (count, head.frames) or (
            array.size and not 0 <= int(array.min()) <= int(array.max()) < block.codebook_size
        ):
            raise AfcPacketError(
                f"packet: the coder gave codes of block {block.name!r} outside its codebook of "
                f"{block.codebook_size} entries, or no [{count}, {head.frames}] of them"
            )
    arrays: tuple[IntArray, ...] = tuple(
        np.ascontiguousarray(array, code_dtype(bits))
        for array, bits in zip(codes, header.block_bits, strict=True)
    )
    return arrays, stages.astype(np.uint8)


def _listed(blocks: Sequence[BlockLayout]) -> list[tuple[str, tuple[int, ...]]]:
    return [(block.name, block.levels) for block in blocks]

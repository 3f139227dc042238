# SPDX-License-Identifier: Apache-2.0
"""Errors of the ``.afc`` format. All are ``ValueError``s: the bytes or the arguments are wrong."""

from __future__ import annotations


class AfcError(ValueError):
    """Base of every error that reading or writing ``.afc`` data raises on purpose."""


class AfcHeaderError(AfcError):
    """The stream header is missing, damaged, of another version, or outside the limits."""


class AfcHashMismatch(AfcError):
    """The stream was made with another codec configuration than the one at hand."""


class AfcPacketError(AfcError):
    """A packet is damaged, incomplete, or does not fit its stream header."""


class AfcSizeError(AfcPacketError):
    """The frames of a packet take more bytes than a packet may have."""


class AfcLimitError(AfcError):
    """Reading on would take more memory than the caller allowed."""


class AfcSeekError(AfcError):
    """The wanted frame cannot be reached."""


class AfcCoderError(AfcError):
    """The coder of a stream's payloads is missing, or the one at hand does not fit the stream."""

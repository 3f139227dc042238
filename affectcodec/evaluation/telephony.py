# SPDX-License-Identifier: Apache-2.0
"""Wide-band telephone codecs: Speex through its programs, AMR-WB through its libraries."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affectcodec.audio import load_audio, load_pcm16, pcm16_bytes, save_audio
from affectcodec.evaluation.baselines import (
    SAMPLE_RATE,
    BaselineError,
    Coded,
    file_digest,
    find_program,
    ogg_packet_sizes,
    run_program,
)

# kbit/s of each mode (3GPP TS 26.171) and bits of its 20 ms frames
AMR_WB_MODES: dict[float, tuple[int, int]] = {
    6.60: (0, 132),
    8.85: (1, 177),
    12.65: (2, 253),
    14.25: (3, 285),
    15.85: (4, 317),
    18.25: (5, 365),
    19.85: (6, 397),
    23.05: (7, 461),
    23.85: (8, 477),
}
_AMR_FRAME = 320  # samples at 16 kHz
_AMR_LARGEST = 64  # bytes; the largest frame has 61
_FLUSH = 640  # 40 ms of silence are appended, more than the delay of either codec


@dataclass(frozen=True)
class Speex:
    """Speex wide-band at the highest constant rate that is not above `kbps` (speexenc)."""

    kbps: float
    timeout_s: float = 300.0  # a busy machine is no hang

    def __post_init__(self) -> None:
        if not 3.95 <= self.kbps <= 42.2:
            raise ValueError(f"speex: got {self.kbps:g} kbit/s, wanted 3.95 to 42.2 (wide-band)")
        for program in ("speexenc", "speexdec"):
            find_program(program, "speex")

    @property
    def name(self) -> str:
        return f"speex:{self.kbps:g}"

    @property
    def fingerprint(self) -> str:
        programs = [file_digest(find_program(p, "speex")) for p in ("speexenc", "speexdec")]
        return f"{self.name}-{'-'.join(programs)}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        encoder, decoder = (find_program(p, "speex") for p in ("speexenc", "speexdec"))
        with tempfile.TemporaryDirectory(prefix="affectcodec-speex-") as folder:
            source, packed, out = (str(Path(folder) / n) for n in ("in.wav", "c.spx", "out.wav"))
            save_audio(source, np.pad(wav, (0, _FLUSH)), SAMPLE_RATE)
            rate = str(round(1000 * self.kbps))
            run_program([encoder, "-w", "--bitrate", rate, source, packed], b"", self.timeout_s)
            run_program([decoder, packed, out], b"", self.timeout_s)
            # the first two packets are the header and the comment
            payload = sum(ogg_packet_sizes(Path(packed).read_bytes())[2:])
            decoded, _ = load_audio(out, sample_rate=SAMPLE_RATE)
        return Coded(decoded, 8 * payload)


@functools.cache
def _library(name: str, package: str) -> tuple[Any, str]:
    """A shared library and a digest of its file's name (which carries the version)."""
    path = ctypes.util.find_library(name)
    if path is None:
        raise BaselineError(f"lib{name} is not installed: apt-get install {package}")
    return ctypes.CDLL(path), path


def _amr_encoder() -> tuple[Any, str]:
    library, path = _library("vo-amrwbenc", "libvo-amrwbenc0")
    library.E_IF_init.restype = ctypes.c_void_p
    library.E_IF_encode.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
    ]
    library.E_IF_exit.argtypes = [ctypes.c_void_p]
    return library, path


def _amr_decoder() -> tuple[Any, str]:
    library, path = _library("opencore-amrwb", "libopencore-amrwb0")
    library.D_IF_init.restype = ctypes.c_void_p
    library.D_IF_decode.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
    ]
    library.D_IF_exit.argtypes = [ctypes.c_void_p]
    return library, path


@dataclass(frozen=True)
class AmrWb:
    """AMR-WB at one of its nine rates: VisualOn's encoder, OpenCORE's decoder, no DTX."""

    kbps: float

    def __post_init__(self) -> None:
        if self.kbps not in AMR_WB_MODES:
            raise ValueError(f"amrwb: got {self.kbps:g} kbit/s, wanted one of {[*AMR_WB_MODES]}")
        _amr_encoder()
        _amr_decoder()

    @property
    def name(self) -> str:
        return f"amrwb:{self.kbps:g}"

    @property
    def fingerprint(self) -> str:
        return f"{self.name}-{_amr_encoder()[1]}-{_amr_decoder()[1]}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        mode, bits = AMR_WB_MODES[self.kbps]
        num_frames = -(-(len(wav) + _FLUSH) // _AMR_FRAME)
        pcm, _ = pcm16_bytes(np.pad(wav, (0, num_frames * _AMR_FRAME - len(wav))))
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.int16).reshape(num_frames, _AMR_FRAME)
        decoded = np.zeros_like(samples)
        serial = np.zeros(_AMR_LARGEST, dtype=np.uint8)
        encoder, decoder = _amr_encoder()[0], _amr_decoder()[0]
        coding, decoding = encoder.E_IF_init(), decoder.D_IF_init()
        if not coding or not decoding:
            raise BaselineError("amrwb: a library gave no codec state")
        try:
            for frame, out in zip(samples, decoded, strict=True):
                size = encoder.E_IF_encode(coding, mode, frame.ctypes.data, serial.ctypes.data, 0)
                if size != 1 + -(-bits // 8):
                    raise BaselineError(f"amrwb: a frame of {size} bytes, wanted {bits} bits")
                decoder.D_IF_decode(decoding, serial.ctypes.data, out.ctypes.data, 0)
        finally:
            encoder.E_IF_exit(coding)
            decoder.D_IF_exit(decoding)
        wide, _ = load_pcm16(
            decoded.astype("<i2").tobytes(), sample_rate_in=SAMPLE_RATE, sample_rate=SAMPLE_RATE
        )
        return Coded(wide, num_frames * bits)

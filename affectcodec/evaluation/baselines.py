# SPDX-License-Identifier: Apache-2.0
"""What a codec is to the harness, and the baselines that run as programs: Codec 2 and Opus.

`Codec.roundtrip(wav)` takes a 16 kHz clip and returns what came back with the bits that were sent:
every bit of the payload, silence and flushing frames included, containers and padding to whole
bytes excluded. `codecs.py` has the names.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from affectcodec.audio import load_audio, load_pcm16, pcm16_bytes, resample, save_audio
from affectcodec.evaluation.alignment import active_frames, frame_levels

SAMPLE_RATE = 16000
NARROW_RATE = 8000

# mode -> (bits a frame, samples a frame at 8 kHz)
CODEC2_MODES: dict[str, tuple[int, int]] = {
    "3200": (64, 160),
    "2400": (48, 160),
    "1600": (64, 320),
    "1400": (56, 320),
    "1300": (52, 320),
    "1200": (48, 320),
    "700C": (28, 320),
}
# 40 ms of silence are appended, more than the codec's delay: no speech stays in the decoder.
CODEC2_FLUSH = 320


class BaselineError(RuntimeError):
    """An outside program is missing, failed or took too long."""


@dataclass(frozen=True)
class Coded:
    """A clip after the codec.

    Attributes:
        wav: float32 `[m]` at 16 kHz; delay not removed, length may differ from the input.
        bits: payload bits.
    """

    wav: np.ndarray
    bits: float


class Codec(Protocol):
    """What the harness needs of a codec."""

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the codec would give other output: part of the cache key."""

    def roundtrip(self, wav: np.ndarray) -> Coded:
        """float32 `[n]` at 16 kHz through encoder and decoder."""


def find_program(program: str, package: str) -> str:
    """Path of an executable, or a BaselineError that names the Debian package."""
    path = shutil.which(program)
    if path is None:
        raise BaselineError(f"{program} is not installed: apt-get install {package}")
    return path


def run_program(arguments: list[str], data: bytes, timeout_s: float) -> bytes:
    """Runs a filter; its stdout. BaselineError on failure, timeout, or no output."""
    try:
        done = subprocess.run(
            arguments, input=data, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BaselineError(f"{' '.join(arguments)}: no end after {timeout_s:g} s") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-300:]
        raise BaselineError(f"{' '.join(arguments)}: exit status {done.returncode}: {words}")
    return done.stdout


def file_digest(path: str) -> str:
    """16 hex digits over a file's bytes."""
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Codec2:
    """Codec 2 through c2enc and c2dec (8 kHz, headerless 16-bit in and out).

    The 16 kHz clip is resampled to 8 kHz and the output back to 16 kHz.

    Attributes:
        mode: see `CODEC2_MODES`.
        level_db: level in dB re full scale that the active speech of each clip is brought to before
            coding; the gain is undone afterwards and its bits are not counted. Codec 2 is made for
            speech near -26 dB and does slightly worse on quiet recordings: this shows by how much.
            None codes clips as they are.
    """

    mode: str
    level_db: float | None = None
    timeout_s: float = 300.0  # a busy machine is no hang

    def __post_init__(self) -> None:
        if self.mode not in CODEC2_MODES:
            raise ValueError(f"codec2: got mode {self.mode!r}, wanted one of {list(CODEC2_MODES)}")
        for program in ("c2enc", "c2dec"):
            find_program(program, "codec2")

    @property
    def name(self) -> str:
        return f"codec2:{self.mode}" + ("" if self.level_db is None else f"@{self.level_db:g}")

    @property
    def fingerprint(self) -> str:
        programs = [file_digest(find_program(p, "codec2")) for p in ("c2enc", "c2dec")]
        return f"{self.name}-flush{CODEC2_FLUSH}-{'-'.join(programs)}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        bits, frame = CODEC2_MODES[self.mode]
        gain = 1.0 if self.level_db is None else _gain_to(wav, self.level_db)
        narrow = resample(wav * np.float32(gain), SAMPLE_RATE, NARROW_RATE)
        # c2enc drops an unfinished last frame
        num_frames = -(-(len(narrow) + CODEC2_FLUSH) // frame)
        pcm, _ = pcm16_bytes(np.pad(narrow, (0, num_frames * frame - len(narrow))))
        encoder, decoder = find_program("c2enc", "codec2"), find_program("c2dec", "codec2")
        payload = run_program([encoder, self.mode, "-", "-"], pcm, self.timeout_s)
        # c2enc pads each frame to whole bytes (52 bits take 7): the padding is not counted
        if len(payload) != num_frames * -(-bits // 8):
            raise BaselineError(
                f"c2enc {self.mode}: {len(payload)} bytes for {num_frames} frames of {bits} bits"
            )
        decoded = run_program([decoder, self.mode, "-", "-"], payload, self.timeout_s)
        wide, _ = load_pcm16(decoded, sample_rate_in=NARROW_RATE, sample_rate=SAMPLE_RATE)
        return Coded(wide / np.float32(gain), num_frames * bits)


def _gain_to(wav: np.ndarray, level_db: float) -> float:
    """Gain that brings the active frames to a level, but no sample above 0.99."""
    active = active_frames(wav)
    if not active.any():
        return 1.0
    power = np.mean(10.0 ** (frame_levels(wav)[active] / 10.0))
    return float(min(10.0 ** (level_db / 20.0) / np.sqrt(power), 0.99 / np.abs(wav).max()))


def ogg_packet_sizes(data: bytes) -> list[int]:
    """Sizes in bytes of the packets of an Ogg file with one logical stream.

    Raises:
        ValueError: not a chain of whole Ogg pages.
    """

    def lacing(data: bytes) -> Iterator[int]:
        at = 0
        while at < len(data):
            if data[at : at + 4] != b"OggS" or at + 27 > len(data):
                raise ValueError(f"no Ogg page at byte {at}")
            count = data[at + 26]
            table = data[at + 27 : at + 27 + count]
            at += 27 + count + sum(table)
            if len(table) < count or at > len(data):
                raise ValueError("the last Ogg page is cut")
            yield from table

    sizes, size = [], 0
    for value in lacing(data):
        size += value
        if value < 255:
            sizes.append(size)
            size = 0
    return sizes


@dataclass(frozen=True)
class Opus:
    """Opus through opusenc and opusdec at `kbps` asked: VBR, speech tuning, 20 ms frames."""

    kbps: float
    timeout_s: float = 300.0  # a busy machine is no hang

    def __post_init__(self) -> None:
        if not 6.0 <= self.kbps <= 256.0:
            raise ValueError(f"opus: got {self.kbps:g} kbit/s, wanted 6 to 256")
        for program in ("opusenc", "opusdec"):
            find_program(program, "opus-tools")

    @property
    def name(self) -> str:
        return f"opus:{self.kbps:g}"

    @property
    def fingerprint(self) -> str:
        programs = [file_digest(find_program(p, "opus-tools")) for p in ("opusenc", "opusdec")]
        return f"{self.name}-{'-'.join(programs)}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        with tempfile.TemporaryDirectory(prefix="affectcodec-opus-") as folder:
            source, packed, out = (str(Path(folder) / n) for n in ("in.wav", "c.opus", "out.wav"))
            save_audio(source, wav, SAMPLE_RATE)
            encoder, decoder = (find_program(p, "opus-tools") for p in ("opusenc", "opusdec"))
            rate = f"{self.kbps:g}"
            run_program(
                [encoder, "--quiet", "--speech", "--bitrate", rate, source, packed],
                b"",
                self.timeout_s,
            )
            run_program(
                [decoder, "--quiet", "--no-dither", "--rate", "16000", packed, out],
                b"",
                self.timeout_s,
            )
            # the first two packets are OpusHead and OpusTags
            payload = sum(ogg_packet_sizes(Path(packed).read_bytes())[2:])
            decoded, _ = load_audio(out, sample_rate=SAMPLE_RATE)
        return Coded(decoded, 8 * payload)

# SPDX-License-Identifier: Apache-2.0
"""The native runtime: one result for any chunks, neighbours and threads, and that of PyTorch."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import affectcodec
from affectcodec import AffectCodec
from affectcodec.bitstream import parse_packet
from affectcodec.config import CodecConfig, StreamNetworkConfig
from affectcodec.runtime import NativeCodec, RuntimeUnavailable, why_unavailable
from affectcodec.runtime.native import NativeDecoder, NativeEncoder
from affectcodec.streaming import StateError, StreamingDecoder, StreamingEncoder
from tests.codec_fixtures import HOP, speech_like, tiny_codec, tiny_config
from tests.streaming.streams import audio_of, chopped, packets_of

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "on")

SAMPLES = Path(affectcodec.__file__).parent / "samples"
PRECISIONS = ("float32", "bfloat16")


@pytest.fixture(scope="module")
def codec() -> AffectCodec:
    return tiny_codec()


@pytest.fixture(scope="module")
def shipped() -> AffectCodec:
    return AffectCodec.from_pretrained()


def sample(name: str, frames: int) -> np.ndarray:
    return soundfile.read(SAMPLES / f"{name}.flac", frames=frames * HOP + 77, dtype="float32")[0]


def error_db(got: np.ndarray, want: np.ndarray) -> float:
    return 10 * np.log10(np.square(got - want).sum() / np.square(want).sum() + 1e-30)


# -- against PyTorch --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["female-1", "male-2"])
def test_shipped_weights_give_the_tokens_and_audio_of_pytorch(shipped, name: str) -> None:
    native = NativeCodec(shipped)
    wav = sample(name, 100)
    want, got = shipped.encode(wav), native.encode(wav)
    assert dataclasses.replace(got, codes=want.codes) == want
    # A digit may lie within rounding of its threshold; it takes those after it along.
    assert float((got.codes != want.codes).float().mean()) < 2e-3
    for stages in (None, {"emotion": 3, "acoustic": 1}):
        tokens = want.truncate(stages)
        a, b = shipped.decode(tokens)[0, 0].numpy(), native.decode(tokens)[0, 0].numpy()
        assert error_db(b, a) < -80


@pytest.mark.parametrize("name", ["female-1", "male-2"])
def test_latents_are_those_of_float64_but_for_rounding(shipped, name: str) -> None:
    wav = sample(name, 100)[: 100 * HOP]
    pcm = wav.reshape(100, HOP)
    got = np.empty((100, shipped.config.quantizer.width), np.float32)
    NativeEncoder(shipped, 1)._impl.latents(
        np.zeros(1, np.int32), np.full(1, 100, np.int32), pcm, got
    )
    exact = copy.deepcopy(shipped.encoder).double()
    with torch.no_grad():
        want = exact(torch.from_numpy(wav)[None].double())[0].numpy()
    # float32 of unit variance: a relative step is 6e-8.
    assert np.sqrt(np.mean((got - want) ** 2)) < 3e-7


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_agree_with_pytorch(seed: int) -> None:
    codec = tiny_codec(seed)
    native = NativeCodec(codec)
    wav = speech_like(40 * HOP, seed).numpy()
    want, got = codec.encode(wav), native.encode(wav)
    assert float((got.codes != want.codes).float().mean()) < 1e-2
    a, b = codec.decode(want)[0, 0].numpy(), native.decode(want)[0, 0].numpy()
    assert error_db(b, a) < -80


def test_other_shapes_than_the_shipped_one() -> None:
    config = dataclasses.replace(
        tiny_config(3),
        hop_length=240,
        sample_rate=12000,
        network=StreamNetworkConfig(
            analysis_window=360,
            analysis_hop=120,
            pitch_window=480,
            acoustic_width=17,
            acoustic_blocks=1,
            emotion_width=9,
            emotion_blocks=2,
            decoder_width=21,
            decoder_blocks=1,
            kernel_size=3,
            expansion=1,
            f0_min=70.0,
        ),
    )
    torch.manual_seed(1)
    codec = AffectCodec(config).eval().requires_grad_(False)
    native = NativeCodec(codec)
    wav = speech_like(40 * 240).numpy()
    want = codec.encode(wav, 12000)
    got = native.encode(wav, 12000)
    assert float((got.codes != want.codes).float().mean()) < 1e-2
    assert error_db(native.decode(want)[0, 0].numpy(), codec.decode(want)[0, 0].numpy()) < -80


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bfloat16_weights_are_those_of_a_rounded_codec(codec, precision: str) -> None:
    """Only products round their weights: a codec with such weights gives the same tokens."""
    rounded = tiny_codec()
    if precision == "bfloat16":
        for module in [*rounded.encoder.modules(), *rounded.decoder.modules()]:
            if isinstance(module, torch.nn.Linear):
                module.weight.data = module.weight.bfloat16().float()
        for layer in rounded.decoder.prosody.modules():  # these stay as they are
            if isinstance(layer, torch.nn.Linear):
                layer.weight.data = dict(codec.decoder.prosody.named_modules())[
                    next(k for k, v in rounded.decoder.prosody.named_modules() if v is layer)
                ].weight.data.clone()
    native, plain = NativeCodec(codec, precision=precision), NativeCodec(rounded)
    wav = speech_like(30 * HOP).numpy()
    tokens = native.encode(wav)
    assert torch.equal(tokens.codes, plain.encode(wav).codes)
    assert torch.equal(native.decode(tokens), plain.decode(tokens))


# -- one result -------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("seed", range(3))
def test_streams_are_bitwise_the_offline_codec(shipped, precision: str, seed: int) -> None:
    engine = "native" if precision == "float32" else "native-bfloat16"
    native = NativeCodec(shipped, precision=precision)
    wav = sample(("female-2", "male-1", "female-3")[seed], 45)
    encoder, decoder = (
        kind(shipped, slots=3, engine=engine) for kind in (StreamingEncoder, StreamingDecoder)
    )
    packets = packets_of(encoder, wav, seed, slot=2)
    offline = native.encode(wav)
    parsed = [parse_packet(p, encoder.header) for p in packets]
    for at, name in enumerate(shipped.config.quantizer.names):
        got = np.concatenate([p.codes[at] for p in parsed], 1)
        assert np.array_equal(got, offline.block_codes(name)[0].numpy())
    got = audio_of(decoder, packets, slot=1)[: len(wav)]
    assert np.array_equal(got, native.decode(offline)[0, 0].numpy())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_neighbours_and_threads_change_nothing(codec, precision: str, threads: int) -> None:
    """Clips of one batch, of many lengths, against each of them alone."""
    alone = NativeEncoder(codec, 1, 1, precision), NativeDecoder(codec, 1, 1, precision)
    many = (
        NativeEncoder(codec, 40, threads, precision),
        NativeDecoder(codec, 40, threads, precision),
    )
    generator = np.random.default_rng(threads)
    counts = [int(n) for n in generator.integers(1, 50, 37)]
    slots = [int(s) for s in generator.permutation(40)[:37]]
    clips = [speech_like(n * HOP, i % 5).numpy().reshape(n, HOP) for i, n in enumerate(counts)]
    tokens = many[0].encode(slots, counts, np.concatenate(clips))
    stages = generator.integers(0, 5, (sum(counts), 2))
    latent = many[1].dequantize(tokens, stages)
    audio = many[1].synthesize(slots, counts, latent)
    at = 0
    for clip, count in zip(clips, counts, strict=True):
        rows = slice(at, at + count)
        at += count
        for engine in alone:
            engine.reset(0)
        single = [alone[0].encode([0], [1], clip[i : i + 1]) for i in range(count)]
        assert np.array_equal(np.concatenate(single), tokens[rows])
        assert np.array_equal(alone[1].dequantize(tokens[rows], stages[rows]), latent[rows])
        assert np.array_equal(alone[1].synthesize([0], [count], latent[rows]), audio[rows])


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_other_instruction_sets(isa: str, tmp_path: Path) -> None:
    """Within each the same law holds; between them tokens agree but for rounding."""
    script = f"""
import sys
import numpy as np, torch
from affectcodec.runtime import NativeCodec, why_unavailable
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from tests.codec_fixtures import HOP, speech_like, tiny_codec
from tests.streaming.streams import audio_of, packets_of
if why_unavailable():
    sys.exit(77)
codec = tiny_codec()
native = NativeCodec(codec)
wav = speech_like(21 * HOP + 5).numpy()
tokens = native.encode(wav)
packets = packets_of(StreamingEncoder(codec, slots=2, engine="native"), wav, 3, slot=1)
audio = audio_of(StreamingDecoder(codec, engine="native"), packets)[: len(wav)]
assert np.array_equal(audio, native.decode(tokens)[0, 0].numpy())
np.savez({str(tmp_path / "out.npz")!r}, codes=tokens.codes.numpy(), audio=audio)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "AFFECTCODEC_CPU_ISA": isa, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    if done.returncode == 77:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    codec = tiny_codec()
    wav = speech_like(21 * HOP + 5).numpy()
    tokens = codec.encode(wav)
    assert (found["codes"] != tokens.codes.numpy()).mean() < 1e-2
    if np.array_equal(found["codes"], tokens.codes.numpy()):
        assert error_db(found["audio"], codec.decode(tokens)[0, 0].numpy()) < -80


# -- slots and states ---------------------------------------------------------------------------


def test_a_state_moves_to_any_slot_bitwise(codec) -> None:
    wav = speech_like(30 * HOP).numpy()
    encoder, decoder = StreamingEncoder(codec, slots=3), StreamingDecoder(codec, slots=3)
    assert encoder.engine.name == decoder.engine.name == "native"
    packets = packets_of(encoder, wav, 0)
    want = np.concatenate([decoder.push(p) for p in packets])
    first = encoder.push(wav[: 10 * HOP + 99], 1)
    heard = [decoder.push(p, 2) for p in first]
    encoder.load_state(encoder.state(1), 2)
    decoder.load_state(decoder.state(2), 1)
    rest = encoder.push(wav[10 * HOP + 99 :], 2) + encoder.flush(2)
    assert first + rest == packets
    heard += [decoder.push(p, 1) for p in rest]
    assert np.array_equal(np.concatenate(heard), want)


def test_states_of_another_engine_or_out_of_range_are_refused(codec) -> None:
    decoder = StreamingDecoder(codec)
    with pytest.raises(StateError, match="engine"):
        decoder.load_state(StreamingDecoder(codec, engine="torch").state())
    engine = NativeDecoder(codec, 1)
    state = engine.state(0)
    for name, value in (("ints", -1), ("floats", np.nan), ("doubles", np.inf)):
        bad = {key: array.copy() for key, array in state.items()}
        bad[name][:] = value
        with pytest.raises(StateError):
            engine.load_state(0, bad)
    with pytest.raises(StateError, match="ints"):
        engine.load_state(0, {**state, "ints": state["ints"][:1]})


def test_memory_of_a_stream(shipped) -> None:
    encoder, decoder = NativeEncoder(shipped, 1), NativeDecoder(shipped, 1)
    assert encoder.slot_bytes + decoder.slot_bytes < 100_000
    half = NativeEncoder(shipped, 1, 1, "bfloat16")
    assert half.weight_bytes < 0.6 * encoder.weight_bytes


# -- bad input ----------------------------------------------------------------------------------


def test_bad_steps_are_refused(codec) -> None:
    encoder, decoder = NativeEncoder(codec, 2), NativeDecoder(codec, 2)
    pcm = np.zeros((2, HOP), np.float32)
    for slots, counts in (([0, 0], [1, 1]), ([2], [2]), ([-1], [2]), ([0], [1]), ([0], [0])):
        with pytest.raises(ValueError, match="slot|counts"):
            encoder.encode(slots, counts, pcm)
    with pytest.raises(ValueError, match="pcm"):
        encoder.encode([0], [2], pcm[:, :-1])
    one, two = np.zeros(1, np.int32), np.full(1, 2, np.int32)
    for rows in (pcm[:, :-1].copy(), pcm.reshape(-1)):
        with pytest.raises(ValueError, match="pcm"):
            encoder._impl.latents(one, two, rows, np.zeros((2, 36), np.float32))
    with pytest.raises(ValueError, match="latent"):
        encoder._impl.latents(one, two, pcm, np.zeros((2, 35), np.float32))
    tokens = encoder.encode([0, 1], [1, 1], pcm)
    with pytest.raises(ValueError, match="stages"):
        decoder.dequantize(tokens, np.zeros((2, 1), np.int64))
    with pytest.raises(ValueError, match="values must lie in"):
        decoder.dequantize(tokens + 512, np.full((2, 2), 4))
    with pytest.raises(ValueError, match="latent"):
        decoder.synthesize([0], [2], np.zeros((2, 7), np.float32))
    with pytest.raises(ValueError, match="precision"):
        NativeEncoder(codec, 1, 1, "int4")


def test_silence_full_scale_and_empty_clips(codec) -> None:
    native = NativeCodec(codec)
    for wav in (torch.zeros(5 * HOP), torch.ones(5 * HOP), 1e4 * torch.randn(5 * HOP)):
        tokens = native.encode(wav)
        assert bool((tokens.codes >= 0).all())
        assert bool(torch.isfinite(native.decode(tokens)).all())
    empty = native.encode(np.zeros(0, np.float32))
    assert empty.num_frames == 0 and native.decode(empty).shape == (1, 1, 0)


def test_padded_batches_and_long_clips(codec) -> None:
    native = NativeCodec(codec, threads=2)
    clips = [speech_like(n, i).numpy() for i, n in enumerate((5000, 333, 12001))]
    batch = np.zeros((3, 1, 12001), np.float32)
    for i, clip in enumerate(clips):
        batch[i, 0, : len(clip)] = clip
    tokens = native.encode(batch, lengths=torch.tensor([len(c) for c in clips]))
    audio = native.decode(tokens)
    for i, clip in enumerate(clips):
        single = native.encode(clip)
        assert torch.equal(tokens.select(i).codes, single.codes)
        assert torch.equal(audio[i : i + 1, :, : len(clip)], native.decode(single))
    assert [len(part) for part in chopped(clips[0], 0)]


def test_unknown_layers_are_refused_by_name_and_left_to_pytorch() -> None:
    codec = tiny_codec()
    codec.decoder.extra = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeUnavailable, match="decoder.extra.bias"):
        NativeCodec(codec)
    with pytest.raises(RuntimeUnavailable, match="engine: 'native' cannot serve"):
        StreamingEncoder(codec, engine="native")
    assert StreamingEncoder(codec).engine.name == "torch"


def test_the_preset_runs_natively() -> None:
    NativeCodec(AffectCodec(CodecConfig.preset()).eval().requires_grad_(False))


SLOTS_WHILE_CODING = """
import threading

import numpy as np

from affectcodec.runtime.native import NativeDecoder, NativeEncoder
from tests.codec_fixtures import HOP, tiny_codec

codec = tiny_codec()
encoder, decoder = NativeEncoder(codec, 2), NativeDecoder(codec, 2)
pcm = np.zeros((64, HOP), np.float32)
latent = np.zeros((64, codec.config.quantizer.width), np.float32)
done = threading.Event()


def slots() -> None:
    while not done.is_set():
        for side in (encoder, decoder):
            side.reset(1)
            side.load_state(1, side.state(1))


other = threading.Thread(target=slots)
other.start()
for _ in range(150):
    encoder.encode([0], [64], pcm)
    decoder.synthesize([0], [64], latent)
done.set()
other.join()
"""


def test_slots_are_reset_while_another_thread_codes() -> None:
    """In a process of its own: one that waits for a lock with the interpreter held cannot end."""
    done = subprocess.run(
        [sys.executable, "-c", SLOTS_WHILE_CODING],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr.decode()

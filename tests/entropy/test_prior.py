# SPDX-License-Identifier: Apache-2.0
"""The prior in integers against the network in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectcodec.entropy import prior as module
from affectcodec.entropy.layout import DigitLayout
from affectcodec.entropy.network import PriorNetwork, arrays, bits
from affectcodec.entropy.prior import FREQUENCIES, Prior, load, save

from .conftest import LAYOUT
from .helpers import random_packet


def _inputs(frames: int, seed: int):
    codes, stages = random_packet(LAYOUT, frames, seed)
    digits, present = LAYOUT.digits(codes), LAYOUT.present(stages)
    return digits, present, LAYOUT.indicators(digits, present), LAYOUT.count_indicators(stages)


@pytest.mark.parametrize("frames", [1, 2, 57])
def test_states_and_frequencies_are_those_of_the_network(prior, network, frames):
    _, _, shown, counts = _inputs(frames, frames)
    with torch.no_grad():
        states = network.features(torch.from_numpy(shown)[None].double())
        logits = network(
            torch.from_numpy(shown)[None].double(), torch.from_numpy(counts)[None].double()
        )[0].numpy()
    assert np.array_equal(prior.states(shown[None]), states.numpy() * 128)
    steps = np.rint(logits * 16).astype(int)
    below = np.minimum(steps.max(2, keepdims=True) - steps, len(FREQUENCIES) - 1)
    wanted = np.where(logits > -1000, FREQUENCIES[below], 0)
    tables = prior.tables(prior.context(prior.states(shown[None])[0], counts), shown)
    assert np.array_equal(tables, wanted)


def test_digit_by_digit_is_the_same(prior):
    digits, present, shown, counts = _inputs(9, 1)
    tables = prior.tables(prior.context(prior.states(shown[None])[0], counts), shown)
    state = prior.start(1)
    for frame in range(9):
        context = prior.context(state, counts[frame : frame + 1])
        seen = np.zeros_like(context)
        for digit in np.flatnonzero(present[frame]):
            assert np.array_equal(prior.table(digit, context, seen)[0], tables[frame, digit])
            seen += prior.reveal(digit, digits[frame : frame + 1, digit])
        state = prior.step(state, shown[frame : frame + 1])


def test_no_digit_sees_itself_or_later_ones(prior):
    digits, present, shown, counts = _inputs(4, 2)
    context = prior.context(prior.states(shown[None])[0], counts)
    before = prior.tables(context, shown)
    for digit in range(LAYOUT.num_digits):
        other = digits.copy()
        other[:, digit:] = (other[:, digit:] + 1) % LAYOUT.digit_levels[digit:]
        after = prior.tables(context, LAYOUT.indicators(other, present))
        assert np.array_equal(before[:, : digit + 1], after[:, : digit + 1])


def test_frequencies_are_powers_of_two():
    k = np.arange(len(FREQUENCIES))
    assert np.abs(FREQUENCIES - 2.0 ** (14 - k / 16)).max() <= 0.5 + 1e-9
    assert FREQUENCIES.min() == 1


def test_sums_stay_exact_at_the_largest_weights():
    """All weights at their bounds: float32 products must still be the integers'."""
    width, units = 64, 3
    network = PriorNetwork(LAYOUT, width, units)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1e3)
    extreme = Prior(LAYOUT, arrays(network))
    _, _, shown, _ = _inputs(5, 4)
    wide = {name: array.astype(np.int64) for name, array in extreme.weights.items()}
    given = shown.astype(np.int64) @ wide["input"].T * 128 + wide["gate_bias"]
    h = np.zeros(width, np.int64)
    for frame in range(4):
        sums = h @ wide["hidden"].T
        reset, update = (
            np.clip(((given[frame] + sums)[i * width : (i + 1) * width] >> 6) + 128, 0, 256)
            for i in (0, 1)
        )
        new = given[frame, 2 * width :] + (reset * sums[2 * width :] >> 8)
        h = (update * h + (256 - update) * np.clip(new >> 5, -128, 128)) >> 8
    assert np.array_equal(extreme.states(shown[None])[0, 4], h)


def test_the_id_tells_weights_apart(prior):
    other = {name: array.copy() for name, array in prior.weights.items()}
    other["hidden"][0, 0] ^= 1
    assert Prior(LAYOUT, other).id != prior.id
    assert len(prior.id) == 16


def test_saved_and_loaded(prior, tmp_path):
    save(tmp_path, prior)
    again = load(tmp_path)
    assert again.id == prior.id
    assert again.layout == prior.layout


def test_a_damaged_file_is_refused(prior, tmp_path):
    save(tmp_path, prior)
    path = tmp_path / module.FILE_NAME
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="records the id"):
        load(tmp_path)
    path.write_bytes(b"not a prior")
    with pytest.raises(ValueError, match="is no prior of tokens"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hidden", lambda a: a[:, :-1], "wanted arrays of shapes"),
        ("hidden", lambda a: a.astype(np.int16), "int8"),
        ("gate_bias", lambda a: a + 2**20, "int32 within"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(prior, name, change, message):
    weights = {**prior.weights, name: change(prior.weights[name])}
    with pytest.raises(ValueError, match=message):
        Prior(LAYOUT, weights)


def test_a_width_that_could_round_is_refused():
    with pytest.raises(ValueError, match="2\\*\\*24"):
        Prior(LAYOUT, arrays(PriorNetwork(LAYOUT, 1024, 1)))


def test_bits_are_those_of_the_softmax_and_have_gradients():
    torch.manual_seed(1)
    network = PriorNetwork(LAYOUT, 8, 3)
    digits, present, shown, counts = _inputs(12, 7)
    logits = network(torch.from_numpy(shown)[None], torch.from_numpy(counts)[None])
    cost = bits(logits, torch.from_numpy(digits)[None], torch.from_numpy(present)[None])
    odds = 2.0 ** logits[0].detach().double().numpy()
    chosen = np.take_along_axis(odds / odds.sum(2, keepdims=True), digits[..., None].astype(int), 2)
    wanted = -np.log2(np.maximum(chosen[..., 0], 1e-300)) * present
    assert np.allclose(cost[0].detach().numpy(), wanted, atol=1e-4)
    cost.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_layouts_of_other_codecs():
    layout = DigitLayout(("only",), ((5, 3, 7),), 3)
    torch.manual_seed(2)
    prior = Prior(layout, arrays(PriorNetwork(layout, 8, 2)))
    codes, stages = random_packet(layout, 6, 0)
    digits = layout.digits(codes)
    shown = layout.indicators(digits, layout.present(stages))
    tables = prior.tables(
        prior.context(prior.states(shown[None])[0], layout.count_indicators(stages)), shown
    )
    assert (tables[:, 1, 3:] == 0).all()
    assert (tables[:, 1, :3] > 0).all()

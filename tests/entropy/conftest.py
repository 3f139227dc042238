# SPDX-License-Identifier: Apache-2.0
"""A small prior with random weights."""

from __future__ import annotations

import pytest
import torch

from affectcodec.entropy.coder import PriorCoder
from affectcodec.entropy.layout import DigitLayout
from affectcodec.entropy.network import PriorNetwork, arrays
from affectcodec.entropy.prior import Prior

LAYOUT = DigitLayout(("emotion", "acoustic"), ((2, 2, 2), (4, 3)), 4)


@pytest.fixture(scope="session")
def network() -> PriorNetwork:
    torch.manual_seed(0)
    network = PriorNetwork(LAYOUT, width=24, units=5).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return network


@pytest.fixture(scope="session")
def prior(network: PriorNetwork) -> Prior:
    return Prior(LAYOUT, arrays(network))


@pytest.fixture(scope="session")
def coder(prior: Prior) -> PriorCoder:
    return PriorCoder(prior)

# SPDX-License-Identifier: Apache-2.0
"""Speech language models of a few million parameters on tokens: which design is learned best."""

# SPDX-License-Identifier: Apache-2.0
"""Evaluation: what a codec does to quality, intelligibility, pitch, energy and its own tokens.

Nothing here is imported by the codec; the packages it needs (pesq, pystoi, pyworld, tqdm) are the
`eval` extra. Start with `python -m affectcodec.evaluation.reconstruction --help`.
"""

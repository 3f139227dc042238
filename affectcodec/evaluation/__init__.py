# SPDX-License-Identifier: Apache-2.0
"""Evaluation: what a codec does to emotion, prosody, words, quality and its own tokens.

Nothing here is imported by the codec; the packages it needs are the extras `eval` and `judges`.
Start with `affectcodec evaluate --help`; `docs/evaluation.md` says what is measured.
"""

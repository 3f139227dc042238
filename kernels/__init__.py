# SPDX-License-Identifier: Apache-2.0
"""Triton kernels, one op a file; installed as ``affectcodec.kernels``.

The folder stands at the top of the source tree so that kernels are found without knowing the
package, but a top-level ``kernels`` would collide with another distribution of that name, so the
build maps it below ``affectcodec``.
"""

# SPDX-License-Identifier: Apache-2.0
"""``python -m affectcodec.gpu_check``: everything about the GPU kernels that only a GPU can settle.

``device`` is the seam to the hardware, ``problems`` what is run, ``checks``, ``flips`` and
``graphs`` whether it is right, ``timing`` and ``baselines`` how fast it is, ``predictions`` what
was expected of it, ``report`` the one file that comes out, ``run`` the order of it all.
"""

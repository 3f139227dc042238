# SPDX-License-Identifier: Apache-2.0
"""``python -m affectcodec``: the same as the command ``affectcodec``."""

from __future__ import annotations

from affectcodec.cli import main

if __name__ == "__main__":
    main(prog_name="affectcodec")

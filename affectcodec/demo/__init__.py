# SPDX-License-Identifier: Apache-2.0
"""``python -m affectcodec.demo``: clips through ``.afc`` files, a table, and a page to hear.

One room a step: ``clips`` finds them, ``coding`` codes and measures, ``pictures`` draws, ``page``
writes the HTML.
"""

# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: groups of contenders that do the same work, checked, then timed in pairs.

    make bench                                         # all of it, with tables and plots
    python -m pytest benchmarks/ --benchmark-only      # all of it, figures on the terminal
    python -m pytest benchmarks/ --benchmark-only --smoke    # tiny sizes: does it still run

``docs/performance.md`` says how each figure is made. To add one: a ``bench_<name>.py`` that makes
a ``Group`` of ``Contender``s and hands each one to the fixture ``race``.
"""

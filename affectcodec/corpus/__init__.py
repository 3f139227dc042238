# SPDX-License-Identifier: Apache-2.0
"""Tokens of whole corpora: work is cut into parts, and each part is written once and whole.

``sources`` lists what there is and cuts it into parts, ``plan`` keeps that list, ``work`` makes the
tokens of one part, ``parts`` writes and reads them, ``engines`` run the parts on one machine or on
a Ray cluster, ``finish`` checks that all are there and writes the manifest.
"""

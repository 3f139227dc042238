# SPDX-License-Identifier: Apache-2.0
"""AffectCodec in the form that other libraries expect; each module needs the library it is for."""

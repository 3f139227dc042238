// SPDX-License-Identifier: Apache-2.0
// The networks of one direction from a configuration and the arrays of a checkpoint, both as
// affectcodec/runtime/weights.py hands them over.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "../cpu/kernels.h"
#include "builder.h"

namespace affectcodec {
namespace runtime {

// Kernels of the quantizer and of the networks for the instruction set in use.
const cpu::Kernels& quantizer_kernels();
const Kernels& network_kernels();

struct EncoderParts {
  EncoderNet net;
  std::vector<Memory> owned;
  int64_t bytes = 0;
};

struct DecoderParts {
  DecoderNet net;
  std::vector<Memory> owned;
  int64_t bytes = 0;
};

// Every number and the size of every array is checked; `half` keeps float32 products in bfloat16.
EncoderParts build_encoder(const std::vector<int64_t>& config, const pybind11::list& arrays,
                           bool half);
// `reals`: the highest harmonic in Hz and the decays of the two pools.
DecoderParts build_decoder(const std::vector<int64_t>& config, const std::vector<double>& reals,
                           const pybind11::list& arrays, bool half);

}  // namespace runtime
}  // namespace affectcodec

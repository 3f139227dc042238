// SPDX-License-Identifier: Apache-2.0
// affectcodec._runtime: the causal encoder and decoder as native kernels, for Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "assemble.h"
#include "coders.h"

namespace py = pybind11;

namespace {

using namespace affectcodec::runtime;

void check_counts(int slots, int threads) {
  if (slots < 1 || slots > 1 << 20) throw py::value_error("slots: wanted 1..2**20");
  if (threads < 1 || threads > 1024) throw py::value_error("threads: wanted 1..1024");
}

}  // namespace

PYBIND11_MODULE(_runtime, m, py::mod_gil_not_used()) {
  m.doc() = "The causal encoder and decoder of AffectCodec as native kernels.";
  m.def("isa", [] { return network_kernels().name; }, "Instruction set in use.");
  py::class_<Encoder>(m, "Encoder")
      .def(py::init([](const std::vector<int64_t>& config, const py::list& arrays,
                       const std::vector<int64_t>& quantizer, const FloatArray& folded, int slots,
                       int threads, bool half) {
             check_counts(slots, threads);
             return new Encoder(build_encoder(config, arrays, half), quantizer, folded, slots,
                                threads);
           }),
           py::arg("config"), py::arg("arrays"), py::arg("quantizer"), py::arg("folded"),
           py::arg("slots"), py::arg("threads"), py::arg("half"))
      .def("encode", &Encoder::encode, py::arg("slots"), py::arg("counts"),
           py::arg("pcm").noconvert(), py::arg("tokens").noconvert())
      .def("latents", &Encoder::latents, py::arg("slots"), py::arg("counts"),
           py::arg("pcm").noconvert(), py::arg("latent").noconvert())
      .def("reset", &Streams::reset)
      .def("state", &Streams::state)
      .def("load_state", &Streams::load_state)
      .def_property_readonly("slot_bytes", &Streams::slot_bytes)
      .def_property_readonly("weight_bytes", &Streams::weight_bytes);
  py::class_<Decoder>(m, "Decoder")
      .def(py::init([](const std::vector<int64_t>& config, const std::vector<double>& reals,
                       const py::list& arrays, const std::vector<int64_t>& quantizer,
                       const FloatArray& folded, int slots, int threads, bool half) {
             check_counts(slots, threads);
             return new Decoder(build_decoder(config, reals, arrays, half), quantizer, folded,
                                slots, threads);
           }),
           py::arg("config"), py::arg("reals"), py::arg("arrays"), py::arg("quantizer"),
           py::arg("folded"), py::arg("slots"), py::arg("threads"), py::arg("half"))
      .def("dequantize", &Decoder::dequantize, py::arg("tokens").noconvert(), py::arg("stages"),
           py::arg("latent").noconvert())
      .def("synthesize", &Decoder::synthesize, py::arg("slots"), py::arg("counts"),
           py::arg("latent").noconvert(), py::arg("pcm").noconvert())
      .def("reset", &Streams::reset)
      .def("state", &Streams::state)
      .def("load_state", &Streams::load_state)
      .def_property_readonly("slot_bytes", &Streams::slot_bytes)
      .def_property_readonly("weight_bytes", &Streams::weight_bytes);
}

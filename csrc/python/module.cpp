// SPDX-License-Identifier: Apache-2.0
// affectcodec._C: what needs no torch, for Python. Arguments are checked here too, although
// affectcodec/bitpacking.py has done so: a compiled function must not be able to read or write
// outside its buffers, whoever calls it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "../core/bit_packing.h"
#include "../core/cpu_features.h"

namespace py = pybind11;

namespace {

void check_bits(int bits) {
  if (bits < 1 || bits > affectcodec::kMaxBits) {
    throw py::value_error("bits: expected 1..63, got " + std::to_string(bits));
  }
}

template <typename Int>
py::bytes pack_array(const Int* codes, size_t count, int bits) {
  if (count > (SIZE_MAX / 2) / static_cast<size_t>(bits)) {
    throw py::value_error("codes: too many to address the packed bits");
  }
  const size_t size = affectcodec::packed_size(count, bits);
  auto packed = py::reinterpret_steal<py::bytes>(
      PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
  if (!packed) {
    throw py::error_already_set();
  }
  // Written before anyone else holds a reference, so the bytes may still change.
  auto* out = reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(packed.ptr()));
  bool fits;
  size_t bad = 0;
  {
    py::gil_scoped_release release;
    fits = affectcodec::pack_bits(codes, count, bits, out);
    if (!fits) {
      bad = affectcodec::first_outside(codes, count, bits);
    }
  }
  if (!fits) {
    if (bad == count) {
      throw py::value_error("codes: changed by another thread while they were packed");
    }
    throw py::value_error("codes[" + std::to_string(bad) + "]: " + std::to_string(codes[bad]) +
                          " does not fit " + std::to_string(bits) + " bits, expected 0.." +
                          std::to_string((uint64_t{1} << bits) - 1));
  }
  return packed;
}

py::bytes pack_bits(const py::array& codes, int bits) {
  check_bits(bits);
  if (codes.ndim() != 1) {
    throw py::value_error("codes: expected one dimension, got " + std::to_string(codes.ndim()));
  }
  if (!(codes.flags() & py::array::c_style)) {
    throw py::value_error("codes: expected a contiguous array");
  }
  const auto count = static_cast<size_t>(codes.size());
  if (py::isinstance<py::array_t<int32_t>>(codes)) {
    return pack_array(static_cast<const int32_t*>(codes.data()), count, bits);
  }
  if (py::isinstance<py::array_t<int64_t>>(codes)) {
    return pack_array(static_cast<const int64_t*>(codes.data()), count, bits);
  }
  throw py::type_error("codes: expected int32 or int64, got " +
                       py::str(codes.dtype()).cast<std::string>());
}

template <typename Int>
py::array unpack_array(const uint8_t* data, size_t count, int bits) {
  py::array_t<Int> codes(static_cast<py::ssize_t>(count));
  Int* out = codes.mutable_data();
  {
    py::gil_scoped_release release;
    affectcodec::unpack_bits(data, count, bits, out);
  }
  return std::move(codes);
}

py::array unpack_bits(const py::buffer& data, int bits, py::ssize_t count, bool wide) {
  check_bits(bits);
  if (!wide && bits > 31) {
    throw py::value_error("bits: int32 codes hold at most 31, got " + std::to_string(bits));
  }
  const py::buffer_info info = data.request();
  if (info.itemsize != 1 || info.ndim != 1 || (info.size > 1 && info.strides[0] != 1)) {
    throw py::value_error("data: expected contiguous bytes");
  }
  const auto size = static_cast<size_t>(info.size);
  // Compared by division first: an absurd count must neither overflow nor be allocated.
  if (count < 0 || static_cast<size_t>(count) > size * 8 / static_cast<size_t>(bits) ||
      affectcodec::packed_size(static_cast<size_t>(count), bits) != size) {
    throw py::value_error("data: " + std::to_string(size) + " bytes are not " +
                          std::to_string(count) + " codes of " + std::to_string(bits) + " bits");
  }
  const auto* bytes = static_cast<const uint8_t*>(info.ptr);
  const size_t used = static_cast<size_t>(count) * static_cast<size_t>(bits) % 8;
  if (used != 0 && bytes[size - 1] >> used != 0) {
    throw py::value_error("data: the bits that fill up the last byte are not 0");
  }
  return wide ? unpack_array<int64_t>(bytes, static_cast<size_t>(count), bits)
              : unpack_array<int32_t>(bytes, static_cast<size_t>(count), bits);
}

py::dict cpu_features() {
  const affectcodec::CpuFeatures f = affectcodec::detect_cpu_features();
  py::dict features;
  features["sse4_2"] = f.sse4_2;
  features["avx"] = f.avx;
  features["avx2"] = f.avx2;
  features["fma"] = f.fma;
  features["f16c"] = f.f16c;
  features["bmi1"] = f.bmi1;
  features["bmi2"] = f.bmi2;
  features["lzcnt"] = f.lzcnt;
  features["movbe"] = f.movbe;
  features["avx512f"] = f.avx512f;
  features["avx512bw"] = f.avx512bw;
  features["avx512cd"] = f.avx512cd;
  features["avx512dq"] = f.avx512dq;
  features["avx512vl"] = f.avx512vl;
  features["neon"] = f.neon;
  features["x86_64_v3"] = f.x86_64_v3();
  features["x86_64_v4"] = f.x86_64_v4();
  return features;
}

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "Clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "GCC " __VERSION__;
#else
  info["compiler"] = "unknown";
#endif
  info["cplusplus"] = static_cast<long>(__cplusplus);
  info["pybind11"] = PYBIND11_TOSTRING(PYBIND11_VERSION_MAJOR) "." PYBIND11_TOSTRING(
      PYBIND11_VERSION_MINOR) "." PYBIND11_TOSTRING(PYBIND11_VERSION_PATCH);
  return info;
}

}  // namespace

// mod_gil_not_used: nothing here keeps state, and without the mark a free-threaded interpreter
// would switch its GIL back on for the whole process.
PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled parts of AffectCodec that need no torch.";
  m.def("pack_bits", &pack_bits, py::arg("codes"), py::arg("bits"),
        "Pack int32 or int64 codes [n] into bytes, little-endian, lowest bit first.");
  m.def("unpack_bits", &unpack_bits, py::arg("data"), py::arg("bits"), py::arg("count"),
        py::arg("wide") = true,
        "Unpack `count` codes from bytes: int64, or int32 where `wide` is false.");
  m.def("cpu_features", &cpu_features,
        "Instruction sets that this CPU and operating system can run.");
  m.def("build_info", &build_info,
        "Compiler and library versions that this module was built with.");
}

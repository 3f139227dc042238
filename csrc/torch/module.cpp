// SPDX-License-Identifier: Apache-2.0
// affectcodec._cpu: importing it loads the library, whose initialisers register the ops. For Python
// it tells the instruction set in use, and whether the parameters of a module have changed.
#include <Python.h>

#include <cstdint>
#include <initializer_list>

#include "../core/plan.h"
#include "../cpu/kernels.h"

namespace {

struct State {
  PyObject *parameters, *version, *data_ptr;  // names, interned
};

PyObject* isa(PyObject*, PyObject*) {
  const char* why = "";
  const auto* kernels = affectcodec::cpu::kernels(&why);
  if (kernels == nullptr) {
    return PyErr_Format(PyExc_RuntimeError, "AFFECTCODEC_CPU_ISA: %s", why);
  }
  return PyUnicode_FromString(kernels->name);
}

PyObject* isas(PyObject*, PyObject*) {
  PyObject* names = PyList_New(0);
  const char* why = "";
  for (const char* name : {"scalar", "avx2", "avx512"}) {
    if (names == nullptr || affectcodec::cpu::choose_kernels(name, &why) == nullptr) continue;
    PyObject* text = PyUnicode_FromString(name);
    if (text == nullptr || PyList_Append(names, text) != 0) Py_CLEAR(names);
    Py_XDECREF(text);
  }
  return names;
}

constexpr Py_ssize_t kPerBlock = 6;
constexpr Py_ssize_t kMost = affectcodec::kMaxBlocks * kPerBlock;

// Takes the reference; false after an exception.
bool read_number(PyObject* value, uint64_t* to) {
  if (value == nullptr) return false;
  *to = PyLong_AsUnsignedLongLongMask(value);
  Py_DECREF(value);
  return !PyErr_Occurred();
}

// Address and version of each parameter of a block. Returns how many parameters there were, -1
// after an exception.
Py_ssize_t stamp_block(const State& names, PyObject* block, uint64_t* numbers) {
  PyObject* own = PyObject_GetAttr(block, names.parameters);
  if (own == nullptr) return -1;
  PyObject* list = PyDict_Check(own) ? PyDict_Values(own) : PySequence_List(own);
  Py_DECREF(own);
  if (list == nullptr) return -1;
  Py_ssize_t count = PyList_GET_SIZE(list);
  for (Py_ssize_t i = 0; i < count && count == kPerBlock; ++i) {
    PyObject* parameter = PyList_GET_ITEM(list, i);
    if (parameter == Py_None) {
      count = 0;
    } else if (!read_number(PyObject_CallMethodNoArgs(parameter, names.data_ptr),
                            numbers + 2 * i) ||
               !read_number(PyObject_GetAttr(parameter, names.version), numbers + 2 * i + 1)) {
      count = -1;
    }
  }
  Py_DECREF(list);
  return count;
}

PyObject* stamp(PyObject* module, PyObject* blocks) {
  const auto& names = *static_cast<State*>(PyModule_GetState(module));
  if (!PyDict_Check(blocks)) return PyErr_Format(PyExc_TypeError, "blocks: wanted a dict");
  PyObject* list = PyDict_Values(blocks);
  if (list == nullptr) return nullptr;
  uint64_t numbers[2 * kMost];
  Py_ssize_t found = 0, count = kPerBlock;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && count == kPerBlock; ++i) {
    if (found == kMost) {
      count = 0;
    } else {
      count = stamp_block(names, PyList_GET_ITEM(list, i), numbers + 2 * found);
      found += kPerBlock;
    }
  }
  Py_DECREF(list);
  if (count == -1) return nullptr;
  if (count != kPerBlock) Py_RETURN_NONE;
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(numbers),
                                   2 * found * static_cast<Py_ssize_t>(sizeof(uint64_t)));
}

PyMethodDef methods[] = {
    {"isa", isa, METH_NOARGS, "Instruction set of the kernels in use: scalar, avx2 or avx512."},
    {"isas", isas, METH_NOARGS, "Instruction sets that this build has and this machine runs."},
    {"stamp", stamp, METH_O,
     "Addresses and versions of the parameters of a dict of modules, as bytes; None where a module "
     "does not hold six of its own."},
    {nullptr, nullptr, 0, nullptr}};

int prepare(PyObject* module) {
  auto& names = *static_cast<State*>(PyModule_GetState(module));
  names.parameters = PyUnicode_InternFromString("_parameters");
  names.version = PyUnicode_InternFromString("_version");
  names.data_ptr = PyUnicode_InternFromString("data_ptr");
  return names.parameters && names.version && names.data_ptr ? 0 : -1;
}

int clear(PyObject* module) {
  auto* names = static_cast<State*>(PyModule_GetState(module));
  if (names == nullptr) return 0;
  Py_CLEAR(names->parameters);
  Py_CLEAR(names->version);
  Py_CLEAR(names->data_ptr);
  return 0;
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(prepare)},
#if defined(Py_mod_gil)
                            // Keeps no state but names; without the mark a free-threaded
                            // interpreter would switch its GIL back on.
                            {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
                            {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_cpu",
                          "CPU kernels of AffectCodec, registered as torch operators.",
                          sizeof(State),
                          methods,
                          slots,
                          nullptr,
                          clear,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu() { return PyModuleDef_Init(&definition); }

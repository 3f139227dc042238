// SPDX-License-Identifier: Apache-2.0
// affectcodec._cpu: importing it loads the library, whose initialisers register the ops. It tells
// the instruction set in use and has nothing else for Python.
#include <Python.h>

#include "../cpu/kernels.h"

namespace {

PyObject* isa(PyObject*, PyObject*) {
  const char* why = "";
  const auto* kernels = affectcodec::cpu::kernels(&why);
  if (kernels == nullptr) {
    return PyErr_Format(PyExc_RuntimeError, "AFFECTCODEC_CPU_ISA: %s", why);
  }
  return PyUnicode_FromString(kernels->name);
}

PyMethodDef methods[] = {
    {"isa", isa, METH_NOARGS, "Instruction set of the kernels in use: scalar, avx2 or avx512."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef_Slot slots[] = {
#if defined(Py_mod_gil)
    // Keeps no state; without the mark a free-threaded interpreter would switch its GIL back on.
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_cpu",
                          "CPU kernels of AffectCodec, registered as torch operators.",
                          0,
                          methods,
                          slots,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu() { return PyModuleDef_Init(&definition); }

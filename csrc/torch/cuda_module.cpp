// SPDX-License-Identifier: Apache-2.0
// affectcodec._cuda: importing it loads the library, whose initialisers register the ops. It tells
// what it was compiled for and has nothing else for Python.
#include <Python.h>

namespace {

PyObject* architectures(PyObject*, PyObject*) {
  return PyUnicode_FromString(AFFECTCODEC_CUDA_ARCHITECTURES);
}

PyMethodDef methods[] = {{"architectures", architectures, METH_NOARGS,
                          "Architectures the kernels were compiled for, as CMake names them."},
                         {nullptr, nullptr, 0, nullptr}};

PyModuleDef_Slot slots[] = {
#if defined(Py_mod_gil)
    // Keeps no state; without the mark a free-threaded interpreter would switch its GIL back on.
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_cuda",
                          "CUDA kernels of AffectCodec, registered as torch operators.",
                          0,
                          methods,
                          slots,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cuda() { return PyModuleDef_Init(&definition); }

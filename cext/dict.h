/* Setting a dictionary's item by a hash that is already known, where this Python offers it. */
#ifndef XSAVE_DICT_H
#define XSAVE_DICT_H

#include <Python.h>

static inline int xs_dict_set(PyObject *dict, PyObject *key, PyObject *value, Py_hash_t hash)
{
#if defined(Py_LIMITED_API) || PY_VERSION_HEX >= 0x030E0000
    (void)hash;
    return PyDict_SetItem(dict, key, value);
#else
    return _PyDict_SetItem_KnownHash(dict, key, value, hash);
#endif
}

#endif

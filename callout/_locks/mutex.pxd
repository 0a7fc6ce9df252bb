# The types of mutex.py for the compiled core.

cimport cython

from .._core.rawlock cimport RawLock
from .lock cimport Lock

cdef class MtxRecord(Lock):
    cdef public object _owner
    cdef public int _depth
    cdef public bint _recurse

    @cython.locals(raw=RawLock)
    cpdef bint leave(self) except -1
    cpdef bint mine(self) except -1
    @cython.locals(raw=RawLock, taken=bint)
    cpdef bint try_acquire(self, bint shared) except -1

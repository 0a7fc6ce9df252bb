# The types of lock.py for the compiled core.

from .._core.machine cimport Machine
from .._core.rawlock cimport RawLock

cdef class Lock:
    cdef object __weakref__
    cdef public RawLock _raw
    cdef public Machine machine
    cdef public object parked
    cdef public object kind
    cdef public object lock_class
    cdef public object me
    cdef public object name
    cdef public object since

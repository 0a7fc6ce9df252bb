# The types of machine.py for the compiled core.

from libc.stdint cimport int64_t

from .rawlock cimport RawLock

cdef class Machine:
    cdef object __weakref__
    cdef public object attached
    cdef public int64_t boot
    cdef public object budget
    cdef public object call
    cdef public bint careful
    cdef public tuple cpus
    cdef public object dead
    cdef public object epoch
    cdef public object expensive
    cdef public object extras
    cdef public object faults
    cdef public object fresh
    cdef public object giant
    cdef public object held
    cdef public int hz
    cdef public object kind
    cdef public RawLock making
    cdef public object origins
    cdef public object phase
    cdef public object plain
    cdef public object platform
    cdef public int precexp
    cdef public object report
    cdef public object serials
    cdef public object sleepers
    cdef public int64_t slow
    cdef public object stall
    cdef public int64_t tick
    cdef public object trace
    cdef public object unlocked
    cdef public object waits
    cdef public object witness

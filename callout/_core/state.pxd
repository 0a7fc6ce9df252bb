# The types of state.py for the compiled core. What points upwards, to CPUs and runs, is an object here: a module
# cannot be compiled before itself. Where it is used it is told its type.

from libc.stdint cimport int64_t

cdef class Link:
    cdef public Link next
    cdef public Link prev

cdef class Ring(Link):
    cpdef append(self, Link link)

# In the order in which they are used: what stopping looks at comes first, and so is in the cache with the links.
cdef class Record(Link):
    cdef public object c_cpu
    cdef public int state
    cdef public int flags
    cdef public object run
    cdef public object lock
    cdef public int64_t time
    cdef public int64_t seq
    cdef public int64_t filed
    cdef public object func
    cdef public object arg
    cdef public int64_t precision
    cdef object __weakref__

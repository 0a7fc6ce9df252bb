# The types of rawlock.py for the compiled core.

cdef class RawLock:
    cpdef bint acquire(self, bint blocking=*) except -1
    cpdef object release(self)
    cpdef bint _is_owned(self) except -1

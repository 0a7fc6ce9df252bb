"""The raw lock of the compiled core: what ``threading.RLock`` is, without a look for its methods' names.

It is recursive, and while it blocks signal handlers run. ``owner`` is read without the lock by threads that do not have
it: each of them sees at worst another's number, never its own.
"""

from cpython.exc cimport PyErr_CheckSignals

from .rawlock cimport RawLock


cdef extern from "pythread.h" nogil:
    ctypedef void *PyThread_type_lock
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible)
    void PyThread_release_lock(PyThread_type_lock lock)
    unsigned long PyThread_get_thread_ident()


cdef class NativeLock(RawLock):
    """A recursive lock, as ``threading.RLock``."""

    cdef PyThread_type_lock gate
    cdef unsigned long owner  # 0: nobody
    cdef unsigned long depth

    def __cinit__(self):
        self.gate = PyThread_allocate_lock()
        if self.gate is NULL:
            raise MemoryError("no lock is left")

    def __dealloc__(self):
        if self.gate is not NULL:
            if self.owner:
                PyThread_release_lock(self.gate)
            PyThread_free_lock(self.gate)

    cpdef bint acquire(self, bint blocking=True) except -1:
        """Acquire the lock; without *blocking*, return False if another thread holds it."""
        cdef unsigned long me = PyThread_get_thread_ident()
        cdef PyLockStatus status
        if self.owner == me:
            self.depth += 1
            return True
        status = PyThread_acquire_lock_timed(self.gate, 0, 0)
        if status != PY_LOCK_ACQUIRED:
            if not blocking:
                return False
            while status != PY_LOCK_ACQUIRED:
                with nogil:
                    status = PyThread_acquire_lock_timed(self.gate, -1, 1)
                if status == PY_LOCK_INTR:
                    PyErr_CheckSignals()
        self.owner = me
        self.depth = 1
        return True

    cpdef object release(self):
        """Release the lock as often as it was acquired. RuntimeError if this thread does not hold it."""
        if self.owner != PyThread_get_thread_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self.depth -= 1
        if self.depth == 0:
            self.owner = 0
            PyThread_release_lock(self.gate)

    cpdef bint _is_owned(self) except -1:
        """Whether this thread holds the lock."""
        return self.owner == PyThread_get_thread_ident()

"""The raw lock of the compiled core: what ``threading.RLock`` is, without a look for its methods' names.

It is recursive, and while it blocks signal handlers run. Its fields belong to the GIL: nothing here runs without it but
the sleep of a thread that has to wait. So a lock that is free is acquired by a store.

What is released is free for any thread. One of those that sleep is woken, and finds it free or sleeps again; ``opened``
says that one is on its way. No wake-up is lost: a thread that counts among the sleepers has seen the lock held, and
both are one step under the GIL; its holder looks for sleepers after it made it free. Shown by tests/threads and by the
soak.

Prior art: the benaphore of BeOS, a counter that guards a semaphore; barging as in the WTF::Lock of WebKit.
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

    cdef unsigned long owner  # 0: nobody
    cdef unsigned int depth
    cdef unsigned int sleepers
    cdef PyThread_type_lock gate  # where they sleep; shut, but for the one that is on its way. NULL: nobody ever has
    cdef bint opened

    def __dealloc__(self):
        if self.gate is not NULL:
            if not self.opened:
                PyThread_release_lock(self.gate)
            PyThread_free_lock(self.gate)

    cpdef bint acquire(self, bint blocking=True) except -1:
        """Acquire the lock; without *blocking*, return False if another thread holds it."""
        cdef unsigned long me = PyThread_get_thread_ident()
        if self.owner == me:
            self.depth += 1
            return True
        if self.owner:
            if not blocking:
                return False
            self.sleep()
        self.owner = me
        self.depth = 1
        return True

    cdef int sleep(self) except -1:
        """Return when the lock is free."""
        cdef PyLockStatus status
        if self.gate is NULL:
            self.gate = PyThread_allocate_lock()
            if self.gate is NULL:
                raise MemoryError("no lock is left")
            PyThread_acquire_lock_timed(self.gate, 0, 0)
        while self.owner:
            self.sleepers += 1
            with nogil:
                status = PyThread_acquire_lock_timed(self.gate, -1, 1)
            self.sleepers -= 1
            if status == PY_LOCK_ACQUIRED:
                self.opened = False
            else:
                PyErr_CheckSignals()
        return 0

    cpdef object release(self):
        """Release the lock as often as it was acquired. RuntimeError if this thread does not hold it."""
        if self.owner != PyThread_get_thread_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self.depth -= 1
        if self.depth == 0:
            self.owner = 0
            if self.sleepers and not self.opened:
                self.opened = True
                PyThread_release_lock(self.gate)

    cpdef bint _is_owned(self) except -1:
        """Whether this thread holds the lock."""
        return self.owner == PyThread_get_thread_ident()

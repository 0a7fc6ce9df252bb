# The types of cpulock.py for the compiled core.

cimport cython

from .cpu cimport Cpu
from .rawlock cimport RawLock
from .state cimport Record

@cython.locals(lock=RawLock)
cpdef object acquire(Cpu cpu, str call=*)
cpdef object release_if_owned(RawLock lock, str call=*)
cpdef object refuse_reentry(Cpu cpu, str call=*)
@cython.locals(first=Cpu, second=Cpu)
cpdef object acquire_both(Cpu cpu, Cpu other, str call=*)
@cython.locals(cpu=Cpu)
cpdef Cpu lock_callout(Record c, str call=*)
@cython.locals(cpu=Cpu)
cpdef Cpu lock_callout_and(Record c, Cpu to, str call=*)

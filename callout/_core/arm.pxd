# The types of arm.py for the compiled core.

cimport cython
from libc.stdint cimport int64_t

from .cpu cimport Cpu, Move, Run
from .state cimport Link, Record

# Constants
cdef int ACTIVE, CAREFUL, CLOSED, DIRECT, FIXED, FRESH, MOVING, PENDING, QUEUED, REFUSED, REMOVED, RUNNING, TRACED, CANCELLED, WAITING

@cython.locals(cpu=Cpu)
cpdef tuple _lock_for(str call, Record c, Cpu to)
@cython.locals(run=Run)
cpdef bint unschedule(Cpu cpu, Record c) except? -1
@cython.locals(seq=int64_t, at=Link, deadline=int64_t)
cpdef tuple prepare(Cpu cpu, int64_t when, int64_t now)
@cython.locals(seq=int64_t, at=Link, deadline=int64_t)
cpdef object schedule(Cpu cpu, Record c, int64_t when)
@cython.locals(cpu=Cpu)
cpdef int arm(str call, Record c, int64_t when, int64_t precision, object func, object arg, Cpu to, bint direct=*, int how=*) except? -1
@cython.locals(state=int, run=Run, facts=int, cancels=bint, seq=int64_t, at=Link, deadline=int64_t)
cpdef int _arm_locked(str call, Cpu cpu, Record c, int64_t when, int64_t precision, object func, object arg, Cpu to, bint direct, int how, list old) except? -1
cpdef object _defer(Cpu cpu, Record c, Run run, bint cancels, Move move)
@cython.locals(time=int64_t, run=Run)
cpdef bint _applies(Record c, int how, int64_t when) except? -1

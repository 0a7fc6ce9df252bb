# The types of short.py for the compiled core.

cimport cython
from libc.stdint cimport int64_t

from .cpu cimport Cpu
from .machine cimport Machine
from .rawlock cimport RawLock
from .state cimport Link, Record
from .wheel cimport Wheel

# Constants
cdef int ARMED, ARMED_TRACED, FRESH, NOT_IDLE, REMOVED, TRACED, COARSE, FINE
cdef int64_t _LONG_IF_PENDING, _LONG_IF_IDLE, _ONE_DIGIT, FAR

@cython.locals(record=Record, machine=Machine)
cpdef object callout_init(object c, object mpsafe)
@cython.locals(record=Record, cpu=Cpu, lock=RawLock, when=int64_t, state=int, wheel=Wheel, at=Link, last=Link, seq=int64_t, deadline=int64_t)
cpdef object callout_reset(object c, object ticks, object func, object arg)
@cython.locals(record=Record, cpu=Cpu, lock=RawLock, state=int, before=Link, after=Link)
cpdef object callout_stop(object c)
@cython.locals(record=Record, cpu=Cpu, lock=RawLock, now=int64_t, state=int, wheel=Wheel, at=Link, last=Link, seq=int64_t, deadline=int64_t)
cpdef object callout_arm_curcpu(object c, object tick, object func, object arg, object flags=*)

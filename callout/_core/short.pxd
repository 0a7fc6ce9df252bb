# The types of short.py for the compiled core.

cimport cython
from libc.stdint cimport int64_t

from .._locks.mutex cimport MtxRecord
from .cpu cimport Cpu
from .machine cimport Machine
from .rawlock cimport RawLock
from .state cimport Link, Record
from .wheel cimport Bucket, Wheel

# Constants
cdef int ARMED, ARMED_TRACED, FRESH, NOT_IDLE, REMOVED, RUNNING, TRACED, COARSE, LAST
cdef int64_t _LONG_IF_LATER, _LONG_IF_EARLIER, _LONG_IF_IDLE, _ONE_DIGIT, FAR

@cython.locals(record=Record, machine=Machine)
cpdef object callout_init(object c, object mpsafe)
@cython.locals(record=Record, machine=Machine, mine=MtxRecord)
cpdef object callout_init_mtx(object c, object mtx, object flags=*)
@cython.locals(record=Record, cpu=Cpu, lock=RawLock, when=int64_t, state=int, wheel=Wheel, bucket=Bucket, at=Link, before=Link, after=Link, last=Link, pending=bint, seq=int64_t, deadline=int64_t)
cpdef object callout_reset(object c, object ticks, object func, object arg)
@cython.locals(record=Record, cpu=Cpu, lock=RawLock, state=int, wheel=Wheel, bucket=Bucket, at=Link, before=Link, after=Link, last=Link, pending=bint, seq=int64_t, deadline=int64_t)
cpdef int arm_at(str call, object c, int64_t when, object func, object arg) except? -1
cpdef int64_t tolerance_of(Machine machine, object c, int64_t when) except? -1
@cython.locals(record=Record, cpu=Cpu, lock=RawLock, state=int, before=Link, after=Link)
cpdef int stop_now(str call, object c) except? -1
@cython.locals(machine=Machine, record=Record, mine=MtxRecord, raw=RawLock, when=int64_t, state=int, wheel=Wheel, bucket=Bucket, at=Link, last=Link, seq=int64_t, deadline=int64_t)
cpdef object arm_new(object call, Cpu cpu, int64_t delay, object func, object arg, object lock)
@cython.locals(record=Record, cpu=Cpu, lock=RawLock, state=int, before=Link, after=Link)
cpdef object callout_stop(object c)
@cython.locals(record=Record, cpu=Cpu, lock=RawLock, now=int64_t, state=int, wheel=Wheel, bucket=Bucket, at=Link, before=Link, after=Link, last=Link, pending=bint, seq=int64_t, deadline=int64_t)
cpdef object callout_arm_curcpu(object c, object tick, object func, object arg, object flags=*)

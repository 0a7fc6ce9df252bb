# The types of cpu.py for the compiled core.

from libc.stdint cimport int64_t

from .rawlock cimport RawLock
from .state cimport Record, Ring
from .wheel cimport Wheel

cdef class Move:
    cdef public object arg
    cdef public Move before
    cdef public Cpu cpu
    cdef public bint direct
    cdef public object func
    cdef public int64_t precision
    cdef public int64_t time

cdef class Ticket:
    cdef public object arg
    cdef public int asks
    cdef public object func
    cdef public bint promised
    cdef public bint removed
    cdef public object rest
    cdef public object waiter

cdef class Run:
    cdef public object arg
    cdef public Record callout
    cdef public Cpu cpu
    cdef public int64_t due
    cdef public object func
    cdef public Lane lane
    cdef public object lock
    cdef public Move move
    cdef public bint refusing
    cdef public Move removed
    cdef public bint shared
    cdef public int state
    cdef public list tickets
    cdef public bint unlocked

cdef class Lane:
    cdef public Cpu cpu
    cdef public bint direct
    cdef public Ring queue
    cdef public Run run

cdef class Tally:
    cdef public int64_t errors
    cdef public list late
    cdef public int64_t latest
    cdef public int64_t longest
    cdef public object longest_function
    cdef public int64_t parked
    cdef public int64_t parks
    cdef public int64_t spent
    cdef public int64_t total_late
    cdef public int64_t wakeups

cdef class Cpu:
    cdef object __weakref__
    cdef public int64_t begun
    cdef public int64_t boot
    cdef public bint busy
    cdef public object calls
    cdef public int64_t cancelled
    cdef public int64_t closed
    cdef public object current_thread
    cdef public int64_t deadline
    cdef public int64_t drained
    cdef public int64_t fresh
    cdef public int id
    cdef public object idle
    cdef public Lane interrupt
    cdef public tuple lanes
    cdef public RawLock lock
    cdef public object machine
    cdef public int64_t migrated
    cdef public int64_t moved
    cdef public object now
    cdef public bint only
    cdef public bint open
    cdef public Cpu plain
    cdef public int64_t refiled
    cdef public int64_t refused
    cdef public int64_t removed
    cdef public int64_t seq
    cdef public Lane softclock
    cdef public Tally tally
    cdef public object thread
    cdef public int64_t tick
    cdef public Wheel wheel

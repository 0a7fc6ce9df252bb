# The types of stop.py for the compiled core.

cimport cython

from .cpu cimport Cpu, Run, Ticket
from .state cimport Record

# Constants
cdef int ACTIVE, CLOSED, REMOVED, RUNNING, CANCELLED, WAITING

@cython.locals(cpu=Cpu, may_cancel=bint)
cpdef int stop(str call, Record c) except? -1
cpdef bint check_stop_lock(str call, Record c) except? -1
@cython.locals(run=Run, facts=int)
cpdef int stop_locked(Cpu cpu, Record c, bint may_cancel, str call, Ticket ticket=*) except? -1
cpdef object _tell_stop(Cpu cpu, Record c, int facts, str call)
@cython.locals(cpu=Cpu, facts=int, removed=bint, closes=bint)
cpdef int dequeue(str call, Record c, bint if_not_running=*, bint close=*) except? -1
@cython.locals(cpu=Cpu)
cpdef object deactivate(Record c)

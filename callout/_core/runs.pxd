# The types of runs.py for the compiled core.

cimport cython
from libc.stdint cimport int64_t

from .cpu cimport Cpu, Lane, Move, Run, Tally, Ticket
from .machine cimport Machine
from .state cimport Link, Record, Ring

# Constants
cdef int CANCELLED, STARTED, T_CLOSE, T_DEQUEUE, WAITING, ACTIVE, CLOSED, DIRECT, MOVING, PENDING, QUEUED, CALLOUT_RETURNUNLOCKED, CALLOUT_SHAREDLOCK, CALLOUT_TRYLOCK

@cython.locals(run=Run, machine=Machine, may_start=bint)
cpdef Run run_started(Lane lane, int64_t begun, int64_t until)
@cython.locals(cpu=Cpu, done=Run, _c=Record)
cpdef Run turn(Lane lane)
@cython.locals(cpu=Cpu, queue=Ring, c=Record, before=Link, after=Link, run=Run)
cpdef Run _next(Lane lane, Run done)
cpdef bint _try(Run run) except -1
@cython.locals(cpu=Cpu, flags=int, state=int, shared=bint, run=Run)
cpdef Run _begin(Lane lane, Record c)
@cython.locals(precision=int64_t)
cpdef object _file_again(Cpu cpu, Record c)
@cython.locals(cpu=Cpu)
cpdef bint confirm(Run run) except? -1
@cython.locals(ended=int64_t, spent=int64_t, errors=list, machine=Machine, cpu=Cpu, tally=Tally)
cpdef int64_t execute(Run run, int64_t begun) except? -1
cpdef object _release_after(Run run, list errors)
cpdef object skip(Run run)
@cython.locals(cpu=Cpu)
cpdef object fail(Run run, object error)
@cython.locals(run=Run, c=Record, cpu=Cpu, move=Move, to=Cpu)
cpdef object end(Lane lane)
@cython.locals(to=Cpu, at=Link, seq=int64_t, deadline=int64_t)
cpdef object _carry_out(Cpu cpu, Record c, Move move, list old)
cpdef object serve(Run run, list tickets)
cpdef object complete(Cpu cpu, Record c, Ticket ticket)
@cython.locals(due=list, now=int64_t, more=bint, queue=Ring, ring=Ring, last=Link, c=Record, state=int, when=int64_t)
cpdef bint scan(Cpu cpu) except? -1

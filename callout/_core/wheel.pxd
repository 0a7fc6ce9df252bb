# The types of wheel.py for the compiled core.

cimport cython
from libc.stdint cimport int64_t

from .state cimport Link, Record, Ring

# Constants
cdef int64_t NEVER
cdef int CHUNK, COARSER, FAN, FEW, FINE, LAST, SHIFT, MOVING, PENDING, QUEUED
cdef tuple LEVELS

cdef class Bucket(Ring):
    cdef public int64_t begins
    cdef public int level

cpdef int64_t _begins(int64_t key) except? -1

cdef class Wheel:
    cdef public list _keys
    cdef public tuple _levels
    cdef public Ring _open
    cdef public list coarse
    cdef public list coarser
    cdef public list fine
    cdef public int64_t horizon

    @cython.locals(bucket=Bucket)
    cpdef Bucket bucket_of(self, int64_t time)
    @cython.locals(level=int, shift=int, edge=int64_t, horizon=int64_t, number=int64_t, begins=int64_t, bucket=Bucket, buckets=list)
    cpdef Link spot(self, int64_t time, int64_t seq, int64_t now)
    @cython.locals(at=Link, before=Record)
    cpdef Link _place(self, int64_t time, int64_t seq)
    @cython.locals(before=Link, after=Link, last=Link)
    cpdef object put(self, Record c, Link at, int64_t time, int64_t seq)
    @cython.locals(before=Link, after=Link)
    cpdef object remove(self, Record c)
    cpdef Bucket _first(self)
    @cython.locals(level=int, shift=int)
    cpdef Bucket _bucket(self, int64_t key)
    @cython.locals(shift=int)
    cpdef object _forget(self, Bucket bucket)
    @cython.locals(when=int64_t, begins=int64_t, key=int64_t, looks=int, bucket=Bucket)
    cpdef int64_t next_event(self) except? -1
    @cython.locals(budget=int, ring=Ring, c=Record, after=Link, bucket=Bucket)
    cpdef bint expire(self, int64_t now, list due) except? -1
    @cython.locals(level=int, shift=int, ends=int64_t, most=int64_t, some=list, handled=int, last=Record)
    cpdef int _advance(self, Bucket bucket, int64_t now, list due, int budget) except? -1
    @cython.locals(c=Record, before=Link, after=Link)
    cpdef object _take_all(self, Bucket bucket, list callouts, int64_t ends, list due)
    @cython.locals(c=Record, before=Link, after=Link, last=Link, shift=int, place=int64_t, buckets=list, horizon=int64_t)
    cpdef object _open_up(self, Bucket bucket, list callouts, int64_t ends)
    @cython.locals(shift=int, handled=int, c=Record, time=int64_t, at=Link, below=Bucket, elsewhere=bint, slots=list)
    cpdef int _distribute(self, Bucket bucket, int level, int64_t ends, int budget) except? -1
    @cython.locals(time=int64_t, seq=int64_t)
    cpdef object _file_again(self, Record c)

@cython.locals(few=list)
cpdef int64_t _look(Bucket bucket) except? -1
@cython.locals(c=Link, out=list)
cpdef list _some(Bucket bucket, int64_t most)

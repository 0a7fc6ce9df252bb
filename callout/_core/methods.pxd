# The types of methods.py for the compiled core.

cimport cython
from libc.stdint cimport int64_t

from .cpu cimport Cpu

# Constants
cdef int64_t LONGEST, NS_PER_S
cdef int REFUSED_CODE

cpdef object later(str call, Cpu cpu, object seconds, object func, tuple args)
@cython.locals(exact=double, delay=int64_t)
cpdef int64_t in_ns(str call, object seconds) except? -1
cpdef object _function(str call, object func)
@cython.locals(count=int)
cpdef object _argument(tuple given)

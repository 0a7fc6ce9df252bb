"""The real world as a guest of asyncio: CPU 0 is a loop of asyncio, in which a run of trio is a guest."""

"""The locks of mutex(9), rwlock(9) and rmlock(9), and the parking lot at which all of them are waited for."""

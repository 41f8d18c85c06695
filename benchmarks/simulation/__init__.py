"""A simulation of days in seconds: the real scripts on a real server, told what time it is."""

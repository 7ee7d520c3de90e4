"""The commands of ``mmkd``, one module each: a parser and the call of what does the work.

Each has ``main(arguments)``, which returns the exit status, and is imported only when it is called.
"""

"""Free memory goes back to the system, from wherever in the heap it is, and of any thread."""

import os
import subprocess
import sys

from paths import python_path

_BLOCKS, _BLOCK_BYTES, _THREADS = 1000, 20_000, 4
_PROGRAM = f"""
import ctypes, os, threading, time
from tfdrl.benchmarks.proc import rss_bytes
from tfdrl.runtime.free_memory import give_back_free_memory

library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def work():
    blocks = [library.malloc({_BLOCK_BYTES}) for _ in range({_BLOCKS})]
    for block in blocks:
        ctypes.memset(ctypes.c_void_p(block), 1, {_BLOCK_BYTES})
    for number, block in enumerate(blocks):
        if number % 100:  # those that are left keep the heap from shrinking
            library.free(block)

def megabytes():
    return rss_bytes(os.getpid()) / 1e6

before = megabytes()
threads = [threading.Thread(target=work) for _ in range({_THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(megabytes() - before)
give_back_free_memory(period_secs=0.05)
deadline_secs = time.monotonic() + 20
while megabytes() - before > 10 and time.monotonic() < deadline_secs:
    time.sleep(0.05)
print(megabytes() - before)
"""


def test_what_is_free_between_what_is_used_goes_back():
    environment = {**os.environ, "PYTHONPATH": python_path()}
    command = [sys.executable, "-c", _PROGRAM]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    kept, left = map(float, printed.split())
    assert kept > 0.8 * _THREADS * _BLOCKS * _BLOCK_BYTES / 1e6 > 50
    assert left < 10

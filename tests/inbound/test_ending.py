"""A server ends on SIGTERM, also where the system hands the signal to another thread than the waiting one."""

import subprocess
import sys

# The main thread blocks the signal, so that the system chooses the sender's. Python runs the handler in the main one.
_WAITS = """
import os, signal, threading, time
from inbound.serving import wait_for_end

class Ended(threading.Event):
    def wait(self, timeout=None):
        waiting.set()
        return super().wait(timeout)

def send():
    waiting.wait()
    time.sleep(0.3)  # until the main thread sleeps
    os.kill(os.getpid(), signal.SIGTERM)

waiting, ended = threading.Event(), Ended()
signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
threading.Thread(target=send, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
wait_for_end(ended)
print("ended")
"""


def test_a_signal_that_another_thread_got_ends_the_wait() -> None:
    done = subprocess.run([sys.executable, "-c", _WAITS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr

"""Checks that print what they saw, one line each, and end the program when one fails."""

import queue
import sys
import time

WAIT = 30  # seconds; nothing here takes one of them on a hub that works


def check(what, got, want):
    if got != want:
        print(f"FAILED {what}: got {got!r}, want {want!r}", flush=True)
        sys.exit(1)
    print(f"ok {what}", flush=True)


def check_that(what, holds, got=None):
    if not holds:
        print(f"FAILED {what}: got {got!r}", flush=True)
        sys.exit(1)
    print(f"ok {what}", flush=True)


def eventually(what, call, want):
    """Checks that call soon returns what is wanted."""
    deadline = time.monotonic() + WAIT
    while (got := call()) != want and time.monotonic() < deadline:
        time.sleep(0.05)
    check(what, got, want)


def raises(what, kind, call, *args, **kwargs):
    """Checks that call raises an exception of the kind, and returns it."""
    try:
        got = call(*args, **kwargs)
    except kind as e:
        print(f"ok {what}: {type(e).__name__}", flush=True)
        return e
    except BaseException as e:
        print(f"FAILED {what}: raised {e!r}, want {kind.__name__}", flush=True)
        sys.exit(1)
    print(f"FAILED {what}: returned {got!r}, want {kind.__name__}", flush=True)
    sys.exit(1)


class Inbox(queue.Queue):
    """What a handler received."""

    def next(self, what):
        try:
            return self.get(timeout=WAIT)
        except queue.Empty:
            print(f"FAILED {what}: nothing came in {WAIT} s", flush=True)
            sys.exit(1)

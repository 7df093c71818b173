"""Waits for a pipe: main reads a byte that comes every 60 ms."""
import os, sys, threading, time


def begin(flag):
    while not os.path.exists(flag):
        sum(range(20000))


def wait_for_pipe(fd):
    return os.read(fd, 1)


begin(sys.argv[1])
r, w = os.pipe()


def writer():
    while True:
        time.sleep(0.06)
        os.write(w, b"x")


threading.Thread(target=writer, daemon=True).start()
total = 0
for _ in range(50):
    t = time.monotonic_ns()
    wait_for_pipe(r)
    total += time.monotonic_ns() - t
print("wait_for_pipe", total)
print("end", flush=True)
time.sleep(600)

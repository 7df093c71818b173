"""Takes and frees 64 MiB in churn, and then leaks as much in leak. In turns, the
pages of leak would be those that churn has touched first, and has given back."""
import os, sys, time


def begin(flag):
    while not os.path.exists(flag):
        sum(range(20000))


kept = []


def leak():
    kept.append(b"x" * (1 << 20))  # the leaking line


def churn():
    return len(b"y" * (1 << 20))


begin(sys.argv[1])
for _ in range(64):
    churn()
for _ in range(64):
    leak()
print("leak", 64 << 20)
print("end", flush=True)
time.sleep(600)

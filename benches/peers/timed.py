#!/usr/bin/env python3
"""timed.py LOG COMMAND...: runs COMMAND and prints `wall_s cpu_s peak_rss_mib exit other_cpu_s`.

other_cpu_s is what the rest of the machine used meanwhile (stolen time counts too):
a figure taken while it was large says little. Peak memory below that of this script (14 MiB) reads as that.
"""
import os
import subprocess
import sys
import time


def busy_s():
    """CPU seconds that all cores together have spent other than idle."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def main(log, command):
    with open(log, "wb") as out:
        busy, began = busy_s(), time.monotonic()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        _, status, used = os.wait4(child.pid, 0)  # with all that the child itself waited for
        wall, busy = time.monotonic() - began, busy_s() - busy
    cpu = used.ru_utime + used.ru_stime
    code = os.waitstatus_to_exitcode(status)
    print(f"{wall:.3f} {cpu:.3f} {used.ru_maxrss / 1024:.0f} {code} {max(0.0, busy - cpu):.2f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

#!/usr/bin/env python3
"""A link between two network namespaces with a rate, a delay and loss, where the kernel has no netem.

    link.py NAMESPACE_A ADDRESS_A NAMESPACE_B ADDRESS_B RATE_BITS DELAY_MS LOSS

Each side gets a TUN device `link0` with its address (a /30). Packets wait their turn at RATE_BITS a
second in a queue of a hundred milliseconds, are late by DELAY_MS one way, and LOSS (0.01) of them never
arrive. Prints `ready` once both sides are up; ends with its standard input, and the devices with it.
"""
import fcntl, heapq, os, random, select, struct, subprocess, sys, time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
QUEUE_S = 0.1


def device(name, namespace, address):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))

    def ip(*words, inside=True):
        subprocess.run(["ip", *(["-n", namespace] if inside else []), *words], check=True)

    ip("link", "set", name, "netns", namespace, inside=False)
    ip("link", "set", name, "name", "link0")
    ip("addr", "add", address + "/30", "dev", "link0")
    ip("link", "set", "link0", "up", "mtu", "1500", "txqueuelen", "1000")
    return fd


def main():
    ns_a, addr_a, ns_b, addr_b, rate, delay, loss = sys.argv[1:]
    rate, delay, loss = float(rate) / 8, float(delay) / 1000, float(loss)
    dice = random.Random(1)  # the same losses in each run, as far as packets come in the same order
    a = device(f"lka{os.getpid()}"[:15], ns_a, addr_a)
    b = device(f"lkb{os.getpid()}"[:15], ns_b, addr_b)
    other, free = {a: b, b: a}, {a: 0.0, b: 0.0}
    due, n = [], 0
    print("ready", flush=True)
    while True:
        wait = max(0.0, due[0][0] - time.monotonic()) if due else 1.0
        ready, _, _ = select.select([a, b, 0], [], [], wait)
        if 0 in ready and not os.read(0, 1):
            return
        now = time.monotonic()
        for fd in (a, b):
            for _ in range(64 if fd in ready else 0):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                begins = max(now, free[fd])
                if begins - now > QUEUE_S:
                    continue
                free[fd] = begins + len(packet) / rate
                if dice.random() >= loss:
                    n += 1
                    heapq.heappush(due, (free[fd] + delay, n, other[fd], packet))
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, _, to, packet = heapq.heappop(due)
            try:
                os.write(to, packet)
            except (BlockingIOError, OSError):
                pass  # a full queue drops packets, as everywhere


main()

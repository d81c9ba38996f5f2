"""A bad line between two network namespaces: it moves IP packets between a tun device in each, late, and loses some.

Arguments: the two namespaces, milliseconds that a packet takes, the share of packets that is lost, a seed. Says "up" once both
devices are there; a line "dead" on stdin lets nothing through any more, a line "alive" everything again.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000
NAME = b"line0"
LARGEST = 65535
# What a router would hold; more is lost, as there.
MAX_QUEUE = 1000


def device(namespace):
    """A tun device in a namespace of ip-netns(8); it stays there while we go on elsewhere."""
    with open("/run/netns/" + namespace) as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", NAME, IFF_TUN | IFF_NO_PI))
    return tun


def main():
    ends = [device(namespace) for namespace in sys.argv[1:3]]
    delay, loss = float(sys.argv[3]) / 1000, float(sys.argv[4])
    chance = random.Random(int(sys.argv[5]))
    print("up", flush=True)
    queue, number, is_alive = [], 0, True
    while True:
        wait = max(0, queue[0][0] - time.monotonic()) if queue else None
        ready = select.select(ends + [sys.stdin.fileno()], [], [], wait)[0]
        if sys.stdin.fileno() in ready:
            words = os.read(sys.stdin.fileno(), 100).split()
            if not words:
                return
            is_alive = words[-1] == b"alive"
        for end in set(ready) & set(ends):
            packet = os.read(end, LARGEST)
            if is_alive and chance.random() >= loss and len(queue) < MAX_QUEUE:
                number += 1
                heapq.heappush(queue, (time.monotonic() + delay, number, ends[end == ends[0]], packet))
        while queue and queue[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(queue)
            try:
                os.write(end, packet)
            except OSError:
                # The device is not up yet, or has no room: lost, as on any line.
                pass


main()

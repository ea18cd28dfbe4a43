"""The numbers by which a flow over the C prototype is tuned: times in seconds, each with its reason and its measurement.

Measured between two programs on one host, with version 0.23 of it, its local layer and Python 3.11, on two
virtual processors that other programs used at the same time. A number without a measurement was chosen, and never measured.
"""

from __future__ import annotations

# --- reading

#: Bytes of the buffer. More than the longest packet: the library marks a read that ends exactly at the end of the buffer.
BUFFER = (1 << 20) + 4096

#: Time limit of a read that must not wait: it was over before the clock began. A limit that is only just over costs a
#: timer of the kernel. Measured: a read of an empty ring takes 0.7 µs with this limit, 75 µs with a limit of 0.
LONG_OVER = -1_000_000_000

#: How long a reader stays in the library at a time, which wakes it for packets only. Measured: waiting takes 1.1 % of a
#: processor.
SLICE = 0.02

#: The same with FRCT, where the library may take the packet that the reader waits for and not wake it. Measured: 2.2 % of a
#: processor; with 0.001 it would be 6.8 %.
SLICE_WITH_FRCT = 0.005

#: How often a reader asks for the length of the queue before it sleeps. Of all that the library tells, only that length does
#: not keep the writer from writing. Measured: asking takes 0.65 µs; a round trip of two readers that sleep takes 55 µs.
SPINS = 40

#: After a wait shorter than that, spinning would have found the packet. Measured: 40 times 0.65 µs are 26 µs.
SPIN_TAKES = 0.00003

#: How much spinning has to have paid lately, and the most that counts. A packet that is found adds 1, a vain try takes 2.
PAYS, PAYS_WELL = 4, 8

#: A read that takes longer, and brings a packet, has waited for it: the packet is new, and its writer was up just now.
#: Measured: a read of a packet that is there takes 1.2 µs.
WAITED = 0.000005

#: How long a reader stays away for others that want to read.
TURN = 0.0005

#: How long a reader waits for the descriptor at a time.
LONGEST_WAIT = 0.5

# --- writing

#: How long a flow that was found up counts as up. Measured: a write takes 14 µs if each asks, 5.5 µs with this, and 7 µs, so
#: no less, with 0.0005.
STAYS_UP = 0.00005

#: Entries of the ring left to the library, for keepalives and acknowledgements.
SPARE = 24

#: Pauses between two tries of a writer that waits for room: the first, and the longest. Measured: the first takes 126 µs,
#: because the kernel is late.
FIRST_PAUSE, LAST_PAUSE = 0.00005, 0.002

# --- the end

#: Packets, and bytes, that are taken out of the library only to see whether the flow is up behind them.
KEPT, KEPT_BYTES = 64, 1 << 20

#: How long an event that says why a flow is down may come before the flow is down; and after, as the thread that waits for
#: events may have to wait for a processor.
FALLS = 0.2
EXPLAINED = 2.0

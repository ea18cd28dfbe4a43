"""What IPC processes count, so that an expectation of something else is a mistake that is told before a network runs."""

from __future__ import annotations

_NAMES = """
    calls challenged crowded delivered directory_dropped directory_malformed directory_unasked
    directory_wrong_source duplicated enrollments enrollments_evicted enrollments_refused enrollments_unfinished
    errors expired forged forwarded greetings_bad greetings_evicted greetings_missed greetings_refused
    handshakes_failed heard links_held_down lookups_refused lost lsus_dropped lsus_malformed lsus_of_neighbours
    lsus_of_own_address lsus_received lsus_refused malformed management messages_dropped messages_malformed
    messages_unknown messages_wrong_source moves_refused neighbours_silent no_route notices_unanswered overflowed
    overtook_greeting probes_limited probes_malformed probes_received probes_refused probes_unasked queries_answered
    queries_sent queue_full received refused reordered replies_late replies_refusing requests_accepted
    requests_proven requests_received requests_refused requests_repeated requests_sent requests_unknown_name
    returned routes_computed said sent short stores_refused too_long ttl unknown unknown_eid unsent unspoken waiting
    words wrong_source
"""

#: Counters of the layers and of the engine, of all types. A layer counts some of them, and the others are 0 there.
COUNTERS = frozenset(_NAMES.split())

"""What the conformance tests hold flows to: a row for each statement of the specification of flows, with the tests of it.

The specification (`flows.md`, in sections) describes what an application sees of a flow. A row here names one of its
statements in a few words; `tests` would fail if it did not hold of ours. Where the specification records a defect of the C
prototype (`B1` ..) or of its Python binding (`P1` ..), the row says what ours does instead. `reason` stands for statements
that bind nothing here. `test_rows.py` keeps the table and the tests together.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Reason(Enum):
    """Why a row has no test."""

    #: How the prototype does it inside; no program can tell, and ours does it in another way.
    INSIDE = "is how the prototype works inside, not what an application sees"
    #: Belongs to the C interface: numbers of descriptors, NULL arguments, codes that are exceptions here.
    C_API = "is of the C interface; the Python interface has no such thing"
    #: Needs a layer type that does not exist yet.
    ETHERNET = "needs layers over Ethernet"
    #: Needs the prototype at the other end.
    PROTOTYPE = "is seen with a prototype at the other end only"


class Row(NamedTuple):
    """A statement, and its tests or the reason why it has none."""

    text: str
    tests: tuple[str, ...] = ()
    reason: Reason | None = None


FLOW = "tests/conformance/test_flow.py::"
FLAGS = "tests/conformance/test_flow_flags.py::"
EVENT = "tests/conformance/test_event.py::"
AIO = "tests/conformance/test_aio.py::"
SYSTEM = "tests/system/"
WAKE = SYSTEM + "test_wakeups.py::"
DEATH = SYSTEM + "test_death.py::"
FORK = SYSTEM + "test_fork.py::"
LIMITS = SYSTEM + "test_limits.py::"
CAST = SYSTEM + "test_broadcast.py::"
UDP = SYSTEM + "test_udp_flows.py::"
EMBEDDED = SYSTEM + "test_embedded.py::"
QOS = "tests/unit/test_qos.py::"
MANAGER = "tests/unit/test_flow_manager.py::"


def _of(prefix: str, *names: str) -> tuple[str, ...]:
    return tuple(prefix + name for name in names)


_EFFECTS = _of(FLAGS, "TestFlowFlags::test_effects", "TestFlowFlags::test_values")
_INITIAL = _of(FLAGS, "TestFrctFlags::test_initial_flags_follow_the_qos_at_both_ends")

#: Section, row, statement.
ROWS: dict[str, dict[str, Row]] = {
    "1": {
        "descriptors": Row("numbers of flow descriptors and how many there are", reason=Reason.C_API),
        "flow-id": Row(
            "ids are small, the lowest free one is used next",
            _of(MANAGER, "test_ids_start_at_one_and_the_lowest_free_one_is_used_next"),
        ),
        "flow-sets": Row(
            "a program may have as many flow sets as it wants",
            _of(EVENT, "TestDestroyed::test_hundreds_of_sets_can_be_had"),
        ),
        "event-queue": Row(
            "events are copied to a queue of the program, and none is lost",
            _of(EVENT, "TestQueue::test_thousands_of_packets_overflow_nothing"),
        ),
        "many-flows": Row(
            "thousands of flows are open at once; the limit is told",
            _of(LIMITS, "TestMany::test_thousands_of_flows_are_open_at_once"),
        ),
        "pools": Row("packet pools and ring slots", reason=Reason.INSIDE),
    },
    "2.1": {
        "name": Row(
            "a program is known by the name of its script",
            _of(
                "tests/unit/test_client_name.py::",
                "test_a_script_is_called_by_its_file",
                "test_a_module_is_called_by_the_last_part_of_its_name",
                "test_an_interpreter_without_a_script_is_called_python",
            ),
        ),
        "no-node": Row(
            "without a node a call fails, and the interpreter lives on",
            _of(EMBEDDED, "test_without_autostart_there_is_a_clear_error", "test_a_node_that_cannot_start_says_why"),
        ),
    },
    "2.2": {"threads": Row("threads of the library", reason=Reason.INSIDE)},
    "2.3": {
        "dealloc": Row(
            "after dealloc the peer reads what is queued, then hears of the end",
            _of(FLOW, "TestEnd::test_queued_packets_are_read_before_the_end_is_told")
            + _of(EVENT, "TestTypes::test_flow_dealloc_comes_once_and_after_the_packets"),
        ),
        "exit": Row(
            "a program that exits has deallocated its flows",
            _of(DEATH, "test_a_program_that_ends_without_dealloc_has_deallocated")
            + _of(EVENT, "TestTypes::test_flow_dealloc_comes_when_the_peer_exits"),
        ),
        "killed": Row(
            "the peer of a program that was killed hears of its death",
            _of(
                DEATH,
                "test_a_blocked_reader_is_woken_when_the_writer_is_killed",
                "test_a_program_that_ends_by_exit_of_the_system_counts_as_dead",
            )
            + _of(EVENT, "TestTypes::test_flow_peer_comes_once_when_the_peer_is_killed"),
        ),
        "layered": Row(
            "so does a peer at another node",
            _of(UDP, "test_a_program_that_is_killed_is_no_program_that_deallocated"),
        ),
    },
    "2.4": {
        "write": Row(
            "a forked child may not use flows of its parent",
            _of(FORK, "test_a_child_cannot_use_or_harm_the_flow_of_its_parent"),
        ),
        "alloc": Row(
            "a forked child has flows of its own", _of(FORK, "test_a_child_allocates_and_accepts_flows_of_its_own")
        ),
        "exit": Row(
            "a forked child that ends takes nothing of its parent down",
            _of(
                FORK,
                "test_a_child_cannot_use_or_harm_the_flow_of_its_parent",
                "test_multiprocessing_with_fork_works_beside_flows",
            ),
        ),
        "exec": Row(
            "a program that executes another one has given its flows up",
            _of(DEATH, "test_a_program_that_executes_another_one_has_given_its_flows_up"),
        ),
    },
    "2.5": {
        "read": Row(
            "a handler that returns lets a read or a write go on; Ctrl-C ends it and loses nothing",
            _of(
                WAKE,
                "test_a_signal_handler_that_returns_lets_a_read_go_on",
                "test_a_signal_handler_that_returns_lets_a_write_go_on",
                "test_ctrl_c_ends_a_blocked_read_and_loses_nothing",
                "test_ctrl_c_ends_a_blocked_write_and_leaves_whole_packets",
            ),
        ),
        "alloc": Row(
            "so for allocation and acceptance; Ctrl-C withdraws the request",
            _of(
                WAKE,
                "test_a_signal_handler_that_returns_lets_accept_and_alloc_go_on",
                "test_ctrl_c_withdraws_an_accept",
                "test_ctrl_c_withdraws_an_allocation",
            ),
        ),
    },
    "3.1": {
        "name": Row(
            "names of up to 255 bytes",
            _of(
                LIMITS,
                "TestNames::test_the_longest_name_works",
                "TestNames::test_what_cannot_be_a_name_is_refused_everywhere",
            ),
        ),
        "qos": Row(
            "both ends have the QoS that the allocator asked for",
            _of(
                FLOW,
                "TestAllocation::test_both_ends_report_the_qos_that_was_asked_for",
                "TestAllocation::test_alloc_and_accept_return_the_qos",
            ),
        ),
        "timeout": Row("timeouts are seconds", _of(FLOW, "TestAllocation::test_what_is_no_timeout_is_refused")),
    },
    "3.2": {
        "unknown": Row(
            "an unknown name is refused at once",
            _of(MANAGER, "test_an_unknown_name_is_refused_at_once_and_says_what_to_do"),
        ),
        "waiting": Row(
            "an acceptor that waits gets the flow at once",
            _of(MANAGER, "test_an_acceptor_that_waits_gets_the_flow_at_once"),
        ),
        "nobody": Row(
            "a name where nobody accepts is waited for, for the time that was asked",
            _of(FLOW, "TestAllocation::test_alloc_ends_at_its_timeout_and_not_before"),
        ),
        "autostart": Row(
            "a program that is bound is started",
            _of(SYSTEM, "test_autostart.py::test_a_program_is_started_on_demand_with_its_arguments"),
        ),
        "default": Row("20 s without a timeout", _of(MANAGER, "test_client_without_a_limit_waits_for_the_default")),
        "zero": Row(
            "timeout 0 takes an acceptor that waits only, and leaves none with half a flow",
            _of(MANAGER, "test_a_client_that_may_not_wait_fails_when_nobody_accepts")
            + _of(WAKE, "test_a_client_that_gave_up_leaves_the_acceptor_waiting"),
        ),
        "refused": Row(
            "who is not there is refused",
            _of(SYSTEM, "test_udp.py::test_a_name_that_is_not_registered_there_is_refused"),
        ),
        "self": Row(
            "a program can have a flow to itself", _of(FLOW, "TestThreads::test_a_program_can_have_a_flow_to_itself")
        ),
        "exhausted": Row(
            "without descriptors, or at the limit of the node, the error says so and nothing is left",
            _of(
                LIMITS,
                "TestDescriptorsOfAProgram::test_a_program_without_descriptors_gets_a_clear_error_and_recovers",
                "TestLimitsOfANode::test_a_node_with_all_its_flows_refuses_one_more_and_recovers",
            ),
        ),
        "node-gone": Row(
            "programs that wait learn that the node is gone",
            _of(SYSTEM, "test_node.py::test_programs_that_wait_learn_that_the_node_was_killed"),
        ),
    },
    "3.3": {
        "no-timeout": Row(
            "an acceptor waits without limit", _of(MANAGER, "test_acceptor_without_a_limit_has_no_deadline")
        ),
        "timeout": Row(
            "or for its timeout", _of(FLOW, "TestAllocation::test_accept_ends_at_its_timeout_and_not_before")
        ),
        "unbound": Row("also when no name is bound", _of(AIO, "TestVerbs::test_flow_accept_waits_and_times_out")),
        "join-unknown": Row(
            "a layer that is not there cannot be joined", _of(CAST, "test_a_layer_that_is_not_there_cannot_be_joined")
        ),
        "join-other": Row(
            "a layer of another type cannot be joined",
            _of(CAST, "test_a_layer_that_is_not_a_broadcast_layer_cannot_be_joined"),
        ),
        "join": Row(
            "every other member gets a packet once, whole, and its writer does not",
            _of(
                CAST,
                "test_each_member_sees_every_packet_of_the_others_once_and_none_of_its_own",
                "test_packets_of_all_sizes_arrive_whole",
            ),
        ),
        "join-qos": Row(
            "the QoS of a joined flow",
            _of(
                CAST,
                "test_the_qos_of_a_joined_flow_is_what_was_asked_for",
                "test_what_a_broadcast_layer_cannot_give_is_refused",
            ),
        ),
        "join-often": Row("a process can join several times", _of(CAST, "test_a_process_can_join_several_times")),
    },
    "3.4": {
        "keeps": Row(
            "dealloc loses nothing that the peer has not read",
            _of(
                FLOW,
                "TestEnd::test_dealloc_does_not_wait_for_the_peer_to_read",
                "TestEnd::test_queued_packets_are_read_before_the_end_is_told",
            ),
        ),
        "lingers": Row(
            "what was written to a reliable flow arrives after dealloc",
            _of(UDP, "test_what_a_program_wrote_arrives_after_it_has_gone"),
        ),
        "at-once": Row(
            "dealloc does not wait for the peer", _of(FLOW, "TestEnd::test_dealloc_does_not_wait_for_the_peer_to_read")
        ),
        "again": Row("a second dealloc does nothing", _of(FLOW, "TestEnd::test_dealloc_can_be_repeated")),
        "told": Row(
            "our own peers are told over the network, too",
            _of(SYSTEM, "test_udp.py::test_the_peer_is_told_that_a_flow_ended_and_gets_what_was_sent_before"),
        ),
    },
    "4.1": {
        "unordered-by-default": Row(
            "no FRCT without a spec", _of(FLAGS, "TestFrctFlags::test_a_flow_without_frct_has_none")
        ),
        "unordered": Row("nor without order", _of(FLAGS, "TestFrctFlags::test_a_flow_without_frct_has_none")),
        "ordered-lossy": Row("order alone: a window", _INITIAL),
        "ordered-reliable": Row("no loss in order: retransmission and lingering", _INITIAL),
        "loss-0-alone": Row(
            "no loss alone means the same (the requirement text)",
            (*_INITIAL, QOS + "test_no_loss_alone_means_reliable_and_in_order"),
        ),
        "named": Row("the named specs", (*_INITIAL, FLAGS + "TestFrctFlags::test_a_flow_without_frct_has_none")),
        "fields": Row(
            "eight fields with their ranges",
            _of(
                QOS,
                "test_a_field_takes_zero_and_its_largest_value",
                "test_a_value_out_of_range_is_refused_by_the_name_of_its_field",
            ),
        ),
    },
    "4.2": {"specs": Row("the values of the named specs", _of(QOS, "test_the_named_specs_are_those_of_the_prototype"))},
    "4.3": {
        "cubes": Row(
            "a spec falls into the first cube that fits",
            _of(
                QOS,
                "test_cubes_at_their_boundaries",
                "test_what_has_no_part_in_the_cube_does_not_change_it",
                "test_the_named_specs_fall_into_their_cubes",
            ),
        )
    },
    "4.4": {
        "forced": Row(
            "ber is what was asked for, where the default build forces it to 1",
            _of(FLOW, "TestAllocation::test_both_ends_report_the_qos_that_was_asked_for"),
        ),
    },
    "4.5": {
        "defaults": Row(
            "the defaults of the requirement text",
            _of(QOS, "test_the_documented_table_of_defaults_is_true", "test_defaults_are_those_of_the_documentation"),
        )
    },
    "5.1": {
        "boundaries": Row(
            "one write is one packet; boundaries and order are kept",
            _of(
                FLOW,
                "TestPackets::test_boundaries_and_order_are_kept",
                "TestPackets::test_a_packet_of_any_size_arrives_whole",
                "TestPackets::test_large_and_small_packets_mix",
            ),
        ),
        "largest": Row(
            "the largest packet, and the refusal of a larger one",
            _of(FLOW, "TestPackets::test_a_packet_over_the_limit_is_refused_and_nothing_is_sent")
            + _of(UDP, "test_the_longest_packet_passes_and_a_longer_one_is_refused_with_the_limit"),
        ),
        "others": Row(
            "a receiver that does not read stops its own senders only",
            _of(DEATH, "test_a_stopped_reader_stops_only_itself")
            + _of(UDP, "test_a_reader_that_stops_holds_its_sender_back_and_nobody_else"),
        ),
        "classes": Row("sizes of blocks", reason=Reason.INSIDE),
    },
    "5.2": {
        "1": Row(
            "a buffer must be one",
            _of(
                FLOW,
                "TestBuffers::test_what_is_no_contiguous_buffer_is_refused",
                "TestBuffers::test_any_contiguous_buffer_is_written",
            ),
        ),
        "2": Row("a descriptor out of range", reason=Reason.C_API),
        "3": Row(
            "not allocated",
            _of(
                FLOW,
                "TestEnd::test_a_deallocated_flow_refuses_everything",
                "TestAllocation::test_a_new_object_holds_no_flow",
            ),
        ),
        "4": Row(
            "a read-only flow refuses writes",
            _of(FLOW, "TestFlags::test_a_read_only_flow_refuses_writes_and_can_be_undone"),
        ),
        "5": Row(
            "no room, non-blocking: would block", _of(FLAGS, "TestFlowFlags::test_a_full_flow_would_block_a_write")
        ),
        "6": Row(
            "no room, blocking: waits up to the timeout",
            _of(
                FLOW,
                "TestTimeouts::test_a_write_ends_at_its_timeout_and_what_is_queued_survives",
                "TestTimeouts::test_without_a_timeout_calls_wait",
            ),
        ),
        "7": Row("too large", _of(FLOW, "TestPackets::test_a_packet_over_the_limit_is_refused_and_nothing_is_sent")),
        "8": Row("no block free", reason=Reason.INSIDE),
        "9": Row("no room for headers", reason=Reason.INSIDE),
        "10": Row(
            "a full queue, non-blocking: nothing is dropped (B1)",
            _of(FLOW, "TestQueues::test_a_full_ring_drops_nothing_when_non_blocking"),
        ),
        "11": Row(
            "a full queue, blocking: nothing is dropped (B1)",
            _of(FLOW, "TestQueues::test_a_full_ring_makes_a_blocking_writer_wait_and_drops_nothing"),
        ),
        "12": Row(
            "a flow that is down: an error, nothing is dropped (B1)",
            _of(FLOW, "TestEnd::test_a_write_to_a_peer_that_is_gone_fails_at_once"),
        ),
        "13": Row("otherwise the count", _of(FLOW, "TestPackets::test_write_sends_at_most_count_bytes")),
        "whole": Row(
            "a write is never partial",
            _of(WAKE, "test_ctrl_c_ends_a_blocked_write_and_leaves_whole_packets")
            + _of(DEATH, "test_a_writer_killed_while_it_waits_for_room_has_sent_whole_packets"),
        ),
        "empty": Row(
            "an empty write shows the peer nothing", _of(FLOW, "TestPackets::test_an_empty_buffer_sends_nothing")
        ),
        "others": Row(
            "a blocked writer hinders no other call (B7)",
            _of(WAKE, "test_a_blocked_writer_does_not_hinder_other_calls"),
        ),
        "woken": Row(
            "a blocked writer is woken by the end of the peer", _of(WAKE, "test_dealloc_by_the_peer_wakes_writers")
        ),
    },
    "5.3": {
        "1": Row("a descriptor out of range", reason=Reason.C_API),
        "2": Row("not allocated", _of(FLOW, "TestEnd::test_a_deallocated_flow_refuses_everything")),
        "3": Row(
            "a mark of the end of a packet comes first",
            _of(FLOW, "TestPartialReads::test_the_rest_of_a_packet_stays_for_the_next_read"),
        ),
        "4": Row(
            "so does the rest of a packet",
            _of(FLOW, "TestPartialReads::test_a_held_rest_is_read_after_the_peer_is_gone"),
        ),
        "5": Row(
            "bad packets are passed over and hide no good one",
            _of("tests/unit/test_encrypted_endpoint.py::", "test_forged_packet_is_dropped_and_counted"),
        ),
        "6": Row(
            "nothing there: down, would block, or waiting up to the timeout",
            _of(
                FLOW,
                "TestFlags::test_non_blocking_calls_do_not_wait",
                "TestEnd::test_non_blocking_reads_tell_the_end",
                "TestTimeouts::test_a_read_ends_at_its_timeout_and_not_before",
            ),
        ),
        "7": Row(
            "a packet whole, in pieces, or refused and kept",
            _of(
                FLOW,
                "TestPartialReads::test_the_rest_of_a_packet_stays_for_the_next_read",
                "TestPartialReads::test_no_partial_read_refuses_and_keeps_the_packet",
            ),
        ),
        "queued-first": Row(
            "queued packets come before the end",
            _of(FLOW, "TestEnd::test_queued_packets_are_read_before_the_end_is_told"),
        ),
        "non-blocking-first": Row(
            "non-blocking wins over a timeout", _of(FLOW, "TestFlags::test_non_blocking_wins_over_a_timeout")
        ),
        "timeout-0": Row(
            "timeout 0 tries once", _of(FLOW, "TestTimeouts::test_data_that_is_there_is_read_with_timeout_zero")
        ),
        "accuracy": Row(
            "timeouts end when they should", _of(FLOW, "TestTimeouts::test_a_read_ends_at_its_timeout_and_not_before")
        ),
        "woken": Row(
            "a blocked reader is woken by every end (B5)",
            _of(WAKE, "test_dealloc_in_another_thread_wakes_readers", "test_dealloc_by_the_peer_wakes_readers")
            + _of(FLOW, "TestFlags::test_down_wakes_the_readers_and_the_writer_of_its_own_process"),
        ),
        "threads": Row(
            "readers share the packets; reading and writing go on at once",
            _of(
                FLOW,
                "TestThreads::test_readers_of_several_threads_share_the_packets",
                "TestThreads::test_both_ends_read_and_write_at_the_same_time",
            ),
        ),
    },
    "5.4": {
        "table": Row(
            "the table of pieces, as intended",
            _of(
                FLOW,
                "TestPartialReads::test_the_rest_of_a_packet_stays_for_the_next_read",
                "TestPartialReads::test_no_partial_read_leaves_no_mark_of_the_end",
            ),
        ),
        "no-partial": Row(
            "one whole packet or a refusal",
            _of(FLOW, "TestPartialReads::test_no_partial_read_refuses_and_keeps_the_packet")
            + _of(FLAGS, "TestFlowFlags::test_partial_reads"),
        ),
    },
    "5.5": {
        "dealloc": Row(
            "the peer deallocates",
            _of(FLOW, "TestEnd::test_queued_packets_are_read_before_the_end_is_told")
            + _of(SYSTEM, "test_udp.py::test_the_peer_is_told_that_a_flow_ended_and_gets_what_was_sent_before"),
        ),
        "exit": Row("the peer exits", _of(DEATH, "test_however_a_program_ends_its_peer_reads_what_is_queued")),
        "killed": Row(
            "the peer is killed",
            _of(DEATH, "test_what_a_killed_writer_had_written_is_read_whole_and_in_order")
            + _of(UDP, "test_a_program_that_is_killed_is_no_program_that_deallocated"),
        ),
        "idle": Row(
            "the peer does not read", _of(UDP, "test_a_reader_that_stops_holds_its_sender_back_and_nobody_else")
        ),
        "silent": Row(
            "the peer is gone without a word",
            _of(UDP, "test_a_peer_that_falls_silent_is_given_up_after_the_time_of_the_flow"),
        ),
        "link": Row("the link is lost and comes back", reason=Reason.ETHERNET),
        "down": Row(
            "the flag Down, at either end", _of(FLOW, "TestFlags::test_down_takes_both_ends_down_until_it_is_cleared")
        ),
    },
    "6.1": {
        "timeouts": Row(
            "timeouts are kept and given back, none is None",
            _of(
                FLOW,
                "TestTimeouts::test_timeouts_are_reported_as_set",
                "TestTimeouts::test_a_timeout_can_be_taken_back",
                "TestTimeouts::test_what_is_no_timeout_is_refused",
            ),
        ),
        "qos": Row("the QoS", _of(FLOW, "TestAllocation::test_both_ends_report_the_qos_that_was_asked_for")),
        "flags": Row(
            "flags replace all of those before",
            _of(FLAGS, "TestFlowFlags::test_flags_replace_all_of_those_before")
            + _of(FLOW, "TestFlags::test_flags_are_reported_as_set"),
        ),
        "queues": Row("queue lengths", _of(FLOW, "TestQueues::test_queue_lengths_count_packets_not_read")),
        "frct": Row(
            "FRCT flags can be set and cleared (B17), all but retransmission; none without FRCT",
            _of(
                FLAGS,
                "TestFrctFlags::test_all_but_retransmission_can_be_set_and_cleared",
                "TestFrctFlags::test_unknown_flags_are_refused",
                "TestFrctFlags::test_a_flow_without_frct_has_none",
                "TestFrctFlags::test_an_object_starts_anew_with_its_next_flow",
            ),
        ),
    },
    "6.2": {
        **{
            name: Row(f"the flag {name}", _EFFECTS)
            for name in (
                "read-only",
                "write-only",
                "read-write",
                "down",
                "non-blocking-read",
                "both",
                "no-partial-read",
                "no-partial-write",
            )
        },
        "non-blocking-write": Row(
            "the flag non-blocking-write",
            _of(FLAGS, "TestFlowFlags::test_values", "TestFlowFlags::test_a_full_flow_would_block_a_write"),
        ),
        "default": Row(
            "read-write, no partial writes",
            _of(FLAGS, "TestFlowFlags::test_values")
            + _of(FLOW, "TestFlags::test_a_new_flow_is_read_write_without_partial_writes"),
        ),
        "nine": Row("nine names", _of(FLAGS, "TestFlowFlags::test_there_are_nine")),
        "no-access-bits": Row("flags without access bits make the flow read-only", _EFFECTS[:1]),
        "undone": Row(
            "every access mode can be undone (B18)", _of(FLAGS, "TestFlowFlags::test_no_access_mode_is_for_ever")
        ),
        "both-bits": Row(
            "both access bits exclude each other", _of(FLOW, "TestFlags::test_both_access_bits_at_once_are_refused")
        ),
        "wakes": Row(
            "Down wakes who waits, at both ends",
            _of(
                FLOW,
                "TestFlags::test_down_wakes_the_reader_and_the_writer_at_the_other_end",
                "TestFlags::test_down_wakes_the_readers_and_the_writer_of_its_own_process",
            ),
        ),
    },
    "6.3": {
        "rtx": Row(
            "retransmission",
            _of(
                FLAGS, "TestFrctFlags::test_values", "TestFrctFlags::test_all_but_retransmission_can_be_set_and_cleared"
            ),
        ),
        "rescntl": Row("obeying the window", _of(FLAGS, "TestFrctFlags::test_values")),
        "linger": Row(
            "lingering",
            _of(FLAGS, "TestFrctFlags::test_values", "TestFrctFlags::test_on_a_local_flow_they_change_nothing_else"),
        ),
    },
    "6.4": {
        "counts": Row(
            "packets that were not read, at both ends",
            _of(FLOW, "TestQueues::test_queue_lengths_count_packets_not_read"),
        ),
        "not": Row(
            "neither a rest of a packet nor an empty write",
            _of(
                FLOW,
                "TestQueues::test_queue_lengths_count_packets_not_read",
                "TestPackets::test_an_empty_buffer_sends_nothing",
            ),
        ),
    },
    "7.1": {
        "pkt": Row(
            "a packet: one event each, also those from before",
            _of(
                EVENT,
                "TestTypes::test_flow_pkt_comes_once_for_each_packet",
                "TestTypes::test_flow_pkt_comes_for_packets_from_before_the_flow_was_added",
            ),
        ),
        "down": Row(
            "set down",
            _of(
                EVENT,
                "TestTypes::test_flow_down_and_flow_up_follow_the_down_flag",
                "TestTypes::test_flow_down_wakes_a_wait",
            ),
        ),
        "up": Row("set up", _of(EVENT, "TestTypes::test_flow_down_and_flow_up_follow_the_down_flag")),
        "alloc": Row(
            "a member gets a flow",
            _of(
                EVENT,
                "TestTypes::test_flow_alloc_comes_when_a_member_gets_a_flow",
                "TestTypes::test_flow_alloc_wakes_a_wait",
            ),
        ),
        "dealloc": Row(
            "the peer deallocates or exits",
            _of(
                EVENT,
                "TestTypes::test_flow_dealloc_comes_once_and_after_the_packets",
                "TestTypes::test_flow_dealloc_comes_when_the_peer_exits",
            ),
        ),
        "peer": Row(
            "the peer died",
            _of(
                EVENT,
                "TestTypes::test_flow_peer_comes_once_when_the_peer_is_killed",
                "TestTypes::test_flow_peer_wakes_a_wait",
            ),
        ),
    },
    "7.2": {
        "create": Row("sets without a limit", _of(EVENT, "TestDestroyed::test_hundreds_of_sets_can_be_had")),
        "add": Row("a flow is in one set at most", _of(EVENT, "TestMembers::test_a_flow_is_in_one_set_at_most")),
        "del": Row(
            "removal; events that were posted stay",
            _of(
                EVENT,
                "TestMembers::test_what_is_not_in_the_set_can_be_removed",
                "TestMembers::test_a_flow_that_was_removed_tells_nothing",
                "TestQueue::test_events_survive_removal",
            ),
        ),
        "has": Row("a set knows its members", _of(EVENT, "TestMembers::test_a_set_knows_its_members")),
        "zero": Row(
            "zero takes all out, with what was posted",
            _of(EVENT, "TestMembers::test_zero_takes_all_out_and_discards_what_was_posted"),
        ),
        "destroy": Row(
            "a destroyed set refuses everything",
            _of(
                EVENT,
                "TestDestroyed::test_a_destroyed_set_refuses_everything_but_to_be_destroyed",
                "TestDestroyed::test_with_destroys",
                "TestDestroyed::test_destroy_wakes_whoever_waits",
            ),
        ),
        "wait": Row(
            "events left return at once; otherwise the wait ends with an event or the timeout",
            _of(
                EVENT,
                "TestQueue::test_a_wait_with_events_left_returns_them_at_once",
                "TestTimeouts::test_a_wait_ends_at_its_timeout_and_not_before",
                "TestTimeouts::test_without_a_timeout_or_with_a_long_one_it_waits",
            ),
        ),
        "next": Row(
            "the program's own flow and a type, then an error",
            _of(
                EVENT,
                "TestQueue::test_packets_that_were_read_meanwhile_are_passed_over",
                "TestQueue::test_events_of_a_flow_that_was_deallocated_are_passed_over",
            ),
        ),
        "threads": Row(
            "of several waiters each event finds one",
            _of(EVENT, "TestThreads::test_of_several_waiters_each_event_finds_one"),
        ),
    },
    "7.3": {
        "packets": Row("packets, then nothing", _of(EVENT, "TestTypes::test_flow_pkt_comes_once_for_each_packet")),
        "removed": Row("removed with packets", _of(EVENT, "TestQueue::test_events_survive_removal")),
        "ends": Row(
            "packets before the end",
            _of(
                EVENT,
                "TestTypes::test_flow_dealloc_comes_once_and_after_the_packets",
                "TestTypes::test_no_packet_hides_behind_the_end",
            ),
        ),
        "flags": Row(
            "flags at the other end", _of(EVENT, "TestTypes::test_flow_down_and_flow_up_follow_the_down_flag")
        ),
    },
    "8": {
        "send": Row(
            "a silent flow sends keepalives, and its peer is not given up",
            _of("rust/io/tests/udp.rs::", "keepalives_hold_a_silent_flow_and_a_dead_peer_is_noticed"),
        ),
        "dead": Row(
            "a peer that falls silent is given up after the time of the flow",
            _of(UDP, "test_a_peer_that_falls_silent_is_given_up_after_the_time_of_the_flow"),
        ),
        "not-data": Row("a keepalive is no packet", _of(FLOW, "TestPackets::test_an_empty_buffer_sends_nothing")),
    },
    "10": {
        "window": Row(
            "a flow in order goes on though traffic is one way (B24)",
            _of(UDP, "test_an_ordered_flow_loses_packets_but_never_goes_back"),
        ),
        "reliable": Row(
            "what is lost is sent again",
            _of(UDP, "test_a_reliable_flow_delivers_everything_in_order_over_a_bad_network"),
        ),
        "linger": Row("dealloc lingers", _of(UDP, "test_what_a_program_wrote_arrives_after_it_has_gone")),
    },
    "11": {
        "exceptions": Row(
            "codes are exceptions that say whose fault it is",
            _of(
                "tests/unit/test_errors.py::",
                "test_an_exception_says_what_it_means",
                "test_a_class_has_the_documented_bases",
                "test_whatever_goes_wrong_with_a_flow_is_a_flow_exception",
            ),
        )
    },
    "13": {
        "calls": Row(
            "alloc, accept and join return a flow",
            _of(AIO, "TestVerbs::test_alloc_read_write_dealloc")
            + _of(CAST, "test_a_process_can_join_several_times")
            + _of(FLOW, "TestAllocation::test_alloc_and_accept_return_the_qos"),
        ),
        "object": Row(
            "an object gets a flow after another",
            _of(
                FLOW,
                "TestAllocation::test_an_object_can_be_used_again_after_dealloc",
                "TestAllocation::test_an_object_that_holds_a_flow_takes_no_second_one",
            ),
        ),
        "with": Row(
            "with deallocates, and the flow is neither read nor written after it",
            _of(
                FLOW,
                "TestEnd::test_with_deallocates_also_when_it_raises",
                "TestEnd::test_a_deallocated_flow_refuses_everything",
            ),
        ),
        "read": Row(
            "up to count bytes", _of(FLOW, "TestPartialReads::test_the_rest_of_a_packet_stays_for_the_next_read")
        ),
        "readline": Row("up to count characters", _of(FLOW, "TestText::test_readline_counts_characters")),
        "write": Row("up to count bytes", _of(FLOW, "TestPackets::test_write_sends_at_most_count_bytes")),
        "writeline": Row(
            "up to count characters", _of(FLOW, "TestText::test_writeline_counts_characters_and_sends_no_halves")
        ),
        "lines": Row(
            "a packet is a line; newlines are left alone", _of(FLOW, "TestText::test_text_arrives_as_written")
        ),
    },
    # What the prototype does wrong, and the test that ours does not. The text says what ours does.
    "15": {
        "B1": Row(
            "no write reports what it dropped",
            _of(
                FLOW,
                "TestQueues::test_a_full_ring_drops_nothing_when_non_blocking",
                "TestEnd::test_a_write_to_a_peer_that_is_gone_fails_at_once",
            ),
        ),
        "B2": Row(
            "a partial read keeps the rest",
            _of(FLOW, "TestPartialReads::test_the_rest_of_a_packet_stays_for_the_next_read"),
        ),
        "B3": Row(
            "retransmission harms no memory",
            _of(UDP, "test_a_reliable_flow_delivers_everything_in_order_over_a_bad_network"),
        ),
        "B4": Row(
            "packets of a dead process are read whole and by their reader",
            _of(DEATH, "test_what_a_killed_writer_had_written_is_read_whole_and_in_order"),
        ),
        "B5": Row(
            "changes wake who waits",
            _of(WAKE, "test_dealloc_by_the_peer_wakes_readers", "test_dealloc_by_the_peer_wakes_writers"),
        ),
        "B6": Row("dealloc waits for nobody", _of(FLOW, "TestEnd::test_dealloc_does_not_wait_for_the_peer_to_read")),
        "B7": Row("a blocked call hinders no other", _of(WAKE, "test_a_blocked_writer_does_not_hinder_other_calls")),
        "B8": Row("events overflow nothing", _of(EVENT, "TestQueue::test_thousands_of_packets_overflow_nothing")),
        "B9": Row(
            "a flow that is deallocated leaves its set",
            _of(
                EVENT,
                "TestMembers::test_a_flow_that_is_deallocated_leaves_its_set",
                "TestMembers::test_a_flow_with_the_number_of_one_that_left_is_a_stranger",
            ),
        ),
        "B10": Row(
            "stale events neither hide others nor end a wait",
            _of(EVENT, "TestQueue::test_a_queue_of_stale_events_does_not_end_a_wait"),
        ),
        "B11": Row("a reader misses no wake-up", _of(WAKE, "test_a_packet_wakes_one_of_several_readers_at_a_time")),
        "B12": Row(
            "nothing is left of flows of killed programs",
            _of(
                DEATH,
                "test_a_killed_program_leaves_nothing_in_the_node",
                "test_both_programs_killed_leave_nothing_in_the_node",
            ),
        ),
        "B13": Row(
            "a forked child closes nothing of its parent",
            _of(FORK, "test_a_child_cannot_use_or_harm_the_flow_of_its_parent"),
        ),
        "B14": Row(
            "an abandoned accept takes no client",
            _of(AIO, "TestCancellation::test_a_cancelled_accept_takes_no_client")
            + _of(WAKE, "test_ctrl_c_withdraws_an_accept"),
        ),
        "B15": Row(
            "no acceptor gets a flow to a client that gave up",
            _of(WAKE, "test_a_client_that_gave_up_leaves_the_acceptor_waiting"),
        ),
        "B16": Row(
            "a program has a flow to itself", _of(FLOW, "TestThreads::test_a_program_can_have_a_flow_to_itself")
        ),
        "B17": Row(
            "FRCT flags can be set", _of(FLAGS, "TestFrctFlags::test_all_but_retransmission_can_be_set_and_cleared")
        ),
        "B18": Row("write-only can be undone", _of(FLAGS, "TestFlowFlags::test_no_access_mode_is_for_ever")),
        "B19": Row(
            "arrival is life, not reading", _of(UDP, "test_a_reader_that_stops_holds_its_sender_back_and_nobody_else")
        ),
        "B20": Row("numbers of descriptors", reason=Reason.C_API),
        "B21": Row("checks of control packets", reason=Reason.PROTOTYPE),
        "B22": Row("what is sent again is sealed anew", reason=Reason.PROTOTYPE),
        "B23": Row("short packets are dropped", _of(UDP, "test_garbage_from_anywhere_is_dropped_and_disturbs_nothing")),
        "B24": Row(
            "traffic one way does not stall", _of(UDP, "test_an_ordered_flow_loses_packets_but_never_goes_back")
        ),
        "B25": Row("the start of a program has no race", _of(EMBEDDED, "test_programs_that_race_share_one_node")),
        "B26": Row("the library prints nothing", _of(EMBEDDED, "test_without_autostart_there_is_a_clear_error")),
        "B27": Row(
            "nobody else gets at the memory of a flow",
            _of(SYSTEM, "test_hostile.py::test_the_memory_cannot_be_resized"),
        ),
    },
    "12": {
        "P1": Row("flow_join works", _of(CAST, "test_a_process_can_join_several_times")),
        "P2": Row("queue lengths work", _of(FLOW, "TestQueues::test_queue_lengths_count_packets_not_read")),
        "P3": Row(
            "each error is an exception of its own",
            _of("tests/unit/test_errors.py::", "test_an_exception_says_what_it_means"),
        ),
        "P4": Row("a write that fails raises", _of(FLOW, "TestEnd::test_a_write_to_a_peer_that_is_gone_fails_at_once")),
        "P6": Row(
            "counts of characters",
            _of(
                FLOW,
                "TestText::test_readline_counts_characters",
                "TestText::test_writeline_counts_characters_and_sends_no_halves",
            ),
        ),
        "P7": Row("characters beyond ASCII arrive", _of(FLOW, "TestText::test_text_arrives_as_written")),
        "P8": Row(
            "a count beyond the buffer sends the buffer", _of(FLOW, "TestPackets::test_write_sends_at_most_count_bytes")
        ),
        "P9": Row(
            "an object without its flow touches no other flow",
            _of(FLOW, "TestEnd::test_a_deallocated_flow_refuses_everything"),
        ),
        "P10": Row(
            "a flow that is dropped is deallocated, with a warning",
            _of(FLOW, "TestEnd::test_a_dropped_flow_warns_and_is_deallocated"),
        ),
        "P11": Row(
            "a destroyed set is safe",
            _of(EVENT, "TestDestroyed::test_a_destroyed_set_refuses_everything_but_to_be_destroyed"),
        ),
        "P12": Row(
            "a set that is dropped lets go", _of(EVENT, "TestMembers::test_a_set_that_is_dropped_lets_go_of_its_flows")
        ),
        "P13": Row("values of the flags", _of(FLAGS, "TestFlowFlags::test_values")),
        "P14": Row("flags without access bits are documented", _EFFECTS[:1]),
        "P15": Row("types of events are FEventType", _of(EVENT, "TestTypes::test_flow_pkt_comes_once_for_each_packet")),
        "P16": Row("a queue can be iterated over", _of(EVENT, "TestPrograms::test_echo_with_a_flow_set")),
        "P20": Row(
            "Ctrl-C is acted on at once",
            _of(WAKE, "test_ctrl_c_ends_a_blocked_read_and_loses_nothing", "test_ctrl_c_withdraws_an_accept"),
        ),
        "P21": Row(
            "values out of range name the parameter",
            _of(QOS, "test_a_value_out_of_range_is_refused_by_the_name_of_its_field"),
        ),
    },
}

#: Sections whose rows have to be complete: the names or numbers that the specification gives them.
COMPLETE = {
    "5.2": [str(number) for number in range(1, 14)],
    "5.3": [str(number) for number in range(1, 8)],
    "15": [f"B{number}" for number in range(1, 28)],
}

#: Sections of the specification that bind a layer or the prototype, not what a program sees.
ELSEWHERE = {
    "7.4": "its defects are in section 15",
    "9": "bytes on the wire: tests of the crates for encryption and UDP",
    "14": "bytes on the wire, of layers over Ethernet",
    "A": "shared memory of the prototype",
}

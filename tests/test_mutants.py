"""Do the tests see what they are for? Each mutant breaks the hub, or the control of the direct lanes, in one place, in
a copy; the test named with it must fail there, and pass where nothing is broken. The rings have mutants of their own
(native/proofs)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from agentd import _native

ROOT = Path(__file__).parent.parent
MACHINE = "test_hub_machine.py::TestHub"

pytestmark = pytest.mark.stress


class Mutant(NamedTuple):
    """One place, and the test that must notice."""

    name: str
    file: str
    old: str
    new: str
    test: str


INBOX, REQUESTS, ROUTER, RECEIPTS = "inbox.py", "requests.py", "router.py", "receipts.py"
RATES, DURABLE, PAST = "rates.py", "durable.py", "past.py"
JOURNAL, DISK, NOTES = "agentd/server/journal.py", "agentd/server/disk.py", "agentd/server/notes.py"
CHECKPOINT_ORDER = "test_crash_steps.py::test_a_checkpoint_is_on_disk_before_what_only_the_one_before_needs_goes"
#: Others than the hub's are named from the package on.
TOKENS, PRESENTED, RELAY = "agentd/server/tokens.py", "agentd/server/presented.py", "agentd/lanes/relay.py"
DIRECT, CLIENT = "agentd/server/direct.py", "agentd_client/_direct.py"
PAIRS, INTRODUCTIONS = "agentd_client/_pairs.py", "agentd_client/_introductions.py"

SERVED, LINK = "agentd/server/served.py", "agentd_client/_link.py"

MUTANTS = [
    Mutant(
        "an inbox is handed out at once",
        "plain.py",
        "        if at_once_bytes <= 0:\n",
        "        if False:\n",
        "test_handed_in_turns.py::test_others_have_their_turn_in_between[1]",
    ),
    Mutant(
        "an inbox that is shared is handed out at once",
        INBOX,
        "            if handed_bytes >= session.at_once_bytes:\n",
        "            if False:\n",
        "test_handed_in_turns.py::test_others_have_their_turn_in_between[2]",
    ),
    Mutant(
        "the rest of an inbox is forgotten",
        SERVED,
        "            self.server.loop.call_soon(self.hand_more)\n",
        "            pass\n",
        "test_handed_in_turns.py::test_all_of_a_large_inbox_comes_in_order[hub]",
    ),
    Mutant(
        "what is posted is written when the loop turns",
        LINK,
        "                data = data[self._write(data) :]\n",
        "                pass\n",
        "test_client_writing.py::test_what_a_loop_posts_that_does_not_turn_is_on_its_way[asyncio]",
    ),
    Mutant(
        "what the transport still has is overtaken",
        LINK,
        " or self._paused or transport.is_closing() or transport.get_write_buffer_size():\n",
        " or transport.is_closing():\n",
        "test_client_writing.py::test_small_and_large_ones_keep_their_order_while_the_daemon_does_not_read[asyncio]",
    ),
    Mutant(
        "an ack makes no room for the next event",
        DURABLE,
        "                self._inboxes.pump(taker.agent)  # an ack is the credit for the next\n",
        "                pass\n",
        "test_durable.py::test_a_window_bounds_what_a_subscriber_has_unsettled",
    ),
    Mutant(
        "a subscriber has no window",
        DURABLE,
        "max(0, self.window - len(self.held))",
        "(self.window or 1)",
        "test_durable.py::test_a_window_bounds_what_a_subscriber_has_unsettled",
    ),
    Mutant(
        "whoever subscribes to anything settles a subscription's events",
        DURABLE,
        "mine = [cursor for cursor in session.cursors.values() if cursor.agent is entry.agent]",
        "mine = [entry.holder or cursor for cursor in session.cursors.values()]",
        "test_durable.py::test_who_does_not_subscribe_settles_nothing",
    ),
    Mutant(
        "an event is put into an inbox that is not on disk",
        DURABLE,
        "                receipts.journal.keep(copy, wait=bool(kept or refused))\n",
        "                pass\n",
        "test_durable.py::test_it_outlives_the_daemon_with_its_events",
    ),
    Mutant(
        "a gap waits for the next event",
        "inbox.py",
        "            self.caught_up(agent)\n",
        "            pass\n",
        "test_durable_gaps.py::test_a_gap_is_told_behind_what_waited_though_no_other_event_comes",
    ),
    Mutant(
        "a gap that grew after a checkpoint has a number after a crash",
        DURABLE,
        "if not source.is_noted and not source.is_filling:",
        "if not source.missed and not source.is_filling:",
        "test_durable_gaps.py::test_after_a_crash_a_gap_that_grew_has_no_number",
    ),
    Mutant(
        "a miss while a subscription is made voids what is stored",
        DURABLE,
        "if not source.is_noted and not source.is_filling:",
        "if not source.is_noted:",
        "test_durable_gaps.py::test_what_is_stored_while_one_is_made_outlives_a_crash_after_a_miss",
    ),
    Mutant(
        "a key that is said again is stored at a level that nobody has reached",
        "router.py",
        "self._receipts.journal.has(entry, options.level)",
        "entry.is_stored",
        "test_levels.py::test_a_key_that_is_said_again_has_the_level_it_asks_for",
    ),
    Mutant(
        "a gap is told to nobody",
        DURABLE,
        "if source is not None and source.missed and message.id > source.missed_after:",
        "if False:",
        "test_durable_gaps.py::test_a_gap_has_its_place_between_what_came_before_and_what_came_behind",
    ),
    Mutant(
        "a gap is told before what precedes it",
        DURABLE,
        "source.missed and message.id > source.missed_after:",
        "source.missed:",
        "test_durable_gaps.py::test_a_gap_has_its_place_between_what_came_before_and_what_came_behind",
    ),
    Mutant(
        "what is half made outlives the daemon",
        "checkpoint.py",
        "        if name.filling:\n            continue",
        "        if False:\n            continue",
        "test_durable.py::test_a_daemon_that_dies_while_one_is_made_leaves_nothing_of_it",
    ),
    Mutant(
        "an event that two subscriptions had comes twice from the past",
        PAST,
        "id = details.event or message.id",
        "id = message.id",
        "test_durable.py::test_what_several_had_comes_once_and_what_all_is_recorded_of_too",
    ),
    Mutant(
        "the past is put in at one go",
        DURABLE,
        "_PAUSE_S = 0.001",
        "_PAUSE_S = 0.0",
        "test_durable.py::test_the_past_is_put_in_some_at_a_time",
    ),
    Mutant(
        "an event's answer comes before the disk has it",
        ROUTER,
        "        if kept and kept[-1].position:\n",
        "        if False:\n",
        "test_durable.py::test_events_wait_for_whoever_subscribes_under_the_name",
    ),
    Mutant(
        "a redelivery counts no attempt",
        INBOX,
        "            message.attempt += 1\n",
        "            pass\n",
        "test_inbox.py::test_a_nacked_message_comes_again_with_one_attempt_more",
    ),
    Mutant(
        "giving back counts an attempt",
        INBOX,
        '"given back", failed=False',
        '"given back", failed=True',
        "test_inbox.py::test_what_is_given_back_counts_no_attempt_and_keeps_its_place",
    ),
    Mutant(
        "a death costs unseen messages an attempt",
        INBOX,
        "failed=seen)",
        "failed=True)",
        "test_inbox.py::test_at_a_receivers_death_only_what_its_application_saw_loses_an_attempt",
    ),
    Mutant(
        "a death drops what was not seen",
        INBOX,
        "sorted(session.held.items(), reverse=True)",
        "sorted(((i, e) for i, e in session.held.items() if e.state is DELIVERED), reverse=True)",
        "test_inbox.py::test_at_a_receivers_death_only_what_its_application_saw_loses_an_attempt",
    ),
    Mutant(
        "one attempt too many",
        INBOX,
        "if failed and message.attempt >= self._max_attempts:",
        "if failed and message.attempt > self._max_attempts:",
        "test_inbox.py::test_after_its_last_attempt_a_message_is_dead_and_says_why",
    ),
    Mutant(
        "delivered is said when it is sent",
        "plain.py",
        "            taker.credit -= count\n            taker.push_all(messages)\n",
        "            taker.credit -= count\n            taker.push_all(messages)\n"
        "            [receipts.delivered(entries[message.id], now, name) for message in messages]\n",
        "test_inbox.py::test_a_message_is_delivered_when_the_receiver_says_so_not_when_it_is_sent",
    ),
    Mutant(
        "an acked message stays held",
        INBOX,
        "            del held[id]\n            entry.holder = None\n",
        "",
        MACHINE,
    ),
    Mutant(
        "an ack frees no room",
        INBOX,
        "            agent.bytes -= freed\n",
        "",
        "test_inbox.py::test_bytes_fill_an_inbox_as_messages_do_and_free_it_however_they_end",
    ),
    Mutant("an end frees no room", INBOX, "        agent.count -= 1\n", "", MACHINE),
    Mutant(
        "one message more than there is room for",
        "plain.py",
        "most = inboxes.max_messages - agent.count\n",
        "most = inboxes.max_messages - agent.count + 1\n",
        "test_inbox.py::test_a_full_inbox_is_backpressure_to_its_senders_alone",
    ),
    Mutant(
        "whoever asks for it holds everything",
        INBOX,
        "        while waiting and room > 0:\n",
        "        while waiting:\n",
        "test_inbox.py::test_who_holds_too_much_gets_no_more_until_it_settles_some",
    ),
    Mutant(
        "what is settled lets nothing follow",
        INBOX,
        "        if full:\n            self.pump(session.agent)\n",
        "",
        "test_inbox.py::test_who_holds_too_much_gets_no_more_until_it_settles_some",
    ),
    Mutant(
        "a pause makes room without end",
        RATES,
        "        self.room = room if room < self.burst else self.burst\n",
        "        self.room = room\n",
        "test_rates.py::test_in_no_span_of_time_does_a_bucket_give_more_than_its_burst_and_its_rate",
    ),
    Mutant(
        "a plain message costs nothing",
        "plain.py",
        "        bucket.room -= count\n",
        "",
        "test_rates.py::test_a_burst_is_accepted_and_then_as_much_as_the_rate",
    ),
    Mutant(
        "a new topic is a new rate",
        RATES,
        "            if bucket.room >= bucket.burst:\n",
        "            if True:\n",
        "test_rates.py::test_changing_the_topic_is_no_way_around_the_rate",
    ),
    Mutant(
        "trouble is never over",
        RATES,
        "        return self.count if now - self.at <= LATELY_S else 0\n",
        "        return self.count\n",
        "test_rates.py::test_who_is_over_its_rate_is_shown_first_for_a_minute",
    ),
    Mutant(
        "what is held expires",
        INBOX,
        "        if entry.holder is None and entry.message.id not in entry.agent.detached:\n            self._expire",
        "        if entry.state not in ENDED:\n            self._expire",
        "test_inbox.py::test_what_a_session_has_does_not_expire_under_it_but_when_it_comes_back",
    ),
    Mutant(
        "what comes back goes to the end",
        INBOX,
        "            waiting.move_to_end(id, last=False)\n",
        "            pass\n",
        "test_inbox.py::test_what_is_given_back_counts_no_attempt_and_keeps_its_place",
    ),
    Mutant(
        "what comes back between others goes to the end",
        INBOX,
        "            agent.waiting = OrderedDict(sorted(waiting.items()))\n",
        "            pass\n",
        "test_inbox.py::test_order_holds_for_what_comes_back_between_others",
    ),
    Mutant(
        "one of those who share gets everything",
        INBOX,
        "                    takers.append(takers.pop(place))\n",
        "                    pass\n",
        "test_inbox.py::test_sessions_that_share_a_name_take_turns",
    ),
    Mutant(
        "a hold ends with its session",
        INBOX,
        "        delays.hold(self, entry, now + hold_s)\n",
        "        entry.holder = session\n        session.held[id] = entry\n",
        "test_inbox.py::test_a_held_message_survives_its_session_and_is_acked_by_another",
    ),
    Mutant(
        "requests outlive their responder",
        INBOX,
        "            for entry in list(agent.requests.values()):\n",
        "            for entry in list[Entry]():\n",
        "test_requests.py::test_a_responder_that_dies_before_it_took_the_request_is_no_responder_at_once",
    ),
    Mutant(
        "a request out of time stays in the inbox",
        REQUESTS,
        '        self.withdraw(entry, now, "the asker stopped waiting")\n',
        "",
        "test_requests.py::test_a_request_that_nobody_took_in_time_is_taken_back",
    ),
    Mutant(
        "a request may be answered twice",
        REQUESTS,
        "        entry.asker = None\n",
        "",
        MACHINE,
    ),
    Mutant(
        "a reply acks nothing",
        ROUTER,
        "        if parent.state not in ENDED:\n",
        "        if False:\n",
        "test_requests.py::test_a_reply_acks_what_it_answers",
    ),
    Mutant(
        "a reply writes into the options of all",
        ROUTER,
        "        options = verb.options or Options()\n",
        "        options = verb.options or _DEFAULTS\n",
        "test_requests.py::test_a_reply_changes_nothing_for_calls_that_follow",
    ),
    Mutant(
        "hops are not counted",
        ROUTER,
        "1 + (above.hops if above else 0)",
        "(above.hops if above else 0)",
        "test_router.py::test_a_loop_of_answers_ends_after_32_hops",
    ),
    Mutant(
        "a key never becomes free",
        ROUTER,
        "used is None or used.at + self._agent_limits.keep_keys_s <= now",
        "used is None",
        "test_router.py::test_a_key_is_free_again_after_its_time",
    ),
    Mutant(
        "a key is forgotten with its message",
        ROUTER,
        "        if (used.to, ",
        "        if used.id not in self._receipts.entries:\n            return False\n        if (used.to, ",
        "test_router.py::test_a_key_holds_though_its_message_is_forgotten_already",
    ),
    Mutant(
        "watchers are told of nothing",
        RECEIPTS,
        "            if ended or wanted is state:\n",
        "            if False:\n",
        "test_receipts.py::test_a_sender_that_waits_for_delivered_is_told_once",
    ),
    Mutant(
        "watchers are told again and again",
        RECEIPTS,
        "        entry.watchers = left or None\n",
        "",
        MACHINE,
    ),
    Mutant(
        "ended messages are kept for ever",
        RECEIPTS,
        "range(len(kept) - self._max_kept)",
        "range(0)",
        "test_receipts.py::test_of_ended_messages_only_the_latest_are_remembered_for_each_agent",
    ),
    Mutant(
        "dead letters are kept for ever",
        "dead.py",
        "        while len(agent.dead) > self._limits.max_messages or",
        "        while",
        "test_dead.py::test_dead_letters_are_bounded_the_oldest_is_dropped_and_counted",
    ),
    Mutant(
        "fan-out stops at the first full subscription",
        "topics.py",
        "                continue\n            subscription.outstanding",
        "                break\n            subscription.outstanding",
        "test_topics.py::test_a_full_subscription_is_named_and_harms_no_other",
    ),
    Mutant(
        "a restart loses what is held",
        "checkpoint.py",
        "delays.hold if entry.state is DELIVERED else delays.delay",
        "delays.delay",
        "test_checkpoint.py::test_a_hold_ends_in_its_time_and_counts_an_attempt",
    ),
    Mutant(
        "a restart uses ids again",
        "checkpoint.py",
        "max(hub.receipts.next_id, recovered.next_id)",
        "hub.receipts.next_id",
        "test_checkpoint.py::test_no_id_is_used_twice",
    ),
    Mutant(
        "everybody may take a name's mail",
        "agents.py",
        "        if not agent.takers or replace or",
        "        if True or",
        "test_agents.py::test_a_second_session_cannot_take_the_mail_but_may_send_under_the_name",
    ),
    Mutant(
        "a cancelled deadline is done",
        "deadlines.py",
        "            self.action = None\n",
        "",
        "test_deadlines.py::test_a_cancelled_one_is_not_done_and_wakes_nobody",
    ),
    Mutant(
        "a token is good from any process",
        TOKENS,
        " or session.pid != pid or",
        " or",
        "test_direct_grants.py::test_another_process_can_not_use_a_token",
    ),
    Mutant(
        "a token is good again",
        TOKENS,
        "self._given.pop(token, (None, 0.0))",
        "self._given.get(token, (None, 0.0))",
        "test_direct_grants.py::test_a_token_is_good_once",
    ),
    Mutant(
        "any memory is believed",
        PRESENTED,
        "if sender.memory != receiver.memory:",
        "if False:",
        "test_direct_grants.py::test_a_pair_that_the_ends_present_differently_is_refused_to_both",
    ),
    Mutant(
        "unsealed memory is believed",
        PRESENTED,
        "& _SEALS != _SEALS:",
        "& 0 != 0:",
        "test_direct_grants.py::test_unsealed_memory_is_no_pair",
    ),
    Mutant(
        "one end alone keeps its pair",
        PRESENTED,
        "            del self.by_number[number]\n            self._deny(",
        "            return\n            self._deny(",
        "test_direct_truth.py::test_a_pair_that_only_one_end_presents_is_closed",
    ),
    Mutant(
        "what a dead receiver never had is unknown",
        PAIRS,
        "            elif self.is_delivered(position):\n",
        "            elif True:\n",
        "test_direct_truth.py::test_a_killed_receivers_unread_are_dead_and_its_unacked_unknown",
    ),
    Mutant(
        "what a dead receiver had is dead",
        RELAY,
        "            if entry.state is DELIVERED:\n",
        "            if False:\n",
        "test_direct_relay.py::test_a_killed_receivers_relayed_messages_are_dead_or_unknown",
    ),
    Mutant(
        "a dead sender's pair stays",
        INTRODUCTIONS,
        "        incoming.end()\n",
        "        pass\n",
        "test_direct_truth.py::test_what_a_killed_sender_wrote_is_read",
    ),
    Mutant(
        "critical messages wait for their turn",
        INBOX,
        "            urgent.to_front(agent, entry)\n",
        "            pass\n",
        "test_conformance_direct.py::test_it_comes_before_what_waits",
    ),
    Mutant(
        "high mail counts as critical on a socket",
        "urgent.py",
        "Priority.HIGH: 1}",
        "Priority.HIGH: 0}",
        "test_conformance_direct.py::test_critical_comes_before_high",
    ),
    Mutant(
        "every lane's senders ring the critical bell",
        DIRECT,
        "(memory, self._ends[receiver].mail_bells[pair.lane], receiver.pidfd)",
        "(memory, next(iter(self._ends[receiver].mail_bells.values())), receiver.pidfd)",
        "test_direct_channels.py::test_a_receiver_in_a_thread_has_the_lane_alone",
    ),
    Mutant(
        "every relay leads into the critical ring",
        DIRECT,
        "self._hub.pairs.open(lane.priority, None, session,",
        "self._hub.pairs.open(Priority.CRITICAL, None, session,",
        "test_direct_relay.py::test_its_end_comes_back_to_who_waits",
    ),
    Mutant(
        "a lane that is not read is sent to",
        DIRECT,
        "one in self._ends and lane.priority in self._ends[one].reads]",
        "one in self._ends]",
        "test_direct_registry.py::test_a_lane_that_is_not_read_is_not_sent_to",
    ),
    Mutant(
        "what comes back is critical",
        DIRECT,
        "self._hub.pairs.open(grants.PRIORITIES[packet.lane], sender,",
        "self._hub.pairs.open(Priority.CRITICAL, sender,",
        "test_direct_returns.py::test_a_channel_outlives_daemon_after_daemon",
    ),
    Mutant(
        "two ends of different lanes are believed",
        PRESENTED,
        "    return packet.lane, packet.ring_bytes,",
        "    return 1, packet.ring_bytes,",
        "test_direct_grants.py::test_a_pair_that_the_ends_present_differently_is_refused_to_both",
    ),
    Mutant(
        "critical mail starves high mail",
        CLIENT,
        "        if self._critical_in_a_row < _CRITICAL_IN_A_ROW and (",
        "        if (",
        "test_high_lane.py::test_a_flood_of_critical_mail_does_not_starve_high",
    ),
    Mutant(
        "high mail comes before critical mail",
        CLIENT,
        "self.readings[_CRITICAL], self.readings[_HIGH]",
        "self.readings[_HIGH], self.readings[_CRITICAL]",
        "test_high_lane.py::test_critical_mail_comes_before_high_and_high_before_normal",
    ),
    Mutant(
        "an inbox sleeps while there is high mail",
        CLIENT,
        "self._critical.arm() and self._high.arm()",
        "self._critical.arm()",
        "test_client_looking.py::test_who_waits_long_is_woken_by_a_doorbell",
    ),
    Mutant(
        "who reads a ring alone can not be invited",
        "agentd_client/_conversation.py",
        "direct = take and (join.direct or (",
        "direct = take and (join.direct or False and (",
        "test_conversation.py::test_who_reads_a_ring_is_invited_before_mail_goes_to_its_socket",
    ),
    Mutant(
        "connections have all descriptors",
        "agentd/host/process.py",
        "files // 4)",
        "0)",
        "test_direct_limits.py::test_a_daemon_with_few_open_files",
    ),
    Mutant(
        "a channel that can not be served is waited for",
        INTRODUCTIONS,
        "            except OSError as failed:  # also",
        "            except ZeroDivisionError as failed:  # also",
        "test_direct_limits.py::test_a_client_with_few_descriptors_is_refused_by_name_or_relayed",
    ),
    Mutant(
        "asked for more verdicts than there is room for",
        PAIRS,
        "// (2 * records.VERDICT_BYTES)",
        "// 1",
        "test_direct_channels.py::test_sends_that_ask_are_bounded_by_the_room_for_verdicts",
    ),
    Mutant(
        "stored is told before the sync",
        JOURNAL,
        "self._hub.receipts.journal.reached(native.tail, now, Level.MAPPED)\n",
        "self._hub.receipts.journal.reached(native.tail, now, Level.SYNCED)\n",
        "test_journal_turns.py::test_nobody_is_told_before_the_disk_has_said_so",
    ),
    Mutant(
        "what came during a sync is told with it",
        JOURNAL,
        "reached(position, now, Level.SYNCED)",
        "reached(self._native.tail, now, Level.SYNCED)",
        "test_journal_turns.py::test_what_comes_while_a_sync_is_under_way_shares_the_next_one",
    ),
    Mutant(
        "a failed sync is forgotten",
        JOURNAL,
        "        if error is not None:\n            self._fail(error)\n",
        "        pass\n",
        "test_journal_turns.py::test_the_first_error_of_a_sync_ends_it_all",
    ),
    Mutant(
        "a checkpoint before its data",
        JOURNAL,
        "if self._waiting is None or self._native.synced < self._waiting[0].position or self._loop is None:",
        "if self._waiting is None or self._loop is None:",
        "test_journal_turns.py::test_a_checkpoint_waits_for_what_it_builds_on",
    ),
    Mutant(
        "segments go before the checkpoint that needs none of them",
        JOURNAL,
        "        self._is_checking = True\n",
        "        self._is_checking = True\n        self._native.retire(lowest)\n",
        CHECKPOINT_ORDER,
    ),
    Mutant(
        "a checkpoint has its name before the disk has it",
        DISK,
        "            os.fdatasync(file.fileno())\n",
        "            pass\n",
        CHECKPOINT_ORDER,
    ),
    Mutant(
        "the name of a checkpoint is not synced",
        DISK,
        "        raise\n    sync_directory(path.parent)\n",
        "        raise\n",
        CHECKPOINT_ORDER,
    ),
    Mutant(
        "the checksum of a checkpoint is not asked",
        "checkpoint.py",
        ' or data[len(MAGIC) : start] != crc32c(packed).to_bytes(4, "little")',
        "",
        "test_checkpoint.py::test_a_file_that_was_cut_short_or_changed_is_refused_whole",
    ),
    Mutant(
        "nothing is held for checkpoints",
        DISK,
        "        _keep_back(self._directory, 0)\n",
        "        pass\n",
        "test_disk_quota.py::test_a_checkpoint_has_room_on_a_full_disk",
    ),
    Mutant(
        "what is held for checkpoints is not given up for one",
        DISK,
        "for going in ([RESERVE], [",
        "for going in ([",
        "test_disk_quota.py::test_a_checkpoint_has_room_on_a_full_disk",
    ),
    Mutant(
        "a quota that is used up breaks the journal",
        DISK,
        "(errno.ENOSPC, errno.EDQUOT)",
        "(errno.ENOSPC,)",
        "test_disk_quota.py::test_a_quota_that_is_used_up_is_a_full_disk",
    ),
    Mutant(
        "a note is lost while the disk is behind",
        NOTES,
        "            except Busy:\n                return False\n",
        "",
        "test_journal_turns.py::test_an_ack_waits_for_a_slow_disk_and_nothing_is_stored_before_it",
    ),
    Mutant(
        "mapped is told before the kernel has it",
        JOURNAL,
        "            native.flush()\n",
        "            pass\n",
        "test_journal_turns.py::test_mapped_is_with_the_kernel_when_it_is_told",
    ),
    Mutant(
        "what a taker leaves behind is in memory alone",
        INBOX,
        "self.journal.keep_all(agent.unfinished())",
        "pass",
        MACHINE,
    ),
    Mutant(
        "an ack is not written down",
        "stored.py",
        "            record.ids.append(entry.message.id)\n",
        "            pass\n",
        "test_checkpoint.py::test_what_became_of_it_outlives_a_crash",
    ),
    Mutant(
        "how it ended is known until a restart",
        "checkpoint.py",
        "                        self.over.acked(mail.kept, record, place)\n",
        "                        pass\n",
        "test_remembered.py",
    ),
    Mutant(
        "a checkpoint has nothing of what has ended",
        "agentd/server/checkpoints.py",
        "        found.over.append(chunk)\n",
        "        pass\n",
        "test_client_remembered.py",
    ),
    Mutant(
        "an attempt is not written down",
        INBOX,
        "        if was_seen:\n            self.journal.moved(entry)\n",
        "",
        "test_checkpoint.py::test_what_became_of_it_outlives_a_crash",
    ),
    Mutant(
        "what is to be synced waits for somebody else",
        JOURNAL,
        "min(self._flushed, native.synced) >= native.tail",
        "self._flushed >= native.tail",
        "test_levels.py::test_what_is_to_be_synced_is_though_all_others_need_it_not",
    ),
    Mutant(
        "until when it is to wait is not written down",
        "stored.py",
        "        waits = fresh and entry.due\n",
        "        waits = False\n",
        "test_delays.py::test_it_outlives_the_daemon_and_its_time_goes_on",
    ),
    Mutant(
        "what waits for its time is in memory alone",
        ROUTER,
        "    return details is not None and details.due_at is not None\n",
        "    return False\n",
        "test_delays.py::test_it_outlives_the_daemon_and_its_time_goes_on",
    ),
    Mutant(
        "a message for later is announced by nobody",
        "delays.py",
        "        agent.unannounced.add(message.id)",
        "        pass",
        "test_delays.py::test_it_is_announced_when_its_time_has_come",
    ),
    Mutant(
        "what is sent in one breath is not recorded",
        "plain.py",
        "                self._journal.passed(entry, story)\n",
        "                pass\n",
        "test_history_recorded.py::test_history_is_what_was_accepted_in_order_whatever_happens",
    ),
    Mutant(
        "a reply is not recorded",
        ROUTER,
        "            self._receipts.journal.passed(entry)\n        self._admit",
        "            pass\n        self._admit",
        "test_history_recorded.py::test_messages_of_each_kind_are_recorded_with_how_they_ended",
    ),
    Mutant(
        "how a message ended that was not kept is not recorded",
        "stored.py",
        "            self._passed.setdefault(state, []).extend(ids)\n",
        "            pass\n",
        "test_history_recorded.py::test_history_is_what_was_accepted_in_order_whatever_happens",
    ),
    Mutant(
        "old segments stay whatever their size",
        "agentd/host/retention.py",
        "        room -= file.size_bytes\n",
        "        pass\n",
        "test_history_recorded.py::test_what_stays_is_the_newest_that_is_young_and_small_enough",
    ),
    Mutant(
        "history does not give way to mail",
        "agentd/server/disk.py",
        "        while (limit := self.limit_on_mail(segments)) and self.give_way():\n            self.changed()\n",
        "        limit = self.limit_on_mail(segments)\n",
        "test_history_recorded.py::test_history_gives_way_before_mail_is_refused",
    ),
    Mutant(
        "what a burst leaves behind is never given back",
        "agentd/server/spare_memory.py",
        "            release_spare_memory()\n",
        "            pass\n",
        "test_daemon_large.py::test_the_memory_of_a_long_inbox_goes_back_too",
    ),
    Mutant(
        "a pause while a subscription is filled is forgotten",
        "durable.py",
        "on=source.stays_paused",
        "on=False",
        "test_durable.py::test_one_that_is_paused_while_it_is_made_stays_so",
    ),
    Mutant(
        "what is acked together has one story",
        INBOX,
        "            if entry.trail is not before:  # what was",
        "            if not before:  # what was",
        "test_receipts.py::test_what_ends_together_keeps_its_own_story",
    ),
    Mutant(
        "what is stored together has one story",
        RECEIPTS,
        "                if entry.trail is not before:\n",
        "                if not before:\n",
        "test_receipts.py::test_what_is_stored_together_keeps_its_own_story",
    ),
]


def run(place: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """The tests against the agentd in that place. -P: the checkout must not shadow it."""
    return subprocess.run(
        [
            *(sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-W", "ignore"),
            *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)),
            *(str(ROOT / "tests" / test) for test in tests),
        ],
        cwd=place,
        env={
            **os.environ,
            "MUTANT": "1",
            "PYTHONPATH": str(place),
        },
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of agentd, with the extension that is in use."""
    shutil.copytree(ROOT / "agentd", tmp_path / "agentd", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copytree(
        ROOT / "clients" / "python" / "agentd_client",
        tmp_path / "agentd_client",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(_native.__file__, tmp_path / "agentd")
    return tmp_path


def test_nothing_fails_where_nothing_is_broken(place: Path) -> None:
    done = run(place, *sorted({mutant.test for mutant in MUTANTS}))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_is_noticed(place: Path, mutant: Mutant) -> None:
    file = place / (mutant.file if "/" in mutant.file else f"agentd/hub/{mutant.file}")
    source = file.read_text()
    assert source.count(mutant.old) == 1, f"{mutant.file} has changed: find the place of {mutant.name!r} again"
    file.write_text(source.replace(mutant.old, mutant.new))
    done = run(place, mutant.test)
    assert done.returncode == 1, f"{mutant.test} does not notice that {mutant.name}:\n{done.stdout}{done.stderr}"
    assert " failed" in done.stdout

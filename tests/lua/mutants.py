"""Mutants: the scripts with one thing wrong, what that breaks, and the promise that notices."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.lua import test_renew as renew
from tests.lua import test_reserve as reserve
from tests.lua import test_rule as rule
from tests.lua import test_settle as settle
from tests.lua import test_time as time
from tests.lua import test_unreadable as unreadable
from tests.lua.calls import Calls
from tests.lua.test_reserve import BUCKET, CALLS, SHADOW, WINDOW


@dataclass(frozen=True)
class Mutant:
    """In a script, a text that occurs there once, and what is put in its place."""

    script: str
    text: str
    instead: str
    breaks: str
    check: Callable[[Calls], None]


def _granted(name: str) -> Callable[[Calls], None]:
    """The table of a policy, of grants and waits."""
    policy, rows = next(table for table in reserve.TABLES if table[0].name == name)
    return partial(reserve.test_the_table, policy=policy, rows=rows)


def _settled(name: str) -> Callable[[Calls], None]:
    """The table of a policy, of what settling leaves."""
    policy, rows = next(table for table in settle.TABLES if table[0].name == name)
    return partial(settle.test_the_table, policy=policy, rows=rows)


MUTANTS = [
    # -- the arithmetic of an account
    Mutant(
        "account",
        "account.charged = level > 0 and level or 0",
        "account.charged = level",
        "an idle bucket saves up",
        _granted("bucket"),
    ),
    Mutant(
        "account",
        "floor(new * limit / length) - floor(old * limit / length)",
        "floor((new - old) * limit / length)",
        "a remainder is lost at each look",
        time.test_looking_often_drains_as_much_as_looking_once,
    ),
    Mutant(
        "account",
        "if time - now <= max(60000, length) then return end",
        "if time - now <= 60000 then return end",
        "a day is reopened by a clock that is hours behind",
        time.test_a_clock_that_goes_back_by_hours_reopens_no_longer_window,
    ),
    Mutant(
        "account",
        "if time - now <= max(60000, length) then return end",
        "if time - now >= 0 then return end",
        "a clock that once was a year ahead charges for a year",
        time.test_refusals_alone_bring_an_account_back_with_a_clock_that_fell_far_back,
    ),
    Mutant(
        "account",
        "    account.fell = true\n",
        "",
        "a refusal forgets that the clock fell",
        time.test_refusals_alone_bring_an_account_back_with_a_clock_that_fell_far_back,
    ),
    Mutant(
        "account",
        "    push_low(account, time + 1, kind == BUCKET and account.charged or 0)\n",
        "",
        "what was charged before the clock fell is given back to what came after",
        partial(time.test_what_was_charged_before_the_clock_fell_far_back_gives_nothing_back, policy=WINDOW),
    ),
    Mutant(
        "account",
        "if kind == CALENDAR and not start and (now < account.start or now >= stop) then return end",
        "if kind == CALENDAR and not start then start, window = account.start, length end",
        "a calendar's account is brought to where no window is known",
        time.test_a_calendars_lease_met_without_its_policy_lets_no_window_be_had_twice,
    ),
    Mutant(
        "account",
        "kind == SLIDING and now < stop + length and account.charged or 0",
        "kind == SLIDING and account.charged or 0",
        "a window long ago counts as the one before",
        _granted("sliding"),
    ),
    Mutant(
        "account",
        "kind == SLIDING and now < stop + length and account.charged or 0",
        "now < stop + length and account.charged or 0",
        "a fixed window slides",
        _granted("window"),
    ),
    Mutant(
        "account",
        "return account.charged + ceil(account.before * rest / account.window)",
        "return account.charged + floor(account.before * rest / account.window)",
        "a sliding window rounds in the caller's favour",
        _settled("sliding"),
    ),
    Mutant(
        "account",
        "account.kind == BUCKET and amount > 0 then",
        "account.kind == BUCKET and amount < 0 then",
        "no low level is remembered: what has drained is given back",
        settle.test_a_bucket_that_ran_empty_meanwhile_gives_nothing_back,
    ),
    Mutant(
        "account",
        "return max(now, account.time)\nend",
        "return now\nend",
        "what is charged while the clock is behind counts for another window",
        time.test_what_was_charged_while_the_clock_was_behind_can_be_given_back,
    ),
    Mutant(
        "account",
        "if account.kind ~= SLIDING or at < account.start - account.window then return end",
        "if account.kind ~= SLIDING then return end",
        "a window gives back to that after the next",
        settle.test_what_a_sliding_window_gives_back_is_of_its_own_window,
    ),
    Mutant(
        "account",
        "if account.kind ~= SLIDING or at < account.start - account.window then return end",
        "do return end",
        "a sliding window gives nothing back of the window before",
        _settled("sliding"),
    ),
    Mutant(
        "account",
        "while first > 1 and lows[first - 1].time > at do",
        "while first > 1 and lows[first - 1].time >= at do",
        "the level before one of two that came together holds the other back",
        settle.test_of_two_admitted_in_one_millisecond_neither_is_the_others_lowest_level,
    ),
    Mutant(
        "account",
        "lows[i].level = lows[i].level - back",
        "lows[i].level = lows[i].level",
        "what one gave back another gives back again",
        settle.test_what_one_gives_back_another_cannot_give_back_again,
    ),
    Mutant(
        "account",
        "lows[nearest + 1].level = min(lows[nearest].level, lows[nearest + 1].level)",
        "lows[nearest + 1].level = max(lows[nearest].level, lows[nearest + 1].level)",
        "a list of lows that was cut gives back too much",
        settle.test_of_more_low_levels_than_are_kept_the_lower_and_the_later_stay,
    ),
    # -- subjects: leases, markers, lives
    Mutant(
        "account",
        "if account and (record.undo == 1 or account.kind == OPEN) then",
        "if account and record.undo == 1 then",
        "a dead worker's streams stay open",
        time.test_a_lease_that_ended_gives_concurrency_back_and_keeps_the_charge,
    ),
    Mutant(
        "account",
        "if account and (record.undo == 1 or account.kind == OPEN) then",
        "if account and account.kind == OPEN then",
        "a lost reservation stays charged where it should not",
        time.test_a_lease_that_ended_is_undone_where_the_policy_says_so,
    ),
    Mutant(
        "account",
        "        one.amount = 0\n",
        "",
        "what an ended lease gave back is given back again by a late settle",
        settle.test_after_the_lease_was_undone_what_was_used_is_charged,
    ),
    Mutant(
        "account",
        "rid ~= '' and rid ~= mine and not met[field]",
        "rid ~= '' and not met[field]",
        "a lease that has just ended is ended under the hands of its settle",
        settle.test_a_lease_that_ended_and_is_settled_gives_back_once,
    ),
    Mutant(
        "account",
        "local last = sort == '!' and record.stop == now",
        "local last = false",
        "a marker is gone a moment too early",
        time.test_a_marker_is_there_to_its_last_millisecond_whoever_looks,
    ),
    Mutant(
        "account",
        "if partial or cursor ~= '0' or ended >= ENDED then",
        "if partial then",
        "leases that one look had no time for are forgotten",
        time.test_thousands_of_dead_leases_are_cleared_in_bounded_pieces,
    ),
    Mutant(
        "account",
        "subject.due = max(now + 1000, min(earliest, now + MARKER))",
        "subject.due = min(earliest, now + MARKER)",
        "a subject is looked through at every call",
        time.test_a_subject_is_looked_through_once_a_second_at_most,
    ),
    Mutant(
        "account",
        "account.window * (kind == SLIDING and 2 or 1)",
        "account.window",
        "a key ends before the window that still counts",
        partial(
            time.test_a_key_lives_as_long_as_what_it_holds_counts,
            policy=time.HOURLY[1],
            ends=time.HOUR + time.LEFT,
        ),
    ),
    Mutant(
        "account",
        "lasts = account.time + account.charged * account.window / account.limit",
        "lasts = account.time",
        "a key ends before its bucket has drained",
        partial(
            time.test_a_key_lives_as_long_as_what_it_holds_counts, policy=time.HOURLY[0], ends=10 * time.HOUR
        ),
    ),
    Mutant(
        "account",
        "if longer then redis.call('PEXPIRE', subject.key, max(1, subject.expires - now)) end",
        "",
        "keys live for ever",
        time.test_every_key_ends_and_its_end_never_comes_nearer,
    ),
    # -- what a call is about
    Mutant(
        "account",
        "if now < one or now >= three then return nil end",
        "if now < one then return nil end",
        "a caller that fell behind by two windows is believed",
        time.test_outside_the_boundaries_it_carries_a_call_is_stale_and_does_nothing,
    ),
    Mutant(
        "account",
        "start = now < two and one or two",
        "start = one",
        "a window that ended on the way to the ledger is not over",
        time.test_a_call_may_come_a_whole_window_after_its_boundaries_were_worked_out,
    ),
    Mutant(
        "account",
        "    if account and account.kind ~= kind then account = nil end\n",
        "",
        "an account of another kind is taken for this one's",
        unreadable.test_an_account_of_another_kind,
    ),
    Mutant(
        "account",
        "if subject.ruled > now then",
        "if subject.ruled >= 0 then",
        "rules are looked for where there are none",
        rule.test_where_there_is_no_rule_none_is_looked_for,
    ),
    Mutant(
        "account",
        "if stop > now and stop > blocked then",
        "if stop > now then",
        "not the longest block is told",
        rule.test_of_two_blocks_the_longer_is_told,
    ),
    Mutant(
        "account",
        "account.asked, account.capacity = limit, capacity",
        "account.capacity = capacity",
        "an overridden bucket drains at its old pace",
        rule.test_another_limit_of_a_bucket_is_another_pace,
    ),
    # -- reserve
    Mutant(
        "reserve",
        "if subjects[i].marker then return {'aborted', now} end",
        "",
        "a straggler charges after its release",
        reserve.test_a_release_that_overtook_it_ends_it,
    ),
    Mutant(
        "reserve",
        "if subjects[1].own then return answer('granted', now, 0, 0, accounts) end",
        "",
        "a second try is charged again",
        reserve.test_asked_again_it_grants_again_and_charges_once,
    ),
    Mutant(
        "reserve",
        "if account.enforced and standing(account)",
        "if standing(account)",
        "a shadow refuses",
        _granted(SHADOW.name),
    ),
    Mutant(
        "reserve",
        "standing(account) + account.amount > account.capacity then",
        "standing(account) + account.amount >= account.capacity then",
        "the last unit cannot be had",
        _granted(BUCKET.name),
    ),
    Mutant(
        "reserve",
        "(its == NEVER or its > wait)",
        "its > wait",
        "what can never fit is told to wait",
        reserve.test_what_can_never_fit_is_told_so_however_full_the_others_are,
    ),
    Mutant(
        "reserve",
        "return max(0, account.time - now) + ceil((charged - room) * window / account.limit)",
        "return max(0, account.time - now) + floor((charged - room) * window / account.limit)",
        "a caller comes back a moment too early",
        _granted("cost"),
    ),
    Mutant(
        "reserve",
        "if subjects[i].changed then save(subjects[i], now) end",
        "save(subjects[i], now)",
        "a refusal writes",
        partial(reserve.test_a_refusal_changes_nothing, policy=CALLS),
    ),
    Mutant(
        "reserve",
        "if subjects[i].changed then save(subjects[i], now) end",
        "",
        "where all are refused, ended leases hold their streams for ever",
        time.test_ended_leases_are_looked_after_on_a_refusal_too,
    ),
    Mutant(
        "reserve",
        "  subject.entries = subject.entries + 1\n",
        "",
        "a reservation is not looked after when its lease ends",
        time.test_a_lease_that_ended_gives_concurrency_back_and_keeps_the_charge,
    ),
    # -- settle
    Mutant(
        "settle",
        "if verb == 'release' then\n",
        "if verb == 'settle' then\n",
        "a release gives nothing back",
        settle.test_a_release_gives_everything_back,
    ),
    Mutant(
        "settle",
        "    redis.call('HDEL', subject.key, '~' .. rid)\n",
        "",
        "a reservation is settled again and again",
        settle.test_repeated_without_a_marker_it_is_settled_once,
    ),
    Mutant(
        "settle",
        "    if mark then leave_marker(subject) end\n    return 'settled'",
        "    return 'settled'",
        "a straggling reserve charges what was settled",
        settle.test_a_straggling_reserve_after_the_settle_is_aborted,
    ),
    Mutant(
        "settle",
        "    put(subject, '!' .. rid, max(record.stop, not_after), 0, '', max(record.stop, not_after))\n",
        "",
        "an ended lease is corrected again and again",
        settle.test_after_the_lease_has_ended_it_is_corrected_once,
    ),
    Mutant(
        "settle",
        "if verb == 'release' or not first then return 'again' end",
        "if verb == 'release' then return 'again' end",
        "a second try charges what the first has settled",
        settle.test_what_the_ledger_lost_is_charged_on_the_first_try_alone,
    ),
    Mutant(
        "settle",
        "if now > forget then return 'forgotten' end",
        "",
        "what was settled long ago is charged again",
        settle.test_what_the_ledger_forgot_is_charged_until_the_markers_end_and_not_after,
    ),
    Mutant(
        "settle",
        "if now > not_after then return {'late', now} end",
        "",
        "a settle is carried out whenever it arrives",
        settle.test_later_than_it_may_be_carried_out_it_writes_nothing,
    ),
    Mutant(
        "settle",
        "for i = #charges, 1, -1 do",
        "for i = 1, #charges do",
        "the earliest charge is given back first, which has drained",
        renew.test_of_what_was_charged_at_several_moments_the_latest_is_given_back_first,
    ),
    # -- renew, reset, rule
    Mutant(
        "renew",
        "local excess = account.amount - sum",
        "local excess = account.amount",
        "a total is taken for a difference",
        renew.test_what_is_produced_beyond_the_charge_is_charged_as_it_comes,
    ),
    Mutant(
        "renew",
        "if count < EXTRAS then",
        "if count > 0 then",
        "a record grows as long as its stream",
        renew.test_however_often_a_stream_overruns_its_record_stays_small,
    ),
    Mutant(
        "reset",
        "    push_low(account, time, 0)\n",
        "",
        "what was admitted before a reset is given back after",
        partial(renew.test_what_was_admitted_before_a_reset_gives_nothing_back_after, policy=WINDOW),
    ),
    Mutant(
        "reset",
        "account.charged, account.before = 0, 0",
        "account.charged = 0",
        "a reset forgets to forget the window before",
        renew.test_a_reset_forgets_the_window_before_too,
    ),
    Mutant(
        "reset",
        "if not account.fresh and account.kind ~= OPEN then",
        "if not account.fresh then",
        "a reset lets streams be opened beside those that are",
        renew.test_a_reset_leaves_what_is_open_and_when_it_ends,
    ),
    Mutant(
        "rule",
        "max(rules, stop)) .. cursor",
        "stop) .. cursor",
        "a shorter rule hides a longer one",
        rule.test_a_rule_outlives_a_shorter_one_that_came_later,
    ),
    Mutant(
        "rule",
        "pack(HINT, due, entries, expires,",
        "pack(HINT, 0, 0, expires,",
        "a rule forgets what is open",
        rule.test_a_rule_keeps_what_is_open,
    ),
]

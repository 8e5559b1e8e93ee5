//! Timers and requests of plugins.

use super::script::check;

#[test]
fn a_timer_falls_due_once_also_after_a_restart() {
    check(
        "
        plugin p runs 1 in 1
            p runs 1 *
        plugin p commits 7; timer soon 5; timer later 60 daily; timer never 10; cancel never; k=v
            p committed 7 *
        restart
        plugin p takes 9
        after 4
        after 1
            p handles $timer/soon=due
        plugin p settles done; timer soon 60
            p has settled *
        plugin p takes 9
        after 55
            p handles $timer/later=due(schedule=daily)
        plugin p settles retry:2
            p has settled
        plugin p takes 9
        after 2
            p handles $timer/later=due(1)(schedule=daily)
        restart
        plugin p takes 9
            p handles $timer/later=due(schedule=daily)
        plugin p settles done; timer later 60 daily
            p has settled *
        plugin p takes 9
        after 3
            p handles $timer/soon=due
        ",
    );
}

#[test]
fn setting_a_timer_again_replaces_it_and_what_is_in_the_inbox_stays() {
    check(
        "
        plugin p runs 1
            p runs 1 *
        plugin p commits 1; timer t 5; timer t 20
            p committed 1 *
        after 10
        plugin p takes 9
        after 10
            p handles $timer/t=due
        plugin p commits 2; timer t 0
            p committed 2 *
        tick
        plugin p commits 3; cancel t
            p committed 3
        plugin p settles done
            p has settled *
        plugin p takes 9
            p handles $timer/t=due
        ",
    );
}

#[test]
fn declared_schedules_come_and_go_with_revisions() {
    check(
        "
        plugin p runs 1 with schedule a 10 schedule b 20
            p runs 1 *
        plugin p commits 1; timer own 30
            p committed 1 *
        after 5
        plugin p runs 2 with schedule a 999 schedule c 25
            p runs 2 *
        plugin p takes 9
        after 5
            p handles $timer/a=due(schedule=daily)
        plugin p settles done
            p has settled *
        plugin p takes 9
        after 10
        after 10
            p handles $timer/c=due(schedule=daily) $timer/own=due
        ",
    );
}

#[test]
fn timers_wait_for_room_and_for_the_disk() {
    check(
        "
        limits inbox_events=1
        c connects
            c is new
        plugin p runs 1 in 1
            p runs 1 *
        plugin p commits 1; timer t 5
            p committed 1 *
        c publishes in full
        after 5
        plugin p takes 9
            p handles in=full
        plugin p settles done
            p has settled
        after 1
        plugin p takes 9
            p handles $timer/t=due
        plugin p settles done; timer u 5
            p has settled *
        storage fails
        after 5
        plugin p takes 9
        storage recovers
        after 1
            p handles $timer/u=due
        ",
    );
}

#[test]
fn a_plugin_has_a_bounded_number_of_timers() {
    check(
        "
        limits timers=2
        plugin p runs 1
            p runs 1 *
        plugin p commits 1; timer a 5; timer b 5; timer c 5; timer a 9
            dropped: 1 TimersFull
            p committed 1 *
        ",
    );
}

#[test]
fn a_request_is_answered_once() {
    check(
        "
        c connects
            c is new
        c subscribes ask
            c gets Suback [Success]
        plugin p runs 1
            p runs 1 *
        plugin p commits 1; ask please; request 41 10; request 42 10
            c gets ask please *
            p committed 1 *
        c publishes $reply/p/41 yes qos 1 id 1
            c gets Puback 1 *
        c publishes $reply/p/41 again qos 1 id 2
            c gets Puback 2: NoMatchingSubscribers
        c publishes $reply/p/43 unasked qos 1 id 3
            c gets Puback 3: NoMatchingSubscribers
        c publishes $reply/q/41 nobody qos 1 id 4
            c gets Puback 4: NoMatchingSubscribers
        restart
        plugin p takes 1
            p handles $reply/p/41=yes(request=41)
        plugin p settles done
            p has settled *
        plugin p takes 1
        after 10
            p handles $reply/p/42=due(request=42)(error=timeout)
        ",
    );
}

#[test]
fn an_answer_that_cannot_be_kept_stays_with_its_sender() {
    check(
        "
        limits inbox_events=0
        c connects
            c is new
        plugin p runs 1
            p runs 1 *
        plugin p commits 1; request 41 10
            p committed 1 *
        c publishes $reply/p/41 yes qos 1 id 1
            c gets Puback 1: QuotaExceeded
        c publishes $reply/p/41 yes
            dropped: 1 InboxFull
        ",
    );
}

#[test]
fn clients_are_disconnected_when_the_settlement_says_so() {
    check(
        "
        c connects
            c is new
        plugin p runs 1
            p runs 1 *
        plugin p commits 1; disconnect c; disconnect nobody
            c is closed: AdministrativeAction
            p committed 1
        ",
    );
}

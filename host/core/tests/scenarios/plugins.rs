//! Plugins: inboxes, batches, retries, dead letters, and what they publish.

use super::script::check;

#[test]
fn a_plugin_takes_events_and_settles_them() {
    check(
        "
        c connects
            c is new
        c subscribes out
            c gets Suback [Success]
        plugin p runs 1 in/# 1
            p runs 1 *
        c publishes in/1 a qos 1 id 1
            c gets Puback 1 *
        c publishes in/2 b
        c publishes in/3 c qos 2 id 2
            c gets Pubrec 2 *
        plugin p takes 2
            p handles in/1=a in/2=b
        plugin p settles done done; out x; key=value
            c gets out x *
            p has settled *
        plugin p takes 2
            p handles in/3=c
        plugin p settles done
            p has settled *
        ",
    );
}

#[test]
fn a_plugin_that_waits_gets_events_when_the_turn_ends() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in 1
            p runs 1 *
        plugin p takes 10
        tick
        c publishes in 1
        c publishes in 2
        tick
            p handles in=1 in=2
        c publishes in 3
        tick
        plugin p takes 10
        plugin p settles done done
            p has settled
        tick
            p handles in=3
        plugin p settles done
            p has settled
        plugin p takes 10
        plugin p cancels
            p takes nothing
        c publishes in 4
        tick
        plugin p cancels
            p takes nothing
        plugin p takes 10
            p handles in=4
        plugin p cancels
        ",
    );
}

#[test]
fn an_event_that_failed_holds_up_its_topic_and_no_other() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        c publishes in/1 a
        c publishes in/1 b
        c publishes in/2 c
        c publishes in/1 d
        plugin p takes 1
            p handles in/1=a
        plugin p settles retry:10
            p has settled
        plugin p takes 5
            p handles in/2=c
        plugin p settles done
            p has settled
        plugin p takes 5
        c publishes in/1 e
        c publishes in/2 f
        tick
            p handles in/2=f
        plugin p settles done
            p has settled
        plugin p takes 5
        after 9
        after 1
            p handles in/1=a(1)
        plugin p settles retry:5
            p has settled
        plugin p takes 5
        after 5
            p handles in/1=a(2)
        plugin p settles done
            p has settled
        plugin p takes 2
            p handles in/1=b in/1=d
        plugin p settles done done
            p has settled
        plugin p takes 2
            p handles in/1=e
        ",
    );
}

#[test]
fn events_that_are_not_named_or_returned_go_back_untouched() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        c publishes in/1 a
        c publishes in/1 b
        c publishes in/2 c
        plugin p takes 5
            p handles in/1=a in/1=b in/2=c
        plugin p settles done - done
            p has settled
        c publishes in/1 d
        plugin p takes 5
            p handles in/1=b in/1=d
        plugin p returns
        plugin p takes 5
            p handles in/1=b in/1=d
        plugin p settles retry:0 -
            p has settled
        plugin p takes 5
            p handles in/1=b(1)
        plugin p returns
        plugin p takes 5
            p handles in/1=b(1)
        plugin p settles dead
            p has settled *
        plugin p takes 5
            p handles in/1=d
        ",
    );
}

#[test]
fn a_restart_hands_out_again_what_was_not_settled() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        c publishes in/1 a qos 1 id 1
            c gets Puback 1 *
        c publishes in/1 b qos 1 id 1
            c gets Puback 1 *
        c publishes in/1 zero
        plugin p takes 1
            p handles in/1=a
        plugin p settles retry:100
            p has settled
        restart
        plugin p takes 5
            p handles in/1=a in/1=b
        ",
    );
}

#[test]
fn a_full_inbox_refuses_for_everybody_and_drops_qos_0() {
    check(
        "
        limits inbox_events=1
        c connects
            c is new
        old connects v3
            old is new
        s connects
            s is new
        s subscribes in
            s gets Suback [Success]
        plugin p runs 1 in 1
            p runs 1 *
        c publishes in 1 qos 1 id 1
            s gets in 1
            c gets Puback 1 *
        c publishes in 2 qos 1 id 1
            c gets Puback 1: QuotaExceeded
        c publishes in 2 qos 2 id 2
            c gets Pubrec 2: QuotaExceeded
        c publishes in 2
            s gets in 2
            dropped: 1 InboxFull
        old publishes in 2 qos 1 id 1
            old is closed: QuotaExceeded
        plugin p takes 1
            p handles in=1
        c publishes in 2 qos 1 id 1
            c gets Puback 1: QuotaExceeded
        plugin p settles done
            p has settled *
        c publishes in 2 qos 1 id 1
            s gets in 2
            c gets Puback 1 *
        ",
    );
}

#[test]
fn what_nobody_keeps_for_a_full_inbox_becomes_a_dead_letter() {
    check(
        "
        limits inbox_bytes=40 dead_letters=1
        c connects will in will qos 1
            c is new
        plugin p runs 1 in 1
            p runs 1 *
        c publishes in 1 qos 1 id 1
            c gets Puback 1 *
        plugin p takes 1
            p handles in=1
        plugin p settles done; in 2 q1; in 3 q1; in 4 q1
            dropped: 1 InboxFull
            p has settled *
        c vanishes
            dropped: 1 InboxFull
            dropped: 1 DeadLettersFull
        plugin p takes 5
            p handles in=2 in=3
        ",
    );
}

#[test]
fn a_plugin_hears_what_it_publishes_if_it_subscribes_to_it() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        plugin p takes 9
        c publishes in/1 a
        tick
            p handles in/1=a
        plugin p settles done; in/2 b q1; in/3 c q1
            p has settled *
        plugin p takes 9
            p handles in/2=b in/3=c
        ",
    );
}

#[test]
fn a_batch_is_bounded_in_bytes_and_never_empty() {
    // The weight of "in" and one letter is 19.
    check(
        "
        limits batch_bytes=20
        c connects
            c is new
        plugin p runs 1 in 1
            p runs 1 *
        c publishes in a
        c publishes in b
        c publishes in 12345678901234567890
        c publishes in c
        plugin p takes 9
            p handles in=a in=b
        plugin p settles done done
            p has settled
        plugin p takes 9
            p handles in=12345678901234567890
        ",
    );
}

#[test]
fn dead_letters_are_bounded() {
    check(
        "
        limits dead_letters=1
        c connects
            c is new
        plugin p runs 1 in 1
            p runs 1 *
        c publishes in a qos 1 id 1
            c gets Puback 1 *
        c publishes in b qos 1 id 1
            c gets Puback 1 *
        plugin p takes 2
            p handles in=a in=b
        plugin p settles dead dead
            dropped: 1 DeadLettersFull
            p has settled *
        ",
    );
}

#[test]
fn a_swap_changes_subscriptions_and_keeps_the_inbox() {
    check(
        "
        c connects
            c is new
        c publishes kept k retained
        c publishes more m retained
        plugin p runs 1 in 1 kept 1
            p runs 1 *
        c publishes in a qos 1 id 1
            c gets Puback 1 *
        plugin p takes 9
            p handles kept=k(retained) in=a
        plugin p returns
        plugin p runs 2 kept 1 more 0
            p runs 2 *
        c publishes in b qos 1 id 1
            c gets Puback 1: NoMatchingSubscribers
        plugin p takes 9
            p handles kept=k(retained) in=a more=m(retained)
        ",
    );
}

#[test]
fn a_removed_plugin_leaves_nothing_behind() {
    check(
        "
        limits plugins=1
        c connects
            c is new
        plugin p runs 1 in 1
            p runs 1 *
        plugin q runs 1 in 1
            q is refused: QuotaExceeded
        plugin p takes 1
        c publishes in a qos 1 id 1
            c gets Puback 1 *
        plugin p goes
            dropped: 1 PluginRemoved
            p is gone *
        tick
        plugin p goes
            p is gone
        plugin p takes 1
        plugin p settles
        plugin p returns
        plugin p cancels
            p takes nothing
        c publishes in a qos 1 id 1
            c gets Puback 1: NoMatchingSubscribers
        plugin q runs 1 in 1
            q runs 1 *
        ",
    );
}

#[test]
fn a_client_of_the_same_name_is_somebody_else() {
    check(
        "
        plugin p runs 1 in 1
            p runs 1 *
        p connects
            p is new
        p publishes in a qos 1 id 1
            p gets Puback 1 *
        p vanishes
        p connects
            p' is new
        plugin p takes 1
            p handles in=a
        ",
    );
}

#[test]
fn an_event_expires_before_it_is_handed_out_and_not_after() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        c publishes in/1 a qos 1 id 1 lasts 5
            c gets Puback 1 *
        c publishes in/2 b qos 1 id 1 lasts 5
            c gets Puback 1 *
        c publishes in/1 c qos 1 id 1 lasts 5
            c gets Puback 1 *
        plugin p takes 1
            p handles in/1=a
        plugin p settles retry:10
            p has settled
        after 10
        plugin p takes 9
            p handles in/1=a(1)
            dropped: 1 Expired
        plugin p settles done
            p has settled *
        plugin p takes 9
            dropped: 1 Expired
        ",
    );
}

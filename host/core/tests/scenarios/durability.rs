//! What is promised only when it is on disk, and what a restart keeps.

use super::script::check;

#[test]
fn nothing_waits_for_the_disk_where_nothing_is_durable() {
    check(
        "
        a connects
            a is new
        a subscribes x qos 2
            a gets Suback [GrantedQos2]
        a publishes x 1 qos 2 id 1
            a gets x 1 qos 2 id 1
            a gets Pubrec 1
        a pubrecs 1
            a gets Pubrel 1
        a pubcomps 1
        a pubrels 1
            a gets Pubcomp 1
        a unsubscribes x
            a gets Unsuback [Success]
        ",
    );
}

#[test]
fn each_promise_to_a_durable_session_waits() {
    check(
        "
        a connects expires 10
            a is new *
        a subscribes x qos 2
            a gets Suback [GrantedQos2] *
        a publishes x 0
            a gets x 0
        a publishes x 1 qos 2 id 1
            a gets x 1 qos 2 id 1 *
            a gets Pubrec 1 *
        a publishes x 1 qos 2 id 1 dup
            a gets Pubrec 1 *
        a pubrecs 1
            a gets Pubrel 1 *
        a pubcomps 1
        a pubrels 1
            a gets Pubcomp 1 *
        a unsubscribes x
            a gets Unsuback [Success] *
        a publishes x 2 qos 1 id 1
            a gets Puback 1: NoMatchingSubscribers
        a publishes x 2 qos 2 id 1
            a gets Pubrec 1: NoMatchingSubscribers *
        ",
    );
}

#[test]
fn a_publisher_waits_for_the_disk_exactly_if_a_durable_queue_takes_its_message() {
    check(
        "
        a connects
            a is new
        durable connects expires 10
            durable is new *
        clean connects
            clean is new
        durable subscribes x qos 1
            durable gets Suback [GrantedQos1] *
        clean subscribes #  qos 1
            clean gets Suback [GrantedQos1]
        a publishes x 1 qos 1 id 1
            durable gets x 1 qos 1 id 1 *
            clean gets x 1 qos 1 id 1
            a gets Puback 1 *
        a publishes y 1 qos 1 id 1
            clean gets y 1 qos 1 id 2
            a gets Puback 1
        ",
    );
}

#[test]
fn what_leaves_the_queue_waits_for_its_identifier_to_be_durable() {
    check(
        "
        limits unwritten_bytes=1
        a connects expires 10
            a is new *
        a subscribes x qos 2
            a gets Suback [GrantedQos2] *
        a publishes x 1
            a gets x 1
        a publishes x 2 qos 2 id 1
            a gets Pubrec 1 *
        a writes 18
            a gets x 2 qos 2 id 1 *
        ",
    );
}

#[test]
fn a_restart_keeps_sessions_queues_and_ledgers() {
    check(
        "
        p connects expires never
            p is new *
        s connects expires never
            s is new *
        s subscribes a/+ qos 2 as 9
            s gets Suback [GrantedQos2] *
        p publishes a/1 one qos 2 id 5
            s gets a/1 one qos 2 id 1 as [9] *
            p gets Pubrec 5 *
        p publishes a/1 two qos 2 id 6
            s gets a/1 two qos 2 id 2 as [9] *
            p gets Pubrec 6 *
        s pubrecs 1
            s gets Pubrel 1 *
        s vanishes
        p publishes a/1 three qos 1 id 7
            p gets Puback 7 *
        p pubrels 6
            p gets Pubcomp 6 *
        restart
        p connects expires never
            p' is back *
        p publishes a/1 one qos 2 id 5 dup
            p' gets Pubrec 5
        p pubrels 5
            p' gets Pubcomp 5 *
        p publishes a/1 four qos 2 id 6
            p' gets Pubrec 6 *
        s connects expires never
            s' is back *
            s' gets Pubrel 1
            s' gets a/1 two qos 2 id 2 dup as [9]
            s' gets a/1 three qos 1 id 3 as [9] *
            s' gets a/1 four qos 2 id 4 as [9] *
        ",
    );
}

#[test]
fn clients_that_were_connected_are_away_since_the_restart() {
    check(
        "
        a connects expires 10
            a is new *
        b connects expires 10
            b is new *
        b vanishes
        c connects
            c is new
        after 5
        restart
        after 5
        b connects expires 10
            b' is new *
        a connects expires 10
            a' is back *
        c connects
            c' is new *
        ",
    );
}

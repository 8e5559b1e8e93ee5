//! Wills (section 3.1.2.5).

use super::script::check;

#[test]
fn a_will_is_published_unless_the_client_says_goodbye() {
    check(
        "
        s connects
            s is new
        s subscribes will/#
            s gets Suback [Success]
        a connects will will/a gone
            a is new
        a vanishes
            s gets will/a gone
        a connects will will/a gone
            a' is new
        a disconnects
        a connects will will/a gone
            a' is new
        a disconnects with-will
            s gets will/a gone
        ",
    );
}

#[test]
fn a_delayed_will_waits_and_is_cancelled_by_a_return() {
    check(
        "
        s connects
            s is new
        s subscribes will/#
            s gets Suback [Success]
        a connects expires 100 will will/a gone delay 10
            a is new *
        a vanishes
        after 9
        a connects expires 100 will will/a again delay 10
            a' is back *
        after 100
        a vanishes
        after 10
            s gets will/a again
        after 10
        a connects expires 100
            a' is back *
        ",
    );
}

#[test]
fn the_end_of_a_session_publishes_a_will_before_its_delay_is_over() {
    check(
        "
        s connects
            s is new
        s subscribes will/#
            s gets Suback [Success]
        a connects expires 5 will will/a gone delay 10
            a is new *
        a vanishes
        after 5
            s gets will/a gone
        a connects expires 100 will will/a replaced delay 10
            a' is new *
        a vanishes
        a connects clean expires 100
            s gets will/a replaced
            a' is new *
        b connects will will/b gone delay 10
            b is new *
        b vanishes
            s gets will/b gone
        ",
    );
}

#[test]
fn takeover_publishes_a_will_without_delay_and_cancels_one_with() {
    check(
        "
        s connects
            s is new
        s subscribes will/#
            s gets Suback [Success]
        a connects expires 100 will will/a now
            a is new *
        a connects expires 100 will will/a later delay 10
            a is closed: SessionTakenOver
            s gets will/a now
            a' is back *
        a connects expires 100
            a' is closed: SessionTakenOver
            a' is back *
        a vanishes
        after 50
        ",
    );
}

#[test]
fn a_will_outlives_a_crash_of_the_broker() {
    check(
        "
        s connects expires never
            s is new *
        s subscribes will/# qos 1
            s gets Suback [GrantedQos1] *
        a connects expires never will will/a gone qos 1
            a is new *
        b connects expires never will will/b gone qos 1 delay 10
            b is new *
        c connects expires never will will/c gone qos 1 delay 10
            c is new *
        c vanishes
        after 9
        restart
        s connects expires never
            s' is back *
            s' gets will/a gone qos 1 id 1 *
        after 1
            s' gets will/c gone qos 1 id 2 *
        after 9
            s' gets will/b gone qos 1 id 3 *
        ",
    );
}

#[test]
fn a_will_is_retained_and_its_expiry_counts_from_its_publication() {
    check(
        "
        a connects expires 100 will will/a gone retained lasts 20 delay 10
            a is new *
        a vanishes
        after 10
        after 5
        s connects
            s is new
        s subscribes will/#
            s gets Suback [Success]
            s gets will/a gone retained lasts 15
        after 15
        s subscribes will/#
            s gets Suback [Success]
        ",
    );
}

#[test]
fn a_will_does_not_come_to_its_own_client_with_no_local() {
    check(
        "
        a connects expires 100 will x gone qos 1
            a is new *
        a subscribes x qos 1 no-local
            a gets Suback [GrantedQos1] *
        a vanishes
        a connects expires 100
            a' is back *
        ",
    );
}

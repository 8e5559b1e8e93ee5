//! Sessions: how they begin, are taken over, go on and end (sections 3.1.2, 3.14, 4.1).

use super::script::check;

#[test]
fn a_session_goes_on_only_if_it_outlives_its_connection() {
    check(
        "
        a connects
            a is new
        a vanishes
        a connects expires 10
            a' is new *
        a vanishes
        a connects expires 10
            a' is back *
        a disconnects
        a connects clean expires 10
            a' is new *
        ",
    );
}

#[test]
fn a_session_ends_when_its_time_is_over() {
    check(
        "
        a connects expires 10
            a is new *
        a subscribes x
            a gets Suback [Success] *
        a vanishes
        after 9
        a connects expires 10
            a' is back *
        a vanishes
        after 10
        a connects expires 10
            a' is new *
        a connects expires never
            a' is closed: SessionTakenOver
            a' is back *
        a vanishes
        after 1000000
        a connects expires never
            a' is back *
        ",
    );
}

#[test]
fn another_connection_of_the_same_client_takes_over() {
    check(
        "
        a connects expires 10
            a is new *
        a subscribes x qos 1
            a gets Suback [GrantedQos1] *
        a connects expires 10
            a is closed: SessionTakenOver
            a' is back *
        a publishes x hi qos 1 id 3
            a' gets x hi qos 1 id 1 *
            a' gets Puback 3 *
        b connects
            b is new
        b connects
            b is closed: SessionTakenOver
            b' is new
        ",
    );
}

#[test]
fn disconnect_changes_when_a_session_ends() {
    check(
        "
        a connects expires 10
            a is new *
        a disconnects expires 100
        after 50
        a connects expires 10
            a' is back *
        a disconnects expires 0
        a connects expires 10
            a' is new *
        b connects
            b is new *
        b disconnects expires 10
            b is closed: ProtocolError
        ",
    );
}

#[test]
fn a_session_resumed_without_expiry_ends_with_its_connection() {
    check(
        "
        pub connects
            pub is new
        a connects expires 10
            a is new *
        a subscribes x qos 1
            a gets Suback [GrantedQos1] *
        a vanishes
        pub publishes x hi qos 1 id 1
            pub gets Puback 1 *
        a connects
            a' is back *
            a' gets x hi qos 1 id 1 *
        a pubacks 1
        pub publishes x ho qos 1 id 1
            a' gets x ho qos 1 id 2 *
            pub gets Puback 1 *
        a vanishes
        a connects expires 10
            a' is new *
        ",
    );
}

#[test]
fn an_ended_session_leaves_no_subscription_and_no_message_behind() {
    check(
        "
        pub connects
            pub is new
        a connects expires 10
            a is new *
        a subscribes x qos 1, y/+ qos 1
            a gets Suback [GrantedQos1, GrantedQos1] *
        a vanishes
        pub publishes x hi qos 1 id 1
            pub gets Puback 1 *
        after 10
        pub publishes x hi qos 1 id 1
            pub gets Puback 1: NoMatchingSubscribers
        a connects expires 10
            a' is new *
        ",
    );
}

#[test]
fn what_the_broker_decides_is_told_in_connack() {
    check(
        "
        limits session_expiry_s=60
        a connects expires never assigned
            a is new, expires 60, assigned *
        b connects v3 expires never
            b is new *
        c connects expires 60
            c is new *
        b vanishes
        after 60
        b connects v3 expires never
            b' is new *
        ",
    );
}

#[test]
fn a_second_connect_on_a_session_that_ended_waits_for_its_removal() {
    check(
        "
        a connects expires 10
            a is new *
        a disconnects expires 0
        a connects
            a' is new *
        ",
    );
}

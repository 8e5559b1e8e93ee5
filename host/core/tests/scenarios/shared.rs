//! Shared subscriptions (section 4.8.2).

use crate::script::check;

#[test]
fn each_message_goes_to_one_member_of_each_group_in_turn() {
    check(
        "
        p connects
            p is new
        a connects
            a is new
        b connects
            b is new
        c connects
            c is new
        a subscribes $share/g/t/+ qos 1
            a gets Suback [GrantedQos1]
        b subscribes $share/g/t/+ qos 0
            b gets Suback [Success]
        c subscribes $share/h/t/+ qos 1
            c gets Suback [GrantedQos1]
        p publishes t/1 one qos 1 id 1
            a gets t/1 one qos 1 id 1
            c gets t/1 one qos 1 id 1
            p gets Puback 1
        p publishes t/1 two qos 1 id 1
            b gets t/1 two
            c gets t/1 two qos 1 id 2
            p gets Puback 1
        p publishes t/2 three qos 1 id 1
            a gets t/2 three qos 1 id 2
            c gets t/2 three qos 1 id 3
            p gets Puback 1
        c unsubscribes $share/h/t/+
            c gets Unsuback [Success]
        a unsubscribes $share/g/t/+
            a gets Unsuback [Success]
        p publishes t/1 four qos 1 id 1
            b gets t/1 four
            p gets Puback 1
        b unsubscribes $share/g/t/+
            b gets Unsuback [Success]
        p publishes t/1 five qos 1 id 1
            p gets Puback 1: NoMatchingSubscribers
        ",
    );
}

#[test]
fn a_shared_subscription_stands_beside_others_of_its_client_and_has_its_own_identifier() {
    check(
        "
        p connects
            p is new
        a connects
            a is new
        a subscribes t as 1
            a gets Suback [Success]
        a subscribes # as 2
            a gets Suback [Success]
        a subscribes $share/g/t as 3
            a gets Suback [Success]
        p publishes t hi
            a gets t hi as [1, 2]
            a gets t hi as [3]
        ",
    );
}

#[test]
fn retained_messages_are_not_sent_for_a_shared_subscription() {
    check(
        "
        p connects
            p is new
        p publishes t kept retained
        p subscribes $share/g/t as-published
            p gets Suback [Success]
        p publishes t live retained
            p gets t live retained
        ",
    );
}

#[test]
fn members_that_can_take_a_message_at_once_go_first() {
    check(
        "
        p connects
            p is new
        away connects expires 100
            away is new *
        away subscribes $share/g/t qos 1
            away gets Suback [GrantedQos1] *
        away vanishes
        slow connects receives 1
            slow is new
        slow subscribes $share/g/t qos 1
            slow gets Suback [GrantedQos1]
        p publishes t 1 qos 1 id 1
            slow gets t 1 qos 1 id 1
            p gets Puback 1
        p publishes t 2 qos 1 id 1
            p gets Puback 1
        free connects
            free is new
        free subscribes $share/g/t qos 1
            free gets Suback [GrantedQos1]
        p publishes t 3 qos 1 id 1
            free gets t 3 qos 1 id 1
            p gets Puback 1
        p publishes t 4 qos 1 id 1
            free gets t 4 qos 1 id 2
            p gets Puback 1
        free vanishes
        slow vanishes
        away connects expires 100
            away' is back *
            away' gets t 1 qos 1 id 1 *
            away' gets t 2 qos 1 id 2 *
            away' gets t 3 qos 1 id 3 *
            away' gets t 4 qos 1 id 4 *
        ",
    );
}

#[test]
fn with_nobody_there_a_message_waits_on_disk_for_a_member_that_is_away() {
    check(
        "
        p connects
            p is new
        a connects expires 100
            a is new *
        a subscribes $share/g/t qos 1
            a gets Suback [GrantedQos1] *
        a vanishes
        p publishes t 1 qos 1 id 1
            p gets Puback 1 *
        p publishes t lost
        restart
        a connects expires 100
            a' is back *
            a' gets t 1 qos 1 id 1 *
        ",
    );
}

#[test]
fn what_a_leaving_member_had_not_acknowledged_goes_to_another_but_for_qos_2_that_was_sent() {
    // [MQTT-4.8.2-5]
    check(
        "
        p connects
            p is new
        a connects receives 2
            a is new
        a subscribes $share/g/t qos 2
            a gets Suback [GrantedQos2]
        p publishes t 1 qos 1 id 1
            a gets t 1 qos 1 id 1
            p gets Puback 1
        p publishes t 2 qos 2 id 2
            a gets t 2 qos 2 id 2
            p gets Pubrec 2
        p publishes t 3 qos 2 id 3
            p gets Pubrec 3
        b connects
            b is new
        b subscribes $share/g/t qos 1
            b gets Suback [GrantedQos1]
        a disconnects
            b gets t 1 qos 1 id 1
            b gets t 3 qos 1 id 2
        ",
    );
}

#[test]
fn what_a_durable_member_leaves_behind_is_read_from_disk_and_given_to_another() {
    check(
        "
        limits window_messages=2
        p connects
            p is new
        a connects expires 10 receives 2
            a is new *
        a subscribes $share/g/t qos 2, own qos 1
            a gets Suback [GrantedQos2, GrantedQos1] *
        p publishes t 1 qos 1 id 1
            a gets t 1 qos 1 id 1 *
            p gets Puback 1 *
        p publishes t 2 qos 2 id 2
            a gets t 2 qos 2 id 2 *
            p gets Pubrec 2 *
        p publishes t 3 qos 2 id 3
            p gets Pubrec 3 *
        p publishes own 4 qos 1 id 1
            p gets Puback 1 *
        p publishes t 5 qos 1 id 1
            p gets Puback 1 *
        p publishes t 6 qos 1 id 1 lasts 5
            p gets Puback 1 *
        a vanishes
        b connects expires 100
            b is new *
        b subscribes $share/g/t qos 1
            b gets Suback [GrantedQos1] *
        after 10
            b gets t 1 qos 1 id 1 *
            b gets t 3 qos 1 id 2 *
            b gets t 5 qos 1 id 3 *
        restart
        b connects expires 100
            b' is back *
            b' gets t 1 qos 1 id 1 dup
            b' gets t 3 qos 1 id 2 dup
            b' gets t 5 qos 1 id 3 dup
        ",
    );
}

#[test]
fn a_restart_in_the_middle_of_handing_on_loses_nothing() {
    check(
        "
        p connects
            p is new
        a connects expires 10
            a is new *
        a subscribes $share/g/t qos 1
            a gets Suback [GrantedQos1] *
        a vanishes
        p publishes t 1 qos 1 id 1
            p gets Puback 1 *
        b connects expires 100
            b is new *
        b subscribes $share/g/t qos 1
            b gets Suback [GrantedQos1] *
        disk slow
        after 10
        a connects expires 10
            a' is new *
        restart
        disk answers
        b connects expires 100
            b' is back *
            b' gets t 1 qos 1 id 1 *
        ",
    );
}

#[test]
fn sticky_stays_with_a_member_while_it_is_ready() {
    check(
        "
        limits shared=sticky
        p connects
            p is new
        a connects receives 1
            a is new
        b connects
            b is new
        a subscribes $share/g/t qos 1
            a gets Suback [GrantedQos1]
        b subscribes $share/g/t qos 1
            b gets Suback [GrantedQos1]
        p publishes t 1
            a gets t 1
        p publishes t 2 qos 1 id 1
            a gets t 2 qos 1 id 1
            p gets Puback 1
        p publishes t 3 qos 1 id 1
            b gets t 3 qos 1 id 1
            p gets Puback 1
        a pubacks 1
        p publishes t 4 qos 1 id 1
            b gets t 4 qos 1 id 2
            p gets Puback 1
        ",
    );
}

#[test]
fn least_in_flight_prefers_the_member_with_the_fewest_unacknowledged_messages() {
    check(
        "
        limits shared=least-in-flight
        p connects
            p is new
        a connects
            a is new
        b connects
            b is new
        a subscribes $share/g/t qos 1
            a gets Suback [GrantedQos1]
        b subscribes $share/g/t qos 1
            b gets Suback [GrantedQos1]
        p publishes t 1 qos 1 id 1
            a gets t 1 qos 1 id 1
            p gets Puback 1
        p publishes t 2 qos 1 id 1
            b gets t 2 qos 1 id 1
            p gets Puback 1
        b pubacks 1
        p publishes t 3 qos 1 id 1
            b gets t 3 qos 1 id 2
            p gets Puback 1
        b pubacks 2
        p publishes t 4 qos 1 id 1
            b gets t 4 qos 1 id 3
            p gets Puback 1
        ",
    );
}

#[test]
fn an_error_from_the_chosen_member_ends_the_delivery() {
    // [MQTT-4.8.2-6]
    check(
        "
        p connects
            p is new
        a connects
            a is new
        b connects
            b is new
        a subscribes $share/g/t qos 2
            a gets Suback [GrantedQos2]
        b subscribes $share/g/t qos 2
            b gets Suback [GrantedQos2]
        p publishes t 1 qos 2 id 1
            a gets t 1 qos 2 id 1
            p gets Pubrec 1
        a pubrecs 1 error
        a vanishes
        ",
    );
}

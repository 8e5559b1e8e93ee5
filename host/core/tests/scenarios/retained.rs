//! Retained messages (section 3.3.1.3).

use super::script::check;

#[test]
fn the_last_retained_message_greets_new_subscriptions() {
    check(
        "
        p connects
            p is new
        p publishes a/1 old retained
        p publishes a/1 new retained
        p publishes a/2 two qos 2 id 1 retained
            p gets Pubrec 1: NoMatchingSubscribers *
        p publishes a not
        p publishes $a/1 hidden retained
        s connects
            s is new
        s subscribes a/+ qos 1 as 3
            s gets Suback [GrantedQos1]
            s gets a/1 new retained as [3]
            s gets a/2 two qos 1 id 1 retained as [3]
        s subscribes #, $a/#
            s gets Suback [Success, Success]
            s gets a/1 new retained
            s gets a/2 two retained
            s gets $a/1 hidden retained
        p publishes a/2 - retained
            s gets a/2 - as [3]
        p publishes a/3 - retained qos 1 id 1
            s gets a/3 - qos 1 id 2 as [3]
            p gets Puback 1
        t connects
            t is new
        t subscribes a/#
            t gets Suback [Success]
            t gets a/1 new retained
        t subscribes a/1
            t gets Suback [Success]
            t gets a/1 new retained
        ",
    );
}

#[test]
fn retain_handling_decides_when_they_are_sent() {
    check(
        "
        p connects
            p is new
        p publishes a one retained
        s connects
            s is new
        s subscribes a retained 2
            s gets Suback [Success]
        s subscribes a retained 1
            s gets Suback [Success]
        s unsubscribes a
            s gets Unsuback [Success]
        s subscribes a retained 1
            s gets Suback [Success]
            s gets a one retained
        s subscribes a retained 0
            s gets Suback [Success]
            s gets a one retained
        p subscribes a no-local
            p gets Suback [Success]
        ",
    );
}

#[test]
fn retained_messages_expire() {
    check(
        "
        p connects
            p is new
        p publishes a one retained lasts 10
        p publishes b two retained lasts 20
        s connects
            s is new
        after 5
        s subscribes #
            s gets Suback [Success]
            s gets a one retained lasts 5
            s gets b two retained lasts 15
        after 5
        s subscribes #
            s gets Suback [Success]
            s gets b two retained lasts 10
        ",
    );
}

#[test]
fn retained_messages_outlive_a_restart() {
    check(
        "
        p connects
            p is new
        p publishes a/b one retained
        p publishes a/c two retained
        p publishes a/b - retained
        restart
        s connects
            s is new
        s subscribes #
            s gets Suback [Success]
            s gets a/c two retained
        ",
    );
}

#[test]
fn as_many_are_sent_as_the_connection_takes_and_the_rest_as_it_reads() {
    check(
        "
        limits unwritten_bytes=40
        p connects
            p is new
        p publishes a/1 one retained
        p publishes a/2 two retained
        p publishes a/2/x three retained
        p publishes b/1 four retained
        p publishes b/2 five retained qos 1
            p gets Puback 1: NoMatchingSubscribers *
        s connects receives 1
            s is new
        s subscribes # qos 1
            s gets Suback [GrantedQos1]
            s gets a/1 one retained
            s gets a/2 two retained
        p publishes a/1 new retained
        p publishes c/1 six retained
        s writes 44
            s gets a/1 new
            s gets c/1 six
        s writes 44
            s gets a/2/x three retained
            s gets b/1 four retained
        s writes 1000
            s gets b/2 five qos 1 id 1 retained
        s pubacks 1
            s gets c/1 six retained
        s pubacks 1
        ",
    );
}

#[test]
fn those_for_a_durable_session_wait_on_disk_when_it_leaves() {
    check(
        "
        limits unwritten_bytes=20
        p connects
            p is new
        p publishes a/1 one retained qos 1
            p gets Puback 1: NoMatchingSubscribers *
        p publishes a/2 two retained
        p publishes a/3 three retained qos 1
            p gets Puback 1: NoMatchingSubscribers *
        s connects expires 100
            s is new *
        s subscribes # qos 1
            s gets Suback [GrantedQos1] *
            s gets a/1 one qos 1 id 1 retained *
        s vanishes
        restart
        s connects expires 100
            s' is back *
            s' gets a/1 one qos 1 id 1 retained dup
        s writes 1000
            s' gets a/3 three qos 1 id 2 retained *
        ",
    );
}

#[test]
fn a_subscription_made_again_greets_from_the_beginning_and_one_that_ended_no_more() {
    check(
        "
        limits unwritten_bytes=20
        p connects
            p is new
        p publishes a/1 one retained
        p publishes a/2 two retained
        s connects
            s is new
        s subscribes a/+
            s gets Suback [Success]
            s gets a/1 one retained
        s subscribes a/+
            s gets Suback [Success]
        s writes 1000
            s gets a/1 one retained
        s unsubscribes a/+
            s gets Unsuback [Success]
        s writes 1000
        ",
    );
}

//! SUBSCRIBE, UNSUBSCRIBE and who gets what (sections 3.8 to 3.11, 4.7).

use super::script::check;

#[test]
fn a_client_gets_one_copy_at_the_highest_qos_with_all_identifiers() {
    check(
        "
        p connects
            p is new
        s connects
            s is new
        s subscribes a/+ qos 1 as 5
            s gets Suback [GrantedQos1]
        s subscribes a/# qos 2 as 7
            s gets Suback [GrantedQos2]
        s subscribes a/b qos 0
            s gets Suback [Success]
        t connects
            t is new
        t subscribes #
            t gets Suback [Success]
        p publishes a/b hi qos 2 id 1
            s gets a/b hi qos 2 id 1 as [7, 5]
            t gets a/b hi
            p gets Pubrec 1
        p publishes a hi
            t gets a hi
            s gets a hi as [7]
        s unsubscribes a/# never
            s gets Unsuback [Success, NoSubscriptionExisted]
        p publishes a hi
            t gets a hi
        p publishes a/b hi qos 2 id 2
            s gets a/b hi qos 1 id 2 as [5]
            t gets a/b hi
            p gets Pubrec 2
        ",
    );
}

#[test]
fn subscribing_again_replaces_options_and_identifier() {
    check(
        "
        s connects
            s is new
        s subscribes a qos 1 as 5
            s gets Suback [GrantedQos1]
        s subscribes a qos 0
            s gets Suback [Success]
        s publishes a hi qos 1 id 1
            s gets a hi
            s gets Puback 1
        s unsubscribes a
            s gets Unsuback [Success]
        s unsubscribes a
            s gets Unsuback [NoSubscriptionExisted]
        s publishes a hi qos 1 id 1
            s gets Puback 1: NoMatchingSubscribers
        ",
    );
}

#[test]
fn no_local_keeps_from_a_client_what_it_published() {
    check(
        "
        a connects
            a is new
        b connects
            b is new
        a subscribes x no-local
            a gets Suback [Success]
        b subscribes x no-local
            b gets Suback [Success]
        a publishes x hi
            b gets x hi
        a subscribes +
            a gets Suback [Success]
        a publishes x hi
            b gets x hi
            a gets x hi
        ",
    );
}

#[test]
fn wildcards_leave_topics_alone_that_begin_with_a_dollar() {
    check(
        "
        s connects
            s is new
        s subscribes #, +/x, $SYS/#
            s gets Suback [Success, Success, Success]
        s publishes $SYS/x hi
            s gets $SYS/x hi
        s publishes $other/x hi
        s publishes other/x hi
            s gets other/x hi
        ",
    );
}

#[test]
fn a_refused_filter_does_not_touch_its_neighbours() {
    check(
        "
        limits subscriptions=2
        s connects
            s is new
        s subscribes !shared, a qos 1, b, c, a qos 2
            s gets Suback [SharedSubscriptionsNotSupported, GrantedQos1, Success, QuotaExceeded, GrantedQos2]
        s publishes c hi qos 1 id 1
            s gets Puback 1: NoMatchingSubscribers
        ",
    );
}

#[test]
fn the_retain_flag_is_kept_only_for_those_who_ask() {
    check(
        "
        a connects
            a is new
        b connects
            b is new
        a subscribes x as-published
            a gets Suback [Success]
        b subscribes x
            b gets Suback [Success]
        a publishes x hi retained
            a gets x hi retained
            b gets x hi
        ",
    );
}

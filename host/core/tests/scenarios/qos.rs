//! QoS 0, 1 and 2, both ways: identifiers, windows, resending (section 4.3, 4.4, 4.9).

use super::script::check;

#[test]
fn a_message_reaches_its_subscriber_at_the_lower_of_both_qos() {
    check(
        "
        pub connects
            pub is new
        sub connects
            sub is new
        sub subscribes a qos 1
            sub gets Suback [GrantedQos1]
        pub publishes a zero
            sub gets a zero
        pub publishes a one qos 1 id 7
            sub gets a one qos 1 id 1
            pub gets Puback 7
        pub publishes a two qos 2 id 7
            sub gets a two qos 1 id 2
            pub gets Pubrec 7
        pub pubrels 7
            pub gets Pubcomp 7
        sub subscribes a qos 2
            sub gets Suback [GrantedQos2]
        pub publishes a three qos 2 id 7
            sub gets a three qos 2 id 3
            pub gets Pubrec 7
        sub pubrecs 3
            sub gets Pubrel 3
        sub pubcomps 3
        pub publishes nobody listens qos 1 id 9
            pub gets Puback 9: NoMatchingSubscribers
        ",
    );
}

#[test]
fn a_qos_2_message_is_routed_once_until_its_identifier_is_released() {
    check(
        "
        pub connects
            pub is new
        sub connects
            sub is new
        sub subscribes a
            sub gets Suback [Success]
        pub publishes a one qos 2 id 7
            sub gets a one
            pub gets Pubrec 7
        pub publishes a one qos 2 id 7 dup
            pub gets Pubrec 7
        pub pubrels 7
            pub gets Pubcomp 7
        pub pubrels 7
            pub gets Pubcomp 7: PacketIdentifierNotFound
        pub publishes a two qos 2 id 7
            sub gets a two
            pub gets Pubrec 7
        ",
    );
}

#[test]
fn steps_that_nobody_expects_do_nothing_or_are_answered_as_unknown() {
    check(
        "
        pub connects
            pub is new
        sub connects
            sub is new
        sub subscribes a qos 2
            sub gets Suback [GrantedQos2]
        pub publishes a one qos 2 id 1
            sub gets a one qos 2 id 1
            pub gets Pubrec 1
        sub pubacks 1
        sub pubcomps 1
        sub pubacks 99
        sub pubcomps 99
        sub pubrecs 99
            sub gets Pubrel 99: PacketIdentifierNotFound
        sub pubrecs 1
            sub gets Pubrel 1
        sub pubrecs 1
            sub gets Pubrel 1
        sub pubcomps 1
        sub pubrecs 1
            sub gets Pubrel 1: PacketIdentifierNotFound
        ",
    );
}

#[test]
fn an_error_in_pubrec_or_puback_ends_the_exchange() {
    check(
        "
        pub connects
            pub is new
        sub connects receives 1
            sub is new
        sub subscribes a qos 2
            sub gets Suback [GrantedQos2]
        pub publishes a one qos 2 id 1
            sub gets a one qos 2 id 1
            pub gets Pubrec 1
        pub publishes a two qos 1 id 2
            pub gets Puback 2
        sub pubrecs 1 error
            sub gets a two qos 1 id 2
        sub pubacks 2 error
        sub pubcomps 1
        ",
    );
}

#[test]
fn no_more_is_in_flight_than_the_client_takes_and_the_rest_waits_in_order() {
    check(
        "
        pub connects
            pub is new
        sub connects receives 2
            sub is new
        sub subscribes a qos 2
            sub gets Suback [GrantedQos2]
        pub publishes a 1 qos 1 id 1
            sub gets a 1 qos 1 id 1
            pub gets Puback 1
        pub publishes a 2 qos 2 id 2
            sub gets a 2 qos 2 id 2
            pub gets Pubrec 2
        pub publishes a 3 qos 1 id 3
            pub gets Puback 3
        pub publishes a 4
        sub pubrecs 2
            sub gets Pubrel 2
        sub pubacks 1
            sub gets a 3 qos 1 id 3
            sub gets a 4
        sub pubcomps 2
        ",
    );
}

#[test]
fn what_was_in_flight_is_sent_again_in_order_with_its_identifiers() {
    check(
        "
        pub connects
            pub is new
        sub connects expires 100
            sub is new *
        sub subscribes a qos 2
            sub gets Suback [GrantedQos2] *
        pub publishes a 1 qos 1 id 1
            sub gets a 1 qos 1 id 1 *
            pub gets Puback 1 *
        pub publishes a 2 qos 2 id 2
            sub gets a 2 qos 2 id 2 *
            pub gets Pubrec 2 *
        pub publishes a 3 qos 2 id 3
            sub gets a 3 qos 2 id 3 *
            pub gets Pubrec 3 *
        pub publishes a 4 qos 1 id 4
            sub gets a 4 qos 1 id 4 *
            pub gets Puback 4 *
        sub pubrecs 2
            sub gets Pubrel 2 *
        sub pubacks 4
        sub vanishes
        pub publishes a 5 qos 1 id 5
            pub gets Puback 5 *
        pub publishes a lost
        sub connects expires 100
            sub' is back *
            sub' gets a 1 qos 1 id 1 dup
            sub' gets Pubrel 2
            sub' gets a 3 qos 2 id 3 dup
            sub' gets a 5 qos 1 id 5 *
        ",
    );
}

#[test]
fn a_smaller_window_after_a_reconnect_is_kept_to_while_sending_again() {
    check(
        "
        pub connects
            pub is new
        sub connects expires 100
            sub is new *
        sub subscribes a qos 1
            sub gets Suback [GrantedQos1] *
        pub publishes a 1 qos 1 id 1
            sub gets a 1 qos 1 id 1 *
            pub gets Puback 1 *
        pub publishes a 2 qos 1 id 2
            sub gets a 2 qos 1 id 2 *
            pub gets Puback 2 *
        sub vanishes
        sub connects expires 100 receives 1
            sub' is back *
            sub' gets a 1 qos 1 id 1 dup
        pub publishes a 3 qos 1 id 3
            pub gets Puback 3 *
        sub pubacks 2
        sub pubacks 1
            sub' gets a 2 qos 1 id 2 dup
        sub pubacks 2
            sub' gets a 3 qos 1 id 3 *
        ",
    );
}

#[test]
fn pubrec_for_what_is_still_to_be_sent_again_is_not_called_unknown() {
    check(
        "
        pub connects
            pub is new
        sub connects expires 100
            sub is new *
        sub subscribes a qos 2
            sub gets Suback [GrantedQos2] *
        pub publishes a 1 qos 2 id 1
            sub gets a 1 qos 2 id 1 *
            pub gets Pubrec 1 *
        pub publishes a 2 qos 2 id 2
            sub gets a 2 qos 2 id 2 *
            pub gets Pubrec 2 *
        sub vanishes
        sub connects expires 100 receives 1
            sub' is back *
            sub' gets a 1 qos 2 id 1 dup
        sub pubrecs 2
        sub pubrecs 1
            sub' gets Pubrel 1 *
        sub pubcomps 1
            sub' gets a 2 qos 2 id 2 dup
        ",
    );
}

#[test]
fn more_than_our_receive_maximum_closes_a_5_0_connection() {
    check(
        "
        limits receive_maximum=2
        a connects
            a is new
        a publishes x - qos 2 id 1
            a gets Pubrec 1: NoMatchingSubscribers
        a publishes x - qos 2 id 2
            a gets Pubrec 2: NoMatchingSubscribers
        a publishes x - qos 2 id 2 dup
            a gets Pubrec 2
        a publishes x - qos 1 id 3
            a is closed: ReceiveMaximumExceeded
        b connects v3
            b is new
        b publishes x - qos 2 id 1
            b gets Pubrec 1: NoMatchingSubscribers
        b publishes x - qos 2 id 2
            b gets Pubrec 2: NoMatchingSubscribers
        b publishes x - qos 2 id 3
            b gets Pubrec 3: NoMatchingSubscribers
        ",
    );
}

#[test]
fn output_waits_until_what_was_handed_over_is_written() {
    // The weight of "a" and one letter is 18.
    check(
        "
        limits unwritten_bytes=30
        pub connects
            pub is new
        sub connects
            sub is new
        sub subscribes a qos 1
            sub gets Suback [GrantedQos1]
        pub publishes a 1
            sub gets a 1
        pub publishes a 2 qos 1 id 1
            sub gets a 2 qos 1 id 1
            pub gets Puback 1
        pub publishes a 3
        pub publishes a 4 qos 1 id 1
            pub gets Puback 1
        pub publishes a 5
        sub pubacks 1
        sub writes 36
            sub gets a 3
            sub gets a 4 qos 1 id 2
        sub writes 1000
            sub gets a 5
        ",
    );
}

#[test]
fn a_message_that_is_too_large_for_a_client_is_dropped_for_it_alone() {
    // 3.1.1: 2 fixed, 2 + 1 topic, 2 identifier, 3 payload. 5.0: one more for the length of the properties.
    check(
        "
        pub connects
            pub is new
        v3 connects v3 packets 10
            v3 is new
        v5 connects packets 10
            v5 is new
        v3 subscribes a qos 1
            v3 gets Suback [GrantedQos1]
        v5 subscribes a qos 1
            v5 gets Suback [GrantedQos1]
        pub publishes a one qos 1 id 1
            v3 gets a one qos 1 id 1
            dropped: 1 TooLargeForClient
            pub gets Puback 1
        pub publishes a on qos 1 id 1
            v3 gets a on qos 1 id 2
            v5 gets a on qos 1 id 1
            pub gets Puback 1
        ",
    );
}

#[test]
fn what_waits_expires_and_what_is_delivered_later_has_less_time_left() {
    check(
        "
        pub connects
            pub is new
        sub connects expires never
            sub is new *
        sub subscribes a qos 1
            sub gets Suback [GrantedQos1] *
        pub publishes a now qos 1 id 1 lasts 10
            sub gets a now qos 1 id 1 lasts 10 *
            pub gets Puback 1 *
        sub pubacks 1
        sub vanishes
        pub publishes a short qos 1 id 1 lasts 10
            pub gets Puback 1 *
        pub publishes a long qos 1 id 2 lasts 100
            pub gets Puback 2 *
        after 40
        sub connects expires never
            sub' is back *
            dropped: 1 Expired
            sub' gets a long qos 1 id 2 lasts 60 *
        ",
    );
}

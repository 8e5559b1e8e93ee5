//! What happens at each bound.

use super::script::check;

#[test]
fn no_more_clients_connect_than_the_limit_says() {
    check(
        "
        limits connections=1 sessions=2
        a connects expires 10
            a is new *
        b connects
            b is refused: QuotaExceeded
        a connects expires 10
            a is closed: SessionTakenOver
            a' is back *
        a vanishes
        b connects expires 10
            b' is new *
        b vanishes
        c connects
            c is refused: QuotaExceeded
        after 10
        c connects
            c' is new *
        ",
    );
}

#[test]
fn a_full_queue_drops_what_comes_later() {
    check(
        "
        limits queued_messages=2
        p connects
            p is new
        s connects expires never
            s is new *
        s subscribes a qos 1
            s gets Suback [GrantedQos1] *
        s vanishes
        p publishes a 1 qos 1 id 1
            p gets Puback 1 *
        p publishes a 2 qos 1 id 2 lasts 5
            p gets Puback 2 *
        p publishes a 3 qos 1 id 3
            dropped: 1 QueueFull
            p gets Puback 3
        s connects expires never
            s' is back *
            s' gets a 1 qos 1 id 1 *
            s' gets a 2 qos 1 id 2 lasts 5 *
        ",
    );
}

#[test]
fn the_bytes_of_a_queue_are_bounded_and_expired_messages_make_room() {
    // The weight of "a" and one letter is 18.
    check(
        "
        limits queued_bytes=40
        p connects
            p is new
        s connects expires never
            s is new *
        s subscribes a qos 1
            s gets Suback [GrantedQos1] *
        s vanishes
        p publishes a 1 qos 1 id 1 lasts 5
            p gets Puback 1 *
        p publishes a 2 qos 1 id 2
            p gets Puback 2 *
        p publishes a 3 qos 1 id 3
            dropped: 1 QueueFull
            p gets Puback 3
        after 5
        p publishes a 4 qos 1 id 3
            dropped: 1 QueueFull
            dropped: 1 Expired
            p gets Puback 3
        p publishes a 5 qos 1 id 3
            p gets Puback 3 *
        s connects expires never
            s' is back *
            s' gets a 2 qos 1 id 1 *
            s' gets a 5 qos 1 id 2 *
        ",
    );
}

#[test]
fn our_own_bound_of_messages_in_flight_holds() {
    check(
        "
        limits inflight_messages=1
        s connects receives 10
            s is new
        s subscribes a qos 1
            s gets Suback [GrantedQos1]
        s publishes a 1 qos 1 id 1
            s gets a 1 qos 1 id 1
            s gets Puback 1
        s publishes a 2 qos 1 id 1
            s gets Puback 1
        s pubacks 1
            s gets a 2 qos 1 id 2
        ",
    );
}

#[test]
fn no_more_is_retained_than_the_limits_say() {
    check(
        "
        limits retained_messages=1
        a connects
            a is new
        old connects v3
            old is new
        s connects
            s is new
        s subscribes #
            s gets Suback [Success]
        a publishes x one qos 1 id 1 retained
            s gets x one
            a gets Puback 1 *
        a publishes x two qos 1 id 1 retained
            s gets x two
            a gets Puback 1 *
        a publishes y one qos 1 id 1 retained
            a gets Puback 1: QuotaExceeded
        a publishes y one qos 2 id 1 retained
            a gets Pubrec 1: QuotaExceeded
        a pubrels 1
            a gets Pubcomp 1: PacketIdentifierNotFound
        a publishes y zero retained
            dropped: 1 RetainedFull
            s gets y zero
        old publishes y one qos 1 id 1 retained
            old is closed: QuotaExceeded
        a publishes x - retained
            s gets x -
        a publishes y one qos 1 id 1 retained
            s gets y one
            a gets Puback 1 *
        ",
    );
}

#[test]
fn the_bytes_of_retained_messages_are_bounded() {
    check(
        "
        limits retained_bytes=40
        a connects
            a is new
        a publishes x 1 qos 1 id 1 retained
            a gets Puback 1: NoMatchingSubscribers *
        a publishes y 2 qos 1 id 1 retained
            a gets Puback 1: NoMatchingSubscribers *
        a publishes x 123456 qos 1 id 1 retained
            a gets Puback 1: QuotaExceeded
        a publishes x 1234 qos 1 id 1 retained
            a gets Puback 1: NoMatchingSubscribers *
        ",
    );
}

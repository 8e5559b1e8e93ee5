//! Messages with very many subscribers.

use crate::script::check;

#[test]
fn a_publisher_does_not_wait_for_its_many_subscribers_and_their_order_holds() {
    check(
        "
        limits fan_out_at_once=2 fan_out_per_turn=2
        p connects
            p is new
        a connects
            a is new
        b connects
            b is new
        c connects
            c is new
        a subscribes t qos 1 as 7
            a gets Suback [GrantedQos1]
        b subscribes t
            b gets Suback [Success]
        c subscribes t
            c gets Suback [Success]
        c subscribes other
            c gets Suback [Success]
        p publishes t 1 qos 1 id 1
            p gets Puback 1
        p publishes t 2 qos 1 id 1
            p gets Puback 1
        p publishes other 3
            c gets other 3
        tick
            a gets t 1 qos 1 id 1 as [7]
            b gets t 1
        a unsubscribes t
            a gets Unsuback [Success]
        tick
            c gets t 1
        tick
            a gets t 2 qos 1 id 2 as [7]
            b gets t 2
        tick
            c gets t 2
        tick
        p publishes t 4
            c gets t 4
            b gets t 4
        ",
    );
}

#[test]
fn what_has_to_be_durable_is_not_put_off() {
    check(
        "
        limits fan_out_at_once=1 fan_out_per_turn=1
        p connects
            p is new
        a connects
            a is new
        b connects expires 10
            b is new *
        plugin x runs 1 t 1
            x runs 1 *
        a subscribes t qos 1
            a gets Suback [GrantedQos1]
        b subscribes t qos 1
            b gets Suback [GrantedQos1] *
        p publishes t 1 qos 1 id 1
            b gets t 1 qos 1 id 1 *
            p gets Puback 1 *
        tick
            a gets t 1 qos 1 id 1
        plugin x takes 1
            x handles t=1
        ",
    );
}

#[test]
fn those_who_leave_and_those_who_take_their_place_get_nothing_of_it() {
    check(
        "
        limits fan_out_at_once=0 fan_out_per_turn=1
        p connects
            p is new
        a connects
            a is new
        b connects
            b is new
        a subscribes t
            a gets Suback [Success]
        b subscribes t
            b gets Suback [Success]
        p publishes t 1
        a vanishes
        b vanishes
        c connects
            c is new
        d connects
            d is new
        c subscribes t
            c gets Suback [Success]
        tick
        tick
        ",
    );
}

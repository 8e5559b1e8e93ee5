//! Queues that are longer than their part in memory.

use crate::script::check;

#[test]
fn a_queue_longer_than_its_window_is_read_back_in_order() {
    check(
        "
        limits window_messages=2
        p connects
            p is new
        s connects expires 100 receives 1
            s is new *
        s subscribes t qos 1
            s gets Suback [GrantedQos1] *
        p publishes t 1 qos 1 id 1
            s gets t 1 qos 1 id 1 *
            p gets Puback 1 *
        p publishes t 2 qos 1 id 1
            p gets Puback 1 *
        p publishes t 3 qos 1 id 1
            p gets Puback 1 *
        p publishes t 4 qos 1 id 1
            p gets Puback 1 *
        p publishes t 5 qos 1 id 1
            p gets Puback 1 *
        s pubacks 1
            s gets t 2 qos 1 id 2 *
        s pubacks 2
            s gets t 3 qos 1 id 3 *
        s pubacks 3
            s gets t 4 qos 1 id 4 *
        s pubacks 4
            s gets t 5 qos 1 id 5 *
        s pubacks 5
        p publishes t 6 qos 1 id 1
            s gets t 6 qos 1 id 6 *
            p gets Puback 1 *
        ",
    );
}

#[test]
fn what_is_published_while_the_disk_is_slow_goes_behind_what_is_read() {
    check(
        "
        p connects
            p is new
        s connects expires 100
            s is new *
        s subscribes t qos 1
            s gets Suback [GrantedQos1] *
        s vanishes
        p publishes t 1 qos 1 id 1
            p gets Puback 1 *
        disk slow
        s connects expires 100
            s' is back *
        p publishes t 2 qos 1 id 1
            p gets Puback 1 *
        p publishes t zero
            s' gets t zero
        disk answers
            s' gets t 1 qos 1 id 1 *
            s' gets t 2 qos 1 id 2 *
        ",
    );
}

#[test]
fn a_reader_that_left_is_not_given_what_it_had_asked_for() {
    check(
        "
        p connects
            p is new
        s connects expires 100
            s is new *
        s subscribes t qos 1
            s gets Suback [GrantedQos1] *
        s vanishes
        p publishes t 1 qos 1 id 1
            p gets Puback 1 *
        disk slow
        s connects expires 100
            s' is back *
        s vanishes
        s connects expires 100
            s' is back *
        disk answers
            s' gets t 1 qos 1 id 1 *
        s pubacks 1
        s vanishes
        s connects expires 100
            s' is back *
        ",
    );
}

#[test]
fn a_queue_that_cannot_be_read_closes_the_connection_and_is_kept() {
    check(
        "
        p connects
            p is new
        s connects expires 100
            s is new *
        s subscribes t qos 1
            s gets Suback [GrantedQos1] *
        s vanishes
        p publishes t 1 qos 1 id 1
            p gets Puback 1 *
        disk slow
        s connects expires 100
            s' is back *
        disk forgets
            s' is closed: ServerBusy
        s connects expires 100
            s' is back *
            s' gets t 1 qos 1 id 1 *
        ",
    );
}

#[test]
fn identifiers_in_flight_over_a_restart_are_not_given_out_again() {
    check(
        "
        limits window_messages=1
        p connects
            p is new
        s connects expires 100
            s is new *
        s subscribes t qos 2
            s gets Suback [GrantedQos2] *
        p publishes t 1 qos 1 id 1
            s gets t 1 qos 1 id 1 *
            p gets Puback 1 *
        p publishes t 2 qos 2 id 2
            s gets t 2 qos 2 id 2 *
            p gets Pubrec 2 *
        p publishes t 3 qos 1 id 1
            s gets t 3 qos 1 id 3 *
            p gets Puback 1 *
        s pubrecs 2
            s gets Pubrel 2 *
        restart
        s connects expires 100
            s' is back *
            s' gets t 1 qos 1 id 1 dup
            s' gets Pubrel 2
            s' gets t 3 qos 1 id 3 dup
        p connects
            p' is new
        p publishes t 4 qos 1 id 1
            s' gets t 4 qos 1 id 4 *
            p' gets Puback 1 *
        ",
    );
}

#[test]
fn a_failing_storage_refuses_what_needs_it_and_serves_the_rest() {
    check(
        "
        p connects
            p is new
        v3 connects v3
            v3 is new
        s connects expires 100
            s is new *
        s subscribes kept qos 1
            s gets Suback [GrantedQos1] *
        m connects
            m is new
        m subscribes # qos 1
            m gets Suback [GrantedQos1]
        storage fails
        p publishes kept 1 qos 1 id 1
            p gets Puback 1: QuotaExceeded
        p publishes kept 2
            s gets kept 2
            m gets kept 2
        p publishes other 3 qos 1 id 1
            m gets other 3 qos 1 id 1
            p gets Puback 1
        p publishes other 4 qos 1 id 1 retained
            p gets Puback 1: QuotaExceeded
        p publishes other 5 retained
            dropped: 1 StorageFailed
            m gets other 5
        s publishes other 6 qos 2 id 1
            s gets Pubrec 1: QuotaExceeded
        s subscribes more qos 1
            s gets Suback [QuotaExceeded]
        new connects expires 100
            new is refused: ServerBusy
        s connects
            s' is refused: ServerBusy
        n connects
            n is new
        v3 publishes kept 7 qos 1 id 1
            v3 is closed: QuotaExceeded
        storage recovers
        p publishes kept 8 qos 1 id 1
            s gets kept 8 qos 1 id 1 *
            m gets kept 8 qos 1 id 2
            p gets Puback 1 *
        ",
    );
}

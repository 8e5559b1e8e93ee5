//! What a plugin does shows to nobody before it is durable, on whichever way it takes.

use crate::script::check;

#[test]
fn what_waits_in_the_queue_of_a_session_in_memory_waits_for_its_commit_when_there_is_room() {
    check(
        "
        c connects
            c is new
        s connects receives 1
            s is new
        s subscribes out qos 1
            s gets Suback [GrantedQos1]
        plugin p runs 1 in 1
            p runs 1 *
        c publishes out first qos 1 id 1
            s gets out first qos 1 id 1
            c gets Puback 1
        c publishes out second qos 1 id 1
            c gets Puback 1
        s pubacks 1
            s gets out second qos 1 id 2
        c publishes in a qos 1 id 1
            c gets Puback 1 *
        plugin p takes 1
            p handles in=a
        plugin p settles done; out one q 1; out two
            p has settled *
        s pubacks 2
            s gets out one qos 1 id 3 *
            s gets out two *
        ",
    );
}

#[test]
fn qos_0_waits_for_its_commit_where_a_durable_session_keeps_it_in_memory() {
    check(
        "
        limits unwritten_bytes=1
        c connects
            c is new
        s connects expires 10
            s is new *
        s subscribes out
            s gets Suback [Success] *
        plugin p runs 1 in 1
            p runs 1 *
        c publishes in a qos 1 id 1
            c gets Puback 1 *
        c publishes out first
            s gets out first
        c publishes out second
        s writes 24
            s gets out second
        plugin p takes 1
            p handles in=a
        plugin p settles done; out one
            p has settled *
        s writes 25
            s gets out one *
        ",
    );
}

#[test]
fn what_a_leaving_member_had_in_memory_waits_for_its_commit_with_the_next() {
    check(
        "
        c connects
            c is new
        a connects receives 1
            a is new
        a subscribes $share/g/out qos 1
            a gets Suback [GrantedQos1]
        plugin p runs 1 in 1
            p runs 1 *
        c publishes in x qos 1 id 1
            c gets Puback 1 *
        plugin p takes 1
            p handles in=x
        plugin p settles done; out one q 1; out two q 1
            a gets out one qos 1 id 1 *
            p has settled *
        b connects
            b is new
        b subscribes $share/g/out qos 1
            b gets Suback [GrantedQos1]
        a vanishes
            b gets out one qos 1 id 1 *
            b gets out two qos 1 id 2 *
        c publishes out three qos 1 id 1
            b gets out three qos 1 id 3
            c gets Puback 1
        ",
    );
}

#[test]
fn what_is_given_to_many_part_by_part_waits_for_its_commit_in_their_queues_too() {
    check(
        "
        limits fan_out_at_once=1 fan_out_per_turn=1
        c connects
            c is new
        a connects receives 1
            a is new
        a subscribes out qos 1
            a gets Suback [GrantedQos1]
        b connects
            b is new
        b subscribes out qos 1
            b gets Suback [GrantedQos1]
        plugin p runs 1 in 1
            p runs 1 *
        plugin q runs 1 zero 1
            q runs 1 *
        c publishes in x qos 1 id 1
            c gets Puback 1 *
        c publishes zero x
        plugin p takes 1
            p handles in=x
        plugin p settles done; out one q 1; out two q 1
            p has settled *
        plugin q takes 1
            q handles zero=x
        plugin q settles done; out three; zero four q 1
            q has settled *
        tick
            a gets out one qos 1 id 1 *
        tick
            b gets out one qos 1 id 1 *
        tick
        tick
            b gets out two qos 1 id 2 *
        a pubacks 1
            a gets out two qos 1 id 2 *
        tick
            a gets out three *
        tick
            b gets out three *
        ",
    );
}

#[test]
fn a_retained_message_waits_for_its_commit_where_somebody_subscribes_before() {
    check(
        "
        c connects
            c is new
        c publishes out/c one retained
        s connects
            s is new
        s subscribes out/c
            s gets Suback [Success]
            s gets out/c one retained
        plugin p runs 1 in 1
            p runs 1 *
        c publishes in x qos 1 id 1
            c gets Puback 1 *
        plugin p takes 1
            p handles in=x
        plugin p settles done; out/p two retained
            p has settled *
        s subscribes out/p
            s gets Suback [Success]
            s gets out/p two retained *
        ",
    );
}

#[test]
fn what_a_plugin_makes_of_another_one_s_publish_waits_for_both() {
    check(
        "
        c connects
            c is new
        s connects
            s is new
        s subscribes out
            s gets Suback [Success]
        plugin p runs 1 in 1
            p runs 1 *
        plugin q runs 1 between 0
            q runs 1 *
        c publishes in x qos 1 id 1
            c gets Puback 1 *
        c publishes between first
        plugin q takes 1
            q handles between=first
        plugin q settles done; out first
            s gets out first
            q has settled
        plugin p takes 1
            p handles in=x
        plugin p settles done; between second
            p has settled *
        plugin q takes 1
            q handles between=second
        plugin q settles done; out second
            s gets out second *
            q has settled
        ",
    );
}

#[test]
fn all_that_an_event_leads_to_waits_for_the_first_of_it_that_has_to_be_durable() {
    check(
        "
        c connects
            c is new
        s connects
            s is new
        s subscribes out/#
            s gets Suback [Success]
        t connects receives 1
            t is new
        t subscribes out/+ qos 1
            t gets Suback [GrantedQos1]
        d connects expires 10
            d is new *
        d subscribes out/durable qos 1
            d gets Suback [GrantedQos1] *
        plugin p runs 1 in 0
            p runs 1 *
        c publishes in a
        plugin p takes 1
            p handles in=a
        plugin p settles done; out/1 one; out/2 two
            s gets out/1 one
            t gets out/1 one
            s gets out/2 two
            t gets out/2 two
            p has settled
        c publishes out/3 three qos 1 id 1
            s gets out/3 three
            t gets out/3 three qos 1 id 1
            c gets Puback 1
        c publishes in b
        plugin p takes 1
            p handles in=b
        plugin p settles done; out/1 one; out/2 two q 1; out/durable all q 1
            s gets out/1 one *
            t gets out/1 one *
            s gets out/2 two *
            d gets out/durable all qos 1 id 1 *
            s gets out/durable all *
            p has settled *
        t pubacks 1
            t gets out/2 two qos 1 id 2 *
        ",
    );
}

#[test]
fn what_a_plugin_says_waits_for_what_it_may_have_read_of_its_own() {
    check(
        "
        c connects
            c is new
        s connects
            s is new
        s subscribes out
            s gets Suback [Success]
        plugin p runs 1 in 0
            p runs 1 *
        c publishes in a
        plugin p takes 1
            p handles in=a
        plugin p settles done; k=v
            p has settled *
        c publishes in b
        plugin p takes 1
            p handles in=b
        plugin p settles done; out v
            s gets out v *
            p has settled
        ",
    );
}

//! Lanes: several batches of a plugin out at the same time, the order of each key kept.

use super::script::check;

#[test]
fn events_of_a_key_are_in_one_lane_and_lanes_do_not_wait_for_each_other() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1 with lanes 2 level:1
            p runs 1 *
        c publishes in/a 1
        c publishes in/c 2
        c publishes in/a 3
        c publishes in/c 4
        c publishes in/b 5
        plugin p takes 9 0
            p handles in/a=1 in/a=3 in/b=5
        plugin p takes 1 1
            p handles on 1 in/c=2
        c publishes in/c 6
        plugin p settles on 1 done
            p has settled on 1
        plugin p takes 9 1
            p handles on 1 in/c=4 in/c=6
        plugin p settles done done done; out x; k=v
            p has settled *
        plugin p settles on 1 done retry:5
            p has settled on 1
        plugin p takes 9 1
        after 5
            p handles on 1 in/c=6(1)
        ",
    );
}

#[test]
fn an_event_that_failed_holds_up_its_key_and_no_other() {
    check(
        "
        c connects
            c is new
        d connects
            d is new
        plugin p runs 1 in/# 1 with lanes 1 publisher
            p runs 1 *
        c publishes in/1 a
        c publishes in/2 b
        d publishes in/1 c
        plugin p takes 1
            p handles in/1=a
        plugin p settles retry:10
            p has settled
        plugin p takes 9
            p handles in/1=c
        plugin p settles done
            p has settled
        plugin p takes 1
        after 10
            p handles in/1=a(1)
        plugin p settles done
            p has settled
        plugin p takes 9
            p handles in/2=b
        ",
    );
}

#[test]
fn events_keep_their_order_when_lanes_are_arranged_anew() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1 with lanes 3 topic
            p runs 1 *
        c publishes in/a 1
        c publishes in/b 2
        c publishes in/c 3
        c publishes in/a 4
        plugin p takes 9 0
            p handles in/b=2
        plugin p settles retry:3
            p has settled
        c publishes in/b 5
        plugin p arranges lanes 1 topic
            p has its lanes
        plugin p takes 9
            p handles in/a=1 in/c=3 in/a=4
        plugin p settles done done done
            p has settled
        plugin p takes 9
        after 3
            p handles in/b=2(1)
        plugin p settles done
            p has settled
        plugin p takes 9
            p handles in/b=5
        ",
    );
}

#[test]
fn a_canary_gets_a_share_of_the_keys() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        plugin p arranges canary 50
            p has its lanes
        c publishes in/a 1
        c publishes in/b 2
        c publishes in/c 3
        c publishes in/d 4
        c publishes in/a 5
        plugin p takes 9 1
            p handles on 1 in/d=4
        plugin p takes 9
            p handles in/a=1 in/b=2 in/c=3 in/a=5
        plugin p takes 9 2
        plugin p returns 1
        plugin p settles done done done retry:9
            p has settled
        plugin p arranges canary 0
            p has its lanes
        plugin p takes 9
            p handles in/d=4
        ",
    );
}

//! Generations of a plugin's state, and probation: what is kept for the way back, and the way back.

use super::script::check;

#[test]
fn a_generation_is_filled_beside_the_one_in_use_and_taken_at_the_switch() {
    check(
        "
        plugin p generation begins
            p has no generation
        plugin p runs 1
            p runs 1 *
        plugin p generation begins
            p has a generation *
        plugin p generation writes k=v
            p has a generation *
        plugin p commits 1; k=old
            p committed 1 *
        plugin p runs 2 with generation
            p runs 2 *
        plugin p commits 2; k=new
            p committed 2 *
        plugin p generation writes k=late
            p has no generation
        plugin p generation begins
            p has a generation *
        restart
        plugin p generation writes k=late
            p has no generation
        plugin p generation begins
            p has a generation *
        plugin p generation drops
            p has no generation *
        ",
    );
}

#[test]
fn a_probation_that_is_passed_leaves_nothing() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        plugin p runs 2 in/# 1 with probation
            p runs 2 *
        c publishes in/1 a qos 1 id 1
            c gets Puback 1 *
        plugin p takes 9
            p handles in/1=a
        plugin p settles done; k=v
            p has settled *
        restart
        plugin p keeps
            p passed, 0 back *
        plugin p keeps
        plugin p takes 9
        ",
    );
}

#[test]
fn a_rollback_hands_out_again_what_was_handled_and_what_was_given_up() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        c publishes in/1 before qos 1 id 1
            c gets Puback 1 *
        plugin p takes 9
            p handles in/1=before
        plugin p settles done
            p has settled *
        plugin p runs 2 other 1 in/# 1 with probation lanes 2 topic
            p runs 2 *
        c publishes in/1 a qos 1 id 1
            c gets Puback 1 *
        c publishes in/2 b qos 1 id 1
            c gets Puback 1 *
        c publishes in/3 c qos 1 id 1
            c gets Puback 1 *
        c publishes in/1 d qos 1 id 1
            c gets Puback 1 *
        plugin p takes 1
            p handles in/1=a
        plugin p settles done; k=v
            p has settled *
        plugin p takes 2 1
            p handles on 1 in/3=c
        plugin p settles on 1 dead
            p has settled on 1 *
        plugin p rolls-back 3 in/# 1
            p runs 3 *
            p rolled back, 2 back *
        restart
        plugin p takes 9
            p handles in/1=a(replayed) in/2=b in/3=c in/1=d
        plugin p settles done done retry:1 done
            p has settled *
        plugin p rolls-back 4 in/# 1
        ",
    );
}

#[test]
fn a_probation_outlives_a_restart() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        plugin p runs 2 in/# 1 with probation
            p runs 2 *
        c publishes in/1 a qos 1 id 1
            c gets Puback 1 *
        plugin p takes 9
            p handles in/1=a
        plugin p settles done
            p has settled *
        restart
        plugin p rolls-back 3 in/# 1
            p runs 3 *
            p rolled back, 1 back *
        plugin p takes 9
            p handles in/1=a(replayed)
        ",
    );
}

#[test]
fn a_probation_that_kept_enough_is_passed() {
    check(
        "
        limits probation_events=2
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        plugin p runs 2 in/# 1 with probation
            p runs 2 *
        c publishes in/1 a qos 1 id 1
            c gets Puback 1 *
        c publishes in/1 b
        c publishes in/1 c qos 1 id 1
            c gets Puback 1 *
        plugin p takes 9
            p handles in/1=a in/1=b in/1=c
        plugin p settles done done done
            p has settled *
            p passed, 0 back *
        ",
    );
}

#[test]
fn events_that_failed_are_as_new_to_the_next_revision() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        c publishes in/1 a
        c publishes in/2 b
        c publishes in/1 c
        plugin p takes 2
            p handles in/1=a in/2=b
        plugin p settles retry:60 retry:60
            p has settled
        plugin p runs 2 in/# 1
            p runs 2 *
        plugin p takes 9
            p handles in/1=a in/2=b in/1=c
        ",
    );
}

#[test]
fn a_further_activation_ends_a_probation() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        plugin p runs 2 in/# 1 with probation
            p runs 2 *
        c publishes in/1 a qos 1 id 1
            c gets Puback 1 *
        plugin p takes 9
            p handles in/1=a
        plugin p settles done
            p has settled *
        plugin p runs 3 in/# 1
            p runs 3 *
        plugin p rolls-back 4 in/# 1
        restart
        plugin p rolls-back 4 in/# 1
        plugin p takes 9
        ",
    );
}

//! What the broker says by itself: about clients, and about dead letters.

use super::script::check;

#[test]
fn what_happens_to_clients_is_told_to_those_who_subscribe_to_it() {
    check(
        r#"
        plugin p runs 1 $clients/# 1
            p runs 1 *
        a/1 connects
            a/1 is new
        plugin p takes 9
            p handles $clients/a%2F1/session-created={"at":1000000,"client_id":"a/1","durable":false} $clients/a%2F1/connected={"address":"","at":1000000,"clean_start":false,"client_id":"a/1","protocol":"5.0","user":null}
        a/1 subscribes x qos 1
            a/1 gets Suback [GrantedQos1]
        a/1 unsubscribes x
            a/1 gets Unsuback [Success]
        a/1 disconnects
        plugin p settles done done
            p has settled *
        plugin p takes 9
            p handles $clients/a%2F1/subscribed={"at":1000000,"client_id":"a/1","filter":"x","new":true,"qos":1} $clients/a%2F1/unsubscribed={"at":1000000,"client_id":"a/1","filter":"x"} $clients/a%2F1/disconnected={"at":1000000,"client_id":"a/1","reason":"client"} $clients/a%2F1/session-ended={"at":1000000,"client_id":"a/1"}
        "#,
    );
}

#[test]
fn sessions_are_taken_over_resumed_and_expire() {
    check(
        r#"
        c connects expires 10
            c is new *
        plugin p runs 1 $clients/# 1
            p runs 1 *
        c connects expires 10
            c is closed: SessionTakenOver
            c' is back *
        plugin p takes 9
            p handles $clients/c/session-taken-over={"at":1000000,"client_id":"c"} $clients/c/disconnected={"at":1000000,"client_id":"c","reason":"closed by the broker: SessionTakenOver"} $clients/c/session-resumed={"at":1000000,"client_id":"c"} $clients/c/connected={"address":"","at":1000000,"clean_start":false,"client_id":"c","protocol":"5.0","user":null}
        plugin p settles done done done done
            p has settled *
        c vanishes
        plugin p takes 1
            p handles $clients/c/disconnected={"at":1000000,"client_id":"c","reason":"lost"}
        plugin p settles done
            p has settled *
        plugin p takes 9
        after 10
        tick
            p handles $clients/c/session-ended={"at":1010000,"client_id":"c"}
        "#,
    );
}

#[test]
fn messages_that_a_client_does_not_get_are_told_and_what_tells_it_is_not() {
    check(
        r#"
        limits queued_messages=1
        c connects expires 100
            c is new *
        c subscribes in/# qos 1
            c gets Suback [GrantedQos1] *
        c vanishes
        d connects
            d is new
        d subscribes $clients/+/dropped
            d gets Suback [Success]
        d publishes in/1 a qos 1 id 1
            d gets Puback 1 *
        d publishes in/1 b qos 1 id 1
            dropped: 1 QueueFull
            d gets Puback 1
            d gets $clients/c/dropped {"at":1000000,"client_id":"c","count":1,"reason":"queue_full"}
        c connects expires 100
            c' is back *
            c' gets in/1 a qos 1 id 1 *
        "#,
    );
}

#[test]
fn dead_letters_are_published() {
    check(
        "
        c connects
            c is new
        c subscribes $dead/#
            c gets Suback [Success]
        plugin p runs 1 in/# 1
            p runs 1 *
        c publishes in/1 a
        c publishes in/2 b qos 1 id 1
            c gets Puback 1 *
        plugin p takes 9
            p handles in/1=a in/2=b
        plugin p settles done dead
            p has settled *
            c gets $dead/p/in/2 b *
        ",
    );
}

#[test]
fn dead_letters_come_again_or_go() {
    check(
        "
        c connects
            c is new
        plugin p runs 1 in/# 1
            p runs 1 *
        c publishes in/1 a qos 1 id 1
            c gets Puback 1 *
        c publishes in/2 b qos 1 id 1
            c gets Puback 1 *
        plugin p takes 9
            p handles in/1=a in/2=b
        plugin p settles dead dead
            p has settled *
        plugin p replays 2 7
            p changed 1 dead letters *
        plugin p drops 1
            p changed 1 dead letters *
        plugin p drops 1
            p changed 0 dead letters
        restart
        plugin p takes 9
            p handles in/2=b
        plugin p settles done
            p has settled *
        plugin p takes 9
        ",
    );
}

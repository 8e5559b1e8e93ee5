//! What the clients logged, compared: what was acknowledged, lost, doubled, out of order, misrouted.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use super::client::{Client, Delivery};
use super::message::{Message, Number};

/// Counts, for people.
pub(crate) fn summary(publishers: &[Client], subscribers: &[Client], group: &[Client]) -> String {
    let sum = |clients: &[Client], of: fn(&Client) -> usize| clients.iter().map(of).sum::<usize>();
    format!(
        "sent {}, acknowledged {}, delivered {}, in the group {}, sessions ended {}",
        sum(publishers, |client| client.sent.len()),
        sum(publishers, |client| client.acknowledged.len()),
        sum(subscribers, |client| client.deliveries.len()),
        sum(group, |client| client.deliveries.len()),
        sum(group, |client| client.ended_sessions),
    )
}

/// Compares everything.
pub(crate) fn check(publishers: &[Client], subscribers: &[Client], group: &[Client]) -> Result<()> {
    let ledger = Ledger { publishers: publishers.iter().map(|client| &client.sent[..]).collect() };
    let acknowledged: BTreeSet<Number> = (0..)
        .zip(publishers)
        .flat_map(|(publisher, client)| client.acknowledged.iter().map(move |&number| Number { publisher, number }))
        .collect();
    ensure!(acknowledged.len() > 50, "too little happened to mean anything");
    for client in subscribers {
        let context = || format!("subscriber {}", client.role.name);
        ledger.check_routes(client.role.filters, &client.deliveries).with_context(context)?;
        ledger.check_doubles(&client.deliveries).with_context(context)?;
        ledger.check_order(&client.deliveries).with_context(context)?;
        let lost = ledger.lost(client.role.filters, &acknowledged, &client.deliveries);
        ensure!(lost.is_empty(), "subscriber {}: acknowledged and lost: {lost:?}", client.role.name);
    }
    let Some(last) = group.last() else { return Ok(()) };
    let together: Vec<Delivery> = group.iter().flat_map(|client| client.deliveries.iter().copied()).collect();
    ledger.check_routes(last.role.filters, &together).context("the group")?;
    // Between members a QoS 1 message that is handed on is a first delivery again.
    ledger.check_doubles(&together).context("the group")?;
    let (once, at_least_once): (Vec<_>, Vec<_>) = ledger
        .lost(last.role.filters, &acknowledged, &together)
        .into_iter()
        .partition(|number| ledger.message(*number).is_some_and(|message| message.qos == 2));
    ensure!(at_least_once.is_empty(), "the group: acknowledged and lost: {at_least_once:?}");
    // What was in flight at QoS 2 goes with its session [MQTT-4.8.2-5].
    let excused = group.iter().map(|client| client.ended_sessions * usize::from(client.role.receive_maximum));
    ensure!(once.len() <= excused.sum(), "the group: acknowledged and lost at QoS 2: {once:?}");
    Ok(())
}

/// What was sent, by publisher and number.
struct Ledger<'a> {
    publishers: Vec<&'a [Message]>,
}

impl Ledger<'_> {
    fn message(&self, number: Number) -> Option<&Message> {
        self.publishers.get(usize::from(number.publisher))?.get(number.number as usize)
    }

    /// Everything was sent, asked for, and comes at the QoS that follows from both.
    fn check_routes(&self, filters: &[(&str, u8)], deliveries: &[Delivery]) -> Result<()> {
        for delivery in deliveries {
            let message = self.message(delivery.number).with_context(|| format!("never sent: {delivery:?}"))?;
            let (_, maximum) = filters
                .iter()
                .find(|(filter, _)| matches(filter, &message.topic))
                .with_context(|| format!("never asked for: {message:?}"))?;
            ensure!(delivery.qos == message.qos.min(*maximum), "{message:?} came as {delivery:?}");
        }
        Ok(())
    }

    /// Sent once at QoS 2, a message comes once at QoS 2, and again at QoS 1 only as one that is sent again.
    fn check_doubles(&self, deliveries: &[Delivery]) -> Result<()> {
        let mut seen = BTreeMap::new();
        for delivery in deliveries {
            let Some(first) = seen.insert(delivery.number, delivery) else { continue };
            let sent_once = self.message(delivery.number).is_some_and(|message| message.qos == 2);
            ensure!(
                !sent_once || delivery.qos == 1 && delivery.dup,
                "{delivery:?} came on connections {} and {}",
                first.connection,
                delivery.connection
            );
        }
        Ok(())
    }

    /// First deliveries of a publisher, topic and QoS are in the order in which they were sent first.
    fn check_order(&self, deliveries: &[Delivery]) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<(u16, &str, u8), u32> = BTreeMap::new();
        for Delivery { number, .. } in deliveries {
            let Some(message) = self.message(*number).filter(|_| seen.insert(*number)) else { continue };
            let before = last.insert((number.publisher, &message.topic, message.qos), number.number);
            ensure!(before.is_none_or(|before| before < number.number), "{message:?} came after {before:?}");
        }
        Ok(())
    }

    /// What was acknowledged to its publisher, asked for, and did not come.
    fn lost(
        &self,
        filters: &[(&str, u8)],
        acknowledged: &BTreeSet<Number>,
        deliveries: &[Delivery],
    ) -> BTreeSet<Number> {
        let came: BTreeSet<Number> = deliveries.iter().map(|delivery| delivery.number).collect();
        let is_asked_for = |number: &&Number| {
            let message = self.message(**number);
            message.is_some_and(|message| filters.iter().any(|(filter, _)| matches(filter, &message.topic)))
        };
        acknowledged.difference(&came).filter(is_asked_for).copied().collect()
    }
}

/// Whether a filter matches a topic; a shared one by what it shares.
fn matches(filter: &str, topic: &str) -> bool {
    let filter = filter.strip_prefix("$share/crew/").unwrap_or(filter);
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

#[test]
fn the_verdict_finds_losses_doubles_disorder_and_strangers() {
    let message = |number, topic: &str, qos| Message {
        number: Number { publisher: 0, number },
        topic: topic.to_owned(),
        qos,
        retain: false,
    };
    let sent = [message(0, "t/0", 2), message(1, "t/0", 2), message(2, "t/0", 1), message(3, "x", 2)];
    let ledger = Ledger { publishers: vec![&sent] };
    let acknowledged: BTreeSet<Number> = sent[..3].iter().map(|message| message.number).collect();
    let verdict = |filter: (&str, u8), numbers: &[(u32, bool)]| {
        let deliveries: Vec<Delivery> = numbers
            .iter()
            .map(|&(number, dup)| {
                let qos = sent.get(number as usize).map_or(2, |message| message.qos.min(filter.1));
                Delivery { number: Number { publisher: 0, number }, qos, dup, connection: 1 }
            })
            .collect();
        ledger.check_routes(&[filter], &deliveries).is_ok()
            && ledger.check_doubles(&deliveries).is_ok()
            && ledger.check_order(&deliveries).is_ok()
            && ledger.lost(&[filter], &acknowledged, &deliveries).is_empty()
    };
    let new = |number| (number, false);
    let again = |number| (number, true);
    for (filter, numbers, good) in [
        (("t/+", 2), vec![new(0), new(1), new(2)], true),
        // The order is that of a QoS, and one that is away sees a DUP first.
        (("t/#", 2), vec![new(2), again(0), new(1)], true),
        (("t/+", 2), vec![new(0), new(1), new(2), new(2)], true),
        (("t/+", 1), vec![new(0), new(1), again(0), again(1), new(2)], true),
        (("t/+", 1), vec![new(0), new(0), new(1), new(2)], false),
        (("t/+", 2), vec![new(0), new(1)], false),
        (("t/+", 2), vec![new(0), again(0), new(1), new(2)], false),
        (("t/+", 2), vec![new(1), new(0), new(2)], false),
        (("t/+", 2), vec![new(0), new(1), new(2), new(3)], false),
        (("t/+", 2), vec![new(0), new(1), new(2), new(4)], false),
    ] {
        assert_eq!(verdict(filter, &numbers), good, "{filter:?} {numbers:?}");
    }
}

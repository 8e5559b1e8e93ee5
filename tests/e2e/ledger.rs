//! What the ledger service wrote down, against what was sent and what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use super::client::Client;
use super::harness::PATIENCE;

/// Numbers by key.
pub(crate) type Numbers = BTreeMap<String, Vec<u32>>;

/// Asks the ledger for its lists of these keys.
pub(crate) fn dump(mqtt: SocketAddr, keys: &[String]) -> Result<Numbers> {
    let mut client = Client::connect(mqtt, "dump", true)?;
    client.subscribe("dumped/+", 1)?;
    let mut numbers = Numbers::new();
    for key in keys {
        client.publish(&format!("dump/{key}"), b"", 0, 0, false)?;
        let (topic, payload) = client.receive_publish(PATIENCE)?.with_context(|| format!("no dump of {key}"))?;
        ensure!(topic == format!("dumped/{key}"), "instead of {key}: {topic}");
        let list = String::from_utf8(payload)?;
        numbers.insert(key.clone(), list.split_whitespace().map(str::parse).collect::<Result<_, _>>()?);
    }
    Ok(numbers)
}

/// Checks that every acknowledged number was written down, nothing twice, nothing that was not sent, and in the order
/// in which it was sent. Numbers of a key are sent in growing order.
pub(crate) fn check(key: &str, written: &[u32], acknowledged: &BTreeSet<u32>, sent: &BTreeSet<u32>) -> Result<()> {
    ensure!(
        written.windows(2).all(|pair| pair[0] < pair[1]),
        "{key}: doubled or out of order: {:?}",
        written.windows(2).find(|pair| pair[0] >= pair[1])
    );
    let written: BTreeSet<u32> = written.iter().copied().collect();
    let lost: Vec<_> = acknowledged.difference(&written).collect();
    ensure!(lost.is_empty(), "{key}: acknowledged and lost: {lost:?}");
    let invented: Vec<_> = written.difference(sent).collect();
    ensure!(invented.is_empty(), "{key}: never sent: {invented:?}");
    Ok(())
}

#[test]
fn the_check_finds_losses_doubles_disorder_and_inventions() {
    let set = |numbers: &[u32]| numbers.iter().copied().collect::<BTreeSet<_>>();
    let (acknowledged, sent) = (set(&[1, 2, 4]), set(&[1, 2, 3, 4]));
    for (written, good) in [
        (vec![1, 2, 4], true),
        (vec![1, 2, 3, 4], true),
        (vec![1, 4], false),
        (vec![1, 2, 2, 4], false),
        (vec![2, 1, 4], false),
        (vec![1, 2, 4, 5], false),
    ] {
        assert_eq!(check("k", &written, &acknowledged, &sent).is_ok(), good, "{written:?}");
    }
}

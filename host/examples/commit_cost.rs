//! What a commit of the store costs on this machine.
//!
//! `cargo run --release --example commit_cost [DIRECTORY]` prints, for groups of 2, 16, 256 and 1024 changes, the time
//! of a commit and the time and processor time of a change. The changes are those of an event that a plugin handles:
//! the message is stored and queued in one group, and in a later one dequeued, with which it goes, and a state of 64
//! bytes of one of 1,000 keys is written. Each group is durable before the next is handed over, so this is the price without any
//! grouping by load.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use vespiary::store::{Durability, Store, StoreOptions};
use vespiary_core::event::{Change, ChangeNumber, QueueEntry, Sequence, SessionId, StateWrite};
use vespiary_core::message::{Message, MessageId, Qos, Timestamp};
use vespiary_core::topic::Topic;

/// Changes that an event makes on its way through an inbox.
const CHANGES_PER_EVENT: usize = 4;
/// Plugin whose inbox it is.
const INBOX: SessionId = SessionId(1);
/// Assets, each with a state of its own.
const ASSETS: u64 = 1_000;
/// How long each size is measured.
const MEASURED: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1);
    let directory = directory.as_deref().map_or(Path::new("commit-cost-data"), Path::new);
    println!(
        "{:>8} {:>9} {:>12} {:>12} {:>14} {:>16}",
        "changes", "commits", "mean us", "max us", "us/change", "CPU us/change"
    );
    for size in [2, 16, 256, 1024] {
        let data = directory.join(size.to_string());
        measure(&data, size)?;
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    // Ours only if we made it; where something else lies in it, it stays.
    let _ = std::fs::remove_dir(directory);
    Ok(())
}

/// Commits groups of `size` changes for a while, and prints what they cost.
fn measure(data: &Path, size: usize) -> Result<()> {
    let opened = Store::open(data, &StoreOptions::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut durable = opened.store.watch();
    let mut events = Events::default();
    let mut group = Vec::new();
    let mut last = ChangeNumber(0);
    let (started, processor) = (Instant::now(), processor_time()?);
    while started.elapsed() < MEASURED {
        events.take(size, &mut group);
        last.0 += size as u64;
        opened.store.commit(&mut group, last);
        let reached = runtime.block_on(durable.wait_for(|durability| match durability {
            Durability::UpTo(number) => *number >= last,
            Durability::Failing(_) | Durability::Failed(_) => true,
        }))?;
        if let Durability::Failing(reason) | Durability::Failed(reason) = &*reached {
            bail!("a commit failed: {reason}");
        }
    }
    let (spent, processor) = (started.elapsed(), processor_time()?.saturating_sub(processor));
    let commits = opened.store.commits();
    println!(
        "{size:>8} {:>9} {:>12.1} {:>12.1} {:>14.3} {:>16.3}",
        commits.commits,
        commits.mean.as_secs_f64() * 1e6,
        commits.max.as_secs_f64() * 1e6,
        spent.as_secs_f64() * 1e6 / commits.changes as f64,
        processor.as_secs_f64() * 1e6 / commits.changes as f64,
    );
    opened.store.close()?;
    Ok(())
}

/// An endless series of the changes of events: one arrives, and one that arrived 512 events ago is handled.
#[derive(Default)]
struct Events {
    /// Changes made and not yet taken.
    ready: std::collections::VecDeque<Change>,
    /// Events so far.
    count: u64,
}

impl Events {
    /// Moves the next `size` changes to `group`.
    fn take(&mut self, size: usize, group: &mut Vec<Change>) {
        while self.ready.len() < size {
            // Arrivals and outcomes come in batches, as they do in the broker. A message and its entry are never parted.
            let batch = (size / CHANGES_PER_EVENT).max(1) as u64;
            let arrived = self.count..self.count + batch;
            arrived.clone().for_each(|event| self.arrive(event));
            arrived.filter_map(|event| event.checked_sub(512)).for_each(|event| self.settle(event));
            self.count += batch;
        }
        group.extend(self.ready.drain(..size));
    }

    fn arrive(&mut self, event: u64) {
        let asset = event % ASSETS;
        let payload = format!(
            "{{\"asset\":\"pump-{asset}\",\"ts\":{event},\"mm_s\":4.2,\"temp\":61.5,\"unit\":\"mm/s\",\"src\":\"gateway-7\"}}"
        );
        let content = Message {
            topic: Topic::parse(&format!("assets/pump-{asset}/vibration")).expect("a topic without wildcards is valid"),
            payload: payload.into_bytes().into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
            expires_at: None,
            received_at: Timestamp(1_700_000_000_000 + event),
            publisher: "gateway-7".into(),
            user: None,
        };
        let entry = QueueEntry {
            message: MessageId(event),
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_identifiers: None,
            packet_id: None,
            share: None,
            weight: content.weight() as u32,
            replayed: false,
        };
        self.ready.push_back(Change::MessageStored { message: MessageId(event), content: Arc::new(content) });
        self.ready.push_back(Change::Queued { session: INBOX, sequence: Sequence(event), entry });
    }

    fn settle(&mut self, event: u64) {
        let write = StateWrite {
            key: format!("pump-{}", event % ASSETS).into(),
            value: Some([event as u8; 64].as_slice().into()),
            expires_at: None,
        };
        let (sequence, message) = (Sequence(event), MessageId(event));
        self.ready.push_back(Change::Dequeued { session: INBOX, sequence, message });
        self.ready.push_back(Change::StateWritten { state: INBOX, undo: false, write });
    }
}

/// Processor time of this process so far, user and system.
fn processor_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // Fields 14 and 15, in ticks of 10 ms; the second field, the name, may hold spaces but ends with a parenthesis.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = fields
        .get(11..13)
        .context("/proc/self/stat is too short")?
        .iter()
        .map(|field| field.parse::<u64>())
        .sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

//! At the end of a run: asks a service what it keeps of each asset, and compares that with what was sent.
//!
//! A benchmark of a service that loses readings, or counts them twice, is worth nothing. Readings that came just before
//! may still be under way to the service, so an asset that is wrong is asked about again until nothing changes any more.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vespiary_core::Qos;

use super::args::{AssetTopic, Plan};
use super::socket::{READ_BYTES, Socket};
use super::wire::{Received, publish_prefix, put_publish_middle};

/// Questions under way at once.
const QUESTIONS: usize = 128;

/// Without a right answer for so long, what is wrong is wrong.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often to look at the time, and how long to wait before asking again about what was wrong.
const STEP: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Inspection {
    /// Assets that readings were sent of.
    assets: u64,
    /// Of these, whose state does not show as many readings as were sent.
    wrong: u64,
    /// Readings sent.
    sent: u64,
    /// Readings in the state of all assets.
    kept: u64,
}

/// What a service answers, as far as it matters here.
#[derive(Deserialize)]
struct Answer<'a> {
    asset: &'a str,
    readings: u64,
}

/// The questions and their answers.
struct Questions<'a> {
    plan: &'a Plan,
    topic: &'a AssetTopic,
    /// Readings sent of each asset.
    sent: Vec<u64>,
    /// What the last answer about each asset said.
    kept: Vec<u64>,
    /// Assets to be asked about.
    open: VecDeque<u32>,
    /// Assets whose last answer was not what was sent; asked about again in the next round.
    wrong: Vec<u32>,
    /// Questions whose answers did not come.
    under_way: usize,
    /// When an answer was right.
    right_at: Instant,
    packet_id: u16,
}

/// Asks about every asset that readings were `sent` of.
pub(super) async fn run(
    plan: &Plan,
    name: &str,
    topic: &AssetTopic,
    answers: &str,
    sent: Vec<u64>,
) -> anyhow::Result<Inspection> {
    let connected = Socket::connect(&plan.address, plan.protocol, &format!("{name}-inspects"), false).await;
    let mut socket = connected.context("to ask for the state")?;
    socket.subscribe(answers, Qos::AtLeastOnce).await?;
    let open: VecDeque<u32> = (0_u32..).zip(&sent).filter(|(_, sent)| **sent > 0).map(|(asset, _)| asset).collect();
    let assets = open.len() as u64;
    let kept = vec![0; sent.len()];
    let mut questions = Questions {
        plan,
        topic,
        sent,
        kept,
        open,
        wrong: Vec::new(),
        under_way: 0,
        right_at: Instant::now(),
        packet_id: 0,
    };
    let mut buffer = vec![0; READ_BYTES];
    while questions.right_at.elapsed() < PATIENCE && !questions.is_complete() {
        if questions.under_way == 0 && questions.open.is_empty() {
            tokio::time::sleep(STEP).await;
            questions.open.extend(std::mem::take(&mut questions.wrong));
        }
        // A round that is cut short loses nothing: all that there is to know is in `questions` and `socket`.
        if let Ok(ended) = tokio::time::timeout(STEP, questions.round(&mut socket, &mut buffer)).await {
            ended?;
        }
    }
    let Questions { sent, kept, .. } = questions;
    Ok(Inspection {
        assets,
        wrong: sent.iter().zip(&kept).filter(|(sent, kept)| sent != kept).count() as u64,
        sent: sent.iter().sum(),
        kept: kept.iter().sum(),
    })
}

impl Questions<'_> {
    fn is_complete(&self) -> bool {
        self.under_way == 0 && self.open.is_empty() && self.wrong.is_empty()
    }

    /// Asks and listens until every open question is answered.
    async fn round(&mut self, socket: &mut Socket, buffer: &mut [u8]) -> anyhow::Result<()> {
        std::future::poll_fn(|cx| {
            loop {
                self.ask(&mut socket.output);
                let read = socket.poll_read(cx, buffer, |packet, output| {
                    let Received::Publish { qos, id, payload } = packet else { return };
                    if qos > 0 {
                        output.extend_from_slice(&[0x40, 2, id[0], id[1]]);
                    }
                    self.take(payload);
                })?;
                self.ask(&mut socket.output);
                let _ = socket.poll_write(cx)?;
                if self.under_way == 0 && self.open.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                if read.is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn ask(&mut self, output: &mut Vec<u8>) {
        let mut topic = String::new();
        while self.under_way < QUESTIONS
            && let Some(asset) = self.open.pop_front()
        {
            self.under_way += 1;
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            self.topic.write(asset, &mut topic);
            output.extend_from_slice(&publish_prefix(self.plan.protocol, &topic, Qos::AtLeastOnce, 0));
            put_publish_middle(output, self.plan.protocol, Qos::AtLeastOnce, self.packet_id);
        }
    }

    fn take(&mut self, payload: &[u8]) {
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(payload) else { return };
        let asset = answer.asset.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
        let Some(asset) = asset.filter(|asset| (*asset as usize) < self.sent.len()) else { return };
        self.under_way = self.under_way.saturating_sub(1);
        let kept = &mut self.kept[asset as usize];
        if *kept != answer.readings {
            // Something still moves.
            self.right_at = Instant::now();
        }
        *kept = answer.readings;
        if answer.readings == self.sent[asset as usize] {
            self.right_at = Instant::now();
        } else {
            self.wrong.push(asset);
        }
    }
}

impl Inspection {
    /// What is wrong, if anything.
    pub(super) fn wrong(&self) -> Option<String> {
        (self.wrong > 0 || self.kept != self.sent).then(|| format!("the service's state is wrong: {}", self.describe()))
    }

    pub(super) fn describe(&self) -> String {
        let Self { assets, wrong, sent, kept } = self;
        format!("{kept} of {sent} readings in the state of {assets} assets, {wrong} assets wrong")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_differs_is_told() {
        let right = Inspection { assets: 2, wrong: 0, sent: 9, kept: 9 };
        assert_eq!(right.wrong(), None);
        // Two errors that cancel each other out are errors.
        let shifted = Inspection { assets: 2, wrong: 2, sent: 9, kept: 9 };
        assert!(shifted.wrong().is_some_and(|wrong| wrong.contains("2 assets wrong")));
    }
}

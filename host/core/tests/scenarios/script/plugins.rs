//! Lines of scripts about plugins.
//!
//! ```text
//! plugin P runs REVISION [FILTER QOS ..] [with lanes N KEY|canary N|schedule NAME S|generation|probation ..]
//! plugin P takes N [LANE] | cancels [LANE] | returns [LANE] | goes
//! plugin P settles [on LANE] done|retry:S|dead|- .. [; PART ..]
//! plugin P commits N [; PART ..]
//! plugin P arranges lanes N KEY|canary N ..
//! plugin P generation begins|drops|writes KEY=TEXT
//! plugin P replays|drops N ..                  dead letters, counted from the oldest, 1
//! plugin P keeps | rolls-back REVISION [FILTER QOS ..]
//! ```
//! A part of a settlement is `TOPIC TEXT QOS ..`, `KEY=TEXT`, `timer NAME S [SCHEDULE]`, `cancel NAME`,
//! `request N S` or `disconnect CLIENT`. A key of lanes is `topic`, `publisher` or `level:N`.

use vespiary_core::event::{
    Activation, Change, CommitTicket, DeadLetterAction, EventKey, GenerationStep, Lane, Lanes, Outcome, PluginName,
    ProbationVerdict, REQUEST_TIMER, Revision, Sequence, Settlement, StateWrite, Timer, TimerWrite,
};
use vespiary_core::{Input, Topic};

use super::{Run, Words, filter, qos};

impl Run {
    pub(super) fn plugin(&mut self, line: &str) -> Input {
        let mut parts = line.split(';');
        let mut words = Words::new(parts.next().expect("a first part"));
        let (_, name) = (words.word(), words.word());
        let plugin = PluginName(name.into());
        match words.word() {
            "runs" => Input::ActivatePlugin { plugin, activation: Box::new(self.activation(words)) },
            "takes" => {
                let max = words.number();
                Input::TakeEvents { plugin, lane: lane(&mut words), max }
            }
            "cancels" => Input::CancelTake { plugin, lane: lane(&mut words) },
            "returns" => Input::ReturnEvents { plugin, lane: lane(&mut words) },
            "goes" => Input::RemovePlugin { plugin },
            "settles" => {
                let on = words.0.next_if_eq(&"on").is_some();
                let lane = if on { lane(&mut words) } else { Lane(0) };
                let mut settlement = self.settlement(name, parts);
                let batch = self.batches.remove(&(name.to_owned(), lane)).unwrap_or_default();
                for (event, word) in batch.iter().zip(words.0) {
                    let outcome = self.outcome(word);
                    settlement.outcomes.extend(outcome.map(|outcome| (event.sequence, outcome)));
                }
                Input::Settle { plugin, lane, settlement: Box::new(settlement) }
            }
            "commits" => {
                let (ticket, settlement) = (CommitTicket(words.number()), self.settlement(name, parts));
                Input::Commit { plugin, ticket, settlement: Box::new(settlement) }
            }
            "arranges" => Input::ArrangeLanes { plugin, lanes: lanes(&mut words, Lanes::default()) },
            "generation" => Input::Generation { plugin, step: step(&mut words) },
            "replays" => self.dead_letters(plugin, words, true),
            "drops" => self.dead_letters(plugin, words, false),
            "keeps" => Input::EndProbation { plugin, verdict: ProbationVerdict::Keep },
            "rolls-back" => {
                let verdict = ProbationVerdict::RollBack(Box::new(self.activation(words)));
                Input::EndProbation { plugin, verdict }
            }
            verb => panic!("no verb {verb}"),
        }
    }

    fn activation(&self, mut words: Words<'_>) -> Activation {
        let number = words.number();
        let version = "1.0.0".into();
        let revision = Revision { number, digest: [0; 32], version, activated_at: self.now };
        let mut activation = Activation::plain(revision, Vec::new());
        while let Some(word) = words.0.next_if(|word| *word != "with") {
            activation.subscriptions.push((filter(word), qos(words.word())));
        }
        words.next();
        loop {
            activation.lanes = lanes(&mut words, activation.lanes);
            let Some(word) = words.next() else { break };
            match word {
                "schedule" => {
                    let (name, seconds) = (words.word().into(), words.number());
                    activation.schedules.push((name, self.timer(seconds, Some("daily"), true)));
                }
                "generation" => activation.new_generation = true,
                "probation" => activation.probation = true,
                _ => panic!("no word {word}"),
            }
        }
        activation
    }

    fn timer(&self, seconds: u64, schedule: Option<&str>, declared: bool) -> Timer {
        let at = self.now.after_ms(seconds * 1000);
        Timer { at, schedule: schedule.map(Into::into), declared, payload: b"due".as_slice().into() }
    }

    fn outcome(&self, word: &str) -> Option<Outcome> {
        match word.split_once(':') {
            Some((_, seconds)) => {
                let seconds: u64 = seconds.parse().expect("seconds");
                Some(Outcome::RetryAt(self.now.after_ms(seconds * 1000)))
            }
            None if word == "done" => Some(Outcome::Done),
            None if word == "dead" => Some(Outcome::DeadLetter("no use".into())),
            None => None,
        }
    }

    fn settlement<'a>(&self, name: &str, parts: impl Iterator<Item = &'a str>) -> Settlement {
        let mut settlement = Settlement::default();
        for part in parts {
            self.settlement_part(name, part, &mut settlement);
        }
        settlement
    }

    fn settlement_part(&self, name: &str, part: &str, settlement: &mut Settlement) {
        if let Some((key, value)) = part.trim().split_once('=') {
            let value = Some(value.as_bytes().into());
            return settlement.writes.push(StateWrite::lasting(key, value));
        }
        let mut words = Words::new(part);
        match words.word() {
            "timer" => {
                let (name, seconds) = (words.word().into(), words.number());
                let timer = Some(self.timer(seconds, words.next(), false));
                settlement.timers.push(TimerWrite { name, timer });
            }
            "cancel" => settlement.timers.push(TimerWrite { name: words.word().into(), timer: None }),
            "request" => {
                let name = format!("{REQUEST_TIMER}{}", words.word()).into();
                let timer = Some(self.timer(words.number(), None, false));
                settlement.timers.push(TimerWrite { name, timer });
            }
            "disconnect" => settlement.disconnects.push(words.word().into()),
            topic => {
                let publisher = format!("$plugin/{name}");
                let (mut message, ..) = self.message(&publisher, &mut Words::new(&part.replace(" q", " qos ")));
                message.topic = Topic::parse(topic).expect("a topic");
                settlement.publishes.push(message);
            }
        }
    }

    fn dead_letters(&self, plugin: PluginName, words: Words<'_>, replay: bool) -> Input {
        let letters: Vec<_> = self
            .ledger
            .dead_letters()
            .into_iter()
            .filter_map(|change| match change {
                Change::DeadLettered { sequence, letter, .. } => Some((sequence, letter.content)),
                _ => None,
            })
            .collect();
        let numbers = words.0.map(|word| word.parse::<usize>().expect("a number"));
        let letters = numbers.map(|number| match letters.get(number - 1) {
            Some((sequence, content)) if replay => (*sequence, DeadLetterAction::Replay(content.clone())),
            Some((sequence, _)) => (*sequence, DeadLetterAction::Drop),
            None => (Sequence(u64::MAX), DeadLetterAction::Drop),
        });
        Input::ChangeDeadLetters { plugin, letters: letters.collect() }
    }
}

fn lane(words: &mut Words<'_>) -> Lane {
    Lane(words.next().map_or(0, |word| word.parse().expect("a lane")))
}

fn lanes(words: &mut Words<'_>, mut lanes: Lanes) -> Lanes {
    while let Some(word) = words.0.next_if(|word| *word == "lanes" || *word == "canary") {
        if word == "canary" {
            lanes.canary_percent = words.number();
            continue;
        }
        lanes.count = words.number();
        lanes.key = match words.word() {
            "topic" => EventKey::Topic,
            "publisher" => EventKey::Publisher,
            level => EventKey::Level(level.strip_prefix("level:").and_then(|level| level.parse().ok()).expect("a key")),
        };
    }
    lanes
}

fn step(words: &mut Words<'_>) -> GenerationStep {
    match words.word() {
        "begins" => GenerationStep::Begin,
        "drops" => GenerationStep::Drop,
        "writes" => {
            let (key, value) = words.word().split_once('=').expect("KEY=TEXT");
            GenerationStep::Write(vec![StateWrite::lasting(key, Some(value.as_bytes().into()))])
        }
        verb => panic!("no verb {verb}"),
    }
}

//! Whether every reading that was sent took effect exactly once and in order, judged without believing the broker.
//!
//! The sender keeps an [`Account`] per asset of what it sent and had acknowledged. `asset-health` answers a query with what is in its
//! state, which is committed with each reading; `docs/guide/asset-management.md` describes both. The counters say what
//! went wrong; the chain, a hash over all payloads in order, says that nothing did.

use serde::Deserialize;

/// What was sent of one asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Readings sent, numbered from 1.
    pub(crate) sent: u64,
    /// 64-bit FNV-1a over the payloads, as in the service's ledger.
    chain: u64,
}

/// What the service says it handled of one asset: the payload of `assets/{asset}/health`, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Handled {
    /// What the query asked to have repeated.
    pub(crate) request: Option<String>,
    /// Readings handled.
    pub(crate) handled: u64,
    /// Sequence number that came first.
    pub(crate) first_seq: u64,
    /// Highest sequence number.
    pub(crate) last_seq: u64,
    /// Readings skipped that never came.
    pub(crate) gaps: u64,
    /// Readings handled twice.
    pub(crate) repeats: u64,
    /// Readings that came after later ones.
    pub(crate) reordered: u64,
    /// The chain, as 16 hexadecimal digits.
    pub(crate) chain: String,
}

/// What became of the readings; all zero and `intact` if everything is well. Sums over assets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Readings sent and acknowledged.
    pub(crate) sent: u64,
    /// Readings handled.
    pub(crate) handled: u64,
    /// Sent and never handled.
    pub(crate) lost: u64,
    /// Handled more than once.
    pub(crate) doubled: u64,
    /// Handled after later ones.
    pub(crate) reordered: u64,
    /// Whether the chains agree: each payload once, unchanged and in order.
    pub(crate) intact: bool,
}

impl Account {
    /// Nothing sent yet.
    pub(crate) fn new() -> Self {
        Self { sent: 0, chain: 0xcbf2_9ce4_8422_2325 }
    }

    /// Enters a payload that was sent; in the order of sending.
    pub(crate) fn enter(&mut self, payload: &[u8]) {
        self.sent += 1;
        let length = (payload.len() as u64).to_le_bytes();
        self.chain = length
            .iter()
            .chain(payload)
            .fold(self.chain, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }

    /// Compares with what was handled; `None` stands for an asset of which the service knows nothing.
    pub(crate) fn compare(&self, handled: Option<&Handled>) -> Proof {
        let Some(handled) = handled else {
            let intact = self.sent == 0;
            return Proof { sent: self.sent, handled: 0, lost: self.sent, doubled: 0, reordered: 0, intact };
        };
        // What is missing before the first and after the last is no gap to the service, which does not know what was sent.
        let before = handled.first_seq.saturating_sub(1);
        let after = self.sent.saturating_sub(handled.last_seq);
        Proof {
            sent: self.sent,
            handled: handled.handled,
            lost: before + handled.gaps + after,
            doubled: handled.repeats,
            reordered: handled.reordered,
            intact: handled.handled == self.sent && handled.chain == format!("{:016x}", self.chain),
        }
    }
}

impl Proof {
    /// The proof of nothing: the start of a sum.
    pub(crate) const EMPTY: Self = Self { sent: 0, handled: 0, lost: 0, doubled: 0, reordered: 0, intact: true };

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            handled: self.handled + other.handled,
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            reordered: self.reordered + other.reordered,
            intact: self.intact && other.intact,
        }
    }

    /// Whether every reading took effect exactly once and in order.
    pub(crate) fn holds(self) -> bool {
        self.intact && self.lost == 0 && self.doubled == 0 && self.reordered == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(payloads: &[&str]) -> Account {
        let mut account = Account::new();
        payloads.iter().for_each(|payload| account.enter(payload.as_bytes()));
        account
    }

    fn handled(account: &Account) -> Handled {
        let json = format!(
            r#"{{"asset":"P","version":"2.0.0","handled":{0},"first_seq":1,"last_seq":{0},"gaps":0,"repeats":0,
                "reordered":0,"restarts":0,"chain":"{1:016x}"}}"#,
            account.sent, account.chain
        );
        serde_json::from_str(&json).expect("a summary")
    }

    #[test]
    fn the_chain_is_the_one_of_the_guide() {
        assert_eq!(account(&[]).chain, 0xcbf2_9ce4_8422_2325);
        assert_eq!(format!("{:016x}", account(&["one", "two"]).chain), CHAIN_OF_ONE_TWO);
    }

    /// Also held by the tests of `asset-health`.
    const CHAIN_OF_ONE_TWO: &str = "ce36e7e83f558e71";

    #[test]
    fn what_agrees_holds() {
        let account = account(&["a", "b", "c"]);
        let proof = account.compare(Some(&handled(&account)));
        assert!(proof.holds(), "{proof:?}");
        assert!(Proof::EMPTY.and(proof).and(proof).holds());
        assert!(Account::new().compare(None).holds());
    }

    #[test]
    fn what_is_missing_at_either_end_is_lost() {
        let account = account(&["a", "b", "c", "d"]);
        let cut = Handled { handled: 2, first_seq: 2, last_seq: 3, ..handled(&account) };
        let proof = account.compare(Some(&cut));
        assert_eq!((proof.lost, proof.holds()), (2, false));
        assert_eq!(account.compare(None).lost, 4);
    }

    #[test]
    fn payloads_that_were_exchanged_do_not_hold_though_all_counters_agree() {
        let (sent, other) = (account(&["a", "b"]), account(&["b", "a"]));
        assert!(!sent.compare(Some(&handled(&other))).holds());
    }
}

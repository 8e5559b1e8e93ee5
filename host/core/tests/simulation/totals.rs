//! What happened in the simulation, to see that it does something.

/// What happened, to see that the simulation does something.
#[derive(Debug, Default)]
pub struct Totals {
    pub publishes: u64,
    pub deliveries: u64,
    pub crashes: u64,
    pub lost_links: u64,
    pub takeovers: u64,
    pub resent: u64,
    pub dead_letters: u64,
    pub rollbacks: u64,
    pub retries: u64,
    pub refused: u64,
    pub dropped: u64,
    pub shared: u64,
    pub expired: u64,
    pub settled: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.publishes += other.publishes;
        self.deliveries += other.deliveries;
        self.crashes += other.crashes;
        self.lost_links += other.lost_links;
        self.takeovers += other.takeovers;
        self.resent += other.resent;
        self.dead_letters += other.dead_letters;
        self.retries += other.retries;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.shared += other.shared;
        self.expired += other.expired;
        self.rollbacks += other.rollbacks;
        self.settled += other.settled;
    }

    pub fn check_that_something_happened(&self) {
        let Self { publishes, deliveries, crashes, lost_links, takeovers, .. } = *self;
        let Self { resent, dead_letters, retries, refused, dropped, shared, expired, rollbacks, settled, .. } = *self;
        let done = [publishes, deliveries, crashes, lost_links, takeovers, resent, shared, expired, rollbacks];
        let counts = done.into_iter().chain([dead_letters, retries, refused, dropped, settled]);
        assert!(counts.clone().all(|count| count > 20), "the simulation does too little: {self:?}");
    }
}
